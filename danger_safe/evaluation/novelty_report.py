"""What the novelty rule costs and brings: known sounds called Unknown, and sounds of categories that nobody taught it."""

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from danger_safe.detection.novelty import fit_novelty, min_similarity_of, similarity
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.calibration import decision_values, fit_sigmoid
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import fraction_with_interval

GROUPS = 10  # of categories left out in turn: each category by itself up to so many


def leave_out_categories(
    model: Pipeline, sigmoid, table: EmbeddingTable, threshold: float, level: float
) -> dict[str, dict[str, int]]:
    """What a model says of categories that it was not taught: {category: {danger, unknown, clips}}, in clips.

    Each category is left out in turn (beyond GROUPS of them, several at once), rule and classifier learn from the
    others, and the left-out clips are asked about. ``model`` is the pipeline, ``sigmoid`` turns its scores into
    probabilities.
    """
    labels, categories = table.labels, table.clips["category"].to_numpy()
    names = np.unique(categories)
    group = {name: number % GROUPS for number, name in enumerate(names)}
    number = np.array([group[name] for name in categories])
    danger, unknown = np.zeros((2, len(labels)), bool)
    answers = {}
    for out in range(min(GROUPS, len(names))):
        left, known = number == out, number != out
        if len(np.unique(labels[known])) < 2:
            continue  # without this category one label would be missing
        features = table.features
        classifier, rule = clone(model).fit(features[known], labels[known]), fit_novelty(features[known])
        danger[left] = sigmoid.predict(decision_values(classifier, features[left])) >= threshold
        unknown[left] = ~danger[left] & (similarity(rule, features[left]) < level)
        for name in np.unique(categories[left]):
            here = categories == name
            counts = {"danger": danger[here].sum(), "unknown": unknown[here].sum(), "clips": here.sum()}
            answers[str(name)] = {key: int(value) for key, value in counts.items()}
    return answers


def summarise_unknown(result: Evaluation) -> dict:
    """The level and its price, for *_metrics.json: see ``in_words``."""
    known, counted = clip_similarity(result)
    level = min_similarity_of(known[counted])
    safe = counted & (result.scores < result.threshold)
    unknown = safe & (known < level)
    return {
        "level": level,
        "known_called_unknown": fraction_with_interval(unknown[safe], result.sources[safe]),
        "missed_called_unknown": [
            int((unknown & (result.labels == 1)).sum()),
            int((safe & (result.labels == 1)).sum()),
        ],
    }


def summarise_left_out(result: Evaluation, model: Pipeline, table: EmbeddingTable) -> dict:
    """The benefit, for *_metrics.json: what becomes of categories that ``model``, a pipeline, was not taught."""
    sigmoid = fit_sigmoid(result.values, table.labels)
    categories = table.clips["category"].to_numpy()
    answers = leave_out_categories(model, sigmoid, table, result.threshold, min_similarity_of(result.similarity))
    label_of = dict(zip(categories.tolist(), table.labels.tolist(), strict=True))
    left_out = {}
    for label, name in ((1, "danger"), (0, "safe")):
        of_label = [counts for category, counts in answers.items() if label_of[category] == label]
        left_out[name] = {key: sum(counts[key] for counts in of_label) for key in ("clips", "danger", "unknown")}
    return {"left_out": left_out, "left_out_categories": answers}


def clip_similarity(result: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Familiarity of each clip to a rule that had not heard its recording, and which clips have one: (clips,) each.

    As predict_danger.py hears: the median of the clip's windows. Where no window lies inside a safe clip, since all are
    shorter than one, the similarity of the clips themselves.
    """
    if result.trial is None:
        return result.similarity, np.ones(len(result.labels), bool)
    heard, known = result.trial.heard, np.full(len(result.labels), np.inf)
    for clip in np.unique(heard.clip[heard.whole]):
        known[clip] = np.median(result.window_similarity[heard.whole & (heard.clip == clip)])
    if not np.isfinite(known[result.labels == 0]).any():
        return result.similarity, np.ones(len(result.labels), bool)
    return known, np.isfinite(known)


def in_words(measures: dict) -> str:
    """A line for the terminal, and two more where categories were left out."""
    price, (unknown, missed) = measures["known_called_unknown"][0], measures["missed_called_unknown"]
    lines = [
        f"Unknown rather than Safe: {price:.0%} of the known sounds that are not called Danger"
        f" ({unknown} of the {missed} missed dangers among them)"
    ]
    for name, words in (("danger", "dangers"), ("safe", "safe sounds")):
        counts = measures.get("left_out", {}).get(name, {"clips": 0})
        if counts["clips"]:
            shares = [counts[key] / counts["clips"] for key in ("danger", "unknown")]
            lines.append(
                f"  {words} of categories left out of training: {shares[0]:.0%} called Danger, {shares[1]:.0%} Unknown, "
                f"{1 - sum(shares):.0%} Safe"
            )
    return "\n".join(lines)
