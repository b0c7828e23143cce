"""What a model gets right and wrong at a threshold, as numbers; most are scikit-learn's. Arrays have one entry a
clip."""

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

MAX_CATEGORIES = 12  # of each label that are listed on a terminal


@dataclass(frozen=True)
class CategoryRecall:
    """What becomes of one category's clips: the fraction of them that get their own label."""

    label: int
    clips: int
    at_half: float  # at the threshold 0.5
    at_threshold: float  # at the chosen one


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Counts, rows true and columns predicted: [[Safe as Safe, Safe as Danger], [Danger as Safe, Danger as Danger]]."""
    return confusion_matrix(labels, predicted, labels=[SAFE, DANGER])


def scores_at(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Accuracy, balanced accuracy, and recall, precision, F1 and specificity of Danger at a threshold: 0 to 1.

    What cannot be stated, such as the precision of no alarms or the recall of no dangers, is 0.
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
    """ROC-AUC and average precision: how well the scores sort Danger above Safe, whatever the threshold."""
    return {
        "roc_auc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
    }


def classification_numbers(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict:
    """scikit-learn's classification report of Safe and Danger at a threshold, in Python's own numbers."""
    predicted = (scores >= threshold).astype(int)
    found = classification_report(
        labels, predicted, labels=[SAFE, DANGER], target_names=LABEL_NAMES, zero_division=0.0, output_dict=True
    )
    return json.loads(json.dumps(found, default=float))


def classification_text(labels: np.ndarray, scores: np.ndarray, threshold: float) -> str:
    """The same as text for the terminal."""
    predicted = (scores >= threshold).astype(int)
    return str(
        classification_report(labels, predicted, labels=[SAFE, DANGER], target_names=LABEL_NAMES, zero_division=0.0)
    )


def category_recall(
    labels: np.ndarray, categories: np.ndarray, scores: np.ndarray, threshold: float
) -> dict[str, CategoryRecall]:
    """Recall of each category at 0.5 and at ``threshold``: Danger's categories first, then Safe's, each by name."""
    found = {}
    for label in (DANGER, SAFE):
        for category in np.unique(categories[labels == label]):
            here = (labels == label) & (categories == category)
            at_half, at_threshold = (float(((scores[here] >= at) == label).mean()) for at in (0.5, threshold))
            found[str(category)] = CategoryRecall(label, int(here.sum()), at_half, at_threshold)
    return found


def false_alarms_at_recall(labels: np.ndarray, scores: np.ndarray, min_recall: float) -> float:
    """The smallest fraction of safe clips with an alarm among thresholds that find ``min_recall`` of the dangers."""
    danger = np.sort(scores[labels == DANGER])
    threshold = danger[int(np.floor((1 - min_recall) * len(danger) + 1e-9))]  # as many dangers lie below as may
    return float((scores[labels == SAFE] >= threshold).mean())


def category_table(models: dict[str, dict[str, CategoryRecall]]) -> str:
    """Lines for the terminal: the recall of each category at the chosen threshold, a column a model.

    ``models``: ``category_recall`` of each model, by its title. In each label, the category that is missed most comes
    first.
    """
    first = next(iter(models.values()))
    worst = {name: min(found[name].at_threshold for found in models.values()) for name in first}
    order = []
    for label in (DANGER, SAFE):
        of_label = sorted((name for name in first if first[name].label == label), key=lambda name: (worst[name], name))
        order += of_label[:MAX_CATEGORIES]
    width = max(map(len, [*first, "category"])) + 2
    headings = [textwrap.shorten(title, 24, placeholder="…") for title in models]
    lines = ["Recall of each category at the chosen threshold: dangers found, safe clips left alone"]
    lines.append(f"{'category':<{width}}{'is':<8}{'clips':>5}" + "".join(f"{heading:>26}" for heading in headings))
    for name in order:
        of, clips = LABEL_NAMES[first[name].label], first[name].clips
        cells = "".join(f"{found[name].at_threshold:>26.0%}" for found in models.values())
        lines.append(f"{one_line(name):<{width}}{of:<8}{clips:>5}{cells}")
    if len(first) > len(order):
        lines.append(f"and {len(first) - len(order)} more that are missed less: *_metrics.json")
    return "\n".join(lines)


def matrices_side_by_side(at_half: dict[str, list[list[int]]], at_threshold: dict[str, list[list[int]]]) -> str:
    """The confusion matrices of several models for the terminal, by title, at 0.5 and at their thresholds."""
    lines = []
    for matrices, words in ((at_half, "at 0.5"), (at_threshold, "at the chosen threshold")):
        titles = "".join(f"{textwrap.shorten(title, 24, placeholder='…'):>26}" for title in matrices)
        lines.append(f"{words:<26}{titles}")
        predicted = "".join(f"{name:>13}" for name in LABEL_NAMES) * len(matrices)
        lines.append(f"{'predicted':<26}{predicted}")
        for label, name in enumerate(LABEL_NAMES):
            counts = "".join(f"{n:>13}" for matrix in matrices.values() for n in matrix[label])
            lines.append(f"{'true ' + name:<26}{counts}")
    return "\n".join(lines)
