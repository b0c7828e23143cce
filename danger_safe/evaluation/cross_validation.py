"""The one evaluation of every classifier: out-of-fold scores, an operating point, honest numbers.

Clips of one recording never sit on both sides of a split. Every clip is scored once, by a model that saw neither it
nor its recording; all numbers come from those scores.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from danger_safe.core.errors import UserError
from danger_safe.detection.novelty import familiarity, learn_known
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.calibration import calibration, danger_scores, decision_values, fit_sigmoid
from danger_safe.evaluation.false_alarms import Trial
from danger_safe.evaluation.intervals import auc_interval
from danger_safe.evaluation.thresholds import expected, threshold_for, without_own_fold
from danger_safe.evaluation.window_table import Heard

FOLDS = 5  # where the data brings none of its own
HIGHEST_WHERE_SEEN = 0.5  # threshold on clips that the network was trained on


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen: to find a share of the dangers, or to keep to so many false alarms an hour."""

    min_recall: float = 0.95
    max_false_alarms_per_hour: float | None = None
    highest: float = 1.0  # that it may be where it is to find dangers

    def in_words(self) -> str:
        """What the threshold keeps to."""
        if self.max_false_alarms_per_hour is not None:
            return f"promises at most {self.max_false_alarms_per_hour:g} false alarms an hour"
        held = f", and is {self.highest:g} or below, as the network knows the clips" if self.highest < 1 else ""
        return f"finds at least {self.min_recall:.0%} of dangers{held}"

    def choose(self, labels: np.ndarray, scores: np.ndarray, trial: Trial | None, clips: np.ndarray) -> float:
        """The threshold that ``clips`` (a mask) say. Raises UserError where none keeps to the rule."""
        if self.max_false_alarms_per_hour is None:
            return min(choose_threshold(labels[clips], scores[clips], self.min_recall), self.highest)
        if trial is None:
            raise UserError("--max-false-alarms-per-hour needs the sounds of the table, to listen to them by the hour")
        points = trial.points(clips)
        if not clips.all() and points[-1]["false_alarms_an_hour"] > self.max_false_alarms_per_hour:
            return points[-1]["threshold"]  # without a fold, the nearest that there is
        return threshold_for(points, self.max_false_alarms_per_hour)["threshold"]


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
    familiarity: np.ndarray | None = None  # to a novelty rule that had not learnt from its fold
    trial: Trial | None = None  # the same classifier on the windows of long stretches
    window_familiarity: np.ndarray | None = None  # (windows of the trial,)


def evaluate(
    pipeline: Pipeline, table: EmbeddingTable, rule: Rule, seed: int, heard: Heard | None = None
) -> Evaluation:
    """Cross-validate ``pipeline`` on the clips and on the windows ``heard``; choose its threshold.

    The scores of each fold become probabilities by a sigmoid fitted on the other folds' scores.
    On clips that the network was trained on, scores are further apart than they will be on new sounds, and a threshold
    above 0.5 would trade dangers for false alarms that it only seems to know: there it is held at 0.5 or below.
    """
    sources = sources_of(table)
    folds, splitting = folds_of(table, seed)
    scores, raw, values, known_as = np.full((4, len(table.labels)), np.nan)
    alone, window_familiarity = np.zeros((2, 0 if heard is None else len(heard.clip)))
    with threadpool_limits(1, user_api="blas"):  # matrices are small: threads only wait for each other
        for fold in tqdm(np.unique(folds), desc="Cross-validating", unit="fold"):
            out, train = folds == fold, folds != fold
            features = table.features
            model, novelty = clone(pipeline).fit(features[train], table.labels[train]), learn_known(features[train])
            values[out], raw[out] = (of(model, features[out]) for of in (decision_values, danger_scores))
            known_as[out] = familiarity(novelty, features[out])
            if heard is not None and (there := out[heard.clip]).any():
                alone[there] = decision_values(model, heard.embeddings[there])
                window_familiarity[there] = familiarity(novelty, heard.embeddings[there])
    for fold in np.unique(folds):
        out = folds == fold
        sigmoid = fit_sigmoid(values[~out], table.labels[~out])
        scores[out] = sigmoid.predict(values[out])
        if heard is not None and (there := out[heard.clip]).any():
            alone[there] = sigmoid.predict(alone[there]) * heard.audible[there]
    if table.seen.any():
        rule = replace(rule, highest=HIGHEST_WHERE_SEEN)
    trial = None if heard is None else Trial(heard, alone, table.labels, folds, sources)
    threshold = rule.choose(table.labels, scores, trial, np.ones(len(scores), bool))
    return Evaluation(
        table.labels, scores, raw, folds, sources, rule, threshold, splitting, values,
        known_as, trial, window_familiarity,
    )  # fmt: skip


def sources_of(table: EmbeddingTable) -> np.ndarray:
    """The recording of each clip."""
    return table.clips["source"].to_numpy()


def folds_of(table: EmbeddingTable, seed: int) -> tuple[np.ndarray, str]:
    """The fold in which each clip of a table is held out, and how that was decided, as ``assign_folds``."""
    return assign_folds(table.labels, sources_of(table), table.clips["fold"].to_numpy(), seed)


def assign_folds(labels: np.ndarray, sources: np.ndarray, own: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """The fold in which each clip is held out, and how that was decided. Arrays have one entry a clip.

    The data's ``own`` folds, with recordings that span two of them put whole into the first; where there are no folds
    (0), or one of them would leave a side without Danger or Safe, StratifiedGroupKFold by source.
    Raises UserError where there are too few recordings to split.
    """
    own = pd.Series(own).groupby(sources).transform("min").to_numpy()
    if (own > 0).all() and len(np.unique(own)) > 1:
        trainable = all(len(np.unique(labels[own != fold])) == 2 for fold in np.unique(own))
        if trainable:
            return own, f"the data's own {len(np.unique(own))} folds"
    recordings = min(len(np.unique(sources[labels == label])) for label in (0, 1))
    if recordings < 2:
        raise UserError(
            "too few recordings to evaluate: Danger and Safe need at least three each (column source), better twenty"
        )
    count = min(FOLDS, recordings)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    folds = np.zeros(len(labels), int)
    for number, (train, test) in enumerate(splitter.split(labels, labels, sources), start=1):
        folds[test] = number
        if len(np.unique(labels[train])) < 2:
            raise UserError("the recordings (column source) cannot be split so that both labels are on both sides")
    return folds, f"{count} folds by source (StratifiedGroupKFold)"


def choose_threshold(labels: np.ndarray, scores: np.ndarray, min_recall: float) -> float:
    """The threshold with the highest specificity among those with Danger recall of at least ``min_recall``.

    Of several with the same specificity, the one that finds most dangers. Of the gap between two scores, the middle,
    but not above 0.5 where 0.5 lies in the gap too: a wrong Safe is the worse mistake. A clip is Danger when its
    score >= the threshold.
    """
    values = np.unique(scores)
    middle = (values[:-1] + values[1:]) / 2
    middle = np.where((values[:-1] < 0.5) & (middle > 0.5), 0.5, middle)
    edges = np.concatenate([[0.0], middle, [1.0]])
    danger, safe = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    recall = 1 - np.searchsorted(danger, edges) / len(danger)
    specificity = np.searchsorted(safe, edges) / len(safe)
    allowed = recall >= min_recall - 1e-12
    best = max(zip(specificity[allowed], recall[allowed], edges[allowed], strict=True))
    return float(best[2])


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Counts, rows true and columns predicted: [[Safe as Safe, Safe as Danger], [Danger as Safe, Danger as Danger]]."""
    return np.array([[int(((labels == t) & (predicted == p)).sum()) for p in (0, 1)] for t in (0, 1)])


def scores_at(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Accuracy, balanced accuracy, recall, precision and specificity of Danger at a threshold; shares, 0 to 1."""
    (tn, fp), (fn, tp) = confusion(labels, (scores >= threshold).astype(int)).tolist()
    recall, specificity = tp / max(tp + fn, 1), tn / max(tn + fp, 1)
    return {
        "accuracy": (tp + tn) / len(labels),
        "balanced_accuracy": (recall + specificity) / 2,
        "danger_recall": recall,
        "danger_precision": tp / (tp + fp) if tp + fp else 0.0,
        "specificity": specificity,
    }


def ranking(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """ROC-AUC and average precision: how well the scores sort Danger above Safe, whatever the threshold."""
    return {
        "roc_auc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
    }


def summarise(result: Evaluation) -> dict:
    """Everything that a training reports, as plain numbers: for the table, the picture and *_metrics.json."""
    labels, scores = result.labels, result.scores

    def choose(clips: np.ndarray) -> float:
        return result.rule.choose(labels, scores, result.trial, clips)

    thresholds = without_own_fold(labels, result.folds, choose)
    summary = {
        "clips": len(labels),
        "danger": int(labels.sum()),
        "safe": int((labels == 0).sum()),
        "splitting": result.splitting,
        "majority_baseline": float(max(labels.mean(), 1 - labels.mean())),
        "threshold": result.threshold,
        "threshold_rule": result.rule.in_words(),
        "promise": expected(labels, scores, result.sources, result.folds, thresholds),
        "roc_auc_interval": auc_interval(labels, scores, result.sources),
        "calibration": {"before": calibration(labels, result.raw_scores), "after": calibration(labels, scores)},
        "ranking": _spread(result, lambda y, s: ranking(y, s) if len(np.unique(y)) == 2 else {}),
    }
    if result.trial is not None:
        summary["by_the_hour"] = result.trial.promise(thresholds)
        summary["operating_points"] = result.trial.points()
    for name, threshold in (("at_0.5", 0.5), ("at_threshold", result.threshold)):
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
    """What nobody may overlook; ``seen``: clips that the embedding network was trained on. The first is the failure that
    this project started from."""
    warnings = []
    clips = summary["clips"]
    for name, words in (("at_0.5", "at 0.5"), ("at_threshold", "at the chosen threshold")):
        found = summary[name]
        (safe_as_safe, safe_as_danger), (missed, hit) = found["confusion"]
        if safe_as_danger + hit == 0:
            warnings.append(
                f"THE MODEL ANSWERS SAFE TO EVERYTHING {words}: it finds none of {missed} dangers. Do not use it"
            )
        elif safe_as_safe + missed == 0:
            warnings.append(f"THE MODEL ANSWERS DANGER TO EVERYTHING {words}: it has learnt nothing. Do not use it")
    no_better = summary["at_0.5"]["accuracy"]["all"] <= summary["majority_baseline"]
    if no_better or summary["roc_auc_interval"][0] <= 0.5:
        warnings.append(
            f"NO BETTER THAN GUESSING: accuracy {summary['at_0.5']['accuracy']['all']:.1%} at 0.5, "
            f"baseline {summary['majority_baseline']:.1%} (always the more frequent label), "
            f"ROC-AUC {summary['ranking']['roc_auc']['all']:.3f} (95 % interval from {summary['roc_auc_interval'][0]:.3f}; "
            "0.5 is guessing). Check labels and embeddings, or bring more recordings"
        )
    if seen:
        warnings.append(
            f"OPTIMISTIC: {seen} of {clips} clips were in the embedding network's own training (column seen). "
            "These scores are no results; score clips that the network never heard"
        )
    return warnings
