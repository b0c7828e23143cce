"""AudioSet tags of an embedding, from networks that were trained on AudioSet's 527 classes.

    tagger = find_tagger(engine.info, engine.head)
    tagger.tags(embedding)     # (("Siren", 0.83), ("Police car (siren)", 0.61), …)

The checkpoints of Cnn14 and mn04 do not contain the names of the classes. They are taken from the first of these that
has them: the checkpoint itself, the compact checkpoint, AudioSet's ``class_labels_indices.csv`` in models/ or where
panns-inference stores it.
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

NAMES_FILE = "class_labels_indices.csv"  # columns index, mid, display_name
NAMES_PATHS = (COMPACT.with_name(NAMES_FILE), Path(os.path.expanduser("~"), "panns_data", NAMES_FILE))
CLASSES = 527
MAX_TAGS = 3


class AudioSetTagger:
    """Names the AudioSet classes of a network's embeddings."""

    def __init__(self, names: tuple[str, ...], head: Head):
        """``head`` maps embeddings to the logits of the classes with these ``names``."""
        self.names, self.head = names, head

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> log-odds of each tag, (windows, 527)."""
        return self.head(embeddings)

    def tags(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Return the tags with the highest probabilities, highest first."""
        probabilities = 1 / (1 + np.exp(-self.logits(embedding)))  # SciPy is no requirement of predict_danger.py
        return tuple((self.names[i], float(probabilities[i])) for i in np.argsort(-probabilities)[:MAX_TAGS])


def has_tags(info: CheckpointInfo) -> bool:
    """Return whether a checkpoint's classes are those of AudioSet."""
    return info.settings.get("classes") == CLASSES and info.settings.get("multilabel", True)


def find_tagger(info: CheckpointInfo, head: Head | None) -> AudioSetTagger | None:
    """Return a tagger for a checkpoint; None if its classes are others or their names are not available."""
    if head is None or not has_tags(info):
        return None
    names = info.categories if len(info.categories) == CLASSES else _find_names()
    return AudioSetTagger(names, head) if names else None


@cache
def _find_names() -> tuple[str, ...]:
    """Return AudioSet's class names in their order; empty if they are not available."""
    try:
        info = read_info("compact")
    except UserError:  # names are optional
        info = None
    if info and len(info.categories) == CLASSES:
        return info.categories
    for file in NAMES_PATHS:
        if file.is_file():
            with open(file, encoding="utf-8-sig", newline="") as table:
                names = tuple(row.get("display_name") or "" for row in csv.DictReader(table))
            if len(names) == CLASSES:
                return names
    return ()
