"""What an operating point promises for recordings that nobody has heard yet, with its uncertainty.

A threshold that was chosen on the very scores it is judged by looks better than it is. Here it is chosen anew without
each fold and judged on that fold. Clips of one recording succeed or fail together: intervals come from drawing
recordings, not clips.
"""

from collections.abc import Callable
from itertools import takewhile

import numpy as np

from danger_safe.errors import UserError

DRAWS, AUC_DRAWS = 2_000, 300  # of the bootstrap
INTERVAL = (2.5, 97.5)  # percentiles: 95 %


def recordings(sources: np.ndarray) -> np.ndarray:
    """A number for each recording, (clips,): what is drawn with replacement."""
    return np.unique(sources.astype(str), return_inverse=True)[1]


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
    labels: np.ndarray, scores: np.ndarray, sources: np.ndarray, thresholds: np.ndarray
) -> dict[str, list[float]]:
    """Danger recall and false alarms (share of safe clips), each as [value, low, high] of the 95 % interval.

    ``thresholds``: of each clip, see ``without_own_fold``. Arrays have one entry a clip.
    """
    alarm = scores >= thresholds
    return {
        "danger_recall": share_with_interval(alarm[labels == 1], sources[labels == 1]),
        "false_alarms": share_with_interval(alarm[labels == 0], sources[labels == 0]),
    }


def share_with_interval(hits: np.ndarray, sources: np.ndarray, seed: int = 0) -> list[float]:
    """Share of ``hits`` and its interval, by drawing whole recordings with replacement; [0, 0, 1] where there are none."""
    if not len(hits):
        return [0.0, 0.0, 1.0]
    low, high = interval_of_ratio(hits, np.ones(len(hits)), sources, seed)
    count = len(np.unique(sources.astype(str)))
    if hits.all():  # of so many: three in as many more could fail (the rule of three)
        low = max(0.0, 1 - 3 / count)
    if not hits.any():
        high = min(1.0, 3 / count)
    return [float(hits.mean()), low, high]


def interval_of_ratio(counts: np.ndarray, sizes: np.ndarray, sources: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Low and high end of the sum of ``counts`` over that of ``sizes``, by drawing whole recordings with replacement."""
    recording = recordings(sources)
    found, size = np.bincount(recording, weights=counts), np.bincount(recording, weights=sizes)
    drawn = np.random.default_rng(seed).multinomial(len(found), np.full(len(found), 1 / len(found)), size=DRAWS)
    low, high = np.percentile((drawn @ found) / (drawn @ size), INTERVAL)
    return float(low), float(high)


def auc_interval(labels: np.ndarray, scores: np.ndarray, sources: np.ndarray, seed: int = 0) -> list[float]:
    """Low and high end of the ROC-AUC's interval, by drawing whole recordings with replacement."""
    recording = recordings(sources)
    # a recording's share of the pairs (danger, safe) that are in the right order, as a matrix between recordings
    danger, safe = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    order = np.sign(scores[danger][:, None] - scores[safe][None, :]) / 2 + 0.5
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(AUC_DRAWS):
        weight = np.bincount(rng.integers(recording.max() + 1, size=recording.max() + 1), minlength=recording.max() + 1)
        of_danger, of_safe = weight[recording[danger]], weight[recording[safe]]
        if of_danger.any() and of_safe.any():
            drawn.append(of_danger @ order @ of_safe / (of_danger.sum() * of_safe.sum()))
    return [float(value) for value in np.percentile(drawn, INTERVAL)] if drawn else [0.0, 1.0]


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
