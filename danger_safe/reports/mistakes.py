"""Which clips the models get wrong, worst first, and which clips are nearest to them; mistakes.csv.

wrong = find_mistakes(results, own)
wrong.rows                              # rows of the table, worst first
nearest_neighbours(features, sources, wrong.rows)  # three clips of other recordings for each
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danger_safe.core.atomic import write_csv
from danger_safe.data.clips import DANGER, LABEL_NAMES
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.cross_validation import Evaluation

NEIGHBOURS = 3
KINDS = ("false alarm", "missed danger")  # by label
_BLOCK = 256  # clips whose neighbours are looked for at once


@dataclass(frozen=True)
class Mistakes:
    """What is wrong where. Arrays over models are in the order of ``titles``, those over clips in the table's."""

    titles: list[str]  # of the models; baselines last
    baselines: set[str]  # titles that are there to be compared with: their mistakes are shown, but do not count
    labels: np.ndarray  # (clips,) 0 Safe, 1 Danger
    thresholds: np.ndarray  # (models,)
    scores: np.ndarray  # (models, clips)
    wrong: np.ndarray  # (models, clips) bool: on the wrong side of the model's own threshold
    far: np.ndarray  # (models, clips) how far on the wrong side: 0 at the threshold, 1 at the end of the scale
    rows: np.ndarray  # the clips that an own model gets wrong, worst first


def find_mistakes(results: dict[str, Evaluation], own: list[str]) -> Mistakes:
    """The mistakes of the models called ``own`` in ``results`` (by title; the others are baselines).

    The distance is a fraction of the way from the threshold to the wrong end, not a difference of scores: a threshold
    of 0.1 would put every missed danger below false alarms. Of two clips as far off, the missed danger comes first.
    """
    titles = own + [title for title in results if title not in own]
    chosen = [results[title] for title in titles]
    labels, scores = chosen[0].labels, np.array([result.scores for result in chosen])
    thresholds = np.array([result.threshold for result in chosen])
    at = thresholds[:, None]
    wrong = (scores >= at) != (labels == DANGER)
    way = np.where(labels == DANGER, (at - scores) / np.maximum(at, 1e-12), (scores - at) / np.maximum(1 - at, 1e-12))
    far = np.where(wrong, way, 0.0)
    worst, mean = far[: len(own)].max(axis=0), far[: len(own)].mean(axis=0)
    order = np.lexsort((-mean, -labels, -worst))  # the last key counts most; ties stay in the table's order
    rows = order[wrong[: len(own)].any(axis=0)[order]]
    return Mistakes(titles, set(titles[len(own) :]), labels, thresholds, scores, wrong, far, rows)


def nearest_neighbours(features: np.ndarray, sources: np.ndarray, rows: np.ndarray) -> list[list[tuple[int, float]]]:
    """For each of ``rows``, up to three (row, cosine similarity) of clips of other recordings, nearest first.

    ``features``: standardised embeddings, (clips, dimensions).
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    found = []
    for begin in range(0, len(rows), _BLOCK):
        block = rows[begin : begin + _BLOCK]
        similarity = unit[block] @ unit.T
        similarity[sources[block][:, None] == sources] = -np.inf
        count = min(NEIGHBOURS, len(unit))
        best = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        for number, candidates in enumerate(best):
            pairs = [(int(row), float(similarity[number, row])) for row in candidates]
            found.append(sorted((p for p in pairs if p[1] > -np.inf), key=lambda p: (-p[1], p[0])))
    return found


def same_side(features: np.ndarray, sources: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of clips whose nearest clip of another recording has their label; ``features`` as in ``nearest``."""
    everything = np.arange(len(features))
    same = [
        labels[near[0][0]] == labels[row]
        for row, near in zip(everything, nearest_neighbours(features, sources, everything), strict=True)
        if near
    ]
    return float(np.mean(same)) if same else 0.0


def column_title(mistakes: Mistakes, title: str) -> str:
    """A model's title as columns have it."""
    return f"{title} (baseline)" if title in mistakes.baselines else title


def write_list(path: Path, table: EmbeddingTable, mistakes: Mistakes, neighbours: list) -> None:
    """mistakes.csv: a row a mistake, worst first."""
    columns = ["file", "label", "category", "mistake", "worst"]
    for title in mistakes.titles:
        columns += [f"{column_title(mistakes, title)}: {what}" for what in ("score", "wrong")]
    for number in range(1, NEIGHBOURS + 1):
        columns += [f"neighbour_{number}{what}" for what in ("", "_label", "_category", "_similarity")]
    files, categories = names_of(table)
    own = len(mistakes.titles) - len(mistakes.baselines)
    lines = []
    for row, near in zip(mistakes.rows, neighbours, strict=True):
        label = mistakes.labels[row]
        line = [files[row], label, categories[row], KINDS[label], f"{mistakes.far[:own, row].max():.4f}"]
        for score, wrong in zip(mistakes.scores[:, row], mistakes.wrong[:, row], strict=True):
            line += [f"{score:.4f}", int(wrong)]
        for other, similarity in near:
            line += [files[other], mistakes.labels[other], categories[other], f"{similarity:.4f}"]
        lines.append(line + [""] * (len(columns) - len(line)))
    write_csv(path, columns, lines)


def names_of(table: EmbeddingTable) -> tuple[list[str], list[str]]:
    """File and category of each clip as text; clips without a category have their label's name."""
    label_names = table.clips["label"].map(dict(enumerate(LABEL_NAMES)))
    categories = table.clips["category"]
    return table.clips["file"].tolist(), categories.where(categories != "", label_names).tolist()
