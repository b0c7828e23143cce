"""Choose a threshold, and estimate how it will do on new recordings.

A threshold looks better than it is on the scores that it was chosen on. For the estimates it is chosen anew without
each fold and evaluated on that fold. Intervals: intervals.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from sklearn.metrics import roc_curve

from danger_safe.core.errors import UserError
from danger_safe.data.clips import DANGER, SAFE
from danger_safe.detection.detector import OperatingPoint
from danger_safe.evaluation.intervals import Estimate, fraction_with_interval
from danger_safe.evaluation.metrics import scores_at

DEFAULT_RECALL = 0.95
MAX_THRESHOLD = 0.5  # a higher one gives up dangers for fewer false alarms, so it must be asked for
RULE_OF_THREE = 3.0  # 95 % upper bound of the expected number of events after none was observed (Hanley 1983)


@dataclass(frozen=True)
class ClipEstimate:
    """Expected performance on new clips at a threshold."""

    danger_recall: Estimate
    false_alarms: Estimate  # fraction of safe clips

    def describe(self) -> str:
        """Format as ``finds 95 % of dangers (90–98 %); raises an alarm on 4 % of safe clips (2–7 %)``."""
        recall, alarms = self.danger_recall.percent_of("dangers"), self.false_alarms.percent_of("safe clips")
        return f"finds {recall}; raises an alarm on {alarms}"


@dataclass(frozen=True)
class HourlyEstimate:
    """Expected performance on long recordings at a threshold, from the scores of windows."""

    minutes: float  # length of the safe sound in which false alarms were counted
    danger_recall: Estimate
    false_alarms_per_hour: Estimate

    def describe(self) -> str:
        """Format as ``finds 95 % of dangers (90–98 %); about 12 false alarms (5–20) in an hour of ordinary sound``."""
        rate = self.false_alarms_per_hour
        alarms = f"about {rate.value:.0f} false alarms ({rate.low:.0f}–{rate.high:.0f}) in an hour of ordinary sound"
        return f"finds {self.danger_recall.percent_of('dangers')}; {alarms}"


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen: with a minimum recall and as few false alarms as possible."""

    min_recall: float = DEFAULT_RECALL
    max_threshold: float = MAX_THRESHOLD

    @classmethod
    def for_recall(cls, min_recall: float) -> "ThresholdRule":
        """Return the rule for a recall; asking for less than the default permits thresholds above MAX_THRESHOLD."""
        return cls(min_recall, 1.0 if min_recall < DEFAULT_RECALL else MAX_THRESHOLD)

    def choose(self, labels: np.ndarray, scores: np.ndarray) -> float:
        """Return the threshold for these clips. Arrays have one entry a clip.

        If ``min_recall`` is only reached by calling safe clips Danger as often as dangers, which would be useless, it
        is the threshold with the highest balanced accuracy.
        """
        threshold = min(threshold_at_recall(labels, scores, self.min_recall), self.max_threshold)
        if scores_at(labels, scores, threshold)["balanced_accuracy"] > 0.5:
            return threshold
        return min(most_balanced_threshold(labels, scores), self.max_threshold)


def threshold_at_recall(labels: np.ndarray, scores: np.ndarray, min_recall: float) -> float:
    """Return the threshold with the highest specificity among those with a Danger recall of at least ``min_recall``.

    Of several with the same specificity, it is the one with the highest recall. Candidates are the middles of the gaps
    between scores, but 0.5 if it lies in the lower half of the gap: a missed danger is the worse mistake. A clip is
    Danger if its score >= the threshold.
    """
    values = np.unique(scores)
    middles = (values[:-1] + values[1:]) / 2
    middles = np.where((values[:-1] < 0.5) & (middles > 0.5), 0.5, middles)
    candidates = np.concatenate([[0.0], middles, [1.0]])
    danger, safe = np.sort(scores[labels == DANGER]), np.sort(scores[labels == SAFE])
    recall = 1 - np.searchsorted(danger, candidates) / len(danger)
    specificity = np.searchsorted(safe, candidates) / len(safe)
    allowed = recall >= min_recall - 1e-12
    best = max(zip(specificity[allowed], recall[allowed], candidates[allowed], strict=True))
    return float(best[2])


def most_balanced_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the threshold with the highest balanced accuracy; of several, the lowest."""
    false_alarm_rate, recall, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    youden = recall - false_alarm_rate  # Youden's index: recall + specificity - 1
    best = np.flatnonzero(np.isclose(youden, youden.max()))[-1]
    below = scores[scores < thresholds[best]].max(initial=0.0)
    return float((min(thresholds[best], 1.0) + below) / 2)


def lowest_threshold(points: Sequence[OperatingPoint], max_per_hour: float) -> OperatingPoint | None:
    """Return the lowest threshold with at most ``max_per_hour`` false alarms, at it and above it; None without one.

    The search goes from the highest threshold down, because at very low ones all alarms merge into one.
    """
    points = sorted(points, key=lambda point: -point.threshold)
    allowed = list(takewhile(lambda point: point.false_alarms_per_hour <= max_per_hour, points))
    return allowed[-1] if allowed else None


def threshold_for(points: Sequence[OperatingPoint], max_per_hour: float) -> OperatingPoint:
    """Return ``lowest_threshold``. Raises UserError if no threshold has at most ``max_per_hour`` false alarms."""
    point = lowest_threshold(points, max_per_hour)
    if point is None:
        fewest = max(points, key=lambda point: point.threshold).false_alarms_per_hour
        raise UserError(f"--max-false-alarms-per-hour {max_per_hour:g}: the fewest that were measured are {fewest:.3g}")
    return point


def too_little_sound(max_per_hour: float, minutes: float) -> str:
    """Return why ``minutes`` of safe sound are too short to show at most ``max_per_hour`` false alarms, or "".

    After an hour without any, three per hour are still possible (the rule of three).
    """
    if max_per_hour * minutes >= 60 * RULE_OF_THREE:
        return ""
    possible = 60 * RULE_OF_THREE / max(minutes, 1e-9)
    needed = f"{RULE_OF_THREE / max_per_hour:.1f} hours" if max_per_hour else "no length"
    return (
        f"{minutes:.1f} minutes of safe sound cannot show at most {max_per_hour:g} false alarms per hour: even without "
        f"any in them, up to {possible:.0f} are possible (95 %). {needed} without any would show it"
    )


def cross_fitted_thresholds(labels: np.ndarray, folds: np.ndarray, choose: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return a threshold for each clip, chosen on the other folds: (clips,).

    ``choose`` gets a mask of clips. If the other folds lack a label, it gets all clips.
    """
    thresholds = np.empty(len(labels))
    for fold in np.unique(folds):
        val = folds == fold
        thresholds[val] = choose(~val if len(np.unique(labels[~val])) == 2 else np.ones_like(val))
    return thresholds


def estimate_on_clips(
    labels: np.ndarray, scores: np.ndarray, sources: np.ndarray, folds: np.ndarray, thresholds: np.ndarray
) -> ClipEstimate:
    """Estimate Danger recall and false alarms on new clips. All arrays have one entry a clip.

    Args:
        labels: 0 Safe, 1 Danger.
        scores: out-of-fold scores.
        sources: the recording of each clip.
        folds: the fold that each clip was held out in.
        thresholds: as returned by ``cross_fitted_thresholds``.
    """
    alarm = scores >= thresholds

    def fraction(label: int) -> Estimate:
        mask = labels == label
        return fraction_with_interval(alarm[mask], sources[mask], folds[mask])

    return ClipEstimate(danger_recall=fraction(DANGER), false_alarms=fraction(SAFE))
