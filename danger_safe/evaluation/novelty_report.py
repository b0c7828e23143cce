"""Evaluation of the novelty rule: known sounds called Unknown, and sounds of categories left out of training."""

from dataclasses import asdict, dataclass, replace

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from danger_safe.data.clips import DANGER, SAFE
from danger_safe.detection.novelty import fit_novelty, min_similarity_of, similarity
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.calibration import decision_values, fit_sigmoid
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import Estimate, fraction_with_interval

GROUPS = 10  # trainings with categories left out; with more categories, several are left out at once


@dataclass(frozen=True)
class AnswerCounts:
    """Number of clips called Danger and Unknown; the others were called Safe."""

    clips: int
    danger: int
    unknown: int

    def __add__(self, other: "AnswerCounts") -> "AnswerCounts":
        return AnswerCounts(self.clips + other.clips, self.danger + other.danger, self.unknown + other.unknown)


@dataclass(frozen=True)
class NoveltyReport:
    """How the novelty rule treats known sounds and, if measured, those of categories left out of training."""

    min_similarity: float  # sounds below it are Unknown
    known_called_unknown: Estimate  # among known sounds that are not called Danger
    missed_called_unknown: int  # number of missed dangers called Unknown
    missed: int  # dangers below the threshold
    left_out_dangers: AnswerCounts | None = None
    left_out_safe: AnswerCounts | None = None
    left_out_categories: dict[str, AnswerCounts] | None = None

    def as_json(self) -> dict:
        """Return the value of ``unknown`` in *_metrics.json."""
        content = {
            "level": self.min_similarity,
            "known_called_unknown": self.known_called_unknown.as_list(),
            "missed_called_unknown": [self.missed_called_unknown, self.missed],
        }
        if self.left_out_dangers and self.left_out_safe and self.left_out_categories is not None:
            content["left_out"] = {"danger": asdict(self.left_out_dangers), "safe": asdict(self.left_out_safe)}
            content["left_out_categories"] = {name: asdict(counts) for name, counts in self.left_out_categories.items()}
        return content

    def describe(self) -> str:
        """Return a line for the terminal, and two more if categories were left out."""
        lines = [
            f"Unknown rather than Safe: {self.known_called_unknown.value:.0%} of the known sounds that are not called "
            f"Danger ({self.missed_called_unknown} of the {self.missed} missed dangers among them)"
        ]
        for counts, noun in ((self.left_out_dangers, "dangers"), (self.left_out_safe, "safe sounds")):
            if counts and counts.clips:
                danger, unknown = counts.danger / counts.clips, counts.unknown / counts.clips
                lines.append(
                    f"  {noun} of categories left out of training: {danger:.0%} called Danger, {unknown:.0%} Unknown, "
                    f"{max(0.0, 1 - danger - unknown):.0%} Safe"
                )
        return "\n".join(lines)


def summarise_novelty(result: Evaluation) -> NoveltyReport:
    """Choose the novelty rule's ``min_similarity`` and count the known sounds that it calls Unknown."""
    similarities, has_similarity = clip_similarity(result)
    min_similarity = min_similarity_of(similarities[has_similarity])
    not_danger = has_similarity & (result.scores < result.threshold)
    unknown = not_danger & (similarities < min_similarity)
    return NoveltyReport(
        min_similarity=min_similarity,
        known_called_unknown=fraction_with_interval(unknown[not_danger], result.sources[not_danger]),
        missed_called_unknown=int((unknown & (result.labels == DANGER)).sum()),
        missed=int((not_danger & (result.labels == DANGER)).sum()),
    )


def add_left_out_categories(
    report: NoveltyReport, result: Evaluation, model: Pipeline, table: EmbeddingTable
) -> NoveltyReport:
    """Add what becomes of sounds whose category is left out of training.

    Args:
        report: as returned by ``summarise_novelty``.
        result: the evaluation behind it.
        model: the unfitted Pipeline.
        table: the clips.
    """
    categories = table.clips["category"].to_numpy()
    counts = leave_out_categories(result, model, table)
    label_of = dict(zip(categories.tolist(), table.labels.tolist(), strict=True))
    totals = {
        label: sum(
            (answers for category, answers in counts.items() if label_of[category] == label), AnswerCounts(0, 0, 0)
        )
        for label in (DANGER, SAFE)
    }
    return replace(report, left_out_dangers=totals[DANGER], left_out_safe=totals[SAFE], left_out_categories=counts)


def leave_out_categories(result: Evaluation, model: Pipeline, table: EmbeddingTable) -> dict[str, AnswerCounts]:
    """Count the answers to clips of each category by a model and a novelty rule that were fitted without it.

    Each category is left out in turn; if there are more than GROUPS, several at once.
    """
    labels, categories, features = table.labels, table.clips["category"].to_numpy(), table.features
    assert result.values is not None and result.similarity is not None  # evaluate keeps them
    sigmoid = fit_sigmoid(result.values, labels)
    min_similarity = min_similarity_of(result.similarity)
    unique_categories, category_index = np.unique(categories, return_inverse=True)
    group_of_clip = category_index % GROUPS
    counts = {}
    for group in range(min(GROUPS, len(unique_categories))):
        left_out, train = group_of_clip == group, group_of_clip != group
        if len(np.unique(labels[train])) < 2:
            continue  # no other category has this label
        classifier, rule = clone(model).fit(features[train], labels[train]), fit_novelty(features[train])
        is_danger = sigmoid.predict(decision_values(classifier, features[left_out])) >= result.threshold
        is_unknown = ~is_danger & (similarity(rule, features[left_out]) < min_similarity)
        for category in np.unique(categories[left_out]):
            in_category = categories[left_out] == category
            counts[str(category)] = AnswerCounts(
                clips=int(in_category.sum()),
                danger=int(is_danger[in_category].sum()),
                unknown=int(is_unknown[in_category].sum()),
            )
    return counts


def clip_similarity(result: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Return each clip's similarity to clips of other folds, and a mask of the clips that have one: (clips,) each.

    If windows were evaluated it is the median over the windows inside the clip, as predict_danger.py scores sounds. If
    no safe clip is longer than a window, it is the similarity of the whole clips.
    """
    assert result.similarity is not None  # evaluate keeps it
    all_clips = np.ones(len(result.labels), bool)
    if result.windowed is None:
        return result.similarity, all_clips
    assert result.window_similarity is not None  # evaluate keeps it for windows
    windows, similarities = result.windowed.windows, np.full(len(result.labels), np.inf)
    for clip in np.unique(windows.clip[windows.inside_clip]):
        similarities[clip] = np.median(result.window_similarity[windows.inside_clip & (windows.clip == clip)])
    if not np.isfinite(similarities[result.labels == SAFE]).any():
        return result.similarity, all_clips
    return similarities, np.isfinite(similarities)
