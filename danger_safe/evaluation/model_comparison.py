"""Which model is better, and is it more than luck? Models compared on the same clips, recordings drawn anew.

Three ROC-AUCs side by side say little: all models stumble over the same recordings. Their difference on the same draw of
recordings does not: the interval of the difference is what decides.
"""

import numpy as np

from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import auc, draws, interval


def auc_differences(results: dict[str, Evaluation], best: str, seed: int = 0) -> dict[str, list[float]]:
    """ROC-AUC of ``best`` minus that of each other model, as [value, low, high] of the 95 % interval."""
    first = results[best]
    drawn: dict[str, list[float]] = {title: [] for title in results}
    for clips in draws(first.labels, first.sources, seed):
        for title, result in results.items():
            drawn[title].append(auc(result.labels[clips], result.scores[clips]))
    whole = {title: auc(result.labels, result.scores) for title, result in results.items()}
    differences = {}
    for title in results:
        if title != best:
            low, high = interval(np.array(drawn[best]) - np.array(drawn[title]))
            differences[title] = [whole[best] - whole[title], low, high]
    return differences


def recommend(differences: dict[str, list[float]], best: str, cost: dict[str, float], unit: str) -> str:
    """One sentence: the cheapest of the models that are not distinguishably worse than the best, and why."""
    equal = [best, *(title for title, (_, low, _) in differences.items() if low <= 0)]
    chosen = min(equal, key=cost.__getitem__)
    if chosen == best and len(equal) == 1:
        reason = "its ROC-AUC is higher than any other's by more than luck (95 %)"
        return f"Use {best}: {reason}." if differences else f"Use {best}: it is the only one."
    if chosen == best:
        return f"Use {best}: no model is better, and of those as good it is the fastest ({cost[best]:.3g} {unit})."
    value, low, high = differences[chosen]
    return (
        f"Use {chosen}: {best} is not distinguishably better (ROC-AUC {value:+.3f}, {low:+.3f} to {high:+.3f}), "
        f"and slower ({cost[best]:.3g} against {cost[chosen]:.3g} {unit})."
    )
