"""Corruptions of recordings: each does what its name says, and those of the training are similar to them."""

import numpy as np
import pytest
import soxr
import torch

from danger_safe.audio.corruptions import CORRUPTIONS, corrupt
from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.finetuning import augment
from models.compact import CompactNet
from models.models import Cnn14

TIMES = np.arange(SAMPLE_RATE) / SAMPLE_RATE


def tone(frequency, peak=0.5):
    return (peak * np.sin(2 * np.pi * frequency * TIMES)).astype(np.float32)


def worsened(name, samples):
    return corrupt(name, samples, np.random.default_rng(0))


def decibels(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("samples", [tone(440), tone(440)[:100], np.zeros(5000, np.float32)])
def test_corruptions_accept_any_length_and_silence(name, samples):
    worse = worsened(name, samples)
    assert worse.shape == samples.shape
    assert worse.dtype == np.float32
    assert np.isfinite(worse).all()


def test_each_corruption_does_what_its_name_says():
    sound = tone(1_000)
    assert decibels(worsened("30 dB softer", sound)) - decibels(sound) == pytest.approx(-30, abs=0.1)
    louder = worsened("12 dB louder", sound)
    assert np.abs(louder).max() == 1
    assert decibels(louder) > decibels(sound) + 5
    assert decibels(worsened("noise at 10 dB", sound) - sound) - decibels(sound) == pytest.approx(-10, abs=0.2)
    for frequency, loss in ((100, 30), (1_000, 0), (6_000, 30)):
        lost = decibels(tone(frequency)) - decibels(worsened("telephone", tone(frequency)))
        assert lost >= loss if loss else lost == pytest.approx(0, abs=0.5), frequency
    assert decibels(worsened("MP3 at 32 kbit/s", sound)) == pytest.approx(decibels(sound), abs=1)
    assert decibels(worsened("MP3 at 32 kbit/s", tone(15_000))) < decibels(sound) - 20
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[1_000] = 1
    room = worsened("small room", click)
    assert decibels(room[3_000:5_000]) > decibels(room[15_000:17_000]) > decibels(click[3_000:5_000])
    assert np.mean(np.abs(worsened("clipping", sound)) == 1) > 0.5


def test_corrupted_training_clips_are_as_loud_as_clean_ones():
    front_end = CompactNet(2).front_end
    power = front_end.power(np.stack([tone(f) + tone(2 * f) for f in (200, 700, 1_500, 3_000)]))
    untouched = augment.corrupt(power, 0.0, np.random.default_rng(0))
    assert np.array_equal(untouched, power)
    worse = augment.corrupt(power, 1.0, np.random.default_rng(0))
    assert np.isfinite(worse).all() and (worse >= 0).all()
    assert (np.abs(worse - power).max(axis=(1, 2)) > 0).all()
    assert worse.sum(axis=(1, 2)) == pytest.approx(power.sum(axis=(1, 2)), rel=1e-3)
    assert np.array_equal(worse, augment.corrupt(power, 1.0, np.random.default_rng(0)))
    silence = np.zeros_like(power)
    assert np.array_equal(augment.corrupt(silence, 1.0, np.random.default_rng(0)), silence)


@pytest.mark.parametrize("corruption", augment.CORRUPTIONS)
def test_every_corruption_changes_a_sound(corruption):
    power = CompactNet(2).front_end.power(tone(200) + tone(2_000) + tone(6_900, 0.005))
    worse = corruption(power, np.random.default_rng(0))
    assert worse.shape == power.shape and worse.dtype == np.float32
    assert not np.allclose(worse, power)


def test_half_the_sample_rate_gives_the_same_log_mel():
    front_end = CompactNet(2).front_end
    assert front_end.supports_half_rate and not Cnn14(2, 1).front_end.supports_half_rate
    sound = tone(300, 0.3) + tone(2_500, 0.2)
    whole, half = front_end(sound), front_end.at_half_rate()(soxr.resample(sound, SAMPLE_RATE, SAMPLE_RATE // 2))
    assert whole.shape == half.shape
    assert np.abs(whole - half)[5:-5].mean() < 0.1


def test_clipped_peaks_are_scaled_to_one():
    waveform = torch.from_numpy(np.stack([tone(440, 0.1), tone(440, 0.9)]))
    clipped = augment.clip_peaks(waveform, 1.0, np.random.default_rng(0))
    assert clipped.abs().amax(dim=1).tolist() == pytest.approx([1, 1])
    assert (clipped.square().mean(dim=1) > 0.51).all()  # a whole sine has 0.5


def test_clipping_at_half_the_sample_rate_does_not_alias():
    half = SAMPLE_RATE // 2
    sine = torch.from_numpy(np.sin(2 * np.pi * 3_000 * np.arange(half) / half).astype(np.float32))[None]

    def folded(oversample):  # at 7,000 Hz: the alias of the third harmonic (9,000 Hz) at 16 kHz
        cut = augment.clip_peaks(sine.clone(), 1.0, np.random.default_rng(3), oversample)[0].numpy()
        return np.abs(np.fft.rfft(cut * np.hanning(half)))[7_000]

    assert folded(2) < folded(1) / 4
