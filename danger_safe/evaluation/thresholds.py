"""What an operating point promises for recordings that nobody has heard yet, with its uncertainty.

A threshold that was chosen on the very scores it is judged by looks better than it is. Here it is chosen anew without
each fold and judged on that fold. Intervals: intervals.py.
"""

from collections.abc import Callable
from itertools import takewhile

import numpy as np

from danger_safe.core.errors import UserError
from danger_safe.evaluation.intervals import share_with_interval


def threshold_for(points: list[dict[str, float]], most: float) -> dict[str, float]:
    """Of operating points (``threshold``, ``false_alarms_an_hour``), the lowest that keeps to ``most`` false alarms.

    From the highest threshold down: at very low ones all alarms run into one. Raises UserError where none keeps to it.
    """
    points = sorted(points, key=lambda point: -point["threshold"])
    fitting = list(takewhile(lambda point: point["false_alarms_an_hour"] <= most, points))
    if not fitting:
        least = points[0]["false_alarms_an_hour"]
        raise UserError(f"--max-false-alarms-per-hour {most:g}: the fewest that it can promise are {least:.3g}")
    return fitting[-1]


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
    """Danger recall and false alarms (share of safe clips), each as [value, low, high] of the 95 % interval.

    ``thresholds``: of each clip, see ``without_own_fold``. Arrays have one entry a clip.
    """
    alarm = scores >= thresholds
    return {
        name: share_with_interval(alarm[labels == label], sources[labels == label], folds[labels == label])
        for name, label in (("danger_recall", 1), ("false_alarms", 0))
    }


def in_words(promise: dict[str, list[float]]) -> str:
    """``finds 95 % of dangers (90–98 %); raises an alarm on 4 % of safe clips (2–7 %)``."""
    recall, alarms = promise["danger_recall"], promise["false_alarms"]
    return f"finds {_share(recall, 'dangers')}; raises an alarm on {_share(alarms, 'safe clips')}"


def in_words_by_the_hour(promise: dict) -> str:
    """``finds 95 % of dangers (90–98 %); about 12 false alarms (5–20) in an hour of ordinary sound``."""
    value, low, high = promise["false_alarms_an_hour"]
    recall = _share(promise["danger_recall"], "dangers")
    return f"finds {recall}; about {value:.0f} false alarms ({low:.0f}–{high:.0f}) in an hour of ordinary sound"


def _share(interval: list[float], of: str) -> str:
    value, low, high = (100 * number for number in interval)
    return f"{value:.0f} % of {of} ({low:.0f}–{high:.0f} %)"
