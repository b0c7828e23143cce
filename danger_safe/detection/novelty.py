"""Novelty detection: "Unknown" instead of a confident "Safe" for sounds like nothing in training.

    rule = fit_novelty(embeddings)
    similarity(rule, other_embeddings)  # 1: the same as a training sound, 0: like none of them

The rule is k nearest neighbours (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors"), by
scikit-learn: the mean cosine similarity to the three nearest training sounds. A sound is unknown if that is lower than
for all but FALSE_UNKNOWN_RATE of the training sounds, each measured by a rule that was fitted without its recording. It
never hides a danger: a score at the threshold is Danger, known or not. Of ten rules that were tried, none was clearly
better (benchmarks/unknown.md).
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 3  # training sounds that a sound is compared with
FALSE_UNKNOWN_RATE = 0.05  # fraction of known sounds that are called unknown


def fit_novelty(embeddings: np.ndarray) -> NearestNeighbors:
    """Fit the rule to the embeddings of the training sounds, (clips, dimensions)."""
    return NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(embeddings)), metric="cosine").fit(embeddings)


def similarity(rule: NearestNeighbors, embeddings: np.ndarray) -> np.ndarray:
    """(clips, dimensions) -> mean cosine similarity to the nearest training sounds, at most 1, (clips,)."""
    return 1 - rule.kneighbors(embeddings)[0].mean(axis=1)


def min_similarity_of(known: np.ndarray) -> float:
    """Return the similarity below which a sound is unknown.

    ``known``: similarities of known sounds, (clips,), each by a rule that was fitted without its recording.
    """
    return float(np.quantile(known, FALSE_UNKNOWN_RATE))
