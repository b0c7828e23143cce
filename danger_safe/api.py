"""Python interface: dangers in a recording, and embeddings of sounds. docs/api.md has an example.

    with load_detector() as detector:
        detection = detector.detect("kitchen.wav")
    with load_embedder("compact") as embedder:
        embedding = embedder.embed(samples, sample_rate=16_000)

A sound is a path, or a float array of (samples,) or (samples, channels) with its sample rate; full scale is 1.
Errors are ``UserError`` for models and checkpoints and ``AudioError`` for sounds, with messages for users.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danger_safe.audio.decode import WINDOW_S as EMBEDDING_WINDOW_S
from danger_safe.audio.decode import read_blocks, read_channels
from danger_safe.audio.pcm import SAMPLE_RATE, AudioError, check_samples, resample, to_mono
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.errors import UserError
from danger_safe.detection.detector import Detector
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.detection.loading import open_detector
from danger_safe.detection.model_file import open_model_file
from danger_safe.detection.scorer import HOP_S, WINDOW_S, WindowScorer
from models.engine import open_engine

__all__ = [
    "AudioError",
    "Detection",
    "Embedder",
    "Event",
    "ScoredWindow",
    "SoundDetector",
    "UserError",
    "load_detector",
    "load_embedder",
    "open_model",
]

Sound = str | Path | np.ndarray | Sequence  # a path, or samples


@dataclass(frozen=True)
class Detection:
    """The result for one recording."""

    seconds: float
    threshold: float  # a score at or above it is a danger
    events: list[Event]  # dangers, in order: start, end and peak in seconds, score, heard
    windows: list[ScoredWindow]  # all windows, in order

    @property
    def score(self) -> float:
        """The highest smoothed score of any window, in [0, 1]."""
        return max(window.smoothed_score for window in self.windows)


class SoundDetector:
    """A detector with its network. Close it, or use it in a ``with`` block. It is not thread-safe."""

    def __init__(self, scorer: WindowScorer, detector: Detector, resources: ExitStack):
        """Use ``load_detector``."""
        self._scorer, self._detector, self._resources = scorer, detector, resources
        self.name, self.threshold = detector.name, detector.threshold

    def detect(self, sound: Sound, sample_rate: int | None = None, threshold: float | None = None) -> Detection:
        """Find the dangers in a recording of any length, in windows of 3 s every 0.5 s.

        Args:
            sound: A path or an array (or list) of float.
            sample_rate: Sample rate of an array in Hz.
            threshold: In (0, 1]; None for the detector's own.

        Raises:
            AudioError: The sound cannot be read or has no samples.
            ValueError: The threshold is outside (0, 1].
        """
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
        threshold = self.threshold if threshold is None else threshold
        finder = EventFinder(EventConfig(threshold), HOP_S)
        windows, events = [], []
        with _naming(sound):
            for window in self._scorer.score_recording(_read_chunks(sound, sample_rate)):
                windows.append(window)
                events += finder.add(window)
            events += finder.finish()
            if not windows:
                raise AudioError("has no samples")
        for event in events:
            event.heard = self._detector.tags(event.embedding)
        return Detection(windows[-1].end, threshold, events, windows)

    def close(self) -> None:
        """Release the network and its threads."""
        self._resources.close()

    def __enter__(self) -> "SoundDetector":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Embedder:
    """A network that embeds sounds. Close it, or use it in a ``with`` block."""

    def __init__(self, checkpoint: str, device: str):
        """Use ``load_embedder``."""
        self._engine = open_engine(checkpoint, device)
        self.dimensions = self._engine.info.dimensions

    def embed(self, sound: Sound, sample_rate: int | None = None) -> np.ndarray:
        """Return the embedding of a sound, (dimensions,) float32, as step 2 writes it into a table.

        For a sound longer than 30 s it is the mean over windows of 30 s, weighted by their length.

        Args:
            sound: A path or an array (or list) of float.
            sample_rate: Sample rate of an array in Hz.

        Raises:
            AudioError: The sound cannot be read or has no samples.
        """
        total, samples = np.zeros(self.dimensions), 0
        with _naming(sound):
            for block in _read_blocks(sound, sample_rate):
                embedding = self._engine.embed(self._engine.front_end(block)[None])[0]
                total += embedding.astype(np.float64) * len(block)
                samples += len(block)
            if not samples:
                raise AudioError("has no samples")
        return (total / samples).astype(np.float32)

    def close(self) -> None:
        """Release the network."""
        self._engine.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def load_detector(
    model: str | Path | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    learnt: str | Path | None = None,
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> SoundDetector:
    """Load the built-in detector, or a model of your own.

    Args:
        model: A ``*_model.skops`` of step 3, or a ``.joblib``, which can run code when it is opened: only open your
            own.
        checkpoint: Name or file of the network that the model was trained with; required if it was a file.
        device: auto, cpu or cuda.
        learnt: The ``learnt.npz`` of listen.py, which silences the sounds that a household called false alarms.
        embed: The network, if the model's table was not made by this project: a function from float32 samples at
            32 kHz, (samples,), to the embedding, (dimensions,).

    Raises:
        UserError: A file cannot be opened, or the arguments do not belong together.
    """
    with ExitStack() as stack:
        model, learnt = (None if path is None else Path(path) for path in (model, learnt))
        opened = open_detector(model, checkpoint, device, learnt=learnt, embed=embed)
        engine, detector = stack.enter_context(opened)
        scorer = stack.enter_context(WindowScorer(engine, detector, WINDOW_S, HOP_S))
        return SoundDetector(scorer, detector, stack.pop_all())


def load_embedder(checkpoint: str = "compact", device: str = "auto") -> Embedder:
    """Load the network of a checkpoint, given by name (``extractEmbeddingCnn14.py --help`` lists them) or file.

    Raises UserError if there is no such checkpoint, it cannot be downloaded, or it cannot run on the ``device``.
    """
    return Embedder(checkpoint, device)


def open_model(path: str | Path) -> dict:
    """Load a ``*_model.skops`` or ``.joblib``: a dict with ``pipeline`` (scikit-learn), ``threshold``, ``metrics``, …

    A .joblib can run code when it is opened: only open your own. Raises UserError if it is not a model file.
    """
    return open_model_file(Path(path))


@contextmanager
def _naming(sound: Sound) -> Iterator[None]:
    """Put the path, or "the array", before the message of an AudioError."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{sound if isinstance(sound, str | os.PathLike) else 'the array'} {error}") from error


def _read_chunks(sound: Sound, sample_rate: int | None) -> Iterator[np.ndarray]:
    """Yield float32 chunks at 32 kHz, (samples,) or (samples, channels)."""
    if isinstance(sound, str | os.PathLike):
        return read_channels(Path(sound))
    samples, rate = _validate_array(sound, sample_rate)
    return resample(iter([samples]), rate)


def _read_blocks(sound: Sound, sample_rate: int | None) -> Iterator[np.ndarray]:
    """Yield float32 mono blocks of 30 s at 32 kHz, (samples,); the last one may be shorter."""
    if isinstance(sound, str | os.PathLike):
        return read_blocks(Path(sound), EMBEDDING_WINDOW_S)
    whole, rate = _validate_array(sound, sample_rate)
    samples = np.concatenate(list(resample(iter([to_mono(whole)]), rate)))
    size = int(EMBEDDING_WINDOW_S * SAMPLE_RATE)
    return (samples[start : start + size] for start in range(0, len(samples), size))


def _validate_array(sound: np.ndarray | Sequence, sample_rate: int | None) -> tuple[np.ndarray, int]:
    """Return the array as float32 with its sample rate in Hz. Raises AudioError if it is not a sound."""
    try:
        samples = np.asarray(sound)
    except ValueError as error:  # lists of different lengths
        raise AudioError(f"cannot be read: {error}") from error
    if samples.size == 0:
        raise AudioError("has no samples")
    if sample_rate is None or samples.ndim not in (1, 2) or samples.dtype.kind != "f":
        raise AudioError("needs to be an array of float, (samples,) or (samples, channels), with its sample_rate in Hz")
    return check_samples(np.asarray(samples, np.float32)), sample_rate
