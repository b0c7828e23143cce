"""The one evaluation of every classifier: out-of-fold scores, an operating point, honest numbers.

Clips of one recording never sit on both sides of a split. Every clip is scored once, by a model that saw neither it
nor its recording; all numbers come from those scores.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from danger_safe.data.clips import LABEL_NAMES
from danger_safe.data.splits import assign_folds
from danger_safe.detection.novelty import fit_novelty, similarity
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.calibration import danger_scores, decision_values, fit_sigmoid
from danger_safe.evaluation.false_alarms import WindowedEvaluation
from danger_safe.evaluation.metrics import confusion
from danger_safe.evaluation.thresholds import MAX_THRESHOLD, ThresholdRule
from danger_safe.evaluation.window_table import WindowTable


@dataclass(frozen=True)
class Evaluation:
    """Out-of-fold scores of one classifier. Arrays have one entry a clip, in the order of the table."""

    labels: np.ndarray  # 0 Safe, 1 Danger
    scores: np.ndarray  # the calibrated probability of Danger
    raw_scores: np.ndarray  # what the classifier said before calibration
    folds: np.ndarray  # number of the fold that the clip was held out in
    sources: np.ndarray  # the recording that the clip is from
    rule: ThresholdRule  # how the threshold is chosen
    threshold: float  # the operating point
    splitting: str  # how the folds were made, in words
    values: np.ndarray | None = None  # what calibration.fit_sigmoid is fitted on
    similarity: np.ndarray | None = None  # to the clips of other folds, see detection/novelty.py
    windowed: WindowedEvaluation | None = None  # the same classifier on the windows of long stretches
    window_similarity: np.ndarray | None = None  # (windows,): as ``similarity``
    categories: np.ndarray | None = None  # of each clip
    unconverged: int = 0  # models whose training ended before it had converged

    @property
    def rule_description(self) -> str:
        """What the threshold keeps to, and what is given up where it is above MAX_THRESHOLD."""
        rule = self.rule
        if self.finds_min_recall:
            words = f"finds at least {rule.min_recall:.0%} of dangers"
            if rule.max_threshold < 1:
                words += f", and is never above {rule.max_threshold:g}"
        else:
            words = (
                f"is where recall and specificity together are highest: {rule.min_recall:.0%} of the dangers would be "
                "found only by calling as many safe clips Danger"
            )
        if self.threshold > MAX_THRESHOLD:
            (_, at_half), (missed_at_half, _) = self._confusion(MAX_THRESHOLD)
            (_, alarms), (missed, _) = self._confusion(self.threshold)
            words += (
                f"; it misses {missed} dangers, not {missed_at_half} as at 0.5, "
                f"and raises {alarms} false alarms, not {at_half}"
            )
        return words

    def _confusion(self, threshold: float) -> list[list[int]]:
        return confusion(self.labels, (self.scores >= threshold).astype(int)).tolist()

    @property
    def finds_min_recall(self) -> bool:
        """Whether the threshold finds the fraction of dangers that it was to find."""
        recall = (self.scores[self.labels == 1] >= self.threshold).mean()
        return bool(recall >= self.rule.min_recall - 1e-12)


def evaluate(
    pipeline: Pipeline,
    table: EmbeddingTable,
    rule: ThresholdRule,
    seed: int,
    windows: WindowTable | None = None,
    jobs: int = 1,
    fit_full: bool = False,
) -> Evaluation:
    """Cross-validate ``pipeline`` on a table's clips, and on their windows where given; choose its threshold.

    The scores of each fold become probabilities by a sigmoid fitted on the other folds' scores.
    On clips that the network was trained on, scores are further apart than they will be on new sounds, and a threshold
    above MAX_THRESHOLD would trade dangers for false alarms that it only seems to know: it is never above it there.

    Args:
        pipeline: an unfitted scikit-learn Pipeline.
        table: the clips, with their embeddings.
        rule: how the threshold is chosen.
        seed: of the folds, where the table brings none.
        windows: of the same clips.
        jobs: processor cores to use.
        fit_full: ``pipeline`` itself is fitted on every clip meanwhile, by a core that would otherwise wait.
    """
    sources = sources_of(table)
    folds, splitting = table_folds(table, seed)
    scores, raw_scores, values, similarities = np.full((4, len(table.labels)), np.nan)
    window_scores, window_similarities = np.zeros((2, 0 if windows is None else len(windows.clip)))

    def score(fold: int) -> None:
        val, train = folds == fold, folds != fold
        features = table.features
        model = clone(pipeline).fit(features[train], table.labels[train])
        novelty = fit_novelty(features[train])
        values[val], raw_scores[val] = decision_values(model, features[val]), danger_scores(model, features[val])
        similarities[val] = similarity(novelty, features[val])
        if windows is not None and (val_windows := val[windows.clip]).any():
            window_scores[val_windows] = decision_values(model, windows.embeddings[val_windows])
            window_similarities[val_windows] = similarity(novelty, windows.embeddings[val_windows])

    tasks = [delayed(score)(fold) for fold in np.unique(folds)]
    if fit_full:
        tasks.append(delayed(pipeline.fit)(table.features, table.labels))
    on_one_core = getattr(pipeline[-1], "n_jobs", None) in (None, 1)  # a forest uses several cores by itself
    workers = Parallel(jobs if on_one_core else 1, backend="threading", return_as="generator_unordered")
    with threadpool_limits(1, user_api="blas"), convergence_warnings() as unconverged:  # matrices are small
        for _ in tqdm(workers(tasks), "Cross-validating", len(tasks), unit="fold", file=sys.stderr):
            pass
    for fold in np.unique(folds):
        val = folds == fold
        sigmoid = fit_sigmoid(values[~val], table.labels[~val])
        scores[val] = sigmoid.predict(values[val])
        if windows is not None and (val_windows := val[windows.clip]).any():
            probabilities = sigmoid.predict(window_scores[val_windows])
            window_scores[val_windows] = probabilities * windows.audible[val_windows]
    if table.seen.any():
        rule = replace(rule, max_threshold=min(rule.max_threshold, MAX_THRESHOLD))
    windowed = None
    if windows is not None:
        windowed = WindowedEvaluation(windows, window_scores, table.labels, folds, sources)
    return Evaluation(
        table.labels, scores, raw_scores, folds, sources, rule, rule.choose(table.labels, scores), splitting,
        values=values, similarity=similarities, windowed=windowed, window_similarity=window_similarities,
        categories=categories_of(table), unconverged=len(unconverged),
    )  # fmt: skip


@contextmanager
def convergence_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """In a ``with`` block, scikit-learn's warnings that a training has not converged; other warnings are left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        yield caught


def sources_of(table: EmbeddingTable) -> np.ndarray:
    """The recording of each clip."""
    return table.clips["source"].to_numpy()


def categories_of(table: EmbeddingTable) -> np.ndarray:
    """The category of each clip; of clips without one, their label's name."""
    categories = table.clips["category"].to_numpy()
    return np.where(categories == "", np.array(LABEL_NAMES)[table.labels], categories)


def table_folds(table: EmbeddingTable, seed: int) -> tuple[np.ndarray, str]:
    """The fold in which each clip of a table is held out, and how that was decided, as ``assign_folds``."""
    return assign_folds(table.labels, sources_of(table), table.clips["fold"].to_numpy(), seed)
