"""The numbers that a training reports; ``Report.as_json`` is what *_metrics.json and the model files hold."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from danger_safe.detection.detector import OperatingPoint
from danger_safe.evaluation.calibration import Calibration, calibration
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import Estimate, auc_interval
from danger_safe.evaluation.metrics import (
    CategoryRecall,
    category_recall,
    classification_numbers,
    confusion,
    ranking,
    scores_at,
)
from danger_safe.evaluation.thresholds import ClipEstimate, HourlyEstimate, cross_fitted_thresholds, estimate_on_clips


@dataclass(frozen=True)
class Spread:
    """A metric over all clips, with mean and standard deviation over the folds in which it is defined."""

    all: float
    mean: float
    std: float


@dataclass(frozen=True)
class ThresholdReport:
    """Metrics at one threshold."""

    accuracy: Spread
    balanced_accuracy: Spread
    danger_recall: Spread
    danger_precision: Spread
    f1: Spread
    specificity: Spread
    confusion: list[list[int]]  # [[TN, FP], [FN, TP]]


@dataclass(frozen=True)
class HourlyReport:
    """False alarms per hour, from the scores of windows."""

    estimate: HourlyEstimate  # at the chosen threshold
    at_min_recall: Estimate  # false alarms per hour at the recall that was asked for
    points: list[OperatingPoint]

    def as_json(self) -> dict:
        """Return ``per_hour`` and ``operating_points`` of *_metrics.json."""
        estimate = self.estimate
        per_hour = {
            "minutes": estimate.minutes,
            "danger_recall": estimate.danger_recall.as_list(),
            "false_alarms_per_hour": estimate.false_alarms_per_hour.as_list(),
            "at_min_recall": self.at_min_recall.as_list(),
        }
        return {"per_hour": per_hour, "operating_points": [asdict(point) for point in self.points]}


@dataclass(frozen=True)
class Report:
    """The out-of-fold metrics of a model."""

    clips: int
    danger: int  # number of dangerous clips
    safe: int
    splitting: str  # description of the folds
    majority_baseline: float  # accuracy of always giving the more frequent label
    threshold: float
    threshold_rule: str  # description of how the threshold was chosen
    estimate: ClipEstimate  # on new recordings, at the threshold
    roc_auc_interval: tuple[float, float]  # 95 %
    calibration_before: Calibration
    calibration_after: Calibration
    roc_auc: Spread
    average_precision: Spread
    categories: dict[str, CategoryRecall]
    classification_report: dict  # scikit-learn's, at the threshold
    finds_min_recall: bool
    unconverged: int
    at_half: ThresholdReport  # at 0.5
    at_threshold: ThresholdReport

    def as_json(self) -> dict:
        """Return the content of *_metrics.json: plain numbers, strings, lists and dicts."""
        estimate = self.estimate
        return {
            "clips": self.clips,
            "danger": self.danger,
            "safe": self.safe,
            "splitting": self.splitting,
            "majority_baseline": self.majority_baseline,
            "threshold": self.threshold,
            "threshold_rule": self.threshold_rule,
            "estimate": {
                "danger_recall": estimate.danger_recall.as_list(),
                "false_alarms": estimate.false_alarms.as_list(),
            },
            "roc_auc_interval": list(self.roc_auc_interval),
            "calibration": {"before": asdict(self.calibration_before), "after": asdict(self.calibration_after)},
            "ranking": {"roc_auc": asdict(self.roc_auc), "average_precision": asdict(self.average_precision)},
            "categories": {
                name: {"label": c.label, "clips": c.clips, "at_0.5": c.at_half, "at_threshold": c.at_threshold}
                for name, c in self.categories.items()
            },
            "classification_report": self.classification_report,
            "finds_min_recall": self.finds_min_recall,
            "unconverged": self.unconverged,
            "at_0.5": asdict(self.at_half),
            "at_threshold": asdict(self.at_threshold),
        }


def summarise(result: Evaluation) -> Report:
    """Compute the metrics of an evaluation of clips."""
    labels, scores, folds = result.labels, result.scores, result.folds
    categories = {}
    if result.categories is not None:
        categories = category_recall(labels, result.categories, scores, result.threshold)
    ranks = _spread(result, lambda labels, scores: ranking(labels, scores) if len(np.unique(labels)) == 2 else {})
    return Report(
        clips=len(labels),
        danger=int(labels.sum()),
        safe=int((labels == 0).sum()),
        splitting=result.splitting,
        majority_baseline=float(max(labels.mean(), 1 - labels.mean())),
        threshold=result.threshold,
        threshold_rule=result.rule_description,
        estimate=estimate_on_clips(labels, scores, result.sources, folds, _cross_fitted_thresholds(result)),
        roc_auc_interval=auc_interval(labels, scores, result.sources),
        calibration_before=calibration(labels, result.raw_scores),
        calibration_after=calibration(labels, scores),
        roc_auc=ranks["roc_auc"],
        average_precision=ranks["average_precision"],
        categories=categories,
        classification_report=classification_numbers(labels, scores, result.threshold),
        finds_min_recall=result.finds_min_recall,
        unconverged=result.unconverged,
        at_half=_at(result, 0.5),
        at_threshold=_at(result, result.threshold),
    )


def summarise_windows(result: Evaluation) -> HourlyReport:
    """Compute the metrics of an evaluation of windows. Raises ValueError if only clips were evaluated."""
    if result.windowed is None:
        raise ValueError("only clips were evaluated")
    return HourlyReport(
        estimate=result.windowed.estimate(_cross_fitted_thresholds(result)),
        at_min_recall=result.windowed.false_alarms_at_recall(result.rule.min_recall),
        points=result.windowed.points(),
    )


def _cross_fitted_thresholds(result: Evaluation) -> np.ndarray:
    """Return for each clip the threshold that is chosen without its fold: (clips,)."""

    def choose(clips: np.ndarray) -> float:
        return result.rule.choose(result.labels[clips], result.scores[clips])

    return cross_fitted_thresholds(result.labels, result.folds, choose)


def _at(result: Evaluation, threshold: float) -> ThresholdReport:
    spread = _spread(result, lambda labels, scores: scores_at(labels, scores, threshold))
    matrix = confusion(result.labels, (result.scores >= threshold).astype(int)).tolist()
    return ThresholdReport(**spread, confusion=matrix)


def _spread(result: Evaluation, measure: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> dict[str, Spread]:
    """Return each metric of ``measure(labels, scores)``, by its name."""
    masks = [result.folds == fold for fold in np.unique(result.folds)]
    by_fold = [measure(result.labels[mask], result.scores[mask]) for mask in masks]
    spread = {}
    for name, value in measure(result.labels, result.scores).items():
        values = [metrics[name] for metrics in by_fold if name in metrics] or [value]
        spread[name] = Spread(float(value), float(np.mean(values)), float(np.std(values)))
    return spread


def collect_warnings(report: Report, seen: int) -> list[str]:
    """Return the warnings that a model deserves. The first is the failure that this project started from.

    ``seen``: number of clips that the embedding network was trained on.
    """
    found = []
    lowest_area = report.roc_auc_interval[0]
    is_guessing = lowest_area <= 0.5
    area = f"ROC-AUC {report.roc_auc.all:.3f}"
    for at, where in ((report.at_half, "at 0.5"), (report.at_threshold, "at the chosen threshold")):
        (true_safe, false_alarms), (missed, hits) = at.confusion
        if false_alarms + hits == 0:
            found.append(
                f"THE MODEL ANSWERS SAFE TO EVERYTHING {where}: it finds none of {missed} dangers. Do not use it"
            )
        elif true_safe + missed == 0:
            why = f"though its scores do sort ({area}), it has too few clips"
            why = "it has learnt nothing" if is_guessing else why
            found.append(f"THE MODEL ANSWERS DANGER TO EVERYTHING {where}: {why}. Do not use it")
    accuracy = report.at_half.accuracy.all
    if accuracy <= report.majority_baseline or is_guessing:
        found.append(
            f"NO BETTER THAN GUESSING: accuracy {accuracy:.1%} at 0.5, baseline {report.majority_baseline:.1%} "
            f"(always the more frequent label), {area} (95 % interval from {lowest_area:.3f}; "
            "0.5 is guessing). Check labels and embeddings, or bring more recordings"
        )
    if not report.finds_min_recall:
        found.append(
            f"THE RECALL THAT WAS ASKED FOR CANNOT BE HAD: the threshold {report.threshold:.3f} finds "
            f"{report.at_threshold.danger_recall.all:.0%} of the dangers. Bring more recordings of those "
            "that are missed, or ask for less with --min-recall"
        )
    if report.unconverged:
        found.append(
            f"NOT CONVERGED: scikit-learn ended {report.unconverged} trainings before they had settled "
            "(ConvergenceWarning); the scores could be better. Raise max_iter in the train script"
        )
    if seen:
        found.append(
            f"OPTIMISTIC: {seen} of {report.clips} clips were in the embedding network's own training (column seen). "
            "These scores are no results; score clips that the network was not trained on"
        )
    return found
