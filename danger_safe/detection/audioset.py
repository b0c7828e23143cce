"""AudioSet tags: what a network that was taught AudioSet's 527 classes calls a sound, from its embedding.

    tags = find_tags(engine.info, engine.head)
    tags.tags(embedding)     # (("Siren", 0.83), ("Police car (siren)", 0.61), …)

Cnn14 and mn04 have such classes, and their files do not name them. The names are those of a checkpoint that has them in
``categories``: the network's own, else compact's. Else AudioSet's list, ``class_labels_indices.csv``, is looked for in
models/ and where panns-inference keeps it.
"""

import csv
import os
from functools import cache
from pathlib import Path

import numpy as np

from danger_safe.core.errors import UserError
from models.checkpoint_files import COMPACT, CheckpointInfo
from models.head import Head
from models.weights import read_info

FILE = "class_labels_indices.csv"  # columns index, mid, display_name
PLACES = (COMPACT.with_name(FILE), Path(os.path.expanduser("~"), "panns_data", FILE))
CLASSES = 527
MAX_TAGS = 3


class AudioSetTags:
    """Names embeddings of a network with AudioSet's classes."""

    def __init__(self, names: tuple[str, ...], head: Head):
        """``head`` turns embeddings into the logits of the classes with these ``names``."""
        self.names, self.head = names, head

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> log-odds of each tag, (windows, 527)."""
        return self.head(embeddings)

    def tags(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """The tags with the highest scores, in [0, 1], highest first."""
        scores = 1 / (1 + np.exp(-self.logits(embedding)))  # SciPy is not among what prediction needs
        return tuple((self.names[i], float(scores[i])) for i in np.argsort(-scores)[:MAX_TAGS])


def has_tags(info: CheckpointInfo) -> bool:
    """Whether a checkpoint answers AudioSet's classes."""
    return info.settings.get("classes") == CLASSES and info.settings.get("multilabel", True)


def find_tags(info: CheckpointInfo, head: Head | None) -> AudioSetTags | None:
    """The tags of a checkpoint with AudioSet's classes; None for another one, or where their names are not at hand."""
    if head is None or not has_tags(info):
        return None
    names = info.categories if len(info.categories) == CLASSES else _names_elsewhere()
    return AudioSetTags(names, head) if names else None


@cache
def _names_elsewhere() -> tuple[str, ...]:
    """AudioSet's class names in their order; empty where they are not at hand."""
    try:
        info = read_info("compact")
    except UserError:  # it is only asked for names
        info = None
    if info and len(info.categories) == CLASSES:
        return info.categories
    for file in PLACES:
        if file.is_file():
            with open(file, encoding="utf-8-sig", newline="") as table:
                names = tuple(row.get("display_name") or "" for row in csv.DictReader(table))
            if len(names) == CLASSES:
                return names
    return ()
