"""Which model to use, and is its lead more than luck? Models compared on the same resamples of recordings.

What a user pays for a model are its false alarms at the recall that was asked for; how well it sorts is its ROC-AUC.
Both are numbers of few recordings, over which all models stumble alike: their difference on the same resample of
recordings is surer than the numbers themselves, and its interval says whether it is luck. How fast a model answers does
not count: the network before it takes a thousand times as long.
"""

from dataclasses import dataclass

import numpy as np

from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import Estimate, auc, interval, resamples
from danger_safe.evaluation.metrics import false_alarms_at_recall


@dataclass(frozen=True)
class Recommendation:
    """The model to use, and why."""

    title: str
    sentence: str
    differences: list[str]  # to each other model, in words


def recommend(results: dict[str, Evaluation], models: list[str], per_hour: dict[str, Estimate]) -> Recommendation:
    """Of ``models``, titles in ``results``, the one to use; the other results are baselines.

    It is the one with the fewest false alarms at the recall that was asked for: per hour, where ``per_hour`` has every
    model's, else of safe clips. Another is better where the false alarms of the two could be alike and its ROC-AUC is
    higher by more than luck.
    """
    alarms, areas = resampled_metrics(results)
    hourly = per_hour if set(models) <= per_hour.keys() else None
    cost = {title: hourly[title].value if hourly else float(alarms[title][0]) for title in models}
    best = min(models, key=lambda title: (cost[title], -areas[title][0], title))

    def no_dearer(title: str) -> bool:
        if hourly:
            return hourly[title].low <= hourly[best].high  # intervals that overlap
        return difference(alarms[title], alarms[best]).low <= 0

    surer = [t for t in models if t != best and no_dearer(t) and difference(areas[t], areas[best]).low > 0]
    chosen = max(surer, key=lambda title: (areas[title][0], title), default=best)
    recall = results[chosen].rule.min_recall
    differences = []
    for title in (title for title in results if title != chosen):
        fewer, area = difference(alarms[chosen], alarms[title]), difference(areas[chosen], areas[title])
        differences.append(
            f"{chosen} minus {title}: ROC-AUC {_in_words(area, '.3f')}, safe clips with an alarm where {recall:.0%} of "
            f"the dangers are found {_in_words(fewer, '.1%')} (95 % interval over recordings)"
        )
    if hourly:
        paid = f"about {cost[chosen]:.0f} false alarms per hour where {recall:.0%} of the dangers are found"
        others = ", ".join(f"{cost[title]:.0f} ({title})" for title in models if title != chosen)
    else:
        paid = f"an alarm on {cost[chosen]:.1%} of safe clips where {recall:.0%} of the dangers are found"
        others = ", ".join(f"{cost[title]:.1%} ({title})" for title in models if title != chosen)
    if len(models) == 1:
        return Recommendation(chosen, f"Use {chosen}: it is the only one; {paid}.", differences)
    if chosen != best:
        why = f"{best} has fewer, which may be due to chance, and a ROC-AUC that is lower by more than chance"
    else:
        rivals = [title for title in models if title != best and no_dearer(title)]
        why = f"its lead over {' and '.join(rivals)} may be due to chance" if rivals else "its lead is more than chance"
    return Recommendation(chosen, f"Use {chosen}: {paid}, against {others}; {why}.", differences)


def resampled_metrics(
    results: dict[str, Evaluation], seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """False alarms at the recall asked for, and ROC-AUC, of each model: of all clips, then of each resample of
    recordings."""
    first = next(iter(results.values()))
    samples = [np.arange(len(first.labels)), *resamples(first.labels, first.sources, seed)]
    alarms = {
        title: np.array([false_alarms_at_recall(r.labels[c], r.scores[c], r.rule.min_recall) for c in samples])
        for title, r in results.items()
    }
    areas = {title: np.array([auc(r.labels[c], r.scores[c]) for c in samples]) for title, r in results.items()}
    return alarms, areas


def difference(one: np.ndarray, other: np.ndarray) -> Estimate:
    """One model's ``measures`` minus another's."""
    value, *resampled = one - other
    return Estimate(float(value), *interval(np.array(resampled or [value])))


def _in_words(estimate: Estimate, form: str) -> str:
    value, low, high = (format(number, "+" + form) for number in estimate.as_list())
    return f"{value} ({low} to {high})"
