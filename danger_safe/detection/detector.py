"""Detectors, which turn an embedding into a danger score: the built-in one and models that users trained.

The built-in detector's file, models/detector.npz, holds arrays and text: loading it cannot run code. Loading a user's
``*_model.joblib`` can; see model_file.py.
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError
from danger_safe.detection.reference import Reference
from models.checkpoint_files import COMPACT, CheckpointInfo
from models.head import Head

BUILTIN_FILE = COMPACT.with_name("detector.npz")
MAX_TAGS = 3  # categories that are named for an event
AUDIOSET_TAGS = 527
SENSITIVITIES = ("low", "normal", "high")  # the built-in detector's named operating points
ARRAYS = (  # in the built-in detector's file; everything else is text
    "mean", "scale", "weights", "category_weights", "category_bias", "centres",
)  # fmt: skip


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and the rates that were measured at it, on recordings that were not in training."""

    threshold: float
    danger_recall: float
    false_alarms_per_hour: float

    @classmethod
    def from_json(cls, point: dict) -> "OperatingPoint":
        """Read an entry of ``operating_points``; more keys are ignored. Raises KeyError if one is missing."""
        return cls(*(float(point[field.name]) for field in fields(cls)))


class Tagger(Protocol):
    """Names the categories of an embedding."""

    def tags(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """(dimensions,) -> (name, similarity or probability ≤ 1), highest first; empty if unknown."""
        ...


class Detector(Tagger, Protocol):
    """Scores embeddings of one checkpoint."""

    @property
    def name(self) -> str:
        """The name that is printed with results."""
        ...

    @property
    def threshold(self) -> float:
        """The default threshold: a score at or above it is a danger."""
        ...

    @property
    def operating_points(self) -> list[OperatingPoint]:
        """The measured operating points; empty if there are none."""
        ...

    @property
    def measured_minutes(self) -> float:
        """Minutes of safe sound in which the false alarms of the operating points were counted."""
        ...

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        ...

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each sounds like nothing in training, (windows,)."""
        ...


@dataclass(frozen=True)
class BuiltinDetector:
    """A logistic regression on the compact network's embedding and its highest logits of dangerous AudioSet tags.

    The regression was trained on ESC-50, other collections and hours of ordinary sound (tools/build_detector.py). The
    network itself was trained without labels and without ESC-50.
    """

    name: str
    threshold: float  # that of the sensitivity ``normal``
    checkpoint_sha256: str
    about: dict  # the evaluation: operating points, counts, intervals
    tag_groups: tuple[tuple[int, ...], ...]  # AudioSet tag numbers; the highest logit of each group is a feature
    mean: np.ndarray  # (dimensions + groups,), mean of the features in training
    scale: np.ndarray  # (dimensions + groups,), standard deviation of the features in training
    weights: np.ndarray  # (dimensions + groups,), on standardised features
    bias: float
    slope: float  # of the sigmoid that turns the regression's value into a probability
    offset: float
    categories: tuple[str, ...]
    category_weights: np.ndarray  # (categories, dimensions), of a classifier of categories
    category_bias: np.ndarray  # (categories,)
    centres: np.ndarray  # (categories, dimensions), mean standardised embedding scaled to length 1
    min_similarity: float  # a sound that is less similar to every category is unknown
    head: Head | None = None  # maps embeddings to AudioSet logits; from the network, not in the file
    reference: Reference | None = None  # the clips of its evaluation; None in older files

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        return _sigmoid(self.slope * self.values(embeddings) + self.offset)

    def values(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> the regression's value before the sigmoid, (windows,)."""
        assert self.head is not None, "the network's head is needed to score"
        features = add_tag_groups(embeddings, self.head, self.tag_groups)
        return (features - self.mean) / self.scale @ self.weights + self.bias

    @property
    def operating_points(self) -> list[OperatingPoint]:
        """The measured operating points."""
        return [OperatingPoint.from_json(point) for point in self.about["operating_points"]]

    @property
    def measured_minutes(self) -> float:
        """Minutes of ordinary sound in which false alarms were counted."""
        return 60 * self.about["ordinary"]["hours"]

    def threshold_of(self, sensitivity: str) -> float:
        """Return the threshold of one of SENSITIVITIES."""
        return self.about["sensitivities"][sensitivity]["threshold"]

    def similarities(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> cosine similarity to each category, at most 1, (windows, categories)."""
        directions = self.standardise(embeddings)
        return directions @ self.centres.T / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each is similar to none of the categories, (windows,)."""
        return self.similarities(embeddings).max(axis=1) < self.min_similarity

    def tags(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """(dimensions,) -> the most probable categories with their probabilities, highest first."""
        logits = self.category_weights @ self.standardise(embedding[None])[0] + self.category_bias
        probability = np.exp(logits - np.logaddexp.reduce(logits))
        return tuple((self.categories[i], float(probability[i])) for i in np.argsort(-probability)[:MAX_TAGS])

    def standardise(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> the same with mean 0 and standard deviation 1 in training, (windows, dimensions)."""
        dimensions = embeddings.shape[1]
        return (embeddings - self.mean[:dimensions]) / self.scale[:dimensions]

    def with_evaluation(self, about: dict) -> "BuiltinDetector":
        """Return the detector with its evaluation and the threshold that this gives."""
        return replace(self, threshold=about["sensitivities"]["normal"]["threshold"], about=about)

    def save(self, path: Path) -> None:
        """Write an .npz without pickle, atomically."""
        not_text = (*ARRAYS, "head", "reference")
        text = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in not_text}
        arrays = {key: getattr(self, key).astype(np.float32) for key in ARRAYS}
        if self.reference is not None:
            arrays |= self.reference.arrays()
        with atomic_path(path) as part, open(part, "wb") as file:
            np.savez(file, text=np.array(json.dumps(text)), **arrays)


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    # SciPy's takes a fifth of a second to import; a short file is processed in less than a second.
    return 1 / (1 + np.exp(-log_odds))


def add_tag_groups(embeddings: np.ndarray, head: Head, groups: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """(windows, dimensions) -> the same with the highest tag logit of each group, (windows, dimensions + groups)."""
    logits = head(embeddings)
    return np.column_stack([embeddings, *(logits[:, list(group)].max(axis=1) for group in groups)])


class Pipeline(Protocol):
    """The interface of a fitted scikit-learn pipeline, which takes a second to import."""

    def predict_proba(self, embeddings: np.ndarray, /) -> np.ndarray:
        """(windows, dimensions) -> probabilities of Safe and Danger, (windows, 2)."""
        ...


@dataclass(frozen=True)
class UserDetector:
    """A model that a user trained."""

    name: str
    threshold: float
    pipeline: Pipeline
    tagger: Tagger | None
    operating_points: list[OperatingPoint]
    measured_minutes: float
    novelty: dict | None  # ``rule`` and ``level`` (minimum similarity), see novelty.py; None in older files

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        return self.pipeline.predict_proba(embeddings)[:, 1]

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each sounds like nothing in training, (windows,)."""
        if self.novelty is None:
            return np.zeros(len(embeddings), bool)
        from danger_safe.detection.novelty import similarity  # scikit-learn takes a second to load

        return similarity(self.novelty["rule"], embeddings) < self.novelty["level"]

    def tags(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Return the tagger's tags; empty if there is no tagger for this checkpoint."""
        return self.tagger.tags(embedding) if self.tagger else ()


def load_builtin(path: Path | None = None) -> BuiltinDetector:
    """Load the built-in detector, or another file of its format. Raises UserError if it is missing or damaged."""
    path = path or BUILTIN_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(str(file["text"]))
            arrays = {key: file[key] for key in ARRAYS}
            reference_arrays = {key: file[key] for key in file.files if key.startswith("reference_")}
        groups = tuple(tuple(group) for group in text["tag_groups"])
        text |= {"categories": tuple(text["categories"]), "tag_groups": groups}
        reference = Reference.from_arrays(reference_arrays, arrays["centres"].shape[-1])
        builtin = BuiltinDetector(**text, **arrays, reference=reference)
        _check(builtin)
        return builtin
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing from this copy of the project: get it again, or give --model") from error
    except Exception as error:  # a damaged zip can raise anything
        raise UserError(f"{path} is damaged: get it again, or give --model") from error


def _check(builtin: BuiltinDetector) -> None:
    """Raise ValueError, TypeError or KeyError if the parts do not fit each other."""
    categories, dimensions = builtin.category_weights.shape
    features = (dimensions + len(builtin.tag_groups),)
    shapes = (features, features, features, (categories, dimensions), (categories,), (categories, dimensions))
    for name, shape in zip(ARRAYS, shapes, strict=True):
        array = getattr(builtin, name)
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(name)
    texts = (builtin.name, builtin.checkpoint_sha256, *builtin.categories)
    if not all(isinstance(text, str) for text in texts) or not isinstance(builtin.about, dict):
        raise TypeError("text")
    thresholds = [builtin.threshold_of(sensitivity) for sensitivity in SENSITIVITIES]
    numbers = (builtin.threshold, builtin.bias, builtin.slope, builtin.offset, builtin.min_similarity, *thresholds)
    if not np.isfinite(numbers).all() or not builtin.scale.all():
        raise ValueError("numbers")
    if len(builtin.categories) != categories:
        raise ValueError("categories")
    if not all(group and set(group) <= set(range(AUDIOSET_TAGS)) for group in builtin.tag_groups):
        raise ValueError("tags")


def user_detector(path: Path, saved: dict, info: CheckpointInfo, head: Head | None) -> UserDetector:
    """Make a detector of an opened model file. Raises UserError if that is for another checkpoint.

    Events are named by the built-in detector's categories if it uses the same checkpoint, otherwise by AudioSet's tags
    if the checkpoint has them.

    Args:
        path: The model file.
        saved: Its contents.
        info: The checkpoint whose embeddings will be scored.
        head: The checkpoint's classification head.
    """
    from danger_safe.detection.audioset import find_tagger
    from danger_safe.detection.model_file import check_belongs  # scikit-learn takes a second to load

    check_belongs(path, saved, {"name": info.name, "sha256": info.sha256}, info.dimensions)
    try:
        builtin = load_builtin()
    except UserError:  # names are optional
        builtin = None
    is_same = builtin is not None and builtin.checkpoint_sha256 == info.sha256
    tagger = builtin if is_same else find_tagger(info, head)
    metrics = saved["metrics"]
    points = [OperatingPoint.from_json(point) for point in metrics.get("operating_points", [])]
    minutes = metrics.get("per_hour", {}).get("minutes", 0.0)
    return UserDetector(
        path.name, float(saved["threshold"]), saved["pipeline"], tagger, points, minutes, saved.get("unknown")
    )
