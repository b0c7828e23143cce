"""A stream gives the same results as a file, however its bytes arrive, and is buffered until it is read."""

import io
import itertools
import os
import threading
import time

import numpy as np
import pytest
import soundfile
from helpers import wait_for
from listening import RATE, siren

import predict_danger
from danger_safe.audio import read_ahead
from danger_safe.audio.pcm import AudioError
from danger_safe.audio.read_ahead import ReadAhead
from danger_safe.audio.stream import stream_wav
from danger_safe.detection.scorer import HOP_S, WindowScorer
from danger_safe.detection.writers import Writer


class InChunks(io.RawIOBase):
    """Returns ``size`` bytes at a time, and sometimes None, as a non-blocking pipe may."""

    def __init__(self, content, size):
        self._content, self._size, self._reads = io.BytesIO(content), size, 0

    def fileno(self):
        raise OSError  # cannot be polled

    def read(self, size=-1):
        self._reads += 1
        is_dry = self._size > 10_000 and self._reads % 10 == 0
        return None if is_dry else self._content.read(min(size, self._size))


def test_any_chunk_size_and_a_pipe_give_the_same_events_as_the_file(tmp_path, opened_detector):
    wave = 0.003 * np.random.default_rng(0).standard_normal(20 * RATE)
    wave[3 * RATE : 8 * RATE] += siren(5)
    wave[14 * RATE : 17 * RATE] += siren(3)
    samples = np.stack([wave, 0.2 * wave], axis=1)
    soundfile.write(tmp_path / "two sirens.wav", samples, RATE, subtype="PCM_24")
    content = (tmp_path / "two sirens.wav").read_bytes()
    reading, writing = os.pipe()
    engine, detector = opened_detector
    with WindowScorer(engine, detector, 3.0, HOP_S) as scorer:

        def events(recording, live=None):
            options = predict_danger.Options(detector.threshold)
            summary = predict_danger.process(recording, live, options, scorer, Writer())
            assert summary.seconds == pytest.approx(20, abs=0.01) and not summary.failure
            return np.array([(event.start, event.end, event.peak) for event in summary.events])

        expected = events(tmp_path / "two sirens.wav")
        assert len(expected) == 2 and np.allclose(expected[:, :2], [(3, 8), (14, 17)], atol=1)
        with os.fdopen(writing, "wb") as pipe:
            sender = threading.Thread(target=lambda: [pipe.write(content), pipe.close()])
            sender.start()
            assert np.allclose(events("-", ReadAhead(stream_wav(os.fdopen(reading, "rb", 0)))), expected, atol=HOP_S)
            sender.join()
        for size in (777, 65_537):
            stream = InChunks(content, size)
            assert np.allclose(events("-", ReadAhead(stream_wav(stream))), expected, atol=HOP_S)


def test_early_sound_is_buffered_up_to_a_limit_and_errors_come_last(monkeypatch):
    monkeypatch.setattr(read_ahead, "MAX_BYTES", 4 * 4000)

    def chunks(given):
        for number in range(9):
            given.append(number)
            yield np.full(1000, number, np.float32)
        raise AudioError("breaks off")

    given = []
    ahead = ReadAhead(chunks(given))
    wait_for(lambda: len(given) == 5)  # four are buffered, and one is waiting
    came = ahead.arrival_time(4000 / RATE)
    assert came <= time.monotonic() and ahead.arrival_time(3500 / RATE) == pytest.approx(came - 500 / RATE, abs=1e-4)
    received = []
    with pytest.raises(AudioError, match="breaks off"):
        received.extend(chunk[0] for chunk in ahead)
    assert received == list(range(9)) and not ahead.lost_s

    microphone = ReadAhead(chunks(given := []), can_wait=False)
    wait_for(lambda: len(given) == 9)
    with pytest.raises(AudioError):
        [received.append(chunk[0]) for chunk in microphone]
    assert received[9:] == [0, 1, 2, 3] and microphone.lost_s == pytest.approx(5000 / RATE)

    endless = ReadAhead(itertools.repeat(np.zeros(1000, np.float32)))
    wait_for(lambda: endless._buffer)
    endless.close()
    assert not endless._thread.is_alive()
