"""What the novelty rule costs and brings: known sounds called Unknown, and sounds of categories that nobody taught
it."""

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

GROUPS = 10  # of categories left out in turn: each category by itself up to so many


@dataclass(frozen=True)
class AnswerCounts:
    """How many of some clips were called what; the others are Safe."""

    clips: int
    danger: int
    unknown: int

    def __add__(self, other: "AnswerCounts") -> "AnswerCounts":
        return AnswerCounts(self.clips + other.clips, self.danger + other.danger, self.unknown + other.unknown)


@dataclass(frozen=True)
class NoveltyReport:
    """The rule's price, and what it brings where that was measured."""

    min_similarity: float  # below it a sound is Unknown
    known_called_unknown: Estimate  # fraction of the known sounds that are not called Danger
    missed_called_unknown: int  # of ``missed``
    missed: int  # dangers below the threshold
    left_out_dangers: AnswerCounts | None = None  # clips of categories that were left out of training
    left_out_safe: AnswerCounts | None = None
    left_out_categories: dict[str, AnswerCounts] | None = None

    def as_json(self) -> dict:
        """For *_metrics.json."""
        content = {
            "level": self.min_similarity,
            "known_called_unknown": self.known_called_unknown.as_list(),
            "missed_called_unknown": [self.missed_called_unknown, self.missed],
        }
        if self.left_out_dangers and self.left_out_safe and self.left_out_categories is not None:
            content["left_out"] = {"danger": asdict(self.left_out_dangers), "safe": asdict(self.left_out_safe)}
            content["left_out_categories"] = {name: asdict(found) for name, found in self.left_out_categories.items()}
        return content

    def describe(self) -> str:
        """A line for the terminal, and two more where categories were left out."""
        lines = [
            f"Unknown rather than Safe: {self.known_called_unknown.value:.0%} of the known sounds that are not called "
            f"Danger ({self.missed_called_unknown} of the {self.missed} missed dangers among them)"
        ]
        for answers, words in ((self.left_out_dangers, "dangers"), (self.left_out_safe, "safe sounds")):
            if answers and answers.clips:
                danger, unknown = answers.danger / answers.clips, answers.unknown / answers.clips
                lines.append(
                    f"  {words} of categories left out of training: {danger:.0%} called Danger, {unknown:.0%} Unknown, "
                    f"{max(0.0, 1 - danger - unknown):.0%} Safe"
                )
        return "\n".join(lines)


def summarise_novelty(result: Evaluation) -> NoveltyReport:
    """The rule and its price."""
    similarities, is_counted = clip_similarity(result)
    min_similarity = min_similarity_of(similarities[is_counted])
    not_danger = is_counted & (result.scores < result.threshold)
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
    """The report with what becomes of categories that ``model``, an unfitted pipeline, was not taught."""
    categories = table.clips["category"].to_numpy()
    answers = leave_out_categories(result, model, table)
    label_of = dict(zip(categories.tolist(), table.labels.tolist(), strict=True))
    totals = {
        label: sum((found for name, found in answers.items() if label_of[name] == label), AnswerCounts(0, 0, 0))
        for label in (DANGER, SAFE)
    }
    return replace(report, left_out_dangers=totals[DANGER], left_out_safe=totals[SAFE], left_out_categories=answers)


def leave_out_categories(result: Evaluation, model: Pipeline, table: EmbeddingTable) -> dict[str, AnswerCounts]:
    """What a model answers to clips of categories that it was not taught, by category.

    Each category is left out in turn (beyond GROUPS of them, several at once), rule and classifier learn from the
    others, and the left-out clips are asked about.
    """
    labels, categories, features = table.labels, table.clips["category"].to_numpy(), table.features
    assert result.values is not None and result.similarity is not None  # evaluate keeps them
    sigmoid = fit_sigmoid(result.values, labels)
    min_similarity = min_similarity_of(result.similarity)
    names = np.unique(categories)
    group_of = {name: number % GROUPS for number, name in enumerate(names)}
    group = np.array([group_of[name] for name in categories])
    answers = {}
    for number in range(min(GROUPS, len(names))):
        val, train = group == number, group != number
        if len(np.unique(labels[train])) < 2:
            continue  # without this category one label would be missing
        classifier, rule = clone(model).fit(features[train], labels[train]), fit_novelty(features[train])
        danger = sigmoid.predict(decision_values(classifier, features[val])) >= result.threshold
        unknown = ~danger & (similarity(rule, features[val]) < min_similarity)
        for name in np.unique(categories[val]):
            here = categories[val] == name
            answers[str(name)] = AnswerCounts(int(here.sum()), int(danger[here].sum()), int(unknown[here].sum()))
    return answers


def clip_similarity(result: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Similarity of each clip to those of other recordings, and which clips have one: (clips,) each.

    As predict_danger.py hears: the median of the clip's windows. Where no window lies inside a safe clip, since all are
    shorter than one, the similarity of the clips themselves.
    """
    assert result.similarity is not None  # evaluate keeps it
    all_clips = np.ones(len(result.labels), bool)
    if result.windowed is None:
        return result.similarity, all_clips
    assert result.window_similarity is not None  # nor is it, beside windows, ever left out
    windows, similarities = result.windowed.windows, np.full(len(result.labels), np.inf)
    for clip in np.unique(windows.clip[windows.inside_clip]):
        similarities[clip] = np.median(result.window_similarity[windows.inside_clip & (windows.clip == clip)])
    if not np.isfinite(similarities[result.labels == SAFE]).any():
        return result.similarity, all_clips
    return similarities, np.isfinite(similarities)
