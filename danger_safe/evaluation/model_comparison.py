"""Recommend a model, and say whether its lead may be due to chance: a paired bootstrap over recordings.

Models are compared by their false alarms at the recall that was asked for, which are what a user notices, and by their
ROC-AUC. All models find the same recordings difficult, so differences on the same resample vary less than the numbers
themselves, and their intervals show whether a difference may be due to chance. Prediction time does not count: the
network before the classifier takes a thousand times as long.
"""

from dataclasses import dataclass

import numpy as np

from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import Estimate, auc, interval, resamples
from danger_safe.evaluation.metrics import false_alarms_at_recall


@dataclass(frozen=True)
class Recommendation:
    """The model to use, with the reasons."""

    title: str
    sentence: str
    differences: list[str]  # one line for each other model


def recommend(results: dict[str, Evaluation], models: list[str], per_hour: dict[str, Estimate]) -> Recommendation:
    """Recommend the model with the fewest false alarms at the recall that was asked for.

    Another one is recommended if its ROC-AUC is higher by more than chance and the false alarms of both could be equal.

    Args:
        results: evaluations by title, baselines included.
        models: the titles that may be recommended.
        per_hour: false alarms per hour by title; used if it has every model, else the fraction of safe clips is.
    """
    alarms, aucs = resampled_metrics(results)
    hourly = per_hour if set(models) <= per_hour.keys() else None
    cost = {title: hourly[title].value if hourly else float(alarms[title][0]) for title in models}
    best = min(models, key=lambda title: (cost[title], -aucs[title][0], title))

    def may_be_equal(title: str) -> bool:
        """Whether the false alarms of a model and of ``best`` could be equal."""
        if hourly:
            return hourly[title].low <= hourly[best].high
        return difference(alarms[title], alarms[best]).low <= 0

    better = [t for t in models if t != best and may_be_equal(t) and difference(aucs[t], aucs[best]).low > 0]
    chosen = max(better, key=lambda title: (aucs[title][0], title), default=best)
    recall = results[chosen].rule.min_recall
    differences = []
    for title in (title for title in results if title != chosen):
        alarm_gap, auc_gap = difference(alarms[chosen], alarms[title]), difference(aucs[chosen], aucs[title])
        differences.append(
            f"{chosen} minus {title}: ROC-AUC {_signed(auc_gap, '.3f')}, safe clips with an alarm where {recall:.0%} "
            f"of the dangers are found {_signed(alarm_gap, '.1%')} (95 % interval over recordings)"
        )
    if hourly:
        price = f"about {cost[chosen]:.0f} false alarms per hour where {recall:.0%} of the dangers are found"
        others = ", ".join(f"{cost[title]:.0f} ({title})" for title in models if title != chosen)
    else:
        price = f"an alarm on {cost[chosen]:.1%} of safe clips where {recall:.0%} of the dangers are found"
        others = ", ".join(f"{cost[title]:.1%} ({title})" for title in models if title != chosen)
    if len(models) == 1:
        return Recommendation(chosen, f"Use {chosen}: it is the only one; {price}.", differences)
    if chosen != best:
        why = f"{best} has fewer, which may be due to chance, and a ROC-AUC that is lower by more than chance"
    else:
        rivals = [title for title in models if title != best and may_be_equal(title)]
        why = f"its lead over {' and '.join(rivals)} may be due to chance" if rivals else "its lead is more than chance"
    return Recommendation(chosen, f"Use {chosen}: {price}, against {others}; {why}.", differences)


def resampled_metrics(
    results: dict[str, Evaluation], seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return, by title, (1 + resamples,) false alarm rates at the recall asked for, and ROC-AUCs; all clips first."""
    first = next(iter(results.values()))
    samples = [np.arange(len(first.labels)), *resamples(first.labels, first.sources, seed)]
    alarms = {
        title: np.array([false_alarms_at_recall(r.labels[c], r.scores[c], r.rule.min_recall) for c in samples])
        for title, r in results.items()
    }
    aucs = {title: np.array([auc(r.labels[c], r.scores[c]) for c in samples]) for title, r in results.items()}
    return alarms, aucs


def difference(one: np.ndarray, other: np.ndarray) -> Estimate:
    """Estimate one model's metric minus another's, both as from ``resampled_metrics``."""
    value, *resampled = one - other
    return Estimate(float(value), *interval(np.array(resampled or [value])))


def _signed(estimate: Estimate, format_spec: str) -> str:
    value, low, high = (format(number, "+" + format_spec) for number in estimate.as_list())
    return f"{value} ({low} to {high})"
