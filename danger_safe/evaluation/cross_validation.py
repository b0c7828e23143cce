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
from danger_safe.evaluation.calibration import calibration, danger_scores, decision_values, fit_sigmoid
from danger_safe.evaluation.false_alarms import Trial
from danger_safe.evaluation.intervals import auc_interval
from danger_safe.evaluation.metrics import category_recall, confusion, ranking, report, scores_at
from danger_safe.evaluation.thresholds import MAX_THRESHOLD, Rule, expected, without_own_fold
from danger_safe.evaluation.window_table import Heard


@dataclass(frozen=True)
class Evaluation:
    """Out-of-fold scores of one classifier. Arrays have one entry a clip, in the order of the table."""

    labels: np.ndarray  # 0 Safe, 1 Danger
    scores: np.ndarray  # the calibrated probability of Danger
    raw_scores: np.ndarray  # what the classifier said before calibration
    folds: np.ndarray  # number of the fold that the clip was held out in
    sources: np.ndarray  # the recording that the clip is from
    rule: Rule  # how the threshold is chosen
    threshold: float  # the operating point
    splitting: str  # how the folds were made, in words
    values: np.ndarray | None = None  # what calibration.fit_sigmoid is fitted on
    similarity: np.ndarray | None = None  # to a novelty rule that had not learnt from its fold
    trial: Trial | None = None  # the same classifier on the windows of long stretches
    window_similarity: np.ndarray | None = None  # (windows of the trial,)
    categories: np.ndarray | None = None  # of each clip
    unconverged: int = 0  # models whose training ended before it had converged

    @property
    def rule_in_words(self) -> str:
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
    rule: Rule,
    seed: int,
    heard: Heard | None = None,
    jobs: int = 1,
    fit_whole: bool = False,
) -> Evaluation:
    """Cross-validate ``pipeline`` on the clips and on the windows ``heard``; choose its threshold.

    ``fit_whole``: ``pipeline`` itself is fitted on every clip meanwhile, by a core that would otherwise wait.

    The scores of each fold become probabilities by a sigmoid fitted on the other folds' scores.
    On clips that the network was trained on, scores are further apart than they will be on new sounds, and a threshold
    above MAX_THRESHOLD would trade dangers for false alarms that it only seems to know: it is never above it there.
    """
    sources = sources_of(table)
    folds, splitting = folds_of(table, seed)
    scores, raw, values, known_as = np.full((4, len(table.labels)), np.nan)
    alone, window_similarity = np.zeros((2, 0 if heard is None else len(heard.clip)))

    def score(fold: int) -> None:
        out, train = folds == fold, folds != fold
        features = table.features
        model = clone(pipeline).fit(features[train], table.labels[train])
        novelty = fit_novelty(features[train])
        values[out], raw[out] = (of(model, features[out]) for of in (decision_values, danger_scores))
        known_as[out] = similarity(novelty, features[out])
        if heard is not None and (there := out[heard.clip]).any():
            alone[there] = decision_values(model, heard.embeddings[there])
            window_similarity[there] = similarity(novelty, heard.embeddings[there])

    tasks = [delayed(score)(fold) for fold in np.unique(folds)]
    if fit_whole:
        tasks.append(delayed(pipeline.fit)(table.features, table.labels))
    by_itself = getattr(pipeline[-1], "n_jobs", None) in (None, 1)  # else each model uses the cores that there are
    workers = Parallel(jobs if by_itself else 1, backend="threading", return_as="generator_unordered")
    with threadpool_limits(1, user_api="blas"), complaints_of_training() as complaints:  # the matrices are small
        for _ in tqdm(workers(tasks), "Cross-validating", len(tasks), unit="fold", file=sys.stderr):
            pass
    for fold in np.unique(folds):
        out = folds == fold
        sigmoid = fit_sigmoid(values[~out], table.labels[~out])
        scores[out] = sigmoid.predict(values[out])
        if heard is not None and (there := out[heard.clip]).any():
            alone[there] = sigmoid.predict(alone[there]) * heard.audible[there]
    if table.seen.any():
        rule = replace(rule, max_threshold=min(rule.max_threshold, MAX_THRESHOLD))
    trial = None if heard is None else Trial(heard, alone, table.labels, folds, sources)
    threshold = rule.choose(table.labels, scores)
    return Evaluation(
        table.labels, scores, raw, folds, sources, rule, threshold, splitting, values,
        known_as, trial, window_similarity, categories_of(table), len(complaints),
    )  # fmt: skip


@contextmanager
def complaints_of_training() -> Iterator[list[warnings.WarningMessage]]:
    """In a ``with`` block, scikit-learn's warnings that a training has not converged; other warnings are left out."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        yield complaints


def sources_of(table: EmbeddingTable) -> np.ndarray:
    """The recording of each clip."""
    return table.clips["source"].to_numpy()


def categories_of(table: EmbeddingTable) -> np.ndarray:
    """The category of each clip; of clips without one, their label's name."""
    categories = table.clips["category"].to_numpy()
    return np.where(categories == "", np.array(LABEL_NAMES)[table.labels], categories)


def folds_of(table: EmbeddingTable, seed: int) -> tuple[np.ndarray, str]:
    """The fold in which each clip of a table is held out, and how that was decided, as ``assign_folds``."""
    return assign_folds(table.labels, sources_of(table), table.clips["fold"].to_numpy(), seed)


def summarise(result: Evaluation) -> dict:
    """Everything that a training reports, as plain numbers: for the table, the picture and *_metrics.json."""
    labels, scores = result.labels, result.scores

    def choose(clips: np.ndarray) -> float:
        return result.rule.choose(labels[clips], scores[clips])

    thresholds = without_own_fold(labels, result.folds, choose)
    summary = {
        "clips": len(labels),
        "danger": int(labels.sum()),
        "safe": int((labels == 0).sum()),
        "splitting": result.splitting,
        "majority_baseline": float(max(labels.mean(), 1 - labels.mean())),
        "threshold": result.threshold,
        "threshold_rule": result.rule_in_words,
        "promise": expected(labels, scores, result.sources, result.folds, thresholds),
        "roc_auc_interval": list(auc_interval(labels, scores, result.sources)),
        "calibration": {"before": calibration(labels, result.raw_scores), "after": calibration(labels, scores)},
        "ranking": _spread(result, lambda y, s: ranking(y, s) if len(np.unique(y)) == 2 else {}),
    }
    if result.trial is not None:
        summary["per_hour"] = result.trial.promise(thresholds) | {
            "at_min_recall": result.trial.at_recall(result.rule.min_recall)
        }
        summary["operating_points"] = result.trial.points()
    thresholds_by_name = {"at_0.5": 0.5, "at_threshold": result.threshold}
    if result.categories is not None:
        summary["categories"] = category_recall(labels, result.categories, scores, thresholds_by_name)
    summary["classification_report"] = report(labels, scores, result.threshold)
    summary["finds_min_recall"], summary["unconverged"] = result.finds_min_recall, result.unconverged
    for name, threshold in thresholds_by_name.items():
        at = _spread(result, lambda y, s, t=threshold: scores_at(y, s, t))
        summary[name] = at | {"confusion": confusion(labels, (scores >= threshold).astype(int)).tolist()}
    return summary


def _spread(result: Evaluation, measure) -> dict:
    """Each number over all clips, and its mean and standard deviation over folds (of those that can state it)."""
    numbers = [
        measure(result.labels[result.folds == fold], result.scores[result.folds == fold])
        for fold in np.unique(result.folds)
    ]
    spread = {}
    for name, value in measure(result.labels, result.scores).items():
        stated = [fold[name] for fold in numbers if name in fold] or [value]
        spread[name] = {"all": float(value), "mean": float(np.mean(stated)), "std": float(np.std(stated))}
    return spread


def warnings_of(summary: dict, seen: int) -> list[str]:
    """What nobody may overlook. The first is the failure that this project started from.

    ``seen``: how many clips the embedding network was trained on.
    """
    found = []
    guessing = summary["roc_auc_interval"][0] <= 0.5
    area = f"ROC-AUC {summary['ranking']['roc_auc']['all']:.3f}"
    for name, words in (("at_0.5", "at 0.5"), ("at_threshold", "at the chosen threshold")):
        (safe_as_safe, safe_as_danger), (missed, hit) = summary[name]["confusion"]
        if safe_as_danger + hit == 0:
            found.append(
                f"THE MODEL ANSWERS SAFE TO EVERYTHING {words}: it finds none of {missed} dangers. Do not use it"
            )
        elif safe_as_safe + missed == 0:
            why = "it has learnt nothing" if guessing else f"though its scores do sort ({area}), it has too few clips"
            found.append(f"THE MODEL ANSWERS DANGER TO EVERYTHING {words}: {why}. Do not use it")
    if summary["at_0.5"]["accuracy"]["all"] <= summary["majority_baseline"] or guessing:
        found.append(
            f"NO BETTER THAN GUESSING: accuracy {summary['at_0.5']['accuracy']['all']:.1%} at 0.5, "
            f"baseline {summary['majority_baseline']:.1%} (always the more frequent label), "
            f"{area} (95 % interval from {summary['roc_auc_interval'][0]:.3f}; "
            "0.5 is guessing). Check labels and embeddings, or bring more recordings"
        )
    if not summary["finds_min_recall"]:
        found.append(
            f"THE RECALL THAT WAS ASKED FOR CANNOT BE HAD: the threshold {summary['threshold']:.3f} finds "
            f"{summary['at_threshold']['danger_recall']['all']:.0%} of the dangers. Bring more recordings of those "
            "that are missed, or ask for less with --min-recall"
        )
    if summary["unconverged"]:
        found.append(
            f"NOT CONVERGED: scikit-learn ended {summary['unconverged']} trainings before they had settled "
            "(ConvergenceWarning); the scores could be better. Raise max_iter in the train script"
        )
    if seen:
        found.append(
            f"OPTIMISTIC: {seen} of {summary['clips']} clips were in the embedding network's own training (column "
            "seen). These scores are no results; score clips that the network never heard"
        )
    return found
