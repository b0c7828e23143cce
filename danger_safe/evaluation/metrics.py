"""Metrics of a binary classifier at a threshold, and tables of them for the terminal. Arrays have one entry a clip."""

import json
import textwrap
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)  # fmt: skip

from danger_safe.core.cli import one_line
from danger_safe.data.clips import DANGER, LABEL_NAMES, SAFE

MAX_CATEGORIES = 12  # of each label, in a table on the terminal


@dataclass(frozen=True)
class CategoryRecall:
    """The fraction of a category's clips that are predicted correctly."""

    label: int
    clips: int
    at_half: float  # at the threshold 0.5
    at_threshold: float  # at the chosen threshold


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return [[TN, FP], [FN, TP]]: rows are true labels, columns predictions, Safe first."""
    return confusion_matrix(labels, predicted, labels=[SAFE, DANGER])


def scores_at(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Return accuracy, balanced accuracy, and Danger's recall, precision, F1 and specificity at a threshold.

    Undefined values, such as the precision without any alarm, are 0.
    """
    predicted = (scores >= threshold).astype(int)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=[SAFE, DANGER], zero_division=0.0
    )
    return {
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(recall.mean()),
        "danger_recall": float(recall[DANGER]),
        "danger_precision": float(precision[DANGER]),
        "f1": float(f1[DANGER]),
        "specificity": float(recall[SAFE]),
    }


def ranking(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return ROC-AUC and average precision: how well scores rank Danger above Safe, at any threshold."""
    return {
        "roc_auc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
    }


def classification_numbers(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict:
    """Return scikit-learn's classification report at a threshold as a dict of plain Python numbers."""
    predicted = (scores >= threshold).astype(int)
    report = classification_report(
        labels, predicted, labels=[SAFE, DANGER], target_names=LABEL_NAMES, zero_division=0.0, output_dict=True
    )
    return json.loads(json.dumps(report, default=float))


def classification_text(labels: np.ndarray, scores: np.ndarray, threshold: float) -> str:
    """Return scikit-learn's classification report at a threshold as text."""
    predicted = (scores >= threshold).astype(int)
    return str(
        classification_report(labels, predicted, labels=[SAFE, DANGER], target_names=LABEL_NAMES, zero_division=0.0)
    )


def category_recall(
    labels: np.ndarray, categories: np.ndarray, scores: np.ndarray, threshold: float
) -> dict[str, CategoryRecall]:
    """Return the recall of each category at 0.5 and at ``threshold``: dangerous categories first, each by name."""
    recalls = {}
    for label in (DANGER, SAFE):
        for category in np.unique(categories[labels == label]):
            mask = (labels == label) & (categories == category)
            at_half, at_threshold = (float(((scores[mask] >= at) == label).mean()) for at in (0.5, threshold))
            recalls[str(category)] = CategoryRecall(label, int(mask.sum()), at_half, at_threshold)
    return recalls


def false_alarms_at_recall(labels: np.ndarray, scores: np.ndarray, min_recall: float) -> float:
    """Return the lowest false alarm rate (of safe clips) among thresholds with a recall of at least ``min_recall``."""
    danger = np.sort(scores[labels == DANGER])
    threshold = danger[int(np.floor((1 - min_recall) * len(danger) + 1e-9))]  # the highest that misses no more
    return float((scores[labels == SAFE] >= threshold).mean())


def category_table(models: dict[str, dict[str, CategoryRecall]]) -> str:
    """Format the recall of each category at the chosen threshold, one column per model.

    ``models``: ``category_recall`` of each model, by title. For each label, the category with the lowest recall comes
    first.
    """
    first = next(iter(models.values()))
    lowest = {name: min(recalls[name].at_threshold for recalls in models.values()) for name in first}
    order = []
    for label in (DANGER, SAFE):
        names = [name for name in first if first[name].label == label]
        order += sorted(names, key=lambda name: (lowest[name], name))[:MAX_CATEGORIES]
    width = max(map(len, [*first, "category"])) + 2
    headings = [textwrap.shorten(title, 24, placeholder="…") for title in models]
    lines = ["Recall of each category at the chosen threshold: dangers found, safe clips left alone"]
    lines.append(f"{'category':<{width}}{'is':<8}{'clips':>5}" + "".join(f"{heading:>26}" for heading in headings))
    for name in order:
        label_name, clips = LABEL_NAMES[first[name].label], first[name].clips
        cells = "".join(f"{recalls[name].at_threshold:>26.0%}" for recalls in models.values())
        lines.append(f"{one_line(name):<{width}}{label_name:<8}{clips:>5}{cells}")
    if len(first) > len(order):
        lines.append(f"and {len(first) - len(order)} more that are missed less: *_metrics.json")
    return "\n".join(lines)


def matrices_side_by_side(at_half: dict[str, list[list[int]]], at_threshold: dict[str, list[list[int]]]) -> str:
    """Format the confusion matrices of several models, by title, at 0.5 and at their thresholds."""
    lines = []
    for matrices, heading in ((at_half, "at 0.5"), (at_threshold, "at the chosen threshold")):
        titles = "".join(f"{textwrap.shorten(title, 24, placeholder='…'):>26}" for title in matrices)
        lines.append(f"{heading:<26}{titles}")
        predicted = "".join(f"{name:>13}" for name in LABEL_NAMES) * len(matrices)
        lines.append(f"{'predicted':<26}{predicted}")
        for label, name in enumerate(LABEL_NAMES):
            counts = "".join(f"{n:>13}" for matrix in matrices.values() for n in matrix[label])
            lines.append(f"{'true ' + name:<26}{counts}")
    return "\n".join(lines)
