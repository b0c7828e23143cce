"""What an operating point promises for recordings that nobody has heard yet, with its uncertainty.

A threshold that was chosen on the very scores it is judged by looks better than it is. Here it is chosen anew without
each fold and judged on that fold. Clips of one recording succeed or fail together: intervals come from drawing
recordings, not clips.
"""

import numpy as np

DRAWS, AUC_DRAWS = 2_000, 300  # of the bootstrap
INTERVAL = (2.5, 97.5)  # percentiles: 95 %


def expected(labels, scores, folds, sources, choose, seed: int = 0) -> dict[str, list[float]]:
    """Danger recall and false alarms (share of safe clips), each as [value, low, high] of the 95 % interval.

    ``choose(labels, scores)`` gives a threshold. Arrays have one entry a clip.
    """
    alarm = np.zeros(len(labels), bool)
    for fold in np.unique(folds):
        here = folds == fold
        others = ~here if len(np.unique(labels[~here])) == 2 else np.ones_like(here)
        alarm[here] = scores[here] >= choose(labels[others], scores[others])
    return {
        "danger_recall": share_with_interval(alarm[labels == 1], sources[labels == 1], seed),
        "false_alarms": share_with_interval(alarm[labels == 0], sources[labels == 0], seed),
    }


def share_with_interval(hits: np.ndarray, sources: np.ndarray, seed: int = 0) -> list[float]:
    """Share of ``hits`` and its interval, by drawing whole recordings with replacement."""
    _, recording = np.unique(sources.astype(str), return_inverse=True)
    clips, found = np.bincount(recording), np.bincount(recording, weights=hits)
    drawn = np.random.default_rng(seed).multinomial(len(clips), np.full(len(clips), 1 / len(clips)), size=DRAWS)
    shares = (drawn @ found) / (drawn @ clips)
    return [float(hits.mean()), *map(float, np.percentile(shares, INTERVAL))]


def auc_interval(labels: np.ndarray, scores: np.ndarray, sources: np.ndarray, seed: int = 0) -> list[float]:
    """Low and high end of the ROC-AUC's interval, by drawing whole recordings with replacement."""
    _, recording = np.unique(sources.astype(str), return_inverse=True)
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
    recall, alarms = (
        f"{100 * value:.0f} % of {{}} ({100 * low:.0f}–{100 * high:.0f} %)" for value, low, high in promise.values()
    )
    return f"finds {recall.format('dangers')}; raises an alarm on {alarms.format('safe clips')}"
