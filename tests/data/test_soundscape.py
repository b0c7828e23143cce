"""Soundscapes: long recordings made of clips."""

import numpy as np
import pytest
import soundfile

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.audio.room_tone import synthesize_room_tone
from danger_safe.data.clips import read_clips
from danger_safe.data.soundscape import FADE_SAMPLES, LOUDNESS_DB, Soundscape


@pytest.fixture
def clips(tmp_path):
    for name, frequency, seconds in (("hum", 100, 2.0), ("tick", 3_000, 0.2)):
        (tmp_path / name).mkdir()
        times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        soundfile.write(tmp_path / name / f"{name}.wav", 0.9 * np.sin(2 * np.pi * frequency * times), SAMPLE_RATE)
    return read_clips(tmp_path)


def test_soundscape_has_the_requested_length_and_is_reproducible(clips):
    recording = Soundscape(clips, 20.0, seed=3)
    sound = np.concatenate(list(recording.chunks()))
    assert len(sound) == 20 * SAMPLE_RATE and sound.dtype == np.float32
    assert np.array_equal(sound, np.concatenate(list(recording.chunks())))
    assert {clip.category for *_, clip in recording.background} == {"hum", "tick"}
    starts, ends, _ = zip(*recording.background, strict=True)
    assert (starts[0], ends[-1]) == (0, 20) and starts[1:] == ends[:-1]


def test_background_has_realistic_levels_and_crossfades(clips):
    recording = Soundscape(clips[:1], 60.0)
    sound = np.concatenate(list(recording.chunks()))
    for start, end, _ in recording.background[:-1]:
        scene = sound[round(start * SAMPLE_RATE) + FADE_SAMPLES : round(end * SAMPLE_RATE)]
        loudness = 10 * np.log10(np.mean(np.square(scene, dtype=np.float64)))
        assert LOUDNESS_DB[0] - 1 < loudness < LOUDNESS_DB[1] + 1
    assert np.abs(np.diff(sound)).max() < 0.05  # no click between clips


def test_events_are_at_their_positions(clips):
    beep = np.full(3 * SAMPLE_RATE, 0.25, np.float32)
    plain, planted = (
        np.concatenate(list(Soundscape(clips, 12.0, events=p).chunks())) for p in ([], [(4.5, beep), (11.0, beep)])
    )
    added = np.flatnonzero(np.abs(planted - plain) > 0.1) / SAMPLE_RATE
    assert added.min() == pytest.approx(4.5, abs=1e-3) and added.max() == pytest.approx(12.0, abs=1e-3)
    assert not ((added > 7.51) & (added < 10.99)).any()
    with pytest.raises(TypeError):
        Soundscape(
            clips, 12.0, 0, [(4.5, beep)]
        )  # regression: this was passed as another field, and no event was added


def test_room_tones_are_quiet_and_differ():
    silence, *others = map(synthesize_room_tone, range(3))
    assert not silence.any()
    for room in others:
        assert -62 < 10 * np.log10(np.mean(np.square(room, dtype=np.float64))) < -38
    assert not np.allclose(*others)
