"""Opening a *_model.joblib. Such a file can run code when opened: only open files that you made yourself."""

import warnings
from pathlib import Path

import joblib
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from danger_safe.core.errors import UserError

KEYS = ("pipeline", "threshold", "checkpoint", "dimensions", "categories", "metrics", "versions")


def load_model_file(path: Path, checkpoint: dict, dimensions: int) -> dict:
    """The dict of a saved model, checked to belong to embeddings of ``checkpoint`` (name, sha256) and ``dimensions``.

    Raises UserError when it cannot be opened, is no such dict, or belongs to another checkpoint.
    """
    saved = open_model_file(path)
    check_belongs(path, saved, checkpoint, dimensions)
    return saved


def open_model_file(path: Path) -> dict:
    """The dict of a saved model. Raises UserError when it cannot be opened or is no such dict."""
    if not path.is_file():
        raise UserError(f"{path}: no such model; make it with one of the train scripts")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            saved = joblib.load(path)
    except InconsistentVersionWarning as error:
        raise UserError(
            f"{path} was made with scikit-learn {error.original_sklearn_version}, "
            f"here is {error.current_sklearn_version}: train it again, or install that version"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(
            f"{path} cannot be opened as a model: {type(error).__name__}: {error}. Train it again"
        ) from error
    if not isinstance(saved, dict) or any(key not in saved for key in KEYS):
        raise UserError(f"{path} is not a model of this project: it must be a dict with {', '.join(KEYS)}")
    if wrong := _what_is_wrong(saved):
        raise UserError(f"{path} is not a model of this project: {wrong}. Train it again")
    return saved


def _what_is_wrong(saved: dict) -> str:
    """In words; nothing for a dict as ``training.save_model`` writes it."""
    threshold, checkpoint, metrics = saved["threshold"], saved["checkpoint"], saved["metrics"]
    if not _is_number(threshold) or not 0 <= threshold <= 1:  # nor NaN
        return f"its threshold is {threshold!r}"
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(key), str) for key in ("name", "sha256")):
        return "it does not say which checkpoint it is for"
    if not isinstance(metrics, dict) or any(key not in metrics for key in ("model", "min_recall", "seed")):
        return "its metrics are incomplete"
    most, minutes = metrics.get("max_false_alarms_per_hour"), metrics.get("ordinary_minutes", 0.0)
    if not all(_is_number(value) for value in (metrics["min_recall"], metrics["seed"], minutes, most or 0.0)):
        return "its metrics are no numbers"
    if "by_the_hour" in metrics and "ordinary_minutes" not in metrics:
        return "its metrics are incomplete"
    novelty = saved.get("unknown")
    if novelty is not None and not (
        isinstance(novelty, dict) and "rule" in novelty and _is_number(novelty.get("level"))
    ):
        return "what it says of unknown sounds is not what a training writes"
    try:
        check_is_fitted(saved["pipeline"])
        labels, dimensions = list(saved["pipeline"].classes_), saved["pipeline"].n_features_in_
    except (TypeError, AttributeError, NotFittedError):
        return "its pipeline is none, or was never trained"
    if labels != [0, 1] or dimensions != saved["dimensions"]:
        return f"its pipeline tells {labels} apart, by {dimensions} dimensions"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_belongs(path: Path, saved: dict, checkpoint: dict, dimensions: int) -> None:
    """Raises UserError when a saved model is for embeddings of another checkpoint."""
    theirs = saved["checkpoint"]
    if theirs["sha256"] != checkpoint["sha256"] or saved["dimensions"] != dimensions:
        raise UserError(
            f"{path} was trained on embeddings of checkpoint {theirs['name']} ({theirs['sha256'][:12]}…, "
            f"{saved['dimensions']} dimensions), these are of {checkpoint['name']} ({checkpoint['sha256'][:12]}…, "
            f"{dimensions} dimensions): train it again on these"
        )
