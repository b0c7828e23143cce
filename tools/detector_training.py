"""Train the built-in detector's regression on windows of sounds, and score clips by regressions without their
collection."""

from dataclasses import replace

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from danger_safe.core.errors import UserError
from danger_safe.detection.detector import BuiltinDetector, add_tag_groups
from danger_safe.detection.reference import Reference
from danger_safe.evaluation.false_alarms import with_scores
from models.head import Head
from tools.detector_windows import Sound, WindowSet

FOLDS = 6
C = 1e-3  # inverse regularisation of the regression; 1e-5 to 1e-2 were tried (benchmarks/detector.md)
CATEGORY_C = 1e-3  # the same of the classifier of categories
FALSE_UNKNOWN_RATE = 0.05  # fraction of the labelled windows that the detector calls unknown


class TrainingData:
    """The windows of labelled and unlabelled sounds with their features, labels, weights and folds."""

    def __init__(self, sounds: list[Sound], windows: WindowSet, head: Head, groups: tuple, labels: dict[str, int]):
        """Collect the features and labels of windows.

        Args:
            sounds: The sounds; those without a category are taken as safe.
            windows: Their windows.
            head: Maps embeddings to AudioSet logits.
            groups: Groups of AudioSet tags; the highest logit of each is a feature.
            labels: 0 (Safe) or 1 (Danger) of each category.
        """
        self.sounds, self.windows, self.head, self.groups = sounds, windows, head, groups
        self.embeddings = windows.embeddings
        self.features = add_tag_groups(self.embeddings, head, groups)
        owner = windows.sound
        self.truth = np.array([labels.get(sound.category, 0) for sound in sounds])[owner]
        self.is_labelled = np.array([bool(sound.category) for sound in sounds])[owner]
        self.category = np.array([sound.category for sound in sounds])[owner]
        collection = np.array([sound.collection for sound in sounds])
        self.collection = collection[owner]
        self.group = np.where(self.is_labelled, self.category, np.char.add("from ", self.collection))
        fold_of = collection_folds(collection)
        self.fold = np.array([fold_of[name] for name in collection])[owner]

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Return the weights of the windows with these indices, (rows,), with mean 1.

        Clips of a group weigh the same; a group (a category or an unlabelled collection) weighs the square root of its
        size; dangers and safe sounds weigh the same in sum.
        """
        _, clip = np.unique(self.windows.sound[rows], return_inverse=True)
        weights = 1 / np.bincount(clip)[clip]
        for label in (0, 1):
            is_label = self.truth[rows] == label
            for name in np.unique(self.group[rows][is_label]):
                members = is_label & (self.group[rows] == name)
                weights[members] /= np.sqrt(weights[members].sum())
            weights[is_label] /= weights[is_label].sum()
        return weights * len(rows)

    def fit(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, LogisticRegression]:
        """Return mean, scale and regression, fitted to the audible windows among those with these indices."""
        rows = rows[self.windows.is_audible[rows]]
        mean, scale = self.features[rows].mean(axis=0), self.features[rows].std(axis=0) + 1e-3
        model = LogisticRegression(C=C, max_iter=1_000)
        return mean, scale, model.fit((self.features[rows] - mean) / scale, self.truth[rows], self.weights(rows))

    def cross_validate(self) -> np.ndarray:
        """Return each window's value by a regression that was fitted without its collection, (windows,)."""
        values = np.zeros(len(self.truth))
        for fold in np.unique(self.fold):
            is_val = self.fold == fold
            if len(set(self.truth[~is_val])) < 2:
                rest = ", ".join(sorted(set(self.collection[~is_val])))
                raise UserError(f"{rest}: no dangers or no safe sounds in them, so the others cannot be left out")
            mean, scale, model = self.fit(np.flatnonzero(~is_val))
            values[is_val] = model.decision_function((self.features[is_val] - mean) / scale)
        return values

    def fit_detector(self, checkpoint_sha256: str, slope: float, offset: float) -> BuiltinDetector:
        """Fit the regression and the classifier of categories to all windows.

        Args:
            checkpoint_sha256: The network that made the embeddings.
            slope: Slope of the sigmoid that turns the regression's value into a probability.
            offset: Offset of that sigmoid.
        """
        mean, scale, model = self.fit(np.arange(len(self.truth)))
        standardised = (self.embeddings - mean[: self.embeddings.shape[1]]) / scale[: self.embeddings.shape[1]]
        is_named = self.is_labelled & self.windows.is_audible
        names = np.unique(self.category[is_named])
        classifier = LogisticRegression(C=CATEGORY_C, class_weight="balanced", max_iter=1_000)
        classifier.fit(standardised[is_named], self.category[is_named])
        centres = np.stack([standardised[is_named & (self.category == name)].mean(axis=0) for name in names])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        detector = BuiltinDetector(
            name="built-in detector",
            threshold=0.5,
            checkpoint_sha256=checkpoint_sha256,
            about={},
            tag_groups=self.groups,
            mean=mean,
            scale=scale,
            weights=model.coef_[0],
            bias=float(model.intercept_[0]),
            slope=slope,
            offset=offset,
            categories=tuple(map(str, names)),
            category_weights=classifier.coef_,
            category_bias=classifier.intercept_,
            centres=centres,
            min_similarity=-1.0,
            head=self.head,
        )
        similarity = detector.similarities(self.embeddings[is_named]).max(axis=1)
        return replace(detector, min_similarity=float(np.quantile(similarity, FALSE_UNKNOWN_RATE)))


def collection_folds(collection: np.ndarray) -> dict[str, int]:
    """Assign collections to FOLDS folds of about the same number of sounds, the largest collection first.

    ``collection``: each sound's collection, (sounds,).
    """
    names, counts = np.unique(collection, return_counts=True)
    sizes, fold = np.zeros(FOLDS), {}
    for number in np.argsort(-counts, kind="stable"):
        smallest = int(np.argmin(sizes))
        fold[str(names[number])] = smallest
        sizes[smallest] += counts[number]
    return fold


class ClipScores:
    """The score of each labelled clip: its highest smoothed window score, as in predict_danger.py."""

    def __init__(self, data: TrainingData, values: np.ndarray, slope: float = 1.0, offset: float = 0.0):
        """Score clips.

        Args:
            data: The windows.
            values: The regression's value of each window, (windows,).
            slope: Slope of the sigmoid that turns it into a probability.
            offset: Offset of that sigmoid.
        """
        labelled = np.flatnonzero(data.is_labelled)
        self.clip, clip_index = np.unique(data.windows.sound[labelled], return_inverse=True)
        first = labelled[np.searchsorted(data.windows.sound[labelled], self.clip)]  # each clip's first window
        self.truth, self.category = data.truth[first], data.category[first]
        self.source = np.array([data.sounds[number].source for number in self.clip])
        self.collection = data.collection[first]
        windows = [data.windows.windows[row] for row in labelled]
        raw = np.where([window.is_silent for window in windows], 0.0, expit(slope * values[labelled] + offset))
        smoothed = [window.smoothed_score for window in with_scores(windows, raw.tolist())]
        self.scores = np.zeros(len(self.clip))
        np.maximum.at(self.scores, clip_index, smoothed)
        self.best_window, best_score = first.copy(), np.full(len(self.clip), -1.0)  # by raw score
        for row, number, score in zip(labelled, clip_index, raw, strict=True):
            if score > best_score[number]:
                self.best_window[number], best_score[number] = row, score

    def reference(self, detector: BuiltinDetector, data: TrainingData) -> Reference:
        """Return these clips in the form that the detector's file keeps."""
        standardised = detector.standardise(data.embeddings)
        return Reference.make(
            standardised[data.windows.is_audible],
            standardised[self.best_window],
            self.scores,
            self.truth == 1,
            self.collection,
        )


def fit_sigmoid(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return slope and offset of Platt's sigmoid on the log-odds of scores, (clips,).

    Dangers and safe sounds weigh the same in sum, so that 0.5 is where both are equally likely: no collection of clips
    says how rare dangers are in a home.
    """
    scores = np.clip(scores, 1e-6, 1 - 1e-6)
    sigmoid = LogisticRegression(C=1e6, class_weight="balanced").fit(logit(scores)[:, None], truth)
    return float(sigmoid.coef_[0, 0]), float(sigmoid.intercept_[0])
