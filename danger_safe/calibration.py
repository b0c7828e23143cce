"""Scores that are probabilities: of a hundred clips that get 0.8, about eighty are dangers.

    pipeline = calibrated(pipeline, folds).fit(features, labels)

A classifier's own scores are no probabilities: balanced class weights alone shift them. A sigmoid (Platt 1999) fitted on
scores of clips that the classifier had not seen turns them into such; scikit-learn's CalibratedClassifierCV does both and
stays part of the pipeline that is saved. Probabilities hold where dangers are as frequent as in the training data.
"""

import numpy as np
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import brier_score_loss
from sklearn.pipeline import Pipeline

BINS = 10  # of equally many clips, for the calibration error and the picture


def calibrated(pipeline: Pipeline, folds: np.ndarray) -> Pipeline:
    """An unfitted ``pipeline`` whose classifier is calibrated on ``folds``, one number a clip of the data to be fitted."""
    *before, (name, classifier) = clone(pipeline).steps
    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    return Pipeline([*before, (name, CalibratedClassifierCV(classifier, method="sigmoid", cv=splits, ensemble=False))])


def uncalibrated(pipeline: Pipeline) -> Pipeline:
    """The unfitted pipeline that ``calibrated`` was given."""
    *before, (name, classifier) = clone(pipeline).steps
    return Pipeline([*before, (name, getattr(classifier, "estimator", classifier))])


def danger_scores(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """Probability of Danger of each row."""
    return model.predict_proba(features)[:, list(model.classes_).index(1)]


def raw_scores(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """What the classifier inside a calibrated, fitted pipeline says of each row, before calibration."""
    for _, step in model.steps[:-1]:
        features = step.transform(features)
    (inner,) = model.steps[-1][1].calibrated_classifiers_
    return inner.estimator.predict_proba(features)[:, list(inner.estimator.classes_).index(1)]


def calibration(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Brier score (mean squared error of the probability) and expected calibration error (mean distance, over BINS
    groups of equally many clips, between mean score and share of dangers); 0 is perfect."""
    groups = np.array_split(np.argsort(scores, kind="stable"), min(BINS, len(scores)))
    distances = [len(group) * abs(scores[group].mean() - labels[group].mean()) for group in groups]
    return {
        "brier": float(brier_score_loss(labels, scores)),
        "calibration_error": float(sum(distances) / len(scores)),
    }
