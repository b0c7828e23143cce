"""Model files for tests: a small valid one, and a pickle that runs code."""

import os

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


class Evil:
    """A pickle that runs code when it is opened."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def model(**other):
    """Return a model's dict with some values replaced; None removes a key."""
    features, labels = np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 2
    content = {
        "pipeline": make_pipeline(LogisticRegression()).fit(features, labels), "threshold": 0.5, "dimensions": 4,
        "checkpoint": {"name": "unknown", "sha256": "unknown"}, "categories": {}, "versions": {},
        "metrics": {"model": "x", "min_recall": 0.9, "seed": 0},
    } | other  # fmt: skip
    return {key: value for key, value in content.items() if value is not None}
