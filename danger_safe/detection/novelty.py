"""Sounds like nothing in training: "I don't know" instead of a confident Safe.

    rule = fit_novelty(embeddings)
    similarity(rule, others)       # 1: the same as a training sound, 0: nothing like any

The rule is that of nearest neighbours (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors"),
by scikit-learn: the mean cosine similarity to the three nearest training sounds. Unknown is what is less familiar than
all but FALSE_UNKNOWN_RATE of the training's own sounds were to a rule that had not learnt their recordings. It never
hides a danger: what reaches the threshold is Danger, known or not. Of ten rules tried, none was clearly better
(benchmarks/unknown.md).
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 3  # training sounds that a sound is compared with
FALSE_UNKNOWN_RATE = 0.05  # of known sounds may be called unknown: the rule's price


def fit_novelty(embeddings: np.ndarray) -> NearestNeighbors:
    """The rule that knows these training sounds, (clips, dimensions)."""
    return NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(embeddings)), metric="cosine").fit(embeddings)


def similarity(rule: NearestNeighbors, embeddings: np.ndarray) -> np.ndarray:
    """(clips, dimensions) -> mean cosine similarity to the nearest training sounds, at most 1, (clips,)."""
    return 1 - rule.kneighbors(embeddings)[0].mean(axis=1)


def min_similarity_of(known: np.ndarray) -> float:
    """Below it a sound is unknown, from the similarity of ``known`` sounds to rules that had not heard them."""
    return float(np.quantile(known, FALSE_UNKNOWN_RATE))
