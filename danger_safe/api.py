"""The project from Python: danger in a recording, and embeddings of sounds. docs/api.md has an example.

    with load_detector() as detector:
        detection = detector.detect("kitchen.wav")
    with load_embedder("compact") as embedder:
        embedding = embedder.embed(samples, sample_rate=16_000)

A sound is a path, or an array with its sample rate: (samples,) or (samples, channels), 1 being full scale.
Errors are ``UserError`` for models and checkpoints and ``AudioError`` for sounds, each in words for a person.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danger_safe.audio.decode import WINDOW_S, read_blocks, read_channels
from danger_safe.audio.pcm import SAMPLE_RATE, AudioError, check_samples, resample, to_mono
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.errors import UserError
from danger_safe.detection.detector import Detector
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.detection.loading import open_detector
from danger_safe.detection.model_file import open_model_file
from danger_safe.detection.scorer import HOP, WINDOW, Listener
from models.engine import open_engine

__all__ = ["AudioError", "Detection", "Embedder", "SoundDetector", "UserError", "load_detector", "load_embedder",
"open_model"]  # fmt: skip

Sound = str | Path | np.ndarray


@dataclass(frozen=True)
class Detection:
    """What was heard in one recording."""

    seconds: float
    threshold: float  # a score at or above it is danger
    events: list[Event]  # stretches of danger, in order: start, end and peak in seconds, score, heard
    windows: list[ScoredWindow]  # every window that was judged, in order

    @property
    def score(self) -> float:
        """The highest smoothed score of any window, in [0, 1]."""
        return max(window.smoothed_score for window in self.windows)


class SoundDetector:
    """A detector and its network, open until ``close``; a ``with`` block closes it. Not for several threads at once."""

    def __init__(self, listener: Listener, detector: Detector, resources: ExitStack):
        """Use ``load_detector``."""
        self._listener, self._detector, self._resources = listener, detector, resources
        self.name, self.threshold = detector.name, detector.threshold

    def detect(self, sound: Sound, sample_rate: int | None = None, threshold: float | None = None) -> Detection:
        """Listen to a recording of any length, in windows of 3 s every 0.5 s.

        Args:
            sound: a path, or an array as above.
            sample_rate: in Hz, of an array.
            threshold: in [0, 1]; None: the detector's own.

        Raises AudioError for what cannot be read or has no samples.
        """
        threshold = self.threshold if threshold is None else threshold
        finder = EventFinder(EventConfig(threshold), HOP)
        windows, events = [], []
        for window in self._listener.listen(_pieces(sound, sample_rate)):
            windows.append(window)
            events += finder.add(window)
        events += finder.finish()
        if not windows:
            raise AudioError("has no samples")
        for event in events:
            event.heard = self._detector.tags(event.embedding)
        return Detection(windows[-1].end, threshold, events, windows)

    def close(self) -> None:
        """Release network and threads."""
        self._resources.close()

    def __enter__(self) -> "SoundDetector":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Embedder:
    """A network, open until ``close``; a ``with`` block closes it."""

    def __init__(self, checkpoint: str, device: str):
        """Use ``load_embedder``."""
        self._engine = open_engine(checkpoint, device)
        self.dimensions = self._engine.info.dimensions

    def embed(self, sound: Sound, sample_rate: int | None = None) -> np.ndarray:
        """The embedding of a sound, float32, (dimensions,), as step 2 writes it into a table.

        Of a sound longer than 60 s it is the mean over windows of 60 s, weighted by their length. ``sample_rate`` in
        Hz, of an array. Raises AudioError for what cannot be read or has no samples.
        """
        total, heard = np.zeros(self.dimensions), 0
        for block in _blocks(sound, sample_rate):
            embedding = self._engine.embed(self._engine.front_end(block)[None])[0]
            total += embedding.astype(np.float64) * len(block)
            heard += len(block)
        if not heard:
            raise AudioError("has no samples")
        return (total / heard).astype(np.float32)

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
    """The built-in detector, or one of one's own.

    Args:
        model: a ``*_model.skops`` of step 3, or a ``.joblib``, which can run code when it is opened: only your own.
        checkpoint: name or file of the network that the model was trained with; needed where it was a file.
        device: auto, cpu or cuda.
        learnt: the ``learnt.npz`` of listen.py, with which the built-in detector is quiet about what a household called
            false alarms.
        embed: the network of a model whose table was not made by this project: float32 samples at 32 kHz, (samples,),
            in, the embedding, (dimensions,), out. The model must have been trained on its embeddings.

    Raises UserError where one cannot be opened, or they do not belong together.
    """
    with ExitStack() as stack:
        model, learnt = (None if path is None else Path(path) for path in (model, learnt))
        opened = open_detector(model, checkpoint, device, learnt=learnt, embed=embed)
        engine, detector = stack.enter_context(opened)
        listener = stack.enter_context(Listener(engine, detector, WINDOW, HOP))
        return SoundDetector(listener, detector, stack.pop_all())


def load_embedder(checkpoint: str = "compact", device: str = "auto") -> Embedder:
    """The network of a checkpoint, by name (``extractEmbeddingCnn14.py --help`` lists them) or file.

    Raises UserError for one that is none, cannot be had, or cannot run on the ``device``.
    """
    return Embedder(checkpoint, device)


def open_model(path: str | Path) -> dict:
    """A ``*_model.skops`` or ``.joblib``: ``pipeline`` (scikit-learn), ``threshold``, ``checkpoint``, ``metrics``, ….

    A .joblib can run code when it is opened: only open your own. Raises UserError for what is no such file.
    """
    return open_model_file(Path(path))


def _pieces(sound: Sound, sample_rate: int | None) -> Iterator[np.ndarray]:
    """float32 pieces at 32 kHz, (samples,) or (samples, channels): the detector hears each channel."""
    if not isinstance(sound, np.ndarray):
        return read_channels(Path(sound))
    samples, rate = _checked(sound, sample_rate)
    return resample(iter([samples]), rate)


def _blocks(sound: Sound, sample_rate: int | None) -> Iterator[np.ndarray]:
    """The sound, mono at 32 kHz, in blocks of 60 s, the last one shorter."""
    if not isinstance(sound, np.ndarray):
        return read_blocks(Path(sound), WINDOW_S)
    whole, rate = _checked(sound, sample_rate)
    samples = np.concatenate(list(resample(iter([to_mono(whole)]), rate)))
    size = int(WINDOW_S * SAMPLE_RATE)
    return (samples[start : start + size] for start in range(0, len(samples), size))


def _checked(samples: np.ndarray, sample_rate: int | None) -> tuple[np.ndarray, int]:
    """The array as float32, and its rate. Raises AudioError where it is no sound."""
    if sample_rate is None or samples.ndim not in (1, 2) or samples.dtype.kind != "f":
        raise AudioError("needs to be an array of float, (samples,) or (samples, channels), with its sample_rate in Hz")
    return check_samples(np.asarray(samples, np.float32)), sample_rate
