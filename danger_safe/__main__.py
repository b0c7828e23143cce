"""The command danger-safe of an installation: a sub-command for each script.

danger-safe predict recording.wav
danger-safe train rf --help
"""

import importlib
import importlib.util
import sys
from importlib.metadata import version

from danger_safe.core import cli

COMMANDS = {  # as they are typed: the script, and what it does
    "filter": ("filterAudioToDangerousAndSafe", "step 1: ESC-50's clips into Danger and Safe"),
    "extract": ("extractEmbeddingCnn14", "step 2: clips into a table of embeddings"),
    "train rf": ("train_rf_model", "step 3: a random forest"),
    "train logreg": ("train_logreg_model", "step 3: logistic regression"),
    "train mlp": ("train_mlp_model", "step 3: a small neural network"),
    "measure": ("measure_false_alarms", "step 4: false alarms per hour of ordinary sound"),
    "compare": ("compare_models", "step 4: the models side by side"),
    "predict": ("predict_danger", "dangerous sounds in any recording"),
    "listen": ("listen", "alarms from cameras and microphones, day and night"),
    "export": ("export_onnx", "a network as an ONNX file, for phones and boards"),
    "finetune": ("finetune_cnn14", "a network trained on"),
}


def main() -> None:
    """Run the script that the command line names, and leave with its exit status."""
    words = sys.argv[1:]
    for command, (script, _) in COMMANDS.items():
        names = command.split()
        if words[: len(names)] == names:
            sys.argv = [f"danger-safe {command}", *words[len(names) :]]
            package = (
                "danger_safe.scripts." if importlib.util.find_spec("danger_safe.scripts") else ""
            )  # a checkout's root
            cli.run(importlib.import_module(package + script).main)
    if words == ["--version"]:
        print(version("danger-safe"))
        sys.exit(cli.DONE)
    lines = [f"  danger-safe {command:<14} {does}" for command, (_, does) in COMMANDS.items()]
    asked = words in (["--help"], ["-h"])
    print("\n".join(["One of these, each with --help:", "", *lines]), file=sys.stdout if asked else sys.stderr)
    sys.exit(cli.DONE if asked else 2)


if __name__ == "__main__":
    main()
