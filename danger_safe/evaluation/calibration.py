"""Calibrated scores: of a hundred clips with a score of 0.8, about eighty are dangers.

    sigmoid = fit_sigmoid(values, labels)        # decision values of clips that the classifier was not trained on
    model = calibrated(pipeline, sigmoid, features, labels)

A classifier's raw scores are not probabilities; balanced class weights alone shift them. A sigmoid (Platt 1999), fitted
on out-of-fold scores, maps them to probabilities. It is scikit-learn's and becomes a part of the saved pipeline. The
probabilities hold as long as dangers are as frequent as in the training data.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.pipeline import Pipeline

BINS = 10  # groups of equal size that the calibration error is averaged over


@dataclass(frozen=True)
class Calibration:
    """How far scores are from probabilities; 0 is perfect."""

    brier: float  # Brier score: mean squared error of the probability
    calibration_error: float  # expected calibration error


def fit_sigmoid(values: np.ndarray, labels: np.ndarray):
    """Fit scikit-learn's sigmoid, whose ``predict`` maps ``decision_values``, (clips,), to probabilities of Danger."""
    identity = LogisticRegression()  # a classifier whose decision value is its input
    identity.coef_, identity.intercept_, identity.classes_ = np.ones((1, 1)), np.zeros(1), np.array([0, 1])
    return _calibrated(identity, values[:, None], labels).calibrated_classifiers_[0].calibrators[0]


def calibrated(model: Pipeline, sigmoid, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    """Return the fitted ``model`` with ``sigmoid`` after its classifier.

    Args:
        model: a fitted Pipeline.
        sigmoid: as returned by ``fit_sigmoid``.
        features: (clips, dimensions), what the model was fitted on.
        labels: (clips,), what the model was fitted on.
    """
    *transformers, (name, classifier) = model.steps
    for _, transformer in transformers:
        features = transformer.transform(features)
    wrapped = _calibrated(classifier, features, labels)
    wrapped.calibrated_classifiers_[0].calibrators[0] = sigmoid  # the one fitted on training scores is overconfident
    return Pipeline([*transformers, (name, wrapped)])


def _calibrated(classifier: ClassifierMixin, features: np.ndarray, labels: np.ndarray) -> CalibratedClassifierCV:
    """Wrap a fitted classifier in a CalibratedClassifierCV whose sigmoid is fitted on ``features``."""
    # The classifier is fitted already, so one "fold" of all clips serves; real folds would need five clips a label.
    all_rows = np.arange(len(labels))
    frozen = FrozenEstimator(classifier)
    fitted = CalibratedClassifierCV(frozen, method="sigmoid", cv=[(all_rows, all_rows)]).fit(features, labels)
    # The saved model needs no list of rows, and a .skops file would hold the fitted classifier twice.
    return fitted.set_params(cv=None, estimator=clone(classifier))


def uncalibrated(pipeline: Pipeline) -> Pipeline:
    """Undo ``calibrated``: return the pipeline without sigmoid, unfitted."""
    *transformers, (name, classifier) = pipeline.steps
    while isinstance(classifier, CalibratedClassifierCV | FrozenEstimator):
        classifier = classifier.estimator
    return Pipeline([*((key, clone(transformer)) for key, transformer in transformers), (name, clone(classifier))])


def decision_values(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """Return the input of the sigmoid for each row: an uncalibrated model's decision function or, if it has none, its
    score for Danger."""
    return model.decision_function(features) if hasattr(model, "decision_function") else danger_scores(model, features)


def danger_scores(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """Return the score for Danger of each row; a probability if the model is calibrated."""
    return model.predict_proba(features)[:, list(model.classes_).index(1)]


def calibration(labels: np.ndarray, scores: np.ndarray) -> Calibration:
    """Return Brier score and expected calibration error of scores, (clips,)."""
    return Calibration(float(brier_score_loss(labels, scores)), expected_calibration_error(labels, scores))


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean distance between mean score and fraction of dangers, over BINS groups of clips by score."""
    groups = np.array_split(np.argsort(scores, kind="stable"), min(BINS, len(scores)))
    distances = [len(group) * abs(scores[group].mean() - labels[group].mean()) for group in groups]
    return float(sum(distances) / len(scores))
