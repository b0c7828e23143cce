"""Synthesise sounds of a household and of dangers, for benchmarks/household_week.py.

Each function returns one take, mono at 32 kHz, (samples,). ``voice`` is the generator for what all takes of one source
have in common (this kettle), ``take`` the one for what differs from take to take.
"""

from collections.abc import Callable

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from danger_safe.audio.pcm import SAMPLE_RATE

Random = np.random.Generator


def _times(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _band(noise: np.ndarray, low: float, high: float) -> np.ndarray:
    """Band-pass filter ``noise`` from ``low`` to ``high`` Hz."""
    return sosfilt(butter(2, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos"), noise)


def _slow(take: Random, size: int, rate_hz: float) -> np.ndarray:
    """Return slow noise with a standard deviation of 1 that changes about ``rate_hz`` times per second."""
    points = take.standard_normal(max(4, int(size / SAMPLE_RATE * rate_hz) + 3))
    return np.interp(np.linspace(0, len(points) - 1, size), np.arange(len(points)), points)


def _tone(frequency: np.ndarray, partials: int, tilt: float) -> np.ndarray:
    """Return an oscillator with the given frequency in Hz, (samples,); partial k has amplitude 1 / k**tilt."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    highest = frequency.max()
    return sum(np.sin(k * phase) / k**tilt for k in range(1, partials + 1) if k * highest < SAMPLE_RATE / 2)


def _kettle(voice: Random, take: Random) -> np.ndarray:
    """A whistle that rises with the steam and then stays, with a slight vibrato, and the noise of the steam."""
    pitch, climb, breath = voice.uniform(900, 2_600), voice.uniform(0.05, 0.4), voice.uniform(0.05, 0.25)
    second, wobble = voice.uniform(1.1, 1.5), voice.uniform(4, 9)
    t = _times(take.uniform(4.5, 6))
    steam = 1 - np.exp(-t / take.uniform(0.5, 1.2))
    frequency = (
        pitch * (1 - climb * (1 - steam)) * (1 + 0.004 * _slow(take, len(t), 8) + 0.01 * np.sin(2 * np.pi * wobble * t))
    )
    whistle = _tone(frequency, 4, 1.5) + 0.4 * _tone(frequency * second, 2, 1.5)
    noise = _band(take.standard_normal(len(t)), 1_500, 9_000)
    return steam * (whistle + breath * noise / noise.std())


def _struck(voice: Random, t: np.ndarray, pitch: float, decay_s: float) -> np.ndarray:
    """The decaying partials of a bell or a bar."""
    ratios = np.array([1, 2.76, 5.4, 8.9]) * (1 + 0.02 * voice.standard_normal(4))
    return sum(
        np.sin(2 * np.pi * pitch * r * t) * np.exp(-t * r**0.5 / decay_s) / (n + 1) for n, r in enumerate(ratios)
    )


def _repeated(sound: np.ndarray, starts: list[float], seconds: float) -> np.ndarray:
    """Return ``seconds`` of silence with ``sound`` added at each of ``starts`` (seconds)."""
    whole = np.zeros(round(seconds * SAMPLE_RATE))
    for start in starts:
        first = round(start * SAMPLE_RATE)
        repetition = sound[: max(0, len(whole) - first)]
        whole[first : first + len(repetition)] += repetition
    return whole


def _doorbell(voice: Random, take: Random) -> np.ndarray:
    """A two-tone chime, two or three times."""
    high, low, t = voice.uniform(600, 900), voice.uniform(0.7, 0.85), _times(1.6)
    ding, dong = _struck(voice, t, high, 0.5), _struck(voice, t, high * low, 0.7)
    gap, starts, sound = voice.uniform(0.4, 0.6), [0.0, 1.7, 3.4][: take.integers(2, 4)], 0.0
    sound = _repeated(ding, starts, 5) + _repeated(dong, [start + gap for start in starts], 5)
    return sound + 0.002 * take.standard_normal(len(sound))


def _squeaky_door(voice: Random, take: Random) -> np.ndarray:
    """A hinge that sticks and slips with a rising and falling pitch, three times."""
    low, high, parts = voice.uniform(400, 700), voice.uniform(1_000, 1_800), []
    for _ in range(3):
        t = _times(take.uniform(0.8, 1.3))
        sweep = np.sin(np.pi * t / t[-1]) ** 2 + 0.1 * _slow(take, len(t), 12)
        creak = _tone(low + (high - low) * sweep, 12, 0.7)
        parts += [
            creak * np.sin(np.pi * t / t[-1]).clip(0) ** 0.5,
            np.zeros(round(take.uniform(0.2, 0.5) * SAMPLE_RATE)),
        ]
    return np.concatenate(parts)


def _motor(voice: Random, take: Random, seconds: float, start_s: float) -> np.ndarray:
    """The whine and air noise of an electric motor that starts within about ``start_s`` seconds."""
    t = _times(seconds)
    speed = (1 - np.exp(-t / start_s)) * (1 + 0.01 * _slow(take, len(t), 3))
    whine = _tone(voice.uniform(180, 320) * speed + 20, 20, 0.8)
    air = _band(take.standard_normal(len(t)), 300, voice.uniform(5_000, 12_000))
    return speed * (voice.uniform(0.15, 0.5) * whine + air / air.std())


def _vacuum(voice: Random, take: Random) -> np.ndarray:
    return _motor(voice, take, 5.5, 0.6)


def _grinder(voice: Random, take: Random) -> np.ndarray:
    """A motor and cracking beans."""
    sound = _motor(voice, take, 5, 0.2)
    beans = np.zeros(len(sound))
    count = int(voice.uniform(300, 900))
    beans[take.integers(0, len(beans), count)] = take.exponential(3.0, count)
    return sound + fftconvolve(beans, _struck(voice, _times(0.02), 2_500, 0.01))[: len(sound)]


def _toy(voice: Random, take: Random) -> np.ndarray:
    """A toy car: a small loudspeaker that plays a siren of three square-wave tones."""
    notes, length = voice.uniform(700, 1_800, 3), voice.uniform(0.12, 0.3)
    frequency = np.repeat(np.tile(notes, 12), round(length * SAMPLE_RATE))[: 5 * SAMPLE_RATE]
    frequency = frequency * (1 + 0.003 * take.standard_normal())
    return _band(np.sign(_tone(frequency, 1, 1)), 500, 6_000) + 0.01 * take.standard_normal(len(frequency))


def _microwave(voice: Random, take: Random) -> np.ndarray:
    """Three or four beeps."""
    t = _times(voice.uniform(0.3, 0.7))
    beep = _tone(np.full(len(t), voice.uniform(1_800, 2_400)), 3, 1.2) * np.minimum(1, 40 * np.minimum(t, t[-1] - t))
    pause = voice.uniform(0.4, 0.7)
    starts = [n * (len(t) / SAMPLE_RATE + pause) for n in range(take.integers(3, 5))]
    return _repeated(beep, starts, 5) + 0.003 * take.standard_normal(5 * SAMPLE_RATE)


def _wail(voice: Random, take: Random) -> np.ndarray:
    """A siren that rises and falls slowly."""
    low, high, rate = voice.uniform(500, 700), voice.uniform(1_100, 1_600), voice.uniform(0.2, 0.5)
    t = _times(5)
    return _tone(low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * (rate * t + take.random()))), 8, 1.0)


def _yelp(voice: Random, take: Random) -> np.ndarray:
    """A siren that rises and falls about three times per second."""
    t, rate = _times(5), voice.uniform(2.5, 4)
    return _tone(voice.uniform(600, 800) * 2 ** (0.5 - 0.5 * np.cos(2 * np.pi * (rate * t + take.random()))), 8, 1.0)


def _two_tone(voice: Random, take: Random) -> np.ndarray:
    """A fire engine's two-tone horn."""
    low, t = voice.uniform(380, 480), _times(5)
    return _tone(np.where((t / voice.uniform(0.5, 0.8) + take.random()) % 2 < 1, low, low * 1.33), 14, 0.7)


def _smoke_alarm(voice: Random, take: Random) -> np.ndarray:
    """A repeated pattern of three half-second beeps at 3 kHz and a pause."""
    t, pitch = _times(5), voice.uniform(2_900, 3_300)
    phase = (t + take.uniform(0, 4)) % 4
    on = (phase < 3) & (phase % 1 < 0.5)
    return on * np.sign(_tone(np.full(len(t), pitch), 1, 1)) + 0.003 * take.standard_normal(len(t))


def _scream(voice: Random, take: Random) -> np.ndarray:
    """A rough, high voice, twice."""
    pitch, parts = voice.uniform(700, 1_100), []
    for _ in range(2):
        t = _times(take.uniform(1.2, 2))
        arch = np.sin(np.pi * np.minimum(1, t / t[-1])) ** 0.4
        rough = 1 + 0.5 * np.sin(2 * np.pi * voice.uniform(50, 90) * t)
        sound = _tone(pitch * (0.8 + 0.3 * arch) * (1 + 0.01 * _slow(take, len(t), 30)), 12, 0.5) * rough
        noise = _band(take.standard_normal(len(t)), 1_000, 6_000)
        parts += [arch * (sound + 2 * _band(sound, 1_000, 3_500) + 0.4 * noise), np.zeros(SAMPLE_RATE // 4)]
    return np.concatenate(parts)


HOUSEHOLD: dict[str, Callable[[Random, Random], np.ndarray]] = {
    "kettle": _kettle, "doorbell": _doorbell, "squeaky door": _squeaky_door, "vacuum cleaner": _vacuum,
    "coffee grinder": _grinder, "toy": _toy, "microwave": _microwave,
}  # fmt: skip
DANGERS: dict[str, Callable[[Random, Random], np.ndarray]] = {
    "siren, wail": _wail, "siren, yelp": _yelp, "siren, two tones": _two_tone, "smoke alarm": _smoke_alarm,
    "scream": _scream,
}  # fmt: skip


def synthesise(name: str, source: int, take: int) -> np.ndarray:
    """Return one take of a household sound or a danger with a peak of 1, float32, (samples,)."""
    make = (HOUSEHOLD | DANGERS)[name]
    number = [*HOUSEHOLD, *DANGERS].index(name)
    sound = make(np.random.default_rng([7, number, source]), np.random.default_rng([7, number, source, take + 1]))
    return (sound / np.abs(sound).max()).astype(np.float32)
