"""What a training clip may be turned into: the same sound, recorded by somebody else.

Every function takes and returns a batch and draws from the generator it is given, so that a training can be
repeated. Real clips betray their origin by level, bandwidth and bit depth; a network that can tell origins apart
learns those instead of sounds (benchmarks/compact.md), hence gain, bit depth and bad recording beside the usual mixup
and SpecAugment (Park et al. 2019, arXiv:1904.08779).
"""

import numpy as np
import torch
from scipy.signal import lfilter, resample_poly

from danger_safe.audio.decode import SAMPLE_RATE
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


def mix(waveform: torch.Tensor, target: torch.Tensor, p: float, rng: np.random.Generator):
    """Mixup of sounds: each clip of ``p`` of the batch gets another one on top, its target too.

    Waveforms (batch, samples) are mixed at the ratio of loudness that the target says, after both are brought to
    one loudness (between-class learning, Tokozume et al. 2018, arXiv:1711.10282). Targets are (batch, classes).
    """
    size = len(waveform)
    ratio = torch.from_numpy(np.where(rng.random(size) < p, rng.random(size), 1.0).astype(np.float32))[:, None]
    other = torch.from_numpy(rng.permutation(size))
    loudness = waveform.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-5)
    level = waveform / loudness
    mixed = (ratio * level + (1 - ratio) * level[other]) / torch.sqrt(ratio**2 + (1 - ratio) ** 2)
    return mixed * loudness, ratio * target + (1 - ratio) * target[other]


def change_depth(waveform: torch.Tensor, p: float, rng: np.random.Generator) -> torch.Tensor:
    """Round ``p`` of the clips to 7 to 12 bits of their own peak."""
    size = len(waveform)
    bits = torch.from_numpy(np.where(rng.random(size) < p, rng.integers(7, 13, size), 24).astype(np.float32))
    step = waveform.abs().amax(dim=1).clamp_min(1e-5) / 2 ** (bits - 1)
    return torch.round(waveform / step[:, None]) * step[:, None]


def change_gain(waveform: torch.Tensor, decibels: float, rng: np.random.Generator) -> torch.Tensor:
    """Scale each clip by up to ``decibels`` down: after normalisation it moves the floor under the sound."""
    gain = 10 ** (-rng.uniform(0, decibels, len(waveform)).astype(np.float32) / 20)
    return waveform * torch.from_numpy(gain)[:, None]


def clip_peaks(waveform: torch.Tensor, p: float, rng: np.random.Generator, oversample: int = 1) -> torch.Tensor:
    """Cut the peaks of ``p`` of the clips off, as if recorded up to 15 dB too loud; all end with a peak of 1.

    Recorders cut at 32 kHz or more. At half of that, the overtones that cutting makes would fold back into what the
    network hears: ``oversample`` is how many times the rate is raised meanwhile.
    """
    waveform = waveform / waveform.abs().amax(dim=1, keepdim=True).clamp_min(1e-5)
    for index in np.flatnonzero(rng.random(len(waveform)) < p):
        louder = waveform[index].numpy() * np.float32(10 ** (rng.uniform(0, 15) / 20))
        cut = np.clip(resample_poly(louder, oversample, 1), -1, 1)
        waveform[index] = torch.from_numpy(resample_poly(cut, 1, oversample))
    return waveform


def corrupt(power: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
    """One or two of echoes, a narrow band, a telephone's band, noise and MP3's holes for ``p`` of the clips; each
    clip stays as loud as it was.

    Power spectrograms (batch, frames, bins) both ways. In the spectrogram, where each costs a thousandth of what it
    would on the waveform; danger_safe/audio/corruptions.py has the real ones, on which networks are judged. Noise and
    the telephone, which take most from a sound, come most often.
    """
    power = power.copy()
    for index in np.flatnonzero(rng.random(len(power)) < p):
        clip = power[index]
        ways = rng.choice(
            len(CORRUPTIONS), 2 if rng.random() < 0.35 else 1, replace=False, p=list(CORRUPTIONS.values())
        )
        for corruption in [list(CORRUPTIONS)[way] for way in sorted(ways)]:  # in the order in which sound meets them
            clip = corruption(clip, rng)
        # peak normalisation follows in real use; it brings back at most what 40 dB hide
        power[index] = clip * np.float32(min(power[index].sum() / max(float(clip.sum()), 1e-12), 1e4))
    return power


def _echo(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A room that dies away by 60 dB in 0.1 to 0.6 s, 10 dB under the direct sound to 3 dB over it."""
    decay = 10 ** (-6 * HOP_LENGTH / SAMPLE_RATE / rng.uniform(0.1, 0.6))
    wet = 10 ** (rng.uniform(-10, 3) / 10)
    echo = lfilter([1 - decay], [1, -decay], power, axis=0).astype(np.float32)
    return power + np.float32(wet) * echo * rng.standard_exponential(power.shape, np.float32)


def _narrow(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nothing above 1.5 to 7 kHz."""
    return _band(power, 0, np.exp(rng.uniform(np.log(1500), np.log(7000))), rng)


def _telephone(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nothing under 200 to 400 Hz and above 3 to 4 kHz."""
    return _band(power, rng.uniform(200, 400), rng.uniform(3000, 4000), rng)


def _band(power: np.ndarray, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """What is outside falls by 30 to 70 dB."""
    frequency = np.arange(power.shape[1]) * SAMPLE_RATE / N_FFT
    kept = (frequency >= low) & (frequency <= high)
    return power * np.where(kept, 1.0, 10 ** (-rng.uniform(30, 70) / 10)).astype(np.float32)


def _add_noise(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise, of which the network's band holds a part, or noise of another colour; 2 to 25 dB under the sound."""
    white = rng.random() < 0.6
    colour = 0.0 if white else rng.uniform(-0.3, 1.5)
    shape = (np.arange(power.shape[1]) + 1.0) ** -colour
    part = power.shape[1] * 2 / N_FFT if white else 1.0
    noise = rng.standard_exponential(power.shape, np.float32) * shape.astype(np.float32)
    noise *= np.float32(part * 10 ** (-rng.uniform(2, 25) / 10)) * power.sum() / noise.sum()
    phase = rng.random(power.shape, np.float32) * np.float32(2 * np.pi)  # between sound and noise: they interfere
    return np.maximum(power + noise + 2 * np.sqrt(power * noise) * np.cos(phase), 0)


def _drop_quiet(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What is 15 to 40 dB under the loudest of its frame is lost, as in MP3 at few bits."""
    least = power.max(axis=1, keepdims=True) * 10 ** (-rng.uniform(15, 40) / 10)
    return np.where(power < least, power * np.float32(1e-4), power)


CORRUPTIONS = {_echo: 0.2, _telephone: 0.3, _narrow: 0.1, _add_noise: 0.3, _drop_quiet: 0.1}  # how often of those drawn


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
