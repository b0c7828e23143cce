"""AudioSet tags: what the official Cnn14's own last layer calls a sound, where the list of its 527 names is at hand.

The list, ``class_labels_indices.csv`` of AudioSet, is not in this repository. It is looked for in models/ and where
panns-inference keeps it.
"""

import csv
import os
from pathlib import Path

import numpy as np

from models.checkpoint_files import COMPACT, CheckpointInfo

FILE = "class_labels_indices.csv"  # columns index, mid, display_name
PLACES = (COMPACT.with_name(FILE), Path(os.path.expanduser("~"), "panns_data", FILE))
CLASSES = 527
NEAREST = 3


class AudioSetTags:
    """Names embeddings of a network with AudioSet's classes."""

    def __init__(self, names: list[str], weights: np.ndarray, bias: np.ndarray):
        """``weights`` (527, dimensions) and ``bias`` (527,) are the network's last layer."""
        self.names, self.weights, self.bias = names, weights, bias

    def heard(self, embedding: np.ndarray) -> tuple[tuple[str, float], ...]:
        """The tags with the highest scores, in [0, 1], highest first."""
        scores = 1 / (1 + np.exp(-(self.weights @ embedding + self.bias)))
        return tuple((self.names[i], float(scores[i])) for i in np.argsort(-scores)[:NEAREST])


def find_tags(checkpoint: str, info: CheckpointInfo) -> AudioSetTags | None:
    """The tags of a checkpoint with AudioSet's classes; None for another one, or where the list is not at hand."""
    file = next((place for place in PLACES if place.is_file()), None)
    if info.settings.get("classes") != CLASSES or file is None:
        return None
    with open(file, encoding="utf-8-sig", newline="") as table:
        names = [row.get("display_name") or "" for row in csv.DictReader(table)]
    if len(names) != CLASSES:
        return None
    from models.checkpoints import load_model  # PyTorch takes seconds to load

    layer = load_model(checkpoint)[0].fc_audioset
    return AudioSetTags(names, layer.weight.detach().numpy(), layer.bias.detach().numpy())
