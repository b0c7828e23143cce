"""How often does a model cry wolf in an hour of ordinary sound, and what does it find there? By its windows' scores.

A clip's score says little of that: predict_danger.py hears a recording window by window, and every hour of nothing is
thousands of windows that could each raise an alarm. So windows of long stretches are scored, each by a model that had
seen neither its clip nor its recording, and run through the same event finder.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.events import EventConfig, EventFinder
from danger_safe.detection.scorer import HOP, Smoother
from danger_safe.evaluation.intervals import fraction_with_interval, rate_with_interval
from danger_safe.evaluation.window_table import Heard

THRESHOLDS = np.round(np.arange(0.02, 1.0, 0.02), 2)  # whose promises are stated
SECONDS = 3_600.0


@dataclass(frozen=True)
class Trial:
    """A model tried on the windows of a table's clips. ``labels``, ``folds``, ``sources`` have one entry a clip."""

    heard: Heard
    alone: np.ndarray  # (windows,) score of each by itself, out of fold
    labels: np.ndarray
    folds: np.ndarray
    sources: np.ndarray

    @cached_property
    def stretches(self) -> list[list[ScoredWindow]]:
        """The windows, scored as predict_danger.py does."""
        smoother = Smoother(HOP)
        stretches: list[list[ScoredWindow]] = [[] for _ in range(int(self.heard.stretch.max()) + 1)]
        for number, start, end, alone, embedding in zip(
            self.heard.stretch.tolist(), self.heard.start.tolist(), self.heard.end.tolist(), self.alone.tolist(),
            self.heard.embeddings, strict=True,
        ):  # fmt: skip
            stretches[number].append(ScoredWindow(start, end, alone, smoother.add(start, alone), embedding))
        return stretches

    @cached_property
    def seconds(self) -> np.ndarray:
        """Of each clip, how much was heard: (clips,)."""
        return np.bincount(self.heard.clip, minlength=len(self.labels)) * HOP

    @cached_property
    def heard_clips(self) -> np.ndarray:
        """(clips,): which of them were heard."""
        return self.seconds > 0

    def events(self, threshold: np.ndarray) -> np.ndarray:
        """Events with their peak in each clip, (clips,), at a ``threshold`` for each fold's stretches, (clips,)."""
        counts = np.zeros(len(self.labels), int)
        first = 0
        for windows in self.stretches:
            clips = self.heard.clip[first : first + len(windows)]
            first += len(windows)
            if not len(windows):
                continue
            finder = EventFinder(EventConfig(float(threshold[clips[0]])), HOP)
            found = [event for window in windows for event in finder.add(window)] + finder.finish()
            middles = np.array([(window.start + window.end) / 2 for window in windows])
            for event in found:
                counts[clips[np.searchsorted(middles, event.peak)]] += 1
        return counts

    @cached_property
    def event_table(self) -> np.ndarray:
        """``events`` at each of THRESHOLDS: (thresholds, clips)."""
        return np.stack([self.events(np.full(len(self.labels), threshold)) for threshold in THRESHOLDS])

    def points(self, clips: np.ndarray | None = None) -> list[dict[str, float]]:
        """For each of THRESHOLDS, the fraction of dangers found and the false alarms an hour, among ``clips`` (a mask)."""
        clips = np.ones(len(self.labels), bool) if clips is None else clips
        danger, safe = ((self.labels == label) & clips & self.heard_clips for label in (1, 0))
        hours = max(self.seconds[safe].sum() / SECONDS, 1e-9)
        return [
            {
                "threshold": float(threshold),
                "danger_recall": float((counts[danger] > 0).mean()) if danger.any() else 0.0,
                "false_alarms_per_hour": float(counts[safe].sum() / hours),
            }
            for threshold, counts in zip(THRESHOLDS, self.event_table, strict=True)
        ]

    def at_recall(self, min_recall: float) -> list[float]:
        """False alarms per hour, as [value, low, high], at the highest of THRESHOLDS that finds so many of the dangers;
        at the lowest, where none does."""
        enough = [number for number, point in enumerate(self.points()) if point["danger_recall"] >= min_recall]
        threshold = THRESHOLDS[max(enough, default=0)]
        return self.promise(np.full(len(self.labels), threshold))["false_alarms_per_hour"]

    def promise(self, threshold: np.ndarray) -> dict:
        """What is to be expected at ``threshold``, one for each clip and chosen without its fold: shares and rates as
        [value, low, high] of the 95 % interval over recordings."""
        counts = self.events(threshold)
        danger, safe = ((self.labels == label) & self.heard_clips for label in (1, 0))
        return {
            "minutes": float(self.seconds[safe].sum() / 60),
            "danger_recall": fraction_with_interval(counts[danger] > 0, self.sources[danger], self.folds[danger]),
            "false_alarms_per_hour": rate_with_interval(
                counts[safe], self.seconds[safe] / SECONDS, self.sources[safe], self.folds[safe]
            ),
        }
