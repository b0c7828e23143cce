"""Cross-validation of a classifier: calibrated out-of-fold scores and the threshold chosen on them.

Clips of one recording never sit on both sides of a split. Every clip is scored once, by a model that was trained on
neither it nor its recording; all reported numbers come from those scores.
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

from danger_safe.core.errors import UserError
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
    scores: np.ndarray  # calibrated probability of Danger
    raw_scores: np.ndarray  # the classifier's score before calibration
    folds: np.ndarray  # the fold in which the clip was held out
    sources: np.ndarray  # the recording that the clip was cut from
    rule: ThresholdRule
    threshold: float  # the operating point, chosen by ``rule``
    splitting: str  # description of the folds
    values: np.ndarray | None = None  # decision values, the input of calibration.fit_sigmoid
    similarity: np.ndarray | None = None  # to the clips of other folds (detection/novelty.py)
    windowed: WindowedEvaluation | None = None  # the same classifier on windows
    window_similarity: np.ndarray | None = None  # (windows,): as ``similarity``
    categories: np.ndarray | None = None
    unconverged: int = 0  # number of models whose training stopped before it converged

    @property
    def rule_description(self) -> str:
        """Describe the threshold rule and, above MAX_THRESHOLD, what it costs compared with MAX_THRESHOLD."""
        rule = self.rule
        if self.finds_min_recall:
            description = f"finds at least {rule.min_recall:.0%} of dangers"
            if rule.max_threshold < 1:
                description += f", and is never above {rule.max_threshold:g}"
        else:
            description = (
                f"is where recall and specificity together are highest: {rule.min_recall:.0%} of the dangers would be "
                "found only by calling as many safe clips Danger"
            )
        if self.threshold > MAX_THRESHOLD:
            (_, alarms_at_half), (missed_at_half, _) = self._confusion(MAX_THRESHOLD)
            (_, alarms), (missed, _) = self._confusion(self.threshold)
            description += (
                f"; it misses {missed} dangers, not {missed_at_half} as at 0.5, "
                f"and raises {alarms} false alarms, not {alarms_at_half}"
            )
        return description

    def _confusion(self, threshold: float) -> list[list[int]]:
        return confusion(self.labels, (self.scores >= threshold).astype(int)).tolist()

    @property
    def finds_min_recall(self) -> bool:
        """Whether the threshold has the recall that was asked for."""
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
    title: str = "",
) -> Evaluation:
    """Cross-validate ``pipeline`` on a table's clips and, if given, on their windows; choose its threshold.

    The scores of each fold are calibrated by a sigmoid fitted on the scores of the other folds. If the network was
    trained on some of the clips, the threshold is never above MAX_THRESHOLD: scores of such clips are further apart
    than those of new sounds, so a high threshold would seem to cost fewer dangers than it does.

    Args:
        pipeline: an unfitted scikit-learn Pipeline.
        table: the clips with their embeddings.
        rule: how to choose the threshold.
        seed: for making folds if the table has none.
        windows: windows of the same clips.
        jobs: number of processor cores.
        fit_full: also fit ``pipeline`` itself on all clips, in parallel with the folds.
        title: the model's name, for the progress bar.
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
    workers = Parallel(jobs, backend="threading", return_as="generator_unordered")
    with threadpool_limits(1, user_api="blas"), convergence_warnings() as unconverged:  # BLAS gains nothing here
        progress = f"Cross-validating {title}".rstrip()
        for _ in tqdm(workers(tasks), progress, len(tasks), unit="fold", file=sys.stderr):
            pass
    for fold in np.unique(folds):
        val = folds == fold
        sigmoid = fit_sigmoid(values[~val], table.labels[~val])
        scores[val] = sigmoid.predict(values[val])
        if windows is not None and (val_windows := val[windows.clip]).any():
            probabilities = sigmoid.predict(window_scores[val_windows])
            window_scores[val_windows] = probabilities * windows.audible[val_windows]
    windowed = None
    if windows is not None:
        windowed = WindowedEvaluation(windows, window_scores, table.labels, folds, sources)
    kept = {"scores": scores, "raw_scores": raw_scores, "unconverged": len(unconverged)}
    return replace(
        _from_scores(kept, table, rule, folds, splitting), values=values, similarity=similarities, windowed=windowed,
        window_similarity=window_similarities,
    )  # fmt: skip


def out_of_fold(result: Evaluation) -> dict:
    """Return what a model file keeps of an evaluation, so that ``restore`` need not train again."""
    return {"scores": result.scores, "raw_scores": result.raw_scores, "unconverged": result.unconverged}


def restore(kept: dict, table: EmbeddingTable, rule: ThresholdRule, seed: int) -> Evaluation:
    """Return the evaluation that ``evaluate`` made of the same table, rule and seed, without its decision values.

    Args:
        kept: the dict of ``out_of_fold``.
        table: the clips with their embeddings.
        rule: how the threshold was chosen.
        seed: for making folds if the table has none.

    Raises:
        UserError: the scores are of another number of clips.
    """
    if len(kept["scores"]) != len(table.labels) or len(kept["raw_scores"]) != len(table.labels):
        raise UserError(f"the model's scores are not of the clips of {table.path}. Train again")
    return _from_scores(kept, table, rule, *table_folds(table, seed))


def _from_scores(
    kept: dict, table: EmbeddingTable, rule: ThresholdRule, folds: np.ndarray, splitting: str
) -> Evaluation:
    """Choose the threshold of the scores in ``kept`` (``out_of_fold``), never above MAX_THRESHOLD for seen clips."""
    if table.seen.any():
        rule = replace(rule, max_threshold=min(rule.max_threshold, MAX_THRESHOLD))
    return Evaluation(
        table.labels, kept["scores"], kept["raw_scores"], folds, sources_of(table), rule,
        rule.choose(table.labels, kept["scores"]), splitting, categories=categories_of(table),
        unconverged=kept["unconverged"],
    )  # fmt: skip


@contextmanager
def convergence_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect scikit-learn's ConvergenceWarnings of a ``with`` block; suppress all other warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        yield caught


def sources_of(table: EmbeddingTable) -> np.ndarray:
    """Return the recording that each clip was cut from."""
    return table.clips["source"].to_numpy()


def categories_of(table: EmbeddingTable) -> np.ndarray:
    """Return the category of each clip, or the name of its label if it has none."""
    categories = table.clips["category"].to_numpy()
    return np.where(categories == "", np.array(LABEL_NAMES)[table.labels], categories)


def table_folds(table: EmbeddingTable, seed: int) -> tuple[np.ndarray, str]:
    """Return the fold in which each clip of a table is held out, and a description, as ``assign_folds`` does."""
    return assign_folds(table.labels, sources_of(table), table.clips["fold"].to_numpy(), seed)
