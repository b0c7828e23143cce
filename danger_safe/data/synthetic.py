"""Synthesise sample sounds in ESC-50's layout: nine categories that a person recognises by ear.

They only show the pipeline working, without Internet: telling a synthetic siren from synthetic rain is easy, and scores
on them say nothing about real sounds. The files are the same in every run.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, sosfilt
from tqdm import tqdm

from danger_safe.core.atomic import atomic_path, make_folder, write_csv
from danger_safe.core.ownership import marked_folder

RATE = 44_100  # Hz, as ESC-50
SECONDS = 5
FRAMES = RATE * SECONDS
CLIPS_PER_CATEGORY = 20
TAKES = "AB"  # two clips of every source, so that grouping by source matters
FOLDS = 5
# ESC-50's category numbers, so that file names look like the real ones
TARGETS = {
    "dog": 0, "rain": 10, "sea_waves": 11, "wind": 16, "crying_baby": 20,
    "keyboard_typing": 32, "clock_tick": 38, "chainsaw": 41, "siren": 42,
}  # fmt: skip

Random = np.random.Generator
TIME = np.arange(FRAMES) / RATE  # seconds


def make_samples(folder: Path) -> None:
    """Write meta/esc50.csv and audio/*.wav under ``folder``: 180 clips, 79 MB."""
    rows = []
    make_folder(marked_folder(folder) / "audio")
    clips = [(category, number) for category in TARGETS for number in range(CLIPS_PER_CATEGORY)]
    for category, number in tqdm(clips, desc="Making sample sounds", unit="clip"):
        target = TARGETS[category]
        source, take = divmod(number, len(TAKES))
        fold = source % FOLDS + 1
        src_file = 800_000 + 1_000 * target + source
        name = f"{fold}-{src_file}-{TAKES[take]}-{target}.wav"
        voice = np.random.default_rng([50, target, source])  # shared by the takes of one source
        sound = _SYNTHESISERS[category](voice, np.random.default_rng([50, target, source, take]))
        sound = 0.8 * sound / np.abs(sound).max()
        with atomic_path(folder / "audio" / name) as part:
            soundfile.write(part, np.round(sound * 32_767).astype(np.int16), RATE, subtype="PCM_16", format="WAV")
        rows.append((name, fold, target, category, False, src_file, TAKES[take]))
    columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    write_csv(folder / "meta" / "esc50.csv", columns, rows)


def _band(noise: np.ndarray, low: float, high: float) -> np.ndarray:
    """Band-pass filter from ``low`` to ``high`` Hz."""
    return sosfilt(_bandpass(low, high), noise)


@cache
def _bandpass(low: float, high: float) -> np.ndarray:
    return butter(2, [low, high], "bandpass", fs=RATE, output="sos")


def _phase(frequency: np.ndarray) -> np.ndarray:
    """Return the phase of an oscillator with an instantaneous ``frequency``, in Hz: (samples,)."""
    return 2 * np.pi * np.cumsum(frequency) / RATE


def _harmonics(frequency: np.ndarray, count: int, tilt: float) -> np.ndarray:
    """Sum ``count`` harmonics; the amplitude of the k-th is k to the power of minus ``tilt``."""
    phase = _phase(frequency)
    return sum((np.sin(k * phase) / k**tilt for k in range(1, count + 1)), np.zeros_like(phase))


def _mix_in(sound: np.ndarray, event: np.ndarray, start: int) -> None:
    """Add ``event`` to ``sound`` from sample ``start`` on, in place; the end is cut off if need be."""
    event = event[: max(0, len(sound) - start)]
    sound[start : start + len(event)] += event


def _siren(voice: Random, take: Random) -> np.ndarray:
    """A tone that climbs and falls between about 500 and 1,500 Hz."""
    low, high, rate = voice.uniform(450, 650), voice.uniform(1200, 1600), voice.uniform(0.25, 1.5)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * TIME + take.random()))
    return _harmonics(low + (high - low) * sweep, 4, 1.3) + 0.02 * take.standard_normal(FRAMES)


def _dog(voice: Random, take: Random) -> np.ndarray:
    """Barks: a fifth of a second of falling voice and breath, a few of them."""
    pitch, length = voice.uniform(300, 700), voice.uniform(0.14, 0.25)
    t = np.arange(int(length * RATE)) / RATE
    envelope = np.sin(np.pi * t / length) ** 0.7 * np.exp(-3 * t / length)
    sound = 0.002 * take.standard_normal(FRAMES)
    start = take.uniform(0.1, 0.6)
    while start < SECONDS - length:
        glide = pitch * (1 + 0.5 * np.exp(-((t - 0.3 * length) ** 2) / (0.1 * length) ** 2 / 4))
        bark = _harmonics(glide, 12, 0.8) + 1.5 * _band(take.standard_normal(len(t)), 800, 4000)
        _mix_in(sound, envelope * bark * take.uniform(0.7, 1), int(start * RATE))
        start += length + take.choice([0.15, 0.2, 0.9])
    return sound


def _crying_baby(voice: Random, take: Random) -> np.ndarray:
    """Wails of about a second around 450 Hz, rising and falling, with a gasp between them."""
    pitch, length = voice.uniform(380, 520), voice.uniform(0.8, 1.2)
    sound = 0.003 * take.standard_normal(FRAMES)
    start = take.uniform(0, 0.3)
    while start < SECONDS - 0.3:
        t = np.arange(int(length * take.uniform(0.8, 1.1) * RATE)) / RATE
        progress = t / t[-1]  # 0 to 1
        vibrato = 1 + 0.02 * np.sin(2 * np.pi * 6 * t)
        wail = _harmonics(pitch * (0.8 + 0.35 * np.sin(np.pi * progress)) * vibrato, 14, 0.5)
        wail = wail + 0.8 * _band(wail, 900, 3500)  # formants of an open mouth
        _mix_in(sound, wail * np.minimum(1, 8 * progress) * np.minimum(1, 5 * (1 - progress)), int(start * RATE))
        start += len(t) / RATE + 0.05
        gasp = _band(take.standard_normal(int(0.15 * RATE)), 1500, 5000) * np.hanning(int(0.15 * RATE))
        _mix_in(sound, 1.5 * gasp, int(start * RATE))
        start += 0.25
    return sound


def _chainsaw(voice: Random, take: Random) -> np.ndarray:
    """A two-stroke engine: a train of 80 to 140 explosions a second that revs up and labours, and rattle."""
    idle, rev = voice.uniform(80, 110), voice.uniform(20, 60)
    throttle = np.clip(np.sin(2 * np.pi * (voice.uniform(0.2, 0.5) * TIME + take.random())) * 3, -1, 1)
    phase = _phase(idle + rev * (0.5 + 0.5 * throttle) + 2 * _band(take.standard_normal(FRAMES), 2, 20))
    pulses = np.exp(-6 * (phase / (2 * np.pi) % 1)) - 0.17
    rattle = _band(take.standard_normal(FRAMES), 1500, 7000) * (0.3 + pulses.clip(0))
    return _band(pulses, 60, 6000) + 0.6 * rattle


def _rain(voice: Random, take: Random) -> np.ndarray:
    """Steady hiss, and thousands of single drops."""
    hiss = _band(take.standard_normal(FRAMES), voice.uniform(300, 900), voice.uniform(8000, 14_000))
    drops = np.zeros(FRAMES)
    count = int(voice.uniform(300, 1500))
    drops[take.integers(0, FRAMES, count)] = take.exponential(1.0, count)
    ring = np.exp(-np.arange(400) / 60) * np.sin(2 * np.pi * voice.uniform(2500, 5000) * np.arange(400) / RATE)
    return 0.3 * hiss + np.convolve(drops, ring)[:FRAMES]


def _sea_waves(voice: Random, take: Random) -> np.ndarray:
    """Surf: noise that swells for seconds, grows brighter as it breaks, and draws back."""
    period = voice.uniform(2.5, 5)
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * (TIME / period + take.random()))) ** 2
    noise = take.standard_normal(FRAMES)
    return (0.15 + swell) * _band(noise, 80, 900) + 0.8 * swell**2 * _band(noise, 900, 6000)


def _wind(voice: Random, take: Random) -> np.ndarray:
    """Gusts: low noise that comes and goes, with a whistle that follows its strength."""
    gust = _band(take.standard_normal(FRAMES), 0.2, 1.5)
    gust = np.clip(0.5 + 0.35 * gust / gust.std(), 0.05, None)
    whistle = np.sin(_phase(voice.uniform(300, 500) + 250 * gust)) * _band(take.standard_normal(FRAMES), 1, 30)
    return gust * _band(take.standard_normal(FRAMES), 40, 500) * 3 + voice.uniform(0.2, 0.8) * gust**2 * whistle


def _clock_tick(voice: Random, take: Random) -> np.ndarray:
    """A tick and a tock, a half to a whole second apart."""
    interval, tone = voice.uniform(0.4, 1.0), voice.uniform(2000, 4000)
    sound = 0.001 * take.standard_normal(FRAMES)
    t = np.arange(int(0.04 * RATE)) / RATE
    beats = np.arange(take.uniform(0, interval), SECONDS, interval)
    for number, start in enumerate(beats):
        pitch = tone * (1.0 if number % 2 else 0.8)
        click = np.exp(-t * 180) * np.sin(2 * np.pi * pitch * t) + 0.5 * np.exp(-t * 900) * take.standard_normal(len(t))
        _mix_in(sound, click, int(start * RATE))
    return sound


def _keyboard_typing(voice: Random, take: Random) -> np.ndarray:
    """Keys going down and up in an uneven rhythm, the space bar now and then."""
    pace, tone = voice.uniform(0.09, 0.16), voice.uniform(1200, 2500)
    sound = 0.002 * take.standard_normal(FRAMES)
    t = np.arange(int(0.03 * RATE)) / RATE
    start = take.uniform(0, 0.3)
    while start < SECONDS - 0.1:
        low = 0.5 if take.random() < 0.15 else 1.0
        noise = _band(take.standard_normal(len(t)), tone * 0.5 * low, tone * 3)
        key = np.exp(-t * 250) * (noise + 0.2 * np.sin(2 * np.pi * tone * 0.3 * low * t))
        _mix_in(sound, key * take.uniform(0.5, 1), int(start * RATE))
        _mix_in(sound, 0.35 * key[::-1], int((start + 0.06) * RATE))
        start += pace * take.choice([0.7, 1, 1, 1.3, 3], p=[0.2, 0.3, 0.2, 0.2, 0.1])
    return sound


_SYNTHESISERS: dict[str, Callable[[Random, Random], np.ndarray]] = {
    "siren": _siren, "dog": _dog, "crying_baby": _crying_baby, "chainsaw": _chainsaw, "rain": _rain,
    "sea_waves": _sea_waves, "wind": _wind, "clock_tick": _clock_tick, "keyboard_typing": _keyboard_typing,
}  # fmt: skip
