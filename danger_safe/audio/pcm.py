"""Samples in memory: channels, rates, and what is no sound."""

from collections.abc import Iterator

import numpy as np
import soxr

SAMPLE_RATE = 32_000  # Hz, what Cnn14 was trained on
SAMPLE_RATES = range(1_000, 1_000_001)  # Hz
CANCELLATION = 0.15  # energy of the channels' mean, of the loudest one's: identical 1, independent 0.5, one silent 0.25
SAME_CHANNEL = 0.01  # of a channel's energy, that another one does not explain: below, the two hold one sound
MAX_AMPLITUDE = 1e10  # full scale is 1; some write integers as floats. Beyond, a spectrum would overflow


class AudioError(Exception):
    """A sound file that cannot be used; the message is the reason, without the file's name."""


def to_mono(samples: np.ndarray) -> np.ndarray:
    """(samples, channels) -> the mean of the channels; where they cancel each other out, the loudest: (samples,)."""
    if samples.ndim == 1:
        return samples
    if samples.shape[1] == 1:
        return samples[:, 0]
    mean = samples.mean(axis=1, dtype=np.float32)
    energy = np.einsum("ij,ij->j", samples, samples)
    loudest = int(np.argmax(energy))
    if np.dot(mean, mean) < CANCELLATION * energy[loudest]:  # crossed wires: the silence would be called safe
        return np.ascontiguousarray(samples[:, loudest], np.float32)
    return mean


def distinct_channels(samples: np.ndarray) -> list[np.ndarray]:
    """(samples, channels) -> the channels that hold a sound of their own, the loudest first, each (samples,).

    A danger may be on one channel only, and a mean of channels can cancel it; what is the same on two is heard once.
    """
    if samples.ndim == 1 or samples.shape[1] == 1:
        return [to_mono(samples)]
    channels = np.ascontiguousarray(samples.T, np.float32)
    centred = channels - channels.mean(axis=1, keepdims=True)
    products = (centred @ centred.T).astype(np.float64)
    energy = np.diag(products)
    kept: list[int] = []
    for channel in np.argsort(-energy, kind="stable").tolist():
        explained = (products[channel, other] ** 2 / energy[other] for other in kept if energy[other])
        if not kept or energy[channel] - max(explained, default=0.0) > SAME_CHANNEL * energy[channel]:
            kept.append(channel)
    return [channels[channel] for channel in kept]


def resample(pieces: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Pieces of ``rate`` Hz, (samples,) or (samples, channels), at 32 kHz, as they come."""
    check_sample_rate(rate)
    if rate == SAMPLE_RATE:
        yield from pieces
        return
    resampler = None
    for piece in pieces:
        if resampler is None:
            rest = piece[:0]
            channels = 1 if piece.ndim == 1 else piece.shape[1]
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, channels, dtype="float32", quality="HQ")
        yield resampler.resample_chunk(piece)
    if resampler is not None:
        yield resampler.resample_chunk(rest, last=True)


def check_sample_rate(rate: int) -> None:
    """Raises AudioError for a rate that no sound has: a second of it might last for hours."""
    if rate not in SAMPLE_RATES:
        raise AudioError(
            f"has a sample rate of {rate:,} Hz, where {SAMPLE_RATES[0]:,} to {SAMPLE_RATES[-1]:,} are possible"
        )


def check_samples(samples: np.ndarray) -> np.ndarray:
    """The samples. Raises AudioError when one is NaN, infinite, or too large for any sound."""
    if not np.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples")
    if len(samples) and max(samples.max(), -samples.min()) > MAX_AMPLITUDE:
        raise AudioError(f"holds samples beyond {MAX_AMPLITUDE:g}, where 1 is full scale: no sound")
    return samples


def truncation_message(heard: int, promised: float = 0.0, reason: str = "") -> str:
    """What is said of a recording of which ``heard`` samples came, and ``promised`` seconds should have."""
    if not heard and not reason:
        return "has no samples" + (f", where its header promises {format_time(promised)}" if promised else "")
    of_all = f" of {format_time(promised)}" if promised > heard / SAMPLE_RATE else ""
    return f"breaks off at {format_time(heard / SAMPLE_RATE)}{of_all}{': ' if reason else ''}{reason}"


def format_time(seconds: float) -> str:
    """``1:02:03.5``: hours only where there are any."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    end = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{end}" if hours else f"{minutes}:{end}"
