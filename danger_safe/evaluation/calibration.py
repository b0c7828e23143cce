"""Scores that are probabilities: of a hundred clips that get 0.8, about eighty are dangers.

    sigmoid = fit_sigmoid(values, labels)        # values of clips that the classifier had not learnt from
    model = calibrated(pipeline, sigmoid, features, labels)

A classifier's own scores are no probabilities: balanced class weights alone shift them. A sigmoid (Platt 1999) fitted
on scores of clips that the classifier had not seen turns them into such; it is scikit-learn's own and stays part of the
pipeline that is saved. Probabilities hold where dangers are as frequent as in the training data.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.pipeline import Pipeline

BINS = 10  # groups of equally many clips, over which the calibration error is a mean


@dataclass(frozen=True)
class Calibration:
    """How far scores are from probabilities; 0 is perfect."""

    brier: float  # mean squared error of the probability
    calibration_error: float  # mean distance between mean score and fraction of dangers (expected calibration error)


def fit_sigmoid(values: np.ndarray, labels: np.ndarray):
    """scikit-learn's sigmoid from ``decision_values``, (clips,), to probabilities of Danger: its ``predict`` does
    it."""
    as_they_are = LogisticRegression()  # a classifier whose decisions are what it is given
    as_they_are.coef_, as_they_are.intercept_, as_they_are.classes_ = np.ones((1, 1)), np.zeros(1), np.array([0, 1])
    return _calibrated(as_they_are, values[:, None], labels).calibrated_classifiers_[0].calibrators[0]


def calibrated(model: Pipeline, sigmoid, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    """The fitted ``model`` with a sigmoid after its classifier. ``features`` and ``labels`` are those it was fitted
    on."""
    *before, (name, classifier) = model.steps
    for _, step in before:
        features = step.transform(features)
    last = _calibrated(classifier, features, labels)  # on scores that are too sure: only its sigmoid is of those
    last.calibrated_classifiers_[0].calibrators[0] = sigmoid
    return Pipeline([*before, (name, last)])


def _calibrated(classifier: ClassifierMixin, features: np.ndarray, labels: np.ndarray) -> CalibratedClassifierCV:
    every = np.arange(len(labels))  # a classifier that is fitted already needs no folds, nor five clips of each label
    frozen = FrozenEstimator(classifier)
    fitted = CalibratedClassifierCV(frozen, method="sigmoid", cv=[(every, every)]).fit(features, labels)
    return fitted.set_params(cv=None)  # the saved model needs no list of rows


def uncalibrated(pipeline: Pipeline) -> Pipeline:
    """The unfitted pipeline that ``calibrated`` was given."""
    *before, (name, classifier) = pipeline.steps
    while isinstance(classifier, CalibratedClassifierCV | FrozenEstimator):
        classifier = classifier.estimator
    return Pipeline([*((before_name, clone(step)) for before_name, step in before), (name, clone(classifier))])


def decision_values(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """What the sigmoid is for, of each row: the decision function where an uncalibrated model has one, as log-odds,
    else its score for Danger."""
    return model.decision_function(features) if hasattr(model, "decision_function") else danger_scores(model, features)


def danger_scores(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """Score for Danger of each row; of a calibrated model, its probability."""
    return model.predict_proba(features)[:, list(model.classes_).index(1)]


def calibration(labels: np.ndarray, scores: np.ndarray) -> Calibration:
    """Return Brier score and expected calibration error of scores, (clips,)."""
    return Calibration(float(brier_score_loss(labels, scores)), expected_calibration_error(labels, scores))


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean distance between mean score and fraction of dangers, over BINS groups of clips by score."""
    groups = np.array_split(np.argsort(scores, kind="stable"), min(BINS, len(scores)))
    distances = [len(group) * abs(scores[group].mean() - labels[group].mean()) for group in groups]
    return float(sum(distances) / len(scores))
