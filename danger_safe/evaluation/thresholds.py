"""What an operating point promises for recordings that nobody has heard yet, with its uncertainty.

A threshold that was chosen on the very scores it is judged by looks better than it is. Here it is chosen anew without
each fold and judged on that fold. Intervals: intervals.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from sklearn.metrics import roc_curve

from danger_safe.core.errors import UserError
from danger_safe.evaluation.intervals import fraction_with_interval
from danger_safe.evaluation.metrics import scores_at

DEFAULT_RECALL = 0.95
MAX_THRESHOLD = 0.5  # a higher one trades dangers for false alarms, which nobody gets without asking for it
RULE_OF_THREE = 3.0  # events that may be expected of a sound in which none happened (95 %; Hanley 1983)


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen: it finds a fraction of the dangers with as few false alarms as can be."""

    min_recall: float = DEFAULT_RECALL
    max_threshold: float = MAX_THRESHOLD

    @classmethod
    def asked_for(cls, min_recall: float) -> "Rule":
        """Whoever asks for fewer dangers than the default has asked for thresholds above MAX_THRESHOLD as well."""
        return cls(min_recall, 1.0 if min_recall < DEFAULT_RECALL else MAX_THRESHOLD)

    def choose(self, labels: np.ndarray, scores: np.ndarray) -> float:
        """The threshold that the clips say. Arrays have one entry a clip.

        Where ``min_recall`` can be had only by calling safe clips Danger as often as dangers, which tells nobody
        anything, it is the threshold at which recall and specificity together are highest.
        """
        threshold = min(choose_threshold(labels, scores, self.min_recall), self.max_threshold)
        if scores_at(labels, scores, threshold)["balanced_accuracy"] > 0.5:
            return threshold
        return min(most_balanced_threshold(labels, scores), self.max_threshold)


def choose_threshold(labels: np.ndarray, scores: np.ndarray, min_recall: float) -> float:
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


def threshold_for(points: list[dict[str, float]], most: float) -> dict[str, float]:
    """Of operating points (``threshold``, ``false_alarms_per_hour``), the lowest that keeps to ``most`` false alarms.

    From the highest threshold down: at very low ones all alarms run into one. Raises UserError where none keeps to it.
    """
    points = sorted(points, key=lambda point: -point["threshold"])
    fitting = list(takewhile(lambda point: point["false_alarms_per_hour"] <= most, points))
    if not fitting:
        least = points[0]["false_alarms_per_hour"]
        raise UserError(f"--max-false-alarms-per-hour {most:g}: the fewest that were measured are {least:.3g}")
    return fitting[-1]


def too_little_sound(most: float, minutes: float) -> str:
    """Why ``minutes`` of safe sound do not show that there are at most ``most`` false alarms an hour; else nothing.

    An hour in which none happened may still have come of three an hour (the rule of three).
    """
    if most * minutes >= 60 * RULE_OF_THREE:
        return ""
    possible = 60 * RULE_OF_THREE / max(minutes, 1e-9)
    needed = f"{RULE_OF_THREE / most:.1f} hours" if most else "no length"
    return (
        f"{minutes:.1f} minutes of safe sound cannot show at most {most:g} false alarms per hour: even without any in "
        f"them, up to {possible:.0f} are possible (95 %). {needed} without any would show it"
    )


def without_own_fold(labels: np.ndarray, folds: np.ndarray, choose: Callable[[np.ndarray], float]) -> np.ndarray:
    """A threshold for each clip, chosen without its fold: (clips,). ``choose`` gets the others, as a mask."""
    thresholds = np.empty(len(labels))
    for fold in np.unique(folds):
        here = folds == fold
        thresholds[here] = choose(~here if len(np.unique(labels[~here])) == 2 else np.ones_like(here))
    return thresholds


def expected(
    labels: np.ndarray, scores: np.ndarray, sources: np.ndarray, folds: np.ndarray, thresholds: np.ndarray
) -> dict[str, list[float]]:
    """Danger recall and false alarms (fraction of safe clips), each as [value, low, high] of the 95 % interval.

    ``thresholds``: of each clip, see ``without_own_fold``. Arrays have one entry a clip.
    """
    alarm = scores >= thresholds
    return {
        name: fraction_with_interval(alarm[labels == label], sources[labels == label], folds[labels == label])
        for name, label in (("danger_recall", 1), ("false_alarms", 0))
    }


def in_words(promise: dict[str, list[float]]) -> str:
    """``finds 95 % of dangers (90–98 %); raises an alarm on 4 % of safe clips (2–7 %)``."""
    recall, alarms = promise["danger_recall"], promise["false_alarms"]
    return f"finds {_percent(recall, 'dangers')}; raises an alarm on {_percent(alarms, 'safe clips')}"


def in_words_per_hour(promise: dict) -> str:
    """``finds 95 % of dangers (90–98 %); about 12 false alarms (5–20) in an hour of ordinary sound``."""
    value, low, high = promise["false_alarms_per_hour"]
    recall = _percent(promise["danger_recall"], "dangers")
    return f"finds {recall}; about {value:.0f} false alarms ({low:.0f}–{high:.0f}) in an hour of ordinary sound"


def _percent(interval: list[float], of: str) -> str:
    value, low, high = (100 * number for number in interval)
    return f"{value:.0f} % of {of} ({low:.0f}–{high:.0f} %)"
