"""All that a training reports, as types; ``Report.as_json`` is what *_metrics.json and the model files hold."""

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
    """A measure over all clips, and its mean and standard deviation over those folds that can state it."""

    all: float
    mean: float
    std: float


@dataclass(frozen=True)
class ThresholdReport:
    """What a threshold gets right and wrong."""

    accuracy: Spread
    balanced_accuracy: Spread
    danger_recall: Spread
    danger_precision: Spread
    f1: Spread
    specificity: Spread
    confusion: list[list[int]]  # rows true and columns predicted, Safe first


@dataclass(frozen=True)
class HourlyReport:
    """False alarms per hour, heard window by window."""

    estimate: HourlyEstimate  # at the chosen threshold
    at_min_recall: Estimate  # false alarms per hour, where the recall that was asked for is reached
    points: list[OperatingPoint]

    def as_json(self) -> dict:
        """``per_hour`` and ``operating_points``."""
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
    """How well a model does."""

    clips: int
    danger: int  # of the clips
    safe: int
    splitting: str  # how the folds were made, in words
    majority_baseline: float  # accuracy of always giving the more frequent label
    threshold: float
    threshold_rule: str  # what the threshold keeps to, in words
    estimate: ClipEstimate  # at the threshold
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
        """Plain numbers, texts, lists and dicts."""
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
    """What an evaluation of clips came to."""
    labels, scores, folds = result.labels, result.scores, result.folds
    categories = {}
    if result.categories is not None:
        categories = category_recall(labels, result.categories, scores, result.threshold)
    order = _spread(result, lambda labels, scores: ranking(labels, scores) if len(np.unique(labels)) == 2 else {})
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
        roc_auc=order["roc_auc"],
        average_precision=order["average_precision"],
        categories=categories,
        classification_report=classification_numbers(labels, scores, result.threshold),
        finds_min_recall=result.finds_min_recall,
        unconverged=result.unconverged,
        at_half=_at(result, 0.5),
        at_threshold=_at(result, result.threshold),
    )


def summarise_windows(result: Evaluation) -> HourlyReport:
    """What an evaluation of windows came to. Raises ValueError where only clips were evaluated."""
    if result.windowed is None:
        raise ValueError("only clips were evaluated")
    return HourlyReport(
        estimate=result.windowed.estimate(_cross_fitted_thresholds(result)),
        at_min_recall=result.windowed.false_alarms_at_recall(result.rule.min_recall),
        points=result.windowed.points(),
    )


def _cross_fitted_thresholds(result: Evaluation) -> np.ndarray:
    """(clips,): for each clip, the threshold that is chosen without its fold."""

    def choose(clips: np.ndarray) -> float:
        return result.rule.choose(result.labels[clips], result.scores[clips])

    return cross_fitted_thresholds(result.labels, result.folds, choose)


def _at(result: Evaluation, threshold: float) -> ThresholdReport:
    spread = _spread(result, lambda labels, scores: scores_at(labels, scores, threshold))
    matrix = confusion(result.labels, (result.scores >= threshold).astype(int)).tolist()
    return ThresholdReport(**spread, confusion=matrix)


def _spread(result: Evaluation, measure: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> dict[str, Spread]:
    """Each number of ``measure(labels, scores)``, by its name."""
    masks = [result.folds == fold for fold in np.unique(result.folds)]
    numbers = [measure(result.labels[mask], result.scores[mask]) for mask in masks]
    spread = {}
    for name, value in measure(result.labels, result.scores).items():
        stated = [fold[name] for fold in numbers if name in fold] or [value]
        spread[name] = Spread(float(value), float(np.mean(stated)), float(np.std(stated)))
    return spread


def collect_warnings(report: Report, seen: int) -> list[str]:
    """What nobody may overlook. The first is the failure that this project started from.

    ``seen``: how many clips the embedding network was trained on.
    """
    found = []
    lowest_area = report.roc_auc_interval[0]
    is_guessing = lowest_area <= 0.5
    area = f"ROC-AUC {report.roc_auc.all:.3f}"
    for at, words in ((report.at_half, "at 0.5"), (report.at_threshold, "at the chosen threshold")):
        (true_safe, false_alarms), (missed, hits) = at.confusion
        if false_alarms + hits == 0:
            found.append(
                f"THE MODEL ANSWERS SAFE TO EVERYTHING {words}: it finds none of {missed} dangers. Do not use it"
            )
        elif true_safe + missed == 0:
            why = f"though its scores do sort ({area}), it has too few clips"
            why = "it has learnt nothing" if is_guessing else why
            found.append(f"THE MODEL ANSWERS DANGER TO EVERYTHING {words}: {why}. Do not use it")
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
            f"OPTIMISTIC: {seen} of {report.clips} clips were in the embedding network's own training (column "
            "seen). These scores are no results; score clips that the network never heard"
        )
    return found
