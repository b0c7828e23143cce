"""Saved models: *_model.joblib for notebooks, and *_model.skops, which says the same and can run no code when opened.

A .joblib file can: it is opened only where somebody names it. A .skops file (skops.readthedocs.io) names the types of
its objects, and only those of TRUSTED and skops's own are built.
"""

import os
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import MADE_BY, check_overwrite, mark_zip

KEYS = ("pipeline", "threshold", "checkpoint", "dimensions", "categories", "metrics", "versions")
TRUSTED = [  # what our pipelines hold besides what skops trusts itself
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
]
MAX_EXPANSION = 100  # how many times as large as its file a .skops may be in memory; forests are up to 25 times
SMALL = 64 << 20  # bytes, which any may have


def save_model_files(path: Path, content: dict) -> list[Path]:
    """Write a model as ``path`` (.joblib) and beside it as .skops, each whole or not at all; their paths."""
    content, safe = MADE_BY | content, path.with_suffix(".skops")
    check_overwrite(path)
    check_overwrite(safe)
    with atomic_path(path) as part:
        joblib.dump(content, part, compress=3)
    with atomic_path(safe) as part:
        _import_skops().dump(content, part, compression=zipfile.ZIP_DEFLATED)
        mark_zip(part)
    return [path, safe]


def _import_skops():
    """Import skops.io, but not PyTorch: it takes a while to load even so.

    skops lists scikit-learn's estimators by importing each of its packages. Those that adapt other array libraries
    would import PyTorch and Dask, which takes two seconds, and define no estimator.
    """
    adapters = [f"sklearn.externals.array_api_compat.{library}" for library in ("torch", "cupy", "dask")]
    blocked = [name for name in adapters if name not in sys.modules]
    for name in blocked:
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]  # importing it raises ImportError
    try:
        import skops.io
    finally:
        for name in blocked:
            sys.modules.pop(name, None)
    return skops.io


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
        saved = _open_skops(path) if path.suffix == ".skops" else _open_joblib(path)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise UserError(
            f"{path} cannot be opened as a model: {type(error).__name__}: {error}. Train it again"
        ) from error
    if not isinstance(saved, dict) or any(key not in saved for key in KEYS):
        raise UserError(f"{path} is not a model of this project: it must be a dict with {', '.join(KEYS)}")
    if wrong := _what_is_wrong(saved):
        raise UserError(f"{path} is not a model of this project: {wrong}. Train it again")
    return saved


def _open_joblib(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(path)
    except InconsistentVersionWarning as error:
        raise _other_version(path, error.original_sklearn_version) from error


def _open_skops(path: Path) -> object:
    """What is in a .skops file. Raises UserError, before anything is built, where that is nothing of ours."""
    skops_io = _import_skops()
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    if claimed > max(SMALL, MAX_EXPANSION * os.path.getsize(path)):
        raise UserError(f"{path} is damaged: it claims to hold {claimed:,} bytes")
    if strange := sorted(set(skops_io.get_untrusted_types(file=path)) - set(TRUSTED)):
        raise UserError(f"{path} holds {strange[0]}, which is no part of a model of this project: it was not opened")
    saved = skops_io.load(path, trusted=TRUSTED)
    made = saved["versions"]["scikit-learn"]
    if made != sklearn.__version__:
        raise _other_version(path, made)
    return saved


def _other_version(path: Path, made: str) -> UserError:
    return UserError(
        f"{path} was made with scikit-learn {made}, here is {sklearn.__version__}: train it again, or install that "
        f"version"
    )


def _what_is_wrong(saved: dict) -> str:
    """In words; nothing for a dict as ``training.save_model`` writes it."""
    threshold, checkpoint, metrics = saved["threshold"], saved["checkpoint"], saved["metrics"]
    if not _is_number(threshold) or not 0 <= threshold <= 1:  # nor NaN
        return f"its threshold is {threshold!r}"
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(key), str) for key in ("name", "sha256")):
        return "it does not say which checkpoint it is for"
    if not isinstance(metrics, dict) or any(key not in metrics for key in ("model", "min_recall", "seed")):
        return "its metrics are incomplete"
    if not all(_is_number(metrics.get(name, 1.0)) for name in ("min_recall", "max_threshold", "seed")):
        return "its metrics are no numbers"
    points = metrics.get("operating_points", [])
    if not isinstance(points, list) or not all(map(_is_operating_point, points)):
        return "its operating points are not what measure_false_alarms.py writes"
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
    try:
        tried = all(map(_are_trees, _forests(saved["pipeline"][-1]))) and _answers(saved, dimensions)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError):
        tried = False
    return "" if tried else "its parts do not fit each other"


def _answers(saved: dict, dimensions: int) -> bool:
    """Whether a model has an answer, a number, for any embedding."""
    silence = np.zeros((1, dimensions), np.float32)
    if saved.get("unknown") is not None:
        saved["unknown"]["rule"].kneighbors(silence)
    scores = saved["pipeline"].predict_proba(silence)
    return scores.shape == (1, 2) and bool(np.isfinite(scores).all())


def _forests(classifier: Any) -> list[RandomForestClassifier]:
    """The forests that a classifier asks."""
    if isinstance(classifier, CalibratedClassifierCV):
        return [forest for part in classifier.calibrated_classifiers_ for forest in _forests(part.estimator)]
    if isinstance(classifier, FrozenEstimator):
        return _forests(classifier.estimator)
    return [classifier] if isinstance(classifier, RandomForestClassifier) else []


def _are_trees(forest: RandomForestClassifier) -> bool:
    """Whether every branch leads on to a node that there is: scikit-learn follows them without looking."""
    for estimator in forest.estimators_:
        tree = estimator.tree_
        left, right, feature = tree.children_left, tree.children_right, tree.feature
        here = np.arange(tree.node_count)
        inner = left != -1
        whole = len(here) > 0 and len(left) == len(right) == len(feature) == len(tree.value) == len(here)
        for branch in (left, right):
            whole = whole and bool(((branch > here) & (branch < len(here)))[inner].all())
        whole = whole and bool(((feature >= 0) & (feature < forest.n_features_in_))[inner].all())
        if not whole or tree.value.shape[1:] != (1, 2):
            return False
    return True


def _is_operating_point(point: object) -> bool:
    names = ("threshold", "danger_recall", "false_alarms_per_hour")
    return isinstance(point, dict) and all(_is_number(point.get(name)) for name in names)


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
