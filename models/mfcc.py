"""A baseline without a network: statistics of MFCCs, what sounds were told apart by before there were networks.

    python extractEmbeddingCnn14.py --checkpoint mfcc --output audio_mfcc.csv
    python compare_models.py --baseline audio_mfcc.csv

An embedding that does no better than these is not worth its network. 20 mel-frequency cepstral coefficients and their
changes (librosa's), each with its mean, standard deviation, least and greatest value over the clip: 160 numbers.
"""

from importlib.metadata import version

import librosa
import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE
from models.checkpoint_files import CheckpointInfo
from models.logmel import MEL_BINS, N_FFT, LogMel

COEFFICIENTS = 20
CHANGE_FRAMES = 9  # over which a change is measured
DIMENSIONS = 2 * COEFFICIENTS * 4


def front_end() -> LogMel:
    """Cnn14's own front end, so that only what comes after it differs."""
    mel_bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=MEL_BINS, fmin=50.0, fmax=14_000.0)
    return LogMel(mel_bank.T.astype(np.float32), floor=1e-10, normalise=False)


class MfccStatistics:
    """Log-mels in, statistics out: in place of a network."""

    batch_size, max_concurrency = 24, 1

    def __init__(self):
        self.name = self.backend = f"librosa {version('librosa')}"

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, 64) -> float32 statistics, (batch, 160)."""
        mfcc = librosa.feature.mfcc(S=logmel.transpose(0, 2, 1), n_mfcc=COEFFICIENTS)  # (batch, 20, frames)
        both = np.concatenate([mfcc, librosa.feature.delta(mfcc, width=CHANGE_FRAMES)], axis=1)
        statistics = [both.mean(axis=2), both.std(axis=2), both.min(axis=2), both.max(axis=2)]
        return np.concatenate(statistics, axis=1).astype(np.float32)

    def close(self) -> None:
        """Nothing to release."""


def checkpoint_info(sha256: str) -> CheckpointInfo:
    """What tables say of it: no clip was ever in its training."""
    return CheckpointInfo("mfcc", sha256, {"dimensions": DIMENSIONS}, licence="ISC (librosa)")
