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
class HourlyRates:
    """A model's false alarms per hour, as measured by measure_false_alarms.py."""

    minutes: float  # length of the safe sound in which they were counted
    at_min_recall: Estimate  # at the highest threshold with the recall that was asked for; comparable between models
    at_threshold: Estimate  # at the chosen threshold, as measure_false_alarms.py prints it


@dataclass(frozen=True)
class Choice:
    """Which model to use, and which others could be as good."""

    title: str
    fewest: str  # the model with the fewest false alarms; another one than ``title`` if that has a higher ROC-AUC
    rivals: list[str]  # the other models whose false alarms could equal those of ``fewest``


@dataclass(frozen=True)
class Recommendation:
    """The model to use, with the reasons."""

    title: str
    sentence: str
    differences: list[str]  # one line for each other model


def recommend(results: dict[str, Evaluation], models: list[str], per_hour: dict[str, HourlyRates]) -> Recommendation:
    """Recommend the model with the fewest false alarms at the recall that was asked for.

    Another one is recommended if its ROC-AUC is higher by more than chance and the false alarms of both could be equal.

    Args:
        results: evaluations by title, baselines included.
        models: the titles that may be recommended.
        per_hour: false alarms per hour by title; used if it has every model, else the fraction of safe clips is.
    """
    alarms, aucs = resampled_metrics(results)
    hourly = per_hour if set(models) <= per_hour.keys() else None
    choice = choose_model(models, alarms, aucs, hourly)
    recall = results[choice.title].rule.min_recall
    differences = []
    for title in (title for title in results if title != choice.title):
        alarm_gap = difference(alarms[choice.title], alarms[title])
        auc_gap = difference(aucs[choice.title], aucs[title])
        differences.append(
            f"{choice.title} minus {title}: ROC-AUC {_signed(auc_gap, '.3f')}, safe clips with an alarm where "
            f"{recall:.0%} of the dangers are found {_signed(alarm_gap, '.1%')} (95 % interval over recordings)"
        )
    if hourly:
        cost = {title: describe_rate(hourly[title].at_min_recall, hourly[title].minutes) for title in models}
        price = f"at the highest threshold that finds {recall:.0%} of the dangers, {cost[choice.title]} per hour"
    else:
        cost = {title: f"{alarms[title][0]:.1%}" for title in models}
        price = f"an alarm on {cost[choice.title]} of safe clips where {recall:.0%} of the dangers are found"
    sentence = describe_choice(choice, price, cost)
    if hourly:
        rates = hourly[choice.title]
        sentence += (
            f" At its chosen threshold, {results[choice.title].threshold:.3f}, measure_false_alarms.py estimates "
            f"{describe_rate(rates.at_threshold, rates.minutes)} per hour (95 % intervals)."
        )
    return Recommendation(choice.title, sentence, differences)


def choose_model(
    models: list[str], alarms: dict[str, np.ndarray], aucs: dict[str, np.ndarray], hourly: dict[str, HourlyRates] | None
) -> Choice:
    """Choose among ``models``; ``alarms`` and ``aucs`` are as returned by ``resampled_metrics``."""
    cost = {title: hourly[title].at_min_recall.value if hourly else float(alarms[title][0]) for title in models}
    fewest = min(models, key=lambda title: (cost[title], -aucs[title][0], title))

    def may_be_equal(title: str) -> bool:
        """Whether the false alarms of a model and of ``fewest`` could be equal."""
        if hourly:
            return hourly[title].at_min_recall.low <= hourly[fewest].at_min_recall.high
        return difference(alarms[title], alarms[fewest]).low <= 0

    rivals = [title for title in models if title != fewest and may_be_equal(title)]
    better = [title for title in rivals if difference(aucs[title], aucs[fewest]).low > 0]
    return Choice(max(better, key=lambda title: (aucs[title][0], title), default=fewest), fewest, rivals)


def describe_choice(choice: Choice, price: str, cost: dict[str, str]) -> str:
    """Return the sentence that recommends a model.

    Args:
        choice: as returned by ``choose_model``.
        price: the false alarms of the chosen model.
        cost: the false alarms of every model, by title.
    """
    if len(cost) == 1:
        return f"Use {choice.title}: it is the only one; {price}."
    others = ", ".join(f"{text} ({title})" for title, text in cost.items() if title != choice.title)
    if choice.title != choice.fewest:
        why = f"{choice.fewest} has fewer, which may be due to chance, and a ROC-AUC that is lower by more than chance"
    elif choice.rivals:
        why = f"its lead over {' and '.join(choice.rivals)} may be due to chance"
    else:
        why = "its lead is more than chance"
    return f"Use {choice.title}: {price}, against {others}; {why}."


def describe_rate(rate: Estimate, minutes: float) -> str:
    """Format false alarms per hour that were counted in ``minutes`` of safe sound."""
    if rate.value == 0:
        return f"no false alarm in {minutes:.1f} minutes, so at most {rate.high:.0f}"
    return f"about {rate.value:.0f} false alarms ({rate.low:.0f}–{rate.high:.0f})"


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
