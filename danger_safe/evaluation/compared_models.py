"""Put the out-of-fold scores of saved models side by side, for compare_models.py."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from danger_safe.core.cli import one_line
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.calibration import uncalibrated
from danger_safe.evaluation.cross_validation import Evaluation, evaluate, restore
from danger_safe.evaluation.report import Report, summarise
from danger_safe.evaluation.thresholds import ThresholdRule


@dataclass(frozen=True)
class ComparedModel:
    """A classifier and its out-of-fold scores on one table."""

    title: str
    file: Path | None  # the saved model; None for a baseline, which is never recommended
    result: Evaluation
    report: Report
    seconds_per_thousand: float  # prediction time for 1,000 clips whose embeddings exist; NaN for a baseline
    per_hour: dict  # false alarms, as in *_metrics.json; empty unless measure_false_alarms.py was run

    @property
    def is_baseline(self) -> bool:
        """Whether it is the same classifier on embeddings of the baseline table."""
        return self.file is None


def evaluate_all(
    models: list[tuple[Path, dict]], table: EmbeddingTable, baseline: EmbeddingTable | None, jobs: int
) -> list[ComparedModel]:
    """Return every model's evaluation on the table and, if there is a baseline table, the same classifiers' on that.

    A model file holds the scores of its training. Without them, and on the baseline, the classifier is cross-validated.
    """
    compared: list[ComparedModel] = []
    for embeddings in (table, baseline) if baseline else (table,):
        is_baseline = embeddings is baseline
        for file, saved in models:
            settings = saved["metrics"]
            rule = ThresholdRule(settings["min_recall"], settings["max_threshold"])
            title = f"{settings['model']} on {embeddings.checkpoint['name']}" if is_baseline else settings["model"]
            if title in [model.title for model in compared]:
                title += f" ({file})"
            if "out_of_fold" in saved and not is_baseline:
                result = restore(saved["out_of_fold"], table, rule, settings["seed"])
            else:
                pipeline = uncalibrated(saved["pipeline"])
                result = evaluate(pipeline, embeddings, rule, settings["seed"], jobs=jobs, title=one_line(title))
            compared.append(
                ComparedModel(
                    title=title,
                    file=None if is_baseline else file,
                    result=result,
                    report=summarise(result),
                    seconds_per_thousand=(
                        math.nan if is_baseline else seconds_per_thousand(saved["pipeline"], table.features)
                    ),
                    per_hour={} if is_baseline else settings.get("per_hour", {}),
                )
            )
    return compared


def seconds_per_thousand(pipeline: Pipeline, features: np.ndarray) -> float:
    """Return the prediction time for a thousand clips whose embeddings exist, the best of three runs."""
    thousand = np.resize(features, (1000, features.shape[1]))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        pipeline.predict_proba(thousand)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def comparison_row(model: ComparedModel) -> dict[str, str | float]:
    """Return a model's row of model_comparison.csv."""
    report, file = model.report, model.file
    row: dict[str, str | float] = {
        "model": model.title,
        "file": file.name if file else "",
        "roc_auc": report.roc_auc.all,
        "avg_precision": report.average_precision.all,
        "brier": report.calibration_after.brier,
        "calibration_error": report.calibration_after.calibration_error,
        "threshold": report.threshold,
        "false_alarms_per_hour": model.per_hour["false_alarms_per_hour"][0] if model.per_hour else math.nan,
    }
    for at, ending in ((report.at_half, "@0.5"), (report.at_threshold, "@threshold")):
        row["accuracy" + ending] = at.accuracy.all
        row["recall" + ending] = at.danger_recall.all
        row["precision" + ending] = at.danger_precision.all
        row["f1" + ending] = at.f1.all
        counts = [count for true in at.confusion for count in true]
        row |= {name + ending: count for name, count in zip(("TN", "FP", "FN", "TP"), counts, strict=True)}
    row |= {f"recall of {name}": recall.at_threshold for name, recall in report.categories.items()}
    return row | {
        "model_MB": file.stat().st_size / 1e6 if file else math.nan,
        "s_per_1000_clips": model.seconds_per_thousand,
    }
