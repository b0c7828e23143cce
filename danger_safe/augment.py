"""What a training clip may be turned into: the same sound, recorded by somebody else.

Every function takes and returns a batch and draws from the generator it is given, so that a training can be
repeated. Real clips betray their origin by level, bandwidth and bit depth; a network that can tell origins apart
learns those instead of sounds (benchmarks/compact.md), hence gain, bit depth and bad recording beside the usual mixup
and SpecAugment (Park et al. 2019, arXiv:1904.08779).
"""

import numpy as np
import torch
from scipy.signal import lfilter

from danger_safe.audio import SAMPLE_RATE
from models.logmel import HOP_LENGTH, N_FFT


def random_crop(clip: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """``samples`` consecutive samples that contain sound: float32 in [-1, 1] from int16 of any length.

    Many clips are a bark and four seconds of digital silence: a crop without a sample above a twentieth of the
    clip's peak would teach that silence barks, so it is drawn again around a loud place.
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
    """Stretch to ``samples`` by linear interpolation: tempo and pitch move together, as with another machine."""
    positions = np.linspace(0, len(crop) - 1, samples, dtype=np.float32)
    return np.interp(positions, np.arange(len(crop), dtype=np.float32), crop).astype(np.float32)


def mix(waveform: torch.Tensor, target: torch.Tensor, share: float, rng: np.random.Generator):
    """Mixup of sounds: each clip of ``share`` of the batch gets another one on top, its target too.

    Waveforms (batch, samples) are mixed at the ratio of loudness that the target says, after both are brought to
    one loudness (between-class learning, Tokozume et al. 2018, arXiv:1711.10282). Targets are (batch, classes).
    """
    size = len(waveform)
    ratio = torch.from_numpy(np.where(rng.random(size) < share, rng.random(size), 1.0).astype(np.float32))[:, None]
    other = torch.from_numpy(rng.permutation(size))
    loudness = waveform.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-5)
    level = waveform / loudness
    mixed = (ratio * level + (1 - ratio) * level[other]) / torch.sqrt(ratio**2 + (1 - ratio) ** 2)
    return mixed * loudness, ratio * target + (1 - ratio) * target[other]


def change_depth(waveform: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Round ``share`` of the clips to 7 to 12 bits of their own peak."""
    size = len(waveform)
    bits = torch.from_numpy(np.where(rng.random(size) < share, rng.integers(7, 13, size), 24).astype(np.float32))
    step = waveform.abs().amax(dim=1).clamp_min(1e-5) / 2 ** (bits - 1)
    return torch.round(waveform / step[:, None]) * step[:, None]


def change_gain(waveform: torch.Tensor, decibels: float, rng: np.random.Generator) -> torch.Tensor:
    """Scale each clip by up to ``decibels`` down: after normalisation it moves the floor under the sound."""
    gain = 10 ** (-rng.uniform(0, decibels, len(waveform)).astype(np.float32) / 20)
    return waveform * torch.from_numpy(gain)[:, None]


def clip_peaks(waveform: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Cut the peaks of ``share`` of the clips off, as if recorded up to 15 dB too loud; all end with a peak of 1."""
    size = len(waveform)
    over = np.where(rng.random(size) < share, rng.uniform(0, 15, size), 0).astype(np.float32)
    waveform = waveform / waveform.abs().amax(dim=1, keepdim=True).clamp_min(1e-5)
    return (waveform * torch.from_numpy(10 ** (over / 20))[:, None]).clamp(-1, 1)


def record_badly(power: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Each of echoes, noise, two narrow bands and MP3's holes for ``share`` of the clips; each stays as loud as it was.

    Power spectrograms (batch, frames, bins) both ways. In the spectrogram, where each costs a thousandth of what it
    would on the waveform; danger_safe/degradations.py has the real ones, on which networks are judged.
    """
    loudness = power.sum(dim=(1, 2), keepdim=True)
    power = power.clone()
    for worsen in (_echo, _add_noise, _narrow, _telephone, _drop_quiet):
        for index in np.flatnonzero(rng.random(len(power)) < share):
            power[index] = worsen(power[index], rng)
    # peak normalisation follows in real use; it brings back at most what 40 dB hide
    return power * (loudness / power.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)).clamp_max(1e4)


def _echo(power: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A room that dies away by 60 dB in 0.1 to 0.6 s, 10 dB under the direct sound to 3 dB over it."""
    decay = 10 ** (-6 * HOP_LENGTH / SAMPLE_RATE / rng.uniform(0.1, 0.6))
    wet = 10 ** (rng.uniform(-10, 3) / 10)
    echo = lfilter([1 - decay], [1, -decay], power.numpy(), axis=0).astype(np.float32)
    return power + wet * torch.from_numpy(echo)


def _add_noise(power: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """White to brown noise, 3 to 30 dB under the sound's own power."""
    shape = (np.arange(power.shape[1], dtype=np.float32) + 1) ** -rng.choice([0.0, 0.0, rng.uniform(0, 2)])
    noise = torch.from_numpy(rng.standard_exponential(power.shape, np.float32) * shape.astype(np.float32))
    return power + noise * (power.sum() / noise.sum() * 10 ** (-rng.uniform(3, 30) / 10))


def _narrow(power: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Nothing above 1.5 to 8 kHz."""
    return _band(power, 0, np.exp(rng.uniform(np.log(1500), np.log(8000))))


def _telephone(power: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Nothing under 100 to 500 Hz and above 3 to 4 kHz."""
    return _band(power, rng.uniform(100, 500), rng.uniform(3000, 4000))


def _band(power: torch.Tensor, low: float, high: float) -> torch.Tensor:
    frequency = np.arange(power.shape[1]) * SAMPLE_RATE / N_FFT
    kept = (frequency >= low) & (frequency <= high)
    return power * torch.from_numpy(np.where(kept, 1.0, 1e-6).astype(np.float32))


def _drop_quiet(power: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What is 15 to 40 dB under the loudest of its frame is lost, as in MP3 at few bits."""
    least = power.amax(dim=1, keepdim=True) * 10 ** (-rng.uniform(15, 40) / 10)
    return torch.where(power < least, power * 1e-4, power)


def mask(logmel: torch.Tensor, rng: np.random.Generator, frames: int = 24, bins: int = 8) -> torch.Tensor:
    """SpecAugment: two stretches of time and two of frequency, each up to ``frames`` or ``bins``, become the mean."""
    logmel = logmel.clone()  # (batch, 1, frames, bins)
    for clip in logmel:
        fill = clip.mean()
        for axis, longest in ((1, frames), (1, frames), (2, bins), (2, bins)):
            width = int(rng.integers(0, longest + 1))
            start = int(rng.integers(0, clip.shape[axis] - width + 1))
            clip.narrow(axis, start, width).fill_(fill)
    return logmel
