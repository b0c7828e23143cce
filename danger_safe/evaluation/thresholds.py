"""Which threshold to use, and what is to be expected of it on recordings that nobody has heard yet.

A threshold that was chosen on the very scores it is judged by looks better than it is. Here it is chosen anew without
each fold and judged on that fold. Intervals: intervals.py.
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
MAX_THRESHOLD = 0.5  # a higher one trades dangers for false alarms, which nobody gets without asking for it
RULE_OF_THREE = 3.0  # events that may be expected of a sound in which none happened (95 %; Hanley 1983)


@dataclass(frozen=True)
class ClipEstimate:
    """What is to be expected of new clips at a threshold."""

    danger_recall: Estimate
    false_alarms: Estimate  # fraction of safe clips

    def describe(self) -> str:
        """``finds 95 % of dangers (90–98 %); raises an alarm on 4 % of safe clips (2–7 %)``."""
        recall, alarms = self.danger_recall.percent_of("dangers"), self.false_alarms.percent_of("safe clips")
        return f"finds {recall}; raises an alarm on {alarms}"


@dataclass(frozen=True)
class HourlyEstimate:
    """What is to be expected of long recordings at a threshold, heard window by window."""

    minutes: float  # of safe sound in which false alarms were counted
    danger_recall: Estimate
    false_alarms_per_hour: Estimate

    def describe(self) -> str:
        """``finds 95 % of dangers (90–98 %); about 12 false alarms (5–20) in an hour of ordinary sound``."""
        rate = self.false_alarms_per_hour
        words = f"about {rate.value:.0f} false alarms ({rate.low:.0f}–{rate.high:.0f}) in an hour of ordinary sound"
        return f"finds {self.danger_recall.percent_of('dangers')}; {words}"


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen: it finds a fraction of the dangers with as few false alarms as can be."""

    min_recall: float = DEFAULT_RECALL
    max_threshold: float = MAX_THRESHOLD

    @classmethod
    def for_recall(cls, min_recall: float) -> "ThresholdRule":
        """Whoever asks for fewer dangers than the default has asked for thresholds above MAX_THRESHOLD as well."""
        return cls(min_recall, 1.0 if min_recall < DEFAULT_RECALL else MAX_THRESHOLD)

    def choose(self, labels: np.ndarray, scores: np.ndarray) -> float:
        """The threshold that the clips say. Arrays have one entry a clip.

        Where ``min_recall`` can be had only by calling safe clips Danger as often as dangers, which tells nobody
        anything, it is the threshold at which recall and specificity together are highest.
        """
        threshold = min(threshold_at_recall(labels, scores, self.min_recall), self.max_threshold)
        if scores_at(labels, scores, threshold)["balanced_accuracy"] > 0.5:
            return threshold
        return min(most_balanced_threshold(labels, scores), self.max_threshold)


def threshold_at_recall(labels: np.ndarray, scores: np.ndarray, min_recall: float) -> float:
    """The threshold with the highest specificity among those with Danger recall of at least ``min_recall``.

    Of several with the same specificity, the one that finds most dangers. Of the gap between two scores, the middle,
    but not above 0.5 where 0.5 lies in the gap too: a wrong Safe is the worse mistake. A clip is Danger when its
    score >= the threshold.
    """
    values = np.unique(scores)
    middle = (values[:-1] + values[1:]) / 2
    middle = np.where((values[:-1] < 0.5) & (middle > 0.5), 0.5, middle)
    edges = np.concatenate([[0.0], middle, [1.0]])
    danger, safe = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    recall = 1 - np.searchsorted(danger, edges) / len(danger)
    specificity = np.searchsorted(safe, edges) / len(safe)
    allowed = recall >= min_recall - 1e-12
    best = max(zip(specificity[allowed], recall[allowed], edges[allowed], strict=True))
    return float(best[2])


def most_balanced_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the highest sum of recall and specificity; of several, the lowest."""
    false_alarms, recall, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = np.flatnonzero(np.isclose(recall - false_alarms, (recall - false_alarms).max()))[-1]
    below = scores[scores < thresholds[best]].max(initial=0.0)
    return float((min(thresholds[best], 1.0) + below) / 2)


def lowest_threshold(points: Sequence[OperatingPoint], max_per_hour: float) -> OperatingPoint | None:
    """The lowest threshold of ``points`` that keeps to ``max_per_hour`` false alarms, as do all above it; None without
    one.

    It is looked for from the highest threshold down, because at very low ones all alarms become a single one.
    """
    points = sorted(points, key=lambda point: -point.threshold)
    fitting = list(takewhile(lambda point: point.false_alarms_per_hour <= max_per_hour, points))
    return fitting[-1] if fitting else None


def threshold_for(points: Sequence[OperatingPoint], max_per_hour: float) -> OperatingPoint:
    """As ``lowest_threshold``. Raises UserError where no threshold keeps to ``max_per_hour`` false alarms."""
    point = lowest_threshold(points, max_per_hour)
    if point is None:
        fewest = max(points, key=lambda point: point.threshold).false_alarms_per_hour
        raise UserError(f"--max-false-alarms-per-hour {max_per_hour:g}: the fewest that were measured are {fewest:.3g}")
    return point


def too_little_sound(max_per_hour: float, minutes: float) -> str:
    """Why ``minutes`` of safe sound do not show that there are at most ``max_per_hour`` false alarms an hour; else
    nothing.

    An hour in which none happened may still have come of three an hour (the rule of three).
    """
    if max_per_hour * minutes >= 60 * RULE_OF_THREE:
        return ""
    possible = 60 * RULE_OF_THREE / max(minutes, 1e-9)
    needed = f"{RULE_OF_THREE / max_per_hour:.1f} hours" if max_per_hour else "no length"
    return (
        f"{minutes:.1f} minutes of safe sound cannot show at most {max_per_hour:g} false alarms per hour: even without "
        f"any in "
        f"them, up to {possible:.0f} are possible (95 %). {needed} without any would show it"
    )


def cross_fitted_thresholds(labels: np.ndarray, folds: np.ndarray, choose: Callable[[np.ndarray], float]) -> np.ndarray:
    """A threshold for each clip, chosen without its fold: (clips,). ``choose`` gets the others, as a mask."""
    thresholds = np.empty(len(labels))
    for fold in np.unique(folds):
        here = folds == fold
        thresholds[here] = choose(~here if len(np.unique(labels[~here])) == 2 else np.ones_like(here))
    return thresholds


def estimate_on_clips(
    labels: np.ndarray, scores: np.ndarray, sources: np.ndarray, folds: np.ndarray, thresholds: np.ndarray
) -> ClipEstimate:
    """Danger recall and false alarms. Arrays have one entry a clip; ``thresholds`` are those of
    ``cross_fitted_thresholds``."""
    alarm = scores >= thresholds

    def fraction(label: int) -> Estimate:
        here = labels == label
        return fraction_with_interval(alarm[here], sources[here], folds[here])

    return ClipEstimate(danger_recall=fraction(DANGER), false_alarms=fraction(SAFE))
