"""The command danger-safe of an installed package: a subcommand for each script.

danger-safe predict recording.wav
danger-safe train rf --help
"""

import importlib
import importlib.util
import sys
from importlib.metadata import version

from danger_safe.core import cli

COMMANDS = {  # subcommand: (script, description)
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
    """Run the script of the subcommand and exit with its status."""
    arguments = sys.argv[1:]
    package = "danger_safe.scripts." if importlib.util.find_spec("danger_safe.scripts") else ""  # not in a checkout
    for command, (script, _) in COMMANDS.items():
        words = command.split()
        if arguments[: len(words)] == words:
            sys.argv = [f"danger-safe {command}", *arguments[len(words) :]]
            cli.run(importlib.import_module(package + script).main)
    if arguments == ["--version"]:
        print(version("danger-safe"))
        sys.exit(cli.DONE)
    lines = [f"  danger-safe {command:<14} {description}" for command, (_, description) in COMMANDS.items()]
    is_help = arguments in (["--help"], ["-h"])
    print("\n".join(["One of these, each with --help:", "", *lines]), file=sys.stdout if is_help else sys.stderr)
    sys.exit(cli.DONE if is_help else 2)


if __name__ == "__main__":
    main()
