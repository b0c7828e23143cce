"""What the ready detector learns from: windows of every clip as a network hears them, and synthesised quiet rooms."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from danger_safe.audio import SAMPLE_RATE, read_clip
from danger_safe.clips import Clip
from danger_safe.detector import ReadyDetector
from danger_safe.events import Scored
from danger_safe.listening import HOP, WINDOW, Listener, Smoother
from danger_safe.windows import Window, windows
from models.checkpoint_files import CheckpointInfo
from models.engine import open_engine

ROOM = "room_tone_noise"
AUDIBLE = 0.1  # of a clip's peak: quieter windows of a clip do not hold what its name says
STRENGTH = 0.01  # of the regression, C


def quiet_rooms(count: int) -> list[np.ndarray]:
    """Clips of what a microphone hears where nothing happens: its own noise of any colour, hum, digital silence.

    Peak normalisation makes the quietest room loud; collections have few of them, and none is danger.
    """
    rooms = []
    size = 5 * SAMPLE_RATE
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20)
    times = np.arange(size) / SAMPLE_RATE
    for number in range(count):
        rng = np.random.default_rng(number)
        shape = (frequency / 20) ** -rng.uniform(0, 1.5) / (1 + (frequency / rng.uniform(800, 16_000)) ** 4)
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape)
        noise *= 1 + rng.uniform(0, 0.5) * np.sin(2 * np.pi * rng.uniform(0.1, 1) * times)
        hum = sum(np.sin(2 * np.pi * rng.choice([50, 60]) * k * times) * rng.uniform(0, 1) / k for k in (1, 2, 3, 4))
        room = noise / noise.std() + rng.choice([0, rng.uniform(0, 2)]) * hum
        rooms.append((room * (number > 0) * 0.01).astype(np.float32))
    return rooms


def listen(
    checkpoint: str, clips: list[Clip], rooms: list[np.ndarray]
) -> tuple[CheckpointInfo, list[list[tuple[Scored, float]]]]:
    """The windows of every clip and room, each with its peak, as a share of the clip's."""

    class Nothing:  # the embeddings are wanted, not scores
        @staticmethod
        def scores(embeddings: np.ndarray) -> np.ndarray:
            return np.zeros(len(embeddings))

    peaks: list[list[float]] = []  # of the windows of each clip

    def all_windows() -> Iterator[Window]:
        for clip in tqdm([*clips, *rooms], f"Listening with {Path(checkpoint).name}", unit="clip", file=sys.stderr):
            samples = clip if isinstance(clip, np.ndarray) else read_clip(clip.path)
            loudest = max(float(np.abs(samples).max()), 1e-9)
            peaks.append([])
            for window in windows([samples], WINDOW, HOP):
                peaks[-1].append(float(np.abs(window.samples).max()) / loudest)
                yield window

    with (
        open_engine(checkpoint, "cpu", os.cpu_count() or 1) as engine,
        Listener(engine, Nothing, WINDOW, HOP) as listener,
    ):
        scored = iter(list(listener.score(all_windows())))
        return engine.info, [[(next(scored), peak) for peak in of_clip] for of_clip in peaks]


def clip_score(detector: ReadyDetector, windows: list[tuple[Scored, float]]) -> float:
    """A clip's score: its most dangerous stretch, as predict_danger.py would have it."""
    smoother = Smoother(HOP)
    alone = detector.scores(np.stack([window.embedding for window, _ in windows]))
    return max(smoother.add(window.start, float(score)) for (window, _), score in zip(windows, alone, strict=True))


def fit(info: CheckpointInfo, heard: list, truth: np.ndarray, names: np.ndarray, known: np.ndarray) -> ReadyDetector:
    """A classifier of the known clips' audible windows. Categories weigh alike within a label, and the labels alike."""
    features, owner = [], []
    for i in np.flatnonzero(known):
        audible = [window.embedding for window, peak in heard[i] if peak >= AUDIBLE]
        features += audible
        owner += [i] * len(audible)
    features, owner = np.stack(features).astype(np.float64), np.array(owner)
    labels, categories = truth[owner], names[owner]
    weight = 1 / np.bincount(owner)[owner]  # every clip alike
    for name in np.unique(categories):  # then large categories less, as the root of their size
        members = categories == name
        weight[members] /= np.sqrt(weight[members].sum())
    for label in (0, 1):
        weight[labels == label] *= len(owner) / 2 / weight[labels == label].sum()
    mean = np.average(features, axis=0, weights=weight)
    scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weight)) + 1e-3
    standard = (features - mean) / scale
    model = LogisticRegression(C=STRENGTH, max_iter=2_000).fit(standard, labels, sample_weight=weight)
    unique = tuple(str(name) for name in np.unique(categories))
    centres = np.stack([np.average(standard[categories == n], axis=0, weights=weight[categories == n]) for n in unique])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    weights, bias = model.coef_[0], float(model.intercept_[0])
    return ReadyDetector("", 0.5, info.sha256, {}, mean, scale, weights, bias, unique, centres)
