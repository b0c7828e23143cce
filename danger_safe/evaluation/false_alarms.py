"""False alarms per hour of ordinary sound, and dangers found, from the scores of windows.

Scores of whole clips say little about this: predict_danger.py scores a recording window by window, and every quiet hour
has thousands of windows that could each raise an alarm. So the windows of long soundscapes are scored out of fold, and
go through the same smoothing and the same event finder as in predict_danger.py. The models of step 3 and the built-in
detector (tools/build_detector.py) are measured in the same way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from danger_safe.audio.windows import ScoredWindow
from danger_safe.data.clips import DANGER, SAFE
from danger_safe.detection.detector import OperatingPoint
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.detection.scorer import HOP_S, Smoother
from danger_safe.evaluation.intervals import Estimate, fraction_with_interval, rate_with_interval
from danger_safe.evaluation.thresholds import HourlyEstimate
from danger_safe.evaluation.window_table import WindowTable

THRESHOLDS = np.round(np.arange(0.02, 1.0, 0.02), 2)  # at which operating points are measured
SECONDS_PER_HOUR = 3_600.0


def with_scores(windows: Iterable[ScoredWindow], raw_scores: Iterable[float]) -> list[ScoredWindow]:
    """Return the windows of consecutive recordings with these raw scores, smoothed as predict_danger.py does."""
    smoother = Smoother(HOP_S)
    return [
        replace(window, raw_score=raw, smoothed_score=smoother.add(window.start, raw))
        for window, raw in zip(windows, raw_scores, strict=True)
    ]


def find_events(windows: Iterable[ScoredWindow], threshold: float) -> list[Event]:
    """Return the events in one recording's windows at a threshold."""
    finder = EventFinder(EventConfig(threshold), HOP_S)
    return [event for window in windows for event in finder.add(window)] + finder.finish()


@dataclass(frozen=True)
class WindowedEvaluation:
    """A model evaluated on the windows of a table's clips. ``labels``, ``folds``, ``sources`` have one entry a clip."""

    windows: WindowTable
    window_scores: np.ndarray  # (windows,); raw scores, out of fold
    labels: np.ndarray
    folds: np.ndarray
    sources: np.ndarray

    @cached_property
    def soundscapes(self) -> list[Sequence[ScoredWindow]]:
        """The scored windows of each soundscape."""
        table = self.windows
        unscored = (
            ScoredWindow(start, end, 0.0, 0.0, embedding)
            for start, end, embedding in zip(table.start.tolist(), table.end.tolist(), table.embeddings, strict=True)
        )
        windows = with_scores(unscored, self.window_scores.tolist())
        ends = np.searchsorted(table.soundscape, np.arange(int(table.soundscape.max()) + 1), side="right")
        return [windows[end - size : end] for end, size in zip(ends, np.diff(ends, prepend=0), strict=True)]

    @cached_property
    def seconds(self) -> np.ndarray:
        """Length of each clip that is covered by windows: (clips,)."""
        return np.bincount(self.windows.clip, minlength=len(self.labels)) * HOP_S

    @cached_property
    def covered_clips(self) -> np.ndarray:
        """(clips,) bool: which clips have windows."""
        return self.seconds > 0

    def events(self, thresholds: np.ndarray) -> np.ndarray:
        """Count the events whose peak lies in each clip: (clips,).

        ``thresholds``: (clips,), the same for all clips of a soundscape.
        """
        counts = np.zeros(len(self.labels), int)
        first = 0
        for windows in self.soundscapes:
            clips = self.windows.clip[first : first + len(windows)]
            first += len(windows)
            if not len(windows):
                continue
            middles = np.array([(window.start + window.end) / 2 for window in windows])
            for event in find_events(windows, float(thresholds[clips[0]])):
                counts[clips[np.searchsorted(middles, event.peak)]] += 1
        return counts

    @cached_property
    def event_table(self) -> np.ndarray:
        """``events`` at each of THRESHOLDS: (thresholds, clips)."""
        return np.stack([self.events(np.full(len(self.labels), threshold)) for threshold in THRESHOLDS])

    def points(self) -> list[OperatingPoint]:
        """Return recall and false alarms per hour at each of THRESHOLDS."""
        danger, safe = self._clips_of(DANGER), self._clips_of(SAFE)
        hours = max(self.seconds[safe].sum() / SECONDS_PER_HOUR, 1e-9)
        return [
            OperatingPoint(
                threshold=float(threshold),
                danger_recall=float((counts[danger] > 0).mean()) if danger.any() else 0.0,
                false_alarms_per_hour=float(counts[safe].sum() / hours),
            )
            for threshold, counts in zip(THRESHOLDS, self.event_table, strict=True)
        ]

    def false_alarms_at_recall(self, min_recall: float) -> Estimate:
        """Estimate false alarms per hour at the highest of THRESHOLDS with a recall of at least ``min_recall``.

        At the lowest if none has it.
        """
        sufficient = [number for number, point in enumerate(self.points()) if point.danger_recall >= min_recall]
        threshold = THRESHOLDS[max(sufficient, default=0)]
        return self.estimate(np.full(len(self.labels), threshold)).false_alarms_per_hour

    def estimate(self, thresholds: np.ndarray) -> HourlyEstimate:
        """Estimate recall and false alarms per hour on new recordings.

        ``thresholds``: (clips,), each chosen without the clip's fold.
        """
        counts = self.events(thresholds)
        danger, safe = self._clips_of(DANGER), self._clips_of(SAFE)
        hours = self.seconds[safe] / SECONDS_PER_HOUR
        return HourlyEstimate(
            minutes=float(self.seconds[safe].sum() / 60),
            danger_recall=fraction_with_interval(counts[danger] > 0, self.sources[danger], self.folds[danger]),
            false_alarms_per_hour=rate_with_interval(counts[safe], hours, self.sources[safe], self.folds[safe]),
        )

    def _clips_of(self, label: int) -> np.ndarray:
        """(clips,) bool: the clips of a label that have windows."""
        return (self.labels == label) & self.covered_clips
