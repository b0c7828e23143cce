"""Recordings of events: which sound is kept, and for how long."""

import os
import time

import numpy as np
import pytest
import soundfile

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.events import Event
from danger_safe.live.alarms import LiveEvent
from danger_safe.live.config import RecordConfig
from danger_safe.live.recorder import Recorder

RATE = 32_000


def listen(folder, spans, seconds=60, speech=(), **settings):
    """Record ``seconds`` of a ramp, in which every sample encodes its time, with an event for each of ``spans``; return
    the messages."""
    said = []
    recorder = Recorder(RecordConfig(str(folder), **settings), said.append)
    sound = recorder.new_buffer()
    events = [
        LiveEvent(
            f"e{number}", "a", Event(start, end, start, 0.9, np.zeros(1), (("siren", 0.9),)), "siren", 0.3, 1e9, 1e9
        )
        for number, (start, end) in enumerate(spans)
    ]
    ramp = (np.arange(seconds * RATE) / RATE / 100).astype(np.float32)  # 0.15 is second 15
    for end in np.arange(0.5, seconds + 0.1, 0.5):
        sound.add(ramp[int((end - 0.5) * RATE) : int(end * RATE)])
        window = ScoredWindow(max(0, end - 3), end, 0.5, 0.5, np.zeros(1))
        names = ["speech" if any(begin <= end <= until for begin, until in speech) else "siren"]
        going_on = next((event for event in events if event.event.start + 1 <= end < event.event.end + 1), None)
        recorder.on_window("a", sound, window, names, going_on)
        for event in events:
            if event.event.end + 1 == end:
                recorder.on_event_end(event)
    recorder.close()
    return said


def kept(folder):
    """Return {file name: (first second, last second) of its sound}."""
    sounds = {path.name: soundfile.read(path) for path in folder.iterdir()}
    assert all(rate == RATE for _, rate in sounds.values())
    return {name: (100 * samples[0], 100 * samples[-1]) for name, (samples, _) in sounds.items()}


def near(start, end):
    return pytest.approx((start, end), abs=0.1)


def test_recordings_include_sound_before_and_after_the_event(tmp_path):
    said = listen(tmp_path, [(2, 4), (20, 25), (56, 58)], before_seconds=5, after_seconds=3)
    assert kept(tmp_path) == {"e0.flac": near(0, 7), "e1.flac": near(15, 28), "e2.flac": near(51, 60)}
    assert not said


def test_recordings_of_long_events_are_truncated(tmp_path):
    listen(tmp_path, [(20, 100)], seconds=110, before_seconds=5, max_seconds=30)
    assert kept(tmp_path) == {"e0.flac": near(15, 45)}


def test_recordings_as_ogg(tmp_path):
    listen(tmp_path, [(20, 25)], format="ogg")
    (path,) = tmp_path.iterdir()
    info = soundfile.info(path)
    assert (info.format, info.samplerate, info.duration) == ("OGG", RATE, pytest.approx(15, abs=0.1))


def test_sound_with_speech_is_kept_only_on_request(tmp_path):
    said = listen(tmp_path, [(10, 12), (40, 42)], speech=[(46, 48)])
    assert list(kept(tmp_path)) == ["e0.flac"]
    assert said == ["a: the sound of e1 is not kept: somebody speaks in it"]
    listen(tmp_path, [(10, 12), (40, 42)], speech=[(46, 48)], speech_too=True)
    assert sorted(kept(tmp_path)) == ["e0.flac", "e1.flac"]


def test_oldest_recordings_are_removed_at_the_limits_of_size_and_age(tmp_path):
    (tmp_path / "notes.txt").write_text("not ours")
    for number, days in enumerate((40, 3, 2)):
        path = tmp_path / f"old{number}.flac"
        path.write_bytes(bytes(1_000_000))
        os.utime(path, (time.time() - days * 86_400,) * 2)
    listen(tmp_path, [(20, 25)], max_megabytes=1.5, max_days=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e0.flac", "notes.txt", "old2.flac"]


def test_full_disk_is_reported_once_and_listening_continues(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("danger_safe.core.atomic.fsync_file", full)
    said = listen(tmp_path, [(10, 12), (30, 32)])
    assert len(said) == 1 and "could not be kept" in said[0]
    assert not list(tmp_path.iterdir())
