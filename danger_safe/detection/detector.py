"""What turns an embedding into a danger score: the ready detector, or a model that the user trained.

The ready detector (models/detector.npz) is arrays and text: loading it cannot run code. A user's own
``*_model.joblib`` can; see model_file.py.
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.special import expit

from danger_safe.core.atomic import whole_file
from danger_safe.core.errors import UserError
from models.checkpoint_files import COMPACT, CheckpointInfo
from models.head import Head

READY = COMPACT.with_name("detector.npz")
NEAREST = 3  # categories that are named
ARRAYS = ("weights", "bias", "mean", "scale", "room", "centres")  # of the ready detector's file; the rest is text


class Namer(Protocol):
    """Says what an embedding sounds like."""

    def heard(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """(name, how surely, at most 1), the surest first; empty where unknown."""


class Detector(Namer, Protocol):
    """Scores embeddings of one checkpoint."""

    name: str
    threshold: float

    operating_points: list[dict[str, float]]  # threshold, danger_recall, false_alarms_per_hour; empty where not known
    measured_minutes: float  # of safe sound, in which those false alarms were counted

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each sounds like nothing in training, (windows,)."""


@dataclass(frozen=True)
class ReadyDetector:
    """The compact network's own last layer, its classes sorted into Danger and Safe; and what its embeddings resemble.

    The probability of danger is the sum of the dangerous classes', calibrated by a sigmoid, times that of hearing more
    than a quiet room: peak normalisation makes a microphone's own noise loud, and the network alone takes it for rain,
    fire or an alarm.
    """

    name: str
    threshold: float
    checkpoint_sha256: str
    about: dict  # what it was made from and how well it did
    danger: tuple[bool, ...]  # of each class of the last layer
    weights: np.ndarray  # (classes, dimensions), of the last layer
    bias: np.ndarray  # (classes,)
    slope: float  # of the sigmoid, on the log-odds of danger
    offset: float
    mean: np.ndarray  # (dimensions,) of the training sounds' embeddings
    scale: np.ndarray
    room: np.ndarray  # (dimensions,), on standardised embeddings: how a quiet room differs from all else
    room_bias: float
    categories: tuple[str, ...]
    centres: np.ndarray  # (categories, dimensions), standardised, of length 1
    least_familiar: float  # what is less like every category than that is unknown

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        danger = expit(self.slope * self.log_odds(embeddings) + self.offset)
        quiet = expit(self._standardised(embeddings) @ self.room + self.room_bias)
        return danger * (1 - quiet)

    @property
    def operating_points(self) -> list[dict[str, float]]:
        """Thresholds and what each does."""
        return self.about["operating_points"]

    @property
    def measured_minutes(self) -> float:
        """Of safe sound, in which false alarms were counted."""
        return 60 * self.about["held_out"]["hours"]

    def log_odds(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> log-odds of danger as the network has them, before calibration, (windows,)."""
        logits = embeddings @ self.weights.T + self.bias
        danger = np.array(self.danger)
        return np.logaddexp.reduce(logits[:, danger], axis=1) - np.logaddexp.reduce(logits[:, ~danger], axis=1)

    def similarities(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> cosine similarity to each category, at most 1, (windows, categories)."""
        directions = self._standardised(embeddings)
        return directions @ self.centres.T / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each sounds like none of the categories, (windows,)."""
        return self.similarities(embeddings).max(axis=1) < self.least_familiar

    def heard(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """The nearest categories with their similarity, nearest first."""
        similarity = self.similarities(embedding[None])[0]
        return tuple((self.categories[i], float(similarity[i])) for i in np.argsort(-similarity)[:NEAREST])

    def _standardised(self, embeddings: np.ndarray) -> np.ndarray:
        return (embeddings - self.mean) / self.scale

    def stating(self, about: dict) -> "ReadyDetector":
        """The same, with what is known of how well it does, and the threshold that came of it."""
        return replace(self, name="ready detector", threshold=about["threshold"], about=about)

    def save(self, path: Path) -> None:
        """Write it as .npz without pickle."""
        text = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ARRAYS}
        arrays = {key: getattr(self, key).astype(np.float32) for key in ARRAYS}
        with whole_file(path) as part, open(part, "wb") as file:
            np.savez(file, text=np.array(json.dumps(text)), **arrays)


@dataclass(frozen=True)
class OwnDetector:
    """A user's pipeline."""

    name: str
    threshold: float
    pipeline: object
    namer: Namer | None
    operating_points: list[dict[str, float]]
    measured_minutes: float
    novelty: dict | None  # rule and level, see novelty.py; None in older files

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        return self.pipeline.predict_proba(embeddings)[:, 1]

    def unknown(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> whether each sounds like nothing in training, (windows,)."""
        if self.novelty is None:
            return np.zeros(len(embeddings), bool)
        from danger_safe.detection.novelty import familiarity  # scikit-learn takes a second to load

        return familiarity(self.novelty["rule"], embeddings) < self.novelty["level"]

    def heard(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """The namer's answer; empty where nothing can name embeddings of this checkpoint."""
        return self.namer.heard(embedding) if self.namer else ()


def load_ready(path: Path | None = None) -> ReadyDetector:
    """The detector of this repository, or another file of its kind. Raises UserError when it is missing or damaged."""
    path = path or READY
    try:
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(str(file["text"]))
            arrays = {key: file[key] for key in ARRAYS}
        text |= {"categories": tuple(text["categories"]), "danger": tuple(text["danger"])}
        ready = ReadyDetector(**text, **arrays)
        _check(ready)
        return ready
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing from this copy of the project: get it again, or give --model") from error
    except Exception as error:  # a damaged zip can raise anything
        raise UserError(f"{path} is damaged: get it again, or give --model") from error


def _check(ready: ReadyDetector) -> None:
    """Raises ValueError or TypeError where the parts do not fit each other."""
    classes, dimensions, categories = len(ready.danger), len(ready.mean), len(ready.categories)
    shapes = ((classes, dimensions), (classes,), *[(dimensions,)] * 3, (categories, dimensions))
    for name, shape in zip(ARRAYS, shapes, strict=True):
        array = getattr(ready, name)
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(name)
    words = (ready.name, ready.checkpoint_sha256, *ready.categories)
    numbers = (ready.threshold, ready.slope, ready.offset, ready.room_bias, ready.least_familiar)
    if not all(isinstance(word, str) for word in words) or not isinstance(ready.about, dict):
        raise TypeError("text")
    if not np.isfinite(numbers).all() or set(ready.danger) != {True, False} or not ready.scale.all():
        raise ValueError("numbers")


def own_detector(path: Path, saved: dict, info: CheckpointInfo, head: Head | None) -> OwnDetector:
    """The opened ``*_model.joblib`` as a detector. Raises UserError when it is for another checkpoint than ``info``.

    What it heard is named by the ready detector's categories where that listens through the same checkpoint, by
    AudioSet's tags where the checkpoint's own ``head`` answers them.
    """
    from danger_safe.detection.audioset import find_tags
    from danger_safe.detection.model_file import check_belongs  # scikit-learn takes a second to load

    check_belongs(path, saved, {"name": info.name, "sha256": info.sha256}, info.dimensions)
    try:
        ready = load_ready()
    except UserError:  # it only names what was heard
        ready = None
    same = ready is not None and ready.checkpoint_sha256 == info.sha256
    namer = ready if same else find_tags(info, head)
    metrics = saved["metrics"]
    points, minutes = metrics.get("operating_points", []), metrics.get("per_hour", {}).get("minutes", 0.0)
    return OwnDetector(
        path.name, float(saved["threshold"]), saved["pipeline"], namer, points, minutes, saved.get("unknown")
    )
