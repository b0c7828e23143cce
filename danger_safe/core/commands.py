"""The scripts' names: those of a checkout, and the subcommands of an installed package."""

import importlib.util

COMMANDS = {  # subcommand: (script, description)
    "filter": ("filterAudioToDangerousAndSafe", "step 1: ESC-50's clips into Danger and Safe"),
    "extract": ("extractEmbeddingCnn14", "step 2: clips into a table of embeddings"),
    "train rf": ("train_rf_model", "step 3: a random forest"),
    "train logreg": ("train_logreg_model", "step 3: logistic regression"),
    "train mlp": ("train_mlp_model", "step 3: a small neural network"),
    "measure": ("measure_false_alarms", "before step 4, optional: false alarms per hour of ordinary sound"),
    "compare": ("compare_models", "step 4: the models side by side"),
    "predict": ("predict_danger", "dangerous sounds in any recording"),
    "listen": ("listen", "alarms from cameras and microphones, day and night"),
    "export": ("export_onnx", "a network as an ONNX file, for phones and boards"),
    "finetune": ("finetune_cnn14", "train a network on your own sounds"),
}
IS_INSTALLED = importlib.util.find_spec("danger_safe.scripts") is not None  # False in a checkout


def command_line(command: str) -> str:
    """Return what a user types for a subcommand: ``danger-safe extract``, or the script if this is a checkout."""
    return f"danger-safe {command}" if IS_INSTALLED else f"python {COMMANDS[command][0]}.py"
