"""Model files: *_model.joblib for notebooks, and *_model.skops with the same contents, which cannot run code.

Loading a .joblib file can run code: it is only opened if the user names it. A .skops file (skops.readthedocs.io) names
the types of its objects, and only those that skops or TRUSTED lists are built.
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
from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import MADE_BY, check_overwrite, mark_zip

KEYS = ("pipeline", "threshold", "checkpoint", "dimensions", "categories", "metrics", "versions")
TRUSTED = [  # types in our pipelines that skops does not trust by itself
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
]
MAX_EXPANSION = 100  # ratio of a .skops file's uncompressed size to its size; forests reach 25
MAX_UNCHECKED_BYTES = 64 << 20  # uncompressed size that every .skops file may have


def save_model_files(path: Path, content: dict) -> list[Path]:
    """Write a model to ``path`` (.joblib) and beside it as .skops, each atomically; return both paths."""
    content, skops_path = MADE_BY | content, path.with_suffix(".skops")
    check_overwrite(path)
    check_overwrite(skops_path)
    with atomic_path(path) as part:
        joblib.dump(content, part, compress=3)
    with atomic_path(skops_path) as part:
        _import_skops().dump(content, part, compression=zipfile.ZIP_DEFLATED)
        mark_zip(part)
    return [path, skops_path]


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
    """Load a model file and check that it belongs to a checkpoint.

    Args:
        path: The model file.
        checkpoint: Name and SHA-256 of the checkpoint (keys ``name`` and ``sha256``).
        dimensions: Length of its embeddings.

    Raises:
        UserError: It cannot be opened, is not a model file, or belongs to another checkpoint.
    """
    saved = open_model_file(path)
    check_belongs(path, saved, checkpoint, dimensions)
    return saved


def open_model_file(path: Path) -> dict:
    """Load the dict in a model file. Raises UserError if it cannot be opened or is not a model file."""
    if not path.is_file():
        raise UserError(f"{path}: no such model; make it with {command_line('train rf')}")
    if path.suffix not in (".skops", ".joblib"):
        raise UserError(f"{path} is not a model file (*_model.skops)")
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
    if problem := _find_problem(saved):
        raise UserError(f"{path} is not a model of this project: {problem}. Train it again")
    return saved


def _open_joblib(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(path)
    except InconsistentVersionWarning as error:
        raise _other_version(path, error.original_sklearn_version) from error


def _open_skops(path: Path) -> object:
    """Load a .skops file. Raises UserError, before any object is built, if it contains a type that is not trusted."""
    skops_io = _import_skops()
    with zipfile.ZipFile(path) as archive:
        uncompressed = sum(member.file_size for member in archive.infolist())
    if uncompressed > max(MAX_UNCHECKED_BYTES, MAX_EXPANSION * os.path.getsize(path)):
        raise UserError(f"{path} is damaged: it claims to hold {uncompressed:,} bytes")
    if untrusted := sorted(set(skops_io.get_untrusted_types(file=path)) - set(TRUSTED)):
        raise UserError(f"{path} holds {untrusted[0]}, which is not part of a model of this project: it was not opened")
    saved = skops_io.load(path, trusted=TRUSTED)
    version = saved["versions"]["scikit-learn"]
    if version != sklearn.__version__:
        raise _other_version(path, version)
    return saved


def _other_version(path: Path, version: str) -> UserError:
    return UserError(
        f"{path} was made with scikit-learn {version}, here is {sklearn.__version__}: train it again, or install that "
        "version"
    )


def _find_problem(saved: dict) -> str:
    """Return what is wrong with a model file's dict; empty if it is as ``training.save_model`` writes it."""
    threshold, checkpoint, metrics = saved["threshold"], saved["checkpoint"], saved["metrics"]
    if not _is_number(threshold) or not 0 <= threshold <= 1:  # refuses NaN, too
        return f"its threshold is {threshold!r}"
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(key), str) for key in ("name", "sha256")):
        return "it does not say which checkpoint it is for"
    if not isinstance(metrics, dict) or any(key not in metrics for key in ("model", "min_recall", "seed")):
        return "its metrics are incomplete"
    if not isinstance(saved["categories"], dict) or not all(isinstance(x, list) for x in saved["categories"].values()):
        return "its categories are not lists by label"
    if not all(_is_number(metrics.get(name, 1.0)) for name in ("min_recall", "max_threshold", "seed")):
        return "its metrics are not numbers"
    points = metrics.get("operating_points", [])
    if not isinstance(points, list) or not all(map(_is_operating_point, points)):
        return "its operating points are not what measure_false_alarms.py writes"
    novelty = saved.get("unknown")
    if novelty is not None and not (
        isinstance(novelty, dict) and "rule" in novelty and _is_number(novelty.get("level"))
    ):
        return "what it says of unknown sounds is not what a training writes"
    if "out_of_fold" in saved and not _are_out_of_fold(saved["out_of_fold"]):
        return "its out-of-fold scores are not what a training writes"
    try:
        check_is_fitted(saved["pipeline"])
        labels, dimensions = list(saved["pipeline"].classes_), saved["pipeline"].n_features_in_
    except (TypeError, AttributeError, NotFittedError):
        return "its pipeline is none, or was never trained"
    if labels != [0, 1] or dimensions != saved["dimensions"]:
        return f"its pipeline tells {labels} apart, by {dimensions} dimensions"
    try:
        is_valid = all(map(_has_valid_trees, _forests(saved["pipeline"][-1]))) and _can_predict(saved, dimensions)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError):
        is_valid = False
    return "" if is_valid else "its parts do not fit each other"


def _can_predict(saved: dict, dimensions: int) -> bool:
    """Return whether the model returns finite scores for an embedding."""
    silence = np.zeros((1, dimensions), np.float32)
    if saved.get("unknown") is not None:
        saved["unknown"]["rule"].kneighbors(silence)
    scores = saved["pipeline"].predict_proba(silence)
    return scores.shape == (1, 2) and bool(np.isfinite(scores).all())


def _forests(classifier: Any) -> list[RandomForestClassifier]:
    """Return the random forests inside a classifier."""
    if isinstance(classifier, CalibratedClassifierCV):
        return [forest for member in classifier.calibrated_classifiers_ for forest in _forests(member.estimator)]
    if isinstance(classifier, FrozenEstimator):
        return _forests(classifier.estimator)
    return [classifier] if isinstance(classifier, RandomForestClassifier) else []


def _has_valid_trees(forest: RandomForestClassifier) -> bool:
    """Return whether every branch leads to an existing later node: scikit-learn follows them unchecked."""
    for estimator in forest.estimators_:
        tree = estimator.tree_
        left, right, feature = tree.children_left, tree.children_right, tree.feature
        nodes = np.arange(tree.node_count)
        is_inner = left != -1
        is_valid = len(nodes) > 0 and len(left) == len(right) == len(feature) == len(tree.value) == len(nodes)
        for branch in (left, right):
            is_valid = is_valid and bool(((branch > nodes) & (branch < len(nodes)))[is_inner].all())
        is_valid = is_valid and bool(((feature >= 0) & (feature < forest.n_features_in_))[is_inner].all())
        if not is_valid or tree.value.shape[1:] != (1, 2):
            return False
    return True


def _are_out_of_fold(kept: object) -> bool:
    """Whether this is what ``evaluation.cross_validation.out_of_fold`` returns."""
    if not isinstance(kept, dict) or not _is_number(kept.get("unconverged")):
        return False
    return all(
        isinstance(scores, np.ndarray)
        and scores.ndim == 1
        and scores.dtype.kind == "f"
        and ((scores >= 0) & (scores <= 1)).all()
        for scores in (kept.get("scores"), kept.get("raw_scores"))
    )


def _is_operating_point(point: object) -> bool:
    names = ("threshold", "danger_recall", "false_alarms_per_hour")
    return isinstance(point, dict) and all(_is_number(point.get(name)) for name in names)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_belongs(path: Path, saved: dict, checkpoint: dict, dimensions: int) -> None:
    """Raise UserError if a model was trained on embeddings of another checkpoint.

    Args:
        path: The model file.
        saved: Its contents.
        checkpoint: Name and SHA-256 of the checkpoint (keys ``name`` and ``sha256``).
        dimensions: Length of its embeddings.
    """
    trained_on = saved["checkpoint"]
    if trained_on["sha256"] != checkpoint["sha256"] or saved["dimensions"] != dimensions:
        raise UserError(
            f"{path} was trained on embeddings of checkpoint {trained_on['name']} ({trained_on['sha256'][:12]}…, "
            f"{saved['dimensions']} dimensions), these are of {checkpoint['name']} ({checkpoint['sha256'][:12]}…, "
            f"{dimensions} dimensions): train it again on these"
        )
