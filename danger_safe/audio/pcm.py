"""Operations on decoded samples: mixing channels, resampling, checking values; and the messages about them."""

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
import soxr

SAMPLE_RATE = 32_000  # Hz; what Cnn14 was trained on
SAMPLE_RATES = range(1_000, 1_000_001)  # Hz; what a file may have
MIN_MEAN_ENERGY = 0.15  # of the loudest channel's energy; identical channels give 1, independent 0.5, one silent 0.25
MIN_RESIDUAL_ENERGY = 0.01  # of a channel's energy that no other channel explains; below it, the two are one sound
MAX_AMPLITUDE = 1e10  # full scale is 1, but some files hold integers as floats; larger values would overflow a spectrum


class AudioError(Exception):
    """A sound file that cannot be used. The message is the reason, without the file's name."""


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels, or take the loudest one if they cancel each other: (samples, channels) -> (samples,)."""
    if samples.ndim == 1:
        return samples
    if samples.shape[1] == 1:
        return samples[:, 0]
    mean = samples.mean(axis=1, dtype=np.float32)
    energy = np.einsum("ij,ij->j", samples, samples)
    loudest = int(np.argmax(energy))
    if np.dot(mean, mean) < MIN_MEAN_ENERGY * energy[loudest]:  # one channel is inverted: the mean would be silence
        return np.ascontiguousarray(samples[:, loudest], np.float32)
    return mean


def distinct_channels(samples: np.ndarray) -> list[np.ndarray]:
    """Split a recording into channels, leaving out those that repeat another one.

    A danger may be audible on one channel only, and averaging can cancel it, so each channel is classified; but a sound
    that two channels share is classified once.

    Args:
        samples: float32, (samples,) or (samples, channels).

    Returns:
        The distinct channels, the loudest first, each (samples,).
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
        if not kept or energy[channel] - max(explained, default=0.0) > MIN_RESIDUAL_ENERGY * energy[channel]:
            kept.append(channel)
    return [channels[channel] for channel in kept]


def resample(chunks: Iterator[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Resample a stream of chunks, (samples,) or (samples, channels), from ``sample_rate`` to 32 kHz."""
    check_sample_rate(sample_rate)
    if sample_rate == SAMPLE_RATE:
        yield from chunks
        return
    resampler = None
    for chunk in chunks:
        if resampler is None:
            empty = chunk[:0]
            channels = 1 if chunk.ndim == 1 else chunk.shape[1]
            resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, channels, dtype="float32", quality="HQ")
        yield resampler.resample_chunk(chunk)
    if resampler is not None:
        yield resampler.resample_chunk(empty, last=True)


def stack_tracks(tracks: list[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Stack the channels of all tracks, (samples, channels). Tracks that end early are padded with silence."""
    if len(tracks) == 1:
        yield from tracks[0]
        return
    widths: dict[int, int] = {}  # number of channels of each track
    for blocks in zip_longest(*(_in_blocks(track, 5 * SAMPLE_RATE) for track in tracks)):
        longest = max(len(block) for block in blocks if block is not None)
        widths |= {number: block.shape[1] for number, block in enumerate(blocks) if block is not None}
        padded = [np.zeros((longest, widths.get(number, 1)), np.float32) for number in range(len(blocks))]
        for target, block in zip(padded, blocks, strict=True):
            if block is not None:
                target[: len(block)] = block
        yield np.hstack(padded)


def _in_blocks(chunks: Iterator[np.ndarray], block_size: int) -> Iterator[np.ndarray]:
    """Regroup chunks into blocks of ``block_size`` samples, of which the last may be shorter."""
    buffer: list[np.ndarray] = []
    for chunk in chunks:
        buffer.append(chunk)
        while sum(map(len, buffer)) >= block_size:
            samples = np.concatenate(buffer)
            yield samples[:block_size]
            buffer = [samples[block_size:]]
    if buffer and len(samples := np.concatenate(buffer)):
        yield samples


def check_sample_rate(sample_rate: int) -> None:
    """Raise AudioError for an implausible sample rate: at 1 Hz, a second of samples would last for hours."""
    if sample_rate not in SAMPLE_RATES:
        limits = f"where {SAMPLE_RATES[0]:,} to {SAMPLE_RATES[-1]:,} are possible"
        raise AudioError(f"has a sample rate of {sample_rate:,} Hz, {limits}")


def check_samples(samples: np.ndarray) -> np.ndarray:
    """Return the samples. Raises AudioError if one is NaN, infinite or beyond MAX_AMPLITUDE."""
    if not np.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples")
    if len(samples) and max(samples.max(), -samples.min()) > MAX_AMPLITUDE:
        raise AudioError(f"holds samples beyond {MAX_AMPLITUDE:g}, where 1 is full scale: no sound")
    return samples


def truncation_message(num_samples: int, declared_s: float = 0.0, reason: str = "") -> str:
    """Describe a recording that ends too early.

    Args:
        num_samples: how many samples at 32 kHz could be decoded.
        declared_s: its duration according to the header, in seconds; 0 if unknown.
        reason: what the decoder says.
    """
    if not num_samples and not reason:
        return "has no samples" + (f", where its header promises {format_time(declared_s)}" if declared_s else "")
    total = f" of {format_time(declared_s)}" if declared_s > num_samples / SAMPLE_RATE else ""
    return f"breaks off at {format_time(num_samples / SAMPLE_RATE)}{total}{': ' if reason else ''}{reason}"


def format_time(seconds: float) -> str:
    """Format a time as ``2:03.5``, or ``1:02:03.5`` from one hour on."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds_text = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{seconds_text}" if hours else f"{minutes}:{seconds_text}"
