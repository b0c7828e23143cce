"""Which model to use, and is its lead more than luck? Models compared on the same clips, recordings drawn anew.

What a user pays for a model are its false alarms at the recall that was asked for; how well it sorts is its ROC-AUC. Both
are numbers of few recordings, over which all models stumble alike: their difference on the same draw of recordings is
surer than the numbers themselves, and its interval says whether it is luck. How fast a model answers does not count: the
network before it takes a thousand times as long.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import auc, draws, interval
from danger_safe.evaluation.metrics import false_alarms_at_recall

Interval = tuple[float, float, float]  # value, and low and high end of its 95 % interval


@dataclass(frozen=True)
class Recommendation:
    """The model to use, and why."""

    title: str
    sentence: str
    differences: list[str]  # to each other model, in words


def recommend(results: dict[str, Evaluation], models: list[str], per_hour: dict[str, dict]) -> Recommendation:
    """Of ``models``, titles in ``results``, the one to use; the other results are baselines.

    It is the one with the fewest false alarms: per hour, where ``per_hour`` has every model's, else of safe clips at the
    recall that was asked for. Another is better where the false alarms of the two could be alike and its ROC-AUC is
    higher by more than luck.
    """
    alarms, areas = measures(results)
    hourly = {title: per_hour[title]["at_min_recall"] for title in models} if set(models) <= per_hour.keys() else None
    cost = {title: hourly[title][0] if hourly else alarms[title][0] for title in models}
    best = min(models, key=lambda title: (cost[title], -areas[title][0], title))

    def no_dearer(title: str) -> bool:
        if hourly:
            return hourly[title][1] <= hourly[best][2]  # intervals that overlap
        return difference(alarms[title], alarms[best])[1] <= 0

    surer = [t for t in models if t != best and no_dearer(t) and difference(areas[t], areas[best])[1] > 0]
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
        why = f"{best} has fewer, which may be luck, and a lower ROC-AUC, which is more than luck"
    else:
        rivals = [title for title in models if title != best and no_dearer(title)]
        why = f"its lead over {' and '.join(rivals)} may be luck" if rivals else "its lead is more than luck"
    return Recommendation(chosen, f"Use {chosen}: {paid}, against {others}; {why}.", differences)


def measures(results: dict[str, Evaluation], seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """False alarms at the recall asked for, and ROC-AUC, of each model: of all clips, then of each draw of recordings."""
    first = next(iter(results.values()))
    samples = [np.arange(len(first.labels)), *draws(first.labels, first.sources, seed)]
    alarms = {
        title: np.array([false_alarms_at_recall(r.labels[c], r.scores[c], r.rule.min_recall) for c in samples])
        for title, r in results.items()
    }
    areas = {title: np.array([auc(r.labels[c], r.scores[c]) for c in samples]) for title, r in results.items()}
    return alarms, areas


def difference(one: np.ndarray, other: np.ndarray) -> Interval:
    """Of two models' ``measures``."""
    value, *drawn = one - other
    return float(value), *interval(np.array(drawn or [value]))


def _in_words(estimate: Interval, form: str) -> str:
    value, low, high = (format(number, "+" + form) for number in estimate)
    return f"{value} ({low} to {high})"


def seconds_per_thousand(pipeline: Pipeline, features: np.ndarray) -> float:
    """How long a model takes for a thousand clips, once their embeddings are there: the best of three times."""
    thousand = np.resize(features, (1000, features.shape[1]))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        pipeline.predict_proba(thousand)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def comparison_row(
    title: str, file: Path | None, summary: dict, per_hour: dict | None, learning: float, speed: float
) -> dict:
    """A model's row of model_comparison.csv. ``learning`` and ``speed`` are in seconds; ``file`` is None for a baseline."""
    row = {"model": title, "file": file.name if file else "", "roc_auc": summary["ranking"]["roc_auc"]["all"]}
    row["avg_precision"] = summary["ranking"]["average_precision"]["all"]
    row["brier"] = summary["calibration"]["after"]["brier"]
    row["calibration_error"] = summary["calibration"]["after"]["calibration_error"]
    row["threshold"] = summary["threshold"]
    row["false_alarms_per_hour"] = per_hour["false_alarms_per_hour"][0] if per_hour else math.nan
    for key, ending in (("at_0.5", "@0.5"), ("at_threshold", "@threshold")):
        for name, short in (
            ("accuracy", "accuracy"),
            ("danger_recall", "recall"),
            ("danger_precision", "precision"),
            ("f1", "f1"),
        ):
            row[short + ending] = summary[key][name]["all"]
        row |= {
            name + ending: count
            for name, count in zip(("TN", "FP", "FN", "TP"), np.ravel(summary[key]["confusion"]), strict=True)
        }
    row |= {f"recall of {name}": found["at_threshold"] for name, found in summary["categories"].items()}
    return row | {
        "cross_validation_s": learning,
        "model_MB": file.stat().st_size / 1e6 if file else math.nan,
        "s_per_1000_clips": speed,
    }
