"""Data augmentation: the same sounds as if recorded by somebody else.

All functions draw from the generator that they are given, so that a training is reproducible. Level, bandwidth and bit
depth reveal which collection a clip comes from, and a network that knows that learns collections instead of sounds
(benchmarks/compact.md). Hence gain, bit depth and corruptions, besides the usual mixup and SpecAugment (Park et al.
2019, arXiv:1904.08779).
"""

import numpy as np
import torch
from scipy.signal import lfilter, resample_poly

from danger_safe.audio.decode import SAMPLE_RATE
from models.logmel import HOP_LENGTH, N_FFT


def random_crop(clip: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``samples`` consecutive samples that contain sound: float32 in [-1, 1], from int16 of any length.

    Many clips are a bark followed by four seconds of digital silence. A crop of the silence would teach that silence is
    a bark, so a crop whose peak is below a twentieth of the clip's is replaced by one around a loud sample.
    """
    if len(clip) <= samples:
        crop = np.zeros(samples, np.float32)
        start = rng.integers(0, samples - len(clip) + 1)
        crop[start : start + len(clip)] = clip
        return crop / 32768.0
    peak = np.abs(clip.astype(np.int32)).max()
    start = rng.integers(0, len(clip) - samples + 1)
    crop = clip[start : start + samples]
    if np.abs(crop.astype(np.int32)).max() < peak / 20:
        loud = rng.choice(np.flatnonzero(np.abs(clip.astype(np.int32)) > peak / 4))
        start = np.clip(loud - rng.integers(0, samples), 0, len(clip) - samples)
        crop = clip[start : start + samples]
    return crop.astype(np.float32) / 32768.0


def change_speed(crop: np.ndarray, samples: int) -> np.ndarray:
    """Resample to ``samples`` by linear interpolation, which changes tempo and pitch together."""
    positions = np.linspace(0, len(crop) - 1, samples, dtype=np.float32)
    return np.interp(positions, np.arange(len(crop), dtype=np.float32), crop).astype(np.float32)


def mix(waveform: torch.Tensor, target: torch.Tensor, p: float, rng: np.random.Generator):
    """Mix waveforms, (batch, samples), and targets, (batch, classes), with another of the batch with probability ``p``.

    Both sounds are brought to equal loudness first, so that the ratio of the mix is that of the targets (between-class
    learning, Tokozume et al. 2018, arXiv:1711.10282).
    """
    size = len(waveform)
    ratio = torch.from_numpy(np.where(rng.random(size) < p, rng.random(size), 1.0).astype(np.float32))[:, None]
    other = torch.from_numpy(rng.permutation(size))
    rms = waveform.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-5)
    normalised = waveform / rms
    mixed = (ratio * normalised + (1 - ratio) * normalised[other]) / torch.sqrt(ratio**2 + (1 - ratio) ** 2)
    return mixed * rms, ratio * target + (1 - ratio) * target[other]


def change_depth(waveform: torch.Tensor, p: float, rng: np.random.Generator) -> torch.Tensor:
    """Quantise clips to 7 to 12 bits relative to their peak, with probability ``p``."""
    size = len(waveform)
    bits = torch.from_numpy(np.where(rng.random(size) < p, rng.integers(7, 13, size), 24).astype(np.float32))
    step = waveform.abs().amax(dim=1).clamp_min(1e-5) / 2 ** (bits - 1)
    return torch.round(waveform / step[:, None]) * step[:, None]


def change_gain(waveform: torch.Tensor, decibels: float, rng: np.random.Generator) -> torch.Tensor:
    """Attenuate each clip by up to ``decibels``. After normalisation this moves the log-mel's floor."""
    gain = 10 ** (-rng.uniform(0, decibels, len(waveform)).astype(np.float32) / 20)
    return waveform * torch.from_numpy(gain)[:, None]


def clip_peaks(waveform: torch.Tensor, p: float, rng: np.random.Generator, oversample: int = 1) -> torch.Tensor:
    """Clip peaks with probability ``p``, as if recorded up to 15 dB too loud; normalise all clips to a peak of 1.

    Recorders clip at 32 kHz or more. At half that rate the harmonics would alias into the network's band, so the sound
    is oversampled by the factor ``oversample`` meanwhile.
    """
    waveform = waveform / waveform.abs().amax(dim=1, keepdim=True).clamp_min(1e-5)
    for index in np.flatnonzero(rng.random(len(waveform)) < p):
        louder = waveform[index].numpy() * np.float32(10 ** (rng.uniform(0, 15) / 20))
        cut = np.clip(resample_poly(louder, oversample, 1), -1, 1)
        waveform[index] = torch.from_numpy(resample_poly(cut, 1, oversample))
    return waveform


def corrupt(power: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
    """Apply one or two of CORRUPTIONS to clips with probability ``p``; each clip keeps its loudness.

    Takes and returns power spectrograms, (batch, frames, bins), where corruptions cost a thousandth of what they do on
    waveforms; danger_safe/audio/corruptions.py has the real ones, which networks are evaluated on. Noise and telephone,
    the most harmful, are the most frequent.
    """
    power = power.copy()
    for index in np.flatnonzero(rng.random(len(power)) < p):
        clip = power[index]
        ways = rng.choice(
            len(CORRUPTIONS), 2 if rng.random() < 0.35 else 1, replace=False, p=list(CORRUPTIONS.values())
        )
        for corruption in [list(CORRUPTIONS)[way] for way in sorted(ways)]:  # room, then microphone, then codec
            clip = corruption(clip, rng)
        # restore the loudness, as peak normalisation does in real use, by at most 40 dB
        power[index] = clip * np.float32(min(power[index].sum() / max(float(clip.sum()), 1e-12), 1e4))
    return power


def _echo(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation with an RT60 of 0.1 to 0.6 s, from 10 dB below the direct sound to 3 dB above it."""
    decay = 10 ** (-6 * HOP_LENGTH / SAMPLE_RATE / rng.uniform(0.1, 0.6))
    wet = 10 ** (rng.uniform(-10, 3) / 10)
    echo = lfilter([1 - decay], [1, -decay], power, axis=0).astype(np.float32)
    return power + np.float32(wet) * echo * rng.standard_exponential(power.shape, np.float32)


def _narrow(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Low-pass at 1.5 to 7 kHz."""
    return _band(power, 0, np.exp(rng.uniform(np.log(1500), np.log(7000))), rng)


def _telephone(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Band-pass from 200–400 Hz to 3–4 kHz."""
    return _band(power, rng.uniform(200, 400), rng.uniform(3000, 4000), rng)


def _band(power: np.ndarray, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Attenuate everything outside ``low`` to ``high`` Hz by 30 to 70 dB."""
    frequency = np.arange(power.shape[1]) * SAMPLE_RATE / N_FFT
    in_band = (frequency >= low) & (frequency <= high)
    return power * np.where(in_band, 1.0, 10 ** (-rng.uniform(30, 70) / 10)).astype(np.float32)


def _add_noise(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white or coloured noise at an SNR of 2 to 25 dB; white noise counts with its whole bandwidth."""
    is_white = rng.random() < 0.6
    exponent = 0.0 if is_white else rng.uniform(-0.3, 1.5)
    spectrum = (np.arange(power.shape[1]) + 1.0) ** -exponent
    fraction = power.shape[1] * 2 / N_FFT if is_white else 1.0  # of the noise power that lies in these bins
    noise = rng.standard_exponential(power.shape, np.float32) * spectrum.astype(np.float32)
    noise *= np.float32(fraction * 10 ** (-rng.uniform(2, 25) / 10)) * power.sum() / noise.sum()
    phase = rng.random(power.shape, np.float32) * np.float32(2 * np.pi)  # between sound and noise, which interfere
    return np.maximum(power + noise + 2 * np.sqrt(power * noise) * np.cos(phase), 0)


def _drop_quiet(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove bins 15 to 40 dB below the loudest of their frame, as MP3 does at low bit rates."""
    floor = power.max(axis=1, keepdims=True) * 10 ** (-rng.uniform(15, 40) / 10)
    return np.where(power < floor, power * np.float32(1e-4), power)


CORRUPTIONS = {_echo: 0.2, _telephone: 0.3, _narrow: 0.1, _add_noise: 0.3, _drop_quiet: 0.1}  # relative frequency


def mask(logmel: torch.Tensor, rng: np.random.Generator, frames: int = 24, bins: int = 8) -> torch.Tensor:
    """Apply SpecAugment to log-mels, (batch, 1, frames, bins): set two time and two frequency masks to the mean.

    ``frames`` and ``bins`` are the maximum widths of a mask.
    """
    logmel = logmel.clone()
    for clip in logmel:
        mean = clip.mean()
        for axis, max_width in ((1, frames), (1, frames), (2, bins), (2, bins)):
            width = int(rng.integers(0, max_width + 1))
            start = int(rng.integers(0, clip.shape[axis] - width + 1))
            clip.narrow(axis, start, width).fill_(mean)
    return logmel
