"""Saved models evaluated again, side by side, as compare_models.py does: each is trained anew on each fold."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.calibration import uncalibrated
from danger_safe.evaluation.cross_validation import Evaluation, evaluate
from danger_safe.evaluation.report import Report, summarise
from danger_safe.evaluation.thresholds import ThresholdRule


@dataclass(frozen=True)
class ComparedModel:
    """A classifier, trained anew on each fold of one table."""

    title: str
    file: Path | None  # the model; None for a baseline, of which no model is saved and none is recommended
    result: Evaluation
    report: Report
    seconds: float  # of the cross-validation
    seconds_per_thousand: float  # clips, once their embeddings are there; NaN for a baseline
    per_hour: dict  # false alarms, as measure_false_alarms.py has them; empty where it was not run


def evaluate_all(
    models: list[tuple[Path, dict]], table: EmbeddingTable, baseline: EmbeddingTable | None, jobs: int
) -> list[ComparedModel]:
    """Every model on the table and, where there is a baseline, the same classifiers on that."""
    contestants: list[ComparedModel] = []
    for embeddings in (table, baseline) if baseline else (table,):
        for file, saved in models:
            settings, is_own = saved["metrics"], embeddings is table
            rule = ThresholdRule(settings["min_recall"], settings["max_threshold"])
            began = time.perf_counter()
            result = evaluate(uncalibrated(saved["pipeline"]), embeddings, rule, settings["seed"], jobs=jobs)
            seconds = time.perf_counter() - began
            title = settings["model"] if is_own else f"{settings['model']} on {embeddings.checkpoint['name']}"
            if title in [contestant.title for contestant in contestants]:
                title += f" ({file})"
            speed = seconds_per_thousand(saved["pipeline"], table.features) if is_own else math.nan
            per_hour = settings.get("per_hour", {}) if is_own else {}
            report = summarise(result)
            contestants.append(ComparedModel(title, file if is_own else None, result, report, seconds, speed, per_hour))
    return contestants


def seconds_per_thousand(pipeline: Pipeline, features: np.ndarray) -> float:
    """How long a model takes for a thousand clips, once their embeddings are there: the best of three times."""
    thousand = np.resize(features, (1000, features.shape[1]))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        pipeline.predict_proba(thousand)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def comparison_row(contestant: ComparedModel) -> dict[str, str | float]:
    """A row of model_comparison.csv."""
    report, file = contestant.report, contestant.file
    row: dict[str, str | float] = {
        "model": contestant.title,
        "file": file.name if file else "",
        "roc_auc": report.roc_auc.all,
        "avg_precision": report.average_precision.all,
        "brier": report.calibration_after.brier,
        "calibration_error": report.calibration_after.calibration_error,
        "threshold": report.threshold,
        "false_alarms_per_hour": contestant.per_hour["false_alarms_per_hour"][0] if contestant.per_hour else math.nan,
    }
    for at, ending in ((report.at_half, "@0.5"), (report.at_threshold, "@threshold")):
        row["accuracy" + ending] = at.accuracy.all
        row["recall" + ending] = at.danger_recall.all
        row["precision" + ending] = at.danger_precision.all
        row["f1" + ending] = at.f1.all
        counts = [count for true in at.confusion for count in true]
        row |= {name + ending: count for name, count in zip(("TN", "FP", "FN", "TP"), counts, strict=True)}
    row |= {f"recall of {name}": found.at_threshold for name, found in report.categories.items()}
    return row | {
        "cross_validation_s": contestant.seconds,
        "model_MB": file.stat().st_size / 1e6 if file else math.nan,
        "s_per_1000_clips": contestant.seconds_per_thousand,
    }
