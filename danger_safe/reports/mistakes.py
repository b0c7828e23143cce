"""Find the clips that models get wrong, worst first, with their nearest neighbours; write mistakes.csv.

mistakes = find_mistakes(results, models)
mistakes.rows                                         # rows of the table, worst first
nearest_neighbours(features, sources, mistakes.rows)  # three clips of other recordings for each
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danger_safe.core.atomic import write_csv
from danger_safe.data.clips import DANGER, LABEL_NAMES
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.cross_validation import Evaluation

NEIGHBOURS = 3
MISTAKE_NAMES = ("false alarm", "missed danger")  # name of a mistake, by true label
_BLOCK_SIZE = 256  # clips whose similarities to all others are in memory at once


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of several models. Arrays follow the order of ``titles`` and of the table."""

    titles: list[str]  # of the models; baselines last
    baselines: set[str]  # titles of baselines, whose mistakes are shown but do not add clips to ``rows``
    labels: np.ndarray  # (clips,) 0 Safe, 1 Danger
    thresholds: np.ndarray  # (models,)
    scores: np.ndarray  # (models, clips)
    wrong: np.ndarray  # (models, clips) bool: on the wrong side of the model's threshold
    severity: np.ndarray  # (models, clips), 0 at the threshold or if right, 1 at the far end of the scale
    rows: np.ndarray  # clips that a model, not only a baseline, gets wrong, worst first


def find_mistakes(results: dict[str, Evaluation], models: list[str]) -> Mistakes:
    """Find the mistakes of ``models``, titles in ``results``; the other results are baselines.

    A mistake's severity is the fraction of the way from the threshold to the wrong end of the scale. A difference of
    scores would not do: with a threshold of 0.1, every missed danger would rank below false alarms. Of two clips with
    equal severity the missed danger comes first.
    """
    titles = models + [title for title in results if title not in models]
    evaluations = [results[title] for title in titles]
    labels, scores = evaluations[0].labels, np.array([result.scores for result in evaluations])
    thresholds = np.array([result.threshold for result in evaluations])
    thresholds_column = thresholds[:, None]
    wrong = (scores >= thresholds_column) != (labels == DANGER)
    below = (thresholds_column - scores) / np.maximum(thresholds_column, 1e-12)
    above = (scores - thresholds_column) / np.maximum(1 - thresholds_column, 1e-12)
    severity = np.where(wrong, np.where(labels == DANGER, below, above), 0.0)
    worst, mean = severity[: len(models)].max(axis=0), severity[: len(models)].mean(axis=0)
    order = np.lexsort((-mean, -labels, -worst))  # the last key counts most; ties stay in the table's order
    rows = order[wrong[: len(models)].any(axis=0)[order]]
    return Mistakes(titles, set(titles[len(models) :]), labels, thresholds, scores, wrong, severity, rows)


def nearest_neighbours(features: np.ndarray, sources: np.ndarray, rows: np.ndarray) -> list[list[tuple[int, float]]]:
    """Return up to NEIGHBOURS clips of other recordings for each of ``rows``: (row, cosine similarity), nearest first.

    Args:
        features: standardised embeddings, (clips, dimensions).
        sources: (clips,), the recording of each clip.
        rows: the clips whose neighbours are wanted.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(rows), _BLOCK_SIZE):
        block = rows[start : start + _BLOCK_SIZE]
        similarity = unit[block] @ unit.T
        similarity[sources[block][:, None] == sources] = -np.inf
        count = min(NEIGHBOURS, len(unit))
        best = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        for number, candidates in enumerate(best):
            pairs = [(int(row), float(similarity[number, row])) for row in candidates]
            found.append(sorted((p for p in pairs if p[1] > -np.inf), key=lambda p: (-p[1], p[0])))
    return found


def nearest_neighbour_agreement(features: np.ndarray, sources: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of clips whose nearest clip of another recording has the same label.

    Arguments as in ``nearest_neighbours``; ``labels``: (clips,).
    """
    rows = np.arange(len(features))
    is_same = [
        labels[neighbours[0][0]] == labels[row]
        for row, neighbours in zip(rows, nearest_neighbours(features, sources, rows), strict=True)
        if neighbours
    ]
    return float(np.mean(is_same)) if is_same else 0.0


def column_title(mistakes: Mistakes, title: str) -> str:
    """Return a model's title for column headings."""
    return f"{title} (baseline)" if title in mistakes.baselines else title


def write_mistakes_csv(path: Path, table: EmbeddingTable, mistakes: Mistakes, neighbours: list) -> None:
    """Write mistakes.csv: one row per mistake, worst first.

    ``neighbours``: as returned by ``nearest_neighbours`` for ``mistakes.rows``.
    """
    columns = ["file", "label", "category", "mistake", "worst"]
    for title in mistakes.titles:
        columns += [f"{column_title(mistakes, title)}: {suffix}" for suffix in ("score", "wrong")]
    for number in range(1, NEIGHBOURS + 1):
        columns += [f"neighbour_{number}{suffix}" for suffix in ("", "_label", "_category", "_similarity")]
    files, categories = files_and_categories(table)
    n_models = len(mistakes.titles) - len(mistakes.baselines)
    csv_rows = []
    for row, row_neighbours in zip(mistakes.rows, neighbours, strict=True):
        label = mistakes.labels[row]
        severity = f"{mistakes.severity[:n_models, row].max():.4f}"
        csv_row = [files[row], label, categories[row], MISTAKE_NAMES[label], severity]
        for score, wrong in zip(mistakes.scores[:, row], mistakes.wrong[:, row], strict=True):
            csv_row += [f"{score:.4f}", int(wrong)]
        for neighbour, similarity in row_neighbours:
            csv_row += [files[neighbour], mistakes.labels[neighbour], categories[neighbour], f"{similarity:.4f}"]
        csv_rows.append(csv_row + [""] * (len(columns) - len(csv_row)))
    write_csv(path, columns, csv_rows)


def files_and_categories(table: EmbeddingTable) -> tuple[list[str], list[str]]:
    """Return file and category of each clip; clips without a category get their label's name."""
    label_names = table.clips["label"].map(dict(enumerate(LABEL_NAMES)))
    categories = table.clips["category"]
    return table.clips["file"].tolist(), categories.where(categories != "", label_names).tolist()
