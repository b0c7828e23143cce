"""What the ready detector is made of: windows of every clip as a network hears them, and the network's last layer."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from danger_safe.audio.corruptions import degrade
from danger_safe.audio.decode import read_clip
from danger_safe.audio.room_tone import CATEGORY, quiet_room
from danger_safe.audio.windows import ScoredWindow, Window, windows
from danger_safe.core.cores import available_cores
from danger_safe.data.clips import Clip
from danger_safe.data.soundscape import LongRecording
from danger_safe.detection.detector import ReadyDetector
from danger_safe.detection.events import EventConfig, EventFinder
from danger_safe.detection.scorer import HOP, WINDOW, Listener, Smoother, Unjudged
from models.checkpoints import load_model
from models.engine import open_engine

NOISY_DANGERS = 4  # one in so many dangers is heard in noise, too
AUDIBLE = 0.1  # of a clip's peak: quieter windows of a clip do not hold what its name says


def listen(checkpoint: str, clips: Sequence[Clip | np.ndarray]) -> list[list[tuple[ScoredWindow, float]]]:
    """The windows of every clip or sound, each with its peak, as a share of the clip's."""

    peaks: list[list[float]] = []  # of the windows of each clip

    def all_windows() -> Iterator[Window]:
        for clip in tqdm(clips, f"Listening with {Path(checkpoint).name}", unit="clip", file=sys.stderr):
            samples = clip if isinstance(clip, np.ndarray) else read_clip(clip.path)
            loudest = max(float(np.abs(samples).max()), 1e-9)
            peaks.append([])
            for window in windows([samples], WINDOW, HOP):
                peaks[-1].append(float(np.abs(window.samples).max()) / loudest)
                yield window

    with (
        open_engine(checkpoint, "cpu", available_cores()) as engine,
        Listener(engine, Unjudged, WINDOW, HOP) as listener,
    ):
        scored = iter(list(listener.score(all_windows())))
        return [[(next(scored), peak) for peak in of_clip] for of_clip in peaks]


def clip_scores(detector: ReadyDetector, heard: list[list[tuple[ScoredWindow, float]]]) -> np.ndarray:
    """Each clip's score: its most dangerous stretch, as predict_danger.py would have it."""
    smoother = Smoother(HOP)
    scores = []
    for windows_of_clip in heard:
        alone = detector.scores(np.stack([window.embedding for window, _ in windows_of_clip]))
        alone *= [window.raw_score for window, _ in windows_of_clip]  # Unjudged: 0 in silence
        pairs = zip(windows_of_clip, alone, strict=True)
        scores.append(max(smoother.add(window.start, float(score)) for (window, _), score in pairs))
    return np.array(scores)


def from_network(
    checkpoint: str, labels: dict[str, int], clips: list[Clip], heard: list, names: np.ndarray, rooms: int
) -> ReadyDetector:
    """The network's last layer with its classes sorted by ``labels``, not calibrated yet; the mean embedding of each
    category, of the audible windows of ``clips`` of those ``names``; and what tells so many synthesised quiet rooms from all of them."""
    model, info = load_model(checkpoint)
    features, owner = _audible(heard)
    categories, weight = names[owner], 1 / np.bincount(owner)[owner]  # every clip alike
    unique = [str(name) for name in np.unique(categories)]
    for name in unique:  # then every category
        weight[categories == name] /= weight[categories == name].sum()
    mean = np.average(features, axis=0, weights=weight)
    scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weight)) + 1e-3
    standard = (features - mean) / scale
    centres = np.stack([np.average(standard[categories == n], axis=0, weights=weight[categories == n]) for n in unique])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    noisy = [
        degrade("noise at 10 dB", read_clip(clip.path), np.random.default_rng(number))
        for number, (clip, name) in enumerate(zip(clips, names, strict=True))
        if labels[name] and not number % NOISY_DANGERS
    ]  # a danger in a noisy room is no quiet room
    quiet, _ = _audible(listen(checkpoint, [quiet_room(number) for number in range(rooms)]))
    others = np.concatenate([features[categories != CATEGORY], _audible(listen(checkpoint, noisy))[0]])
    room = _room_or_not((quiet - mean) / scale, (others - mean) / scale)
    layer = model.fc_audioset
    return ReadyDetector(
        name="", threshold=0.5, checkpoint_sha256=info.sha256, about={},
        danger=tuple(bool(labels[name]) for name in info.categories),
        weights=layer.weight.detach().numpy(), bias=layer.bias.detach().numpy(), slope=1.0, offset=0.0,
        mean=mean, scale=scale, room=room.coef_[0], room_bias=float(room.intercept_[0]),
        categories=tuple(unique), centres=centres, least_familiar=-1.0,
    )  # fmt: skip


def _audible(heard: list[list[tuple[ScoredWindow, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the audible windows, (windows, dimensions), and the number of the clip that each is of."""
    pairs = [(w.embedding, number) for number, clip in enumerate(heard) for w, peak in clip if peak >= AUDIBLE]
    return np.stack([e for e, _ in pairs]).astype(np.float64), np.array([number for _, number in pairs])


def _room_or_not(rooms: np.ndarray, others: np.ndarray) -> LogisticRegression:
    """Told apart by their standardised embeddings; both sides weigh alike."""
    features, truth = np.concatenate([rooms, others]), np.repeat([1, 0], [len(rooms), len(others)])
    return LogisticRegression(C=0.01, class_weight="balanced", max_iter=1_000).fit(features, truth)


def clip_similarities(
    detector: ReadyDetector, heard: list[list[tuple[ScoredWindow, float]]], categories: np.ndarray
) -> np.ndarray:
    """How like each of ``categories`` each clip is, as predict_danger.py judges it: in half of its windows, (clips,
    categories). -1 for one that the detector does not have."""
    similar = np.full((len(heard), len(categories)), -1.0)
    columns = np.searchsorted(categories, detector.categories)
    for row, windows_of_clip in enumerate(heard):
        embeddings = np.stack([window.embedding for window, _ in windows_of_clip])
        similar[row, columns] = np.median(detector.similarities(embeddings), axis=0)
    return similar


def false_alarms_per_hour(
    detector: ReadyDetector, checkpoint: str, safe: list[Clip], hours: float, thresholds: list[float]
) -> list[float]:
    """Events in so many hours of ordinary sound, joined from ``safe`` clips, for each threshold; per hour."""
    recording = LongRecording(safe, hours * 3600)
    with (
        open_engine(checkpoint, "cpu", available_cores()) as engine,
        Listener(engine, detector, WINDOW, HOP) as listener,
        tqdm(total=round(hours * 3600), desc="Hours of ordinary sound", unit="s", file=sys.stderr) as bar,
    ):
        finders = [EventFinder(EventConfig(threshold), HOP) for threshold in thresholds]
        events = [0] * len(finders)
        for window in listener.listen(recording.pieces()):
            bar.update(round(window.end) - bar.n)
            for number, finder in enumerate(finders):
                events[number] += len(finder.add(window))
        return [(count + len(finder.finish())) / hours for count, finder in zip(events, finders, strict=True)]


def sigmoid_of(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make probabilities of scores in (0, 1): Platt's sigmoid on their log-odds."""
    scores = np.clip(scores, 1e-6, 1 - 1e-6)
    fitted = LogisticRegression(C=1e6).fit(logit(scores)[:, None], truth)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
