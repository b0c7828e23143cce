"""A baseline without a network: statistics of MFCCs, the standard features before neural networks.

    python extractEmbeddingCnn14.py --checkpoint mfcc --output audio_mfcc.csv
    python compare_models.py --baseline audio_mfcc.csv

An embedding that is no better is not worth its network. The features are the mean, standard deviation, minimum and
maximum over the clip of 20 mel-frequency cepstral coefficients and their deltas (librosa): 160 dimensions.
"""

from importlib.metadata import version

import librosa
import numpy as np

from models.checkpoint_files import CheckpointInfo

COEFFICIENTS = 20
DELTA_FRAMES = 9  # frames over which a delta is estimated
DIMENSIONS = 2 * COEFFICIENTS * 4


class MfccStatistics:
    """Computes the statistics, with the interface of a network."""

    batch_size, max_concurrency = 24, 1

    def __init__(self):
        self.name = self.backend = f"librosa {version('librosa')}"

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, 64) -> float32 statistics, (batch, 160)."""
        mfcc = librosa.feature.mfcc(S=logmel.transpose(0, 2, 1), n_mfcc=COEFFICIENTS)  # (batch, 20, frames)
        features = np.concatenate([mfcc, librosa.feature.delta(mfcc, width=DELTA_FRAMES)], axis=1)
        statistics = [features.mean(axis=2), features.std(axis=2), features.min(axis=2), features.max(axis=2)]
        return np.concatenate(statistics, axis=1).astype(np.float32)

    def close(self) -> None:
        """Nothing to release."""


def checkpoint_info(sha256: str) -> CheckpointInfo:
    """Return the metadata for embedding tables. No clip counts as seen, since there is no training."""
    return CheckpointInfo("mfcc", sha256, {"dimensions": DIMENSIONS}, licence="ISC (librosa)")
