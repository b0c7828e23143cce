"""What turns an embedding into a danger score: the built-in detector, or a model that the user trained.

The built-in detector (models/detector.npz) is arrays and text: loading it cannot run code. A user's own
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
MAX_TAGS = 3  # categories that are named
AUDIOSET_TAGS = 527
SENSITIVITIES = ("low", "normal", "high")  # names of the built-in detector's operating points
ARRAYS = (  # of the built-in detector's file; the rest is text
    "mean", "scale", "weights", "category_weights", "category_bias", "centres",
)  # fmt: skip


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what was measured at it on recordings that the detector had not heard."""

    threshold: float
    danger_recall: float
    false_alarms_per_hour: float

    @classmethod
    def from_json(cls, point: dict) -> "OperatingPoint":
        """From an entry of ``operating_points``, which may hold more. Raises KeyError where it holds less."""
        return cls(*(float(point[field.name]) for field in fields(cls)))


class Tagger(Protocol):
    """Says what an embedding sounds like."""

    def tags(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """(name, how surely, at most 1), the surest first; empty where unknown."""
        ...


class Detector(Tagger, Protocol):
    """Scores embeddings of one checkpoint."""

    @property
    def name(self) -> str:
        """Whose answers these are."""
        ...

    @property
    def threshold(self) -> float:
        """The score from which on it is danger, where no other is asked for."""
        ...

    @property
    def operating_points(self) -> list[OperatingPoint]:
        """Empty where they were not measured."""
        ...

    @property
    def measured_minutes(self) -> float:
        """Of safe sound, in which those false alarms were counted."""
        ...

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        ...

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each sounds like nothing in training, (windows,)."""
        ...


@dataclass(frozen=True)
class BuiltinDetector:
    """A logistic regression on the compact network's embedding and on its surest dangerous AudioSet tags.

    The regression was taught with ESC-50, other collections and hours of ordinary sound (tools/build_detector.py). The
    network itself was taught without labels, and without ESC-50.
    """

    name: str
    threshold: float  # of the sensitivity ``normal``
    checkpoint_sha256: str
    about: dict  # what it was made from and how well it did
    tag_groups: tuple[tuple[int, ...], ...]  # numbers of AudioSet's tags, of which each group's surest counts
    mean: np.ndarray  # (dimensions + groups,), of the features in training
    scale: np.ndarray
    weights: np.ndarray  # (dimensions + groups,), on standardised features
    bias: float
    slope: float  # of the sigmoid, on the regression's value
    offset: float
    categories: tuple[str, ...]
    category_weights: np.ndarray  # (categories, dimensions), on standardised embeddings: which category it is
    category_bias: np.ndarray  # (categories,)
    centres: np.ndarray  # (categories, dimensions), standardised, of length 1
    min_similarity: float  # what is less like every category than that is unknown
    head: Head | None = None  # of the network: what it calls a sound; not in the file
    reference: Reference | None = None  # what it was judged on, in short; None in older files

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        return _sigmoid(self.slope * self.values(embeddings) + self.offset)

    def values(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> the regression's value before calibration, (windows,)."""
        assert self.head is not None  # who scores has given it the network's
        features = add_tag_groups(embeddings, self.head, self.tag_groups)
        return (features - self.mean) / self.scale @ self.weights + self.bias

    @property
    def operating_points(self) -> list[OperatingPoint]:
        """Thresholds and what each does."""
        return [OperatingPoint.from_json(point) for point in self.about["operating_points"]]

    @property
    def measured_minutes(self) -> float:
        """Of ordinary sound, in which false alarms were counted."""
        return 60 * self.about["ordinary"]["hours"]

    def threshold_of(self, sensitivity: str) -> float:
        """The threshold of one of SENSITIVITIES."""
        return self.about["sensitivities"][sensitivity]["threshold"]

    def similarities(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> cosine similarity to each category, at most 1, (windows, categories)."""
        directions = self.standardise(embeddings)
        return directions @ self.centres.T / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each sounds like none of the categories, (windows,)."""
        return self.similarities(embeddings).max(axis=1) < self.min_similarity

    def tags(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """The likeliest categories with their probabilities among all of them, likeliest first."""
        logits = self.category_weights @ self.standardise(embedding[None])[0] + self.category_bias
        probability = np.exp(logits - np.logaddexp.reduce(logits))
        return tuple((self.categories[i], float(probability[i])) for i in np.argsort(-probability)[:MAX_TAGS])

    def standardise(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> with the mean and the scale of training taken out, (windows, dimensions)."""
        dimensions = embeddings.shape[1]
        return (embeddings - self.mean[:dimensions]) / self.scale[:dimensions]

    def stating(self, about: dict) -> "BuiltinDetector":
        """The same, with what is known of how well it does, and the threshold that came of it."""
        return replace(self, threshold=about["sensitivities"]["normal"]["threshold"], about=about)

    def save(self, path: Path) -> None:
        """Write it as .npz without pickle."""
        other = (*ARRAYS, "head", "reference")
        text = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in other}
        arrays = {key: getattr(self, key).astype(np.float32) for key in ARRAYS}
        if self.reference is not None:
            arrays |= self.reference.arrays()
        with atomic_path(path) as part, open(part, "wb") as file:
            np.savez(file, text=np.array(json.dumps(text)), **arrays)


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    # SciPy's would take a fifth of a second to load, of the second in which a short file is answered.
    return 1 / (1 + np.exp(-log_odds))


def add_tag_groups(embeddings: np.ndarray, head: Head, groups: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Embeddings, (windows, dimensions), with the highest tag logit of each group beside them."""
    logits = head(embeddings)
    return np.column_stack([embeddings, *(logits[:, list(group)].max(axis=1) for group in groups)])


class Pipeline(Protocol):
    """What a training fits: scikit-learn's, which takes a second to load."""

    def predict_proba(self, embeddings: np.ndarray, /) -> np.ndarray:
        """(windows, dimensions) -> shares of safe and of danger, (windows, 2)."""
        ...


@dataclass(frozen=True)
class UserDetector:
    """A user's pipeline."""

    name: str
    threshold: float
    pipeline: Pipeline
    tagger: Tagger | None
    operating_points: list[OperatingPoint]
    measured_minutes: float
    novelty: dict | None  # rule and level, see novelty.py; None in older files

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
        """The tagger's answer; empty where nothing can name embeddings of this checkpoint."""
        return self.tagger.tags(embedding) if self.tagger else ()


def load_builtin(path: Path | None = None) -> BuiltinDetector:
    """The detector of this repository, or another file of its kind. Raises UserError when it is missing or damaged."""
    path = path or BUILTIN_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(str(file["text"]))
            arrays = {key: file[key] for key in ARRAYS}
            other = {key: file[key] for key in file.files if key.startswith("reference_")}
        groups = tuple(tuple(group) for group in text["tag_groups"])
        text |= {"categories": tuple(text["categories"]), "tag_groups": groups}
        reference = Reference.from_arrays(other, arrays["centres"].shape[-1])
        builtin = BuiltinDetector(**text, **arrays, reference=reference)
        _check(builtin)
        return builtin
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing from this copy of the project: get it again, or give --model") from error
    except Exception as error:  # a damaged zip can raise anything
        raise UserError(f"{path} is damaged: get it again, or give --model") from error


def _check(builtin: BuiltinDetector) -> None:
    """Raises ValueError, TypeError or KeyError where the parts do not fit each other."""
    categories, dimensions = builtin.category_weights.shape
    features = (dimensions + len(builtin.tag_groups),)
    shapes = (features, features, features, (categories, dimensions), (categories,), (categories, dimensions))
    for name, shape in zip(ARRAYS, shapes, strict=True):
        array = getattr(builtin, name)
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(name)
    words = (builtin.name, builtin.checkpoint_sha256, *builtin.categories)
    if not all(isinstance(word, str) for word in words) or not isinstance(builtin.about, dict):
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
    """The opened ``*_model.joblib`` as a detector. Raises UserError when it is for another checkpoint than ``info``.

    What it heard is named by the built-in detector's categories where that listens through the same checkpoint, by
    AudioSet's tags where the checkpoint's own ``head`` answers them.
    """
    from danger_safe.detection.audioset import find_tags
    from danger_safe.detection.model_file import check_belongs  # scikit-learn takes a second to load

    check_belongs(path, saved, {"name": info.name, "sha256": info.sha256}, info.dimensions)
    try:
        builtin = load_builtin()
    except UserError:  # it only names what was heard
        builtin = None
    same = builtin is not None and builtin.checkpoint_sha256 == info.sha256
    tagger = builtin if same else find_tags(info, head)
    metrics = saved["metrics"]
    points = [OperatingPoint.from_json(point) for point in metrics.get("operating_points", [])]
    minutes = metrics.get("per_hour", {}).get("minutes", 0.0)
    return UserDetector(
        path.name, float(saved["threshold"]), saved["pipeline"], tagger, points, minutes, saved.get("unknown")
    )
