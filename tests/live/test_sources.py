"""Sources that end, stall, fall silent or cannot be opened are reported once and retried; the others continue."""

import contextlib
import shutil
import socket
import struct
import threading
import time

import numpy as np
import pytest
from helpers import PATIENCE_S, wait_for

from danger_safe.live import sources
from danger_safe.live.config import SourceConfig
from danger_safe.live.sources import Source, WindowQueue

RATE = 16_000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


class Camera:
    """Sends WAV, twice as fast as in real time, as its ``acts`` say: one per connection, then always the last one."""

    def __init__(self, *acts):
        self.acts, self.connections = acts, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://user:secret@127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            act = self.acts[min(self.connections, len(self.acts) - 1)]
            self.connections += 1
            threading.Thread(target=self._play, args=(connection, act), daemon=True).start()

    def _play(self, connection, act):
        kind, seconds = act
        noise = np.random.default_rng(0).standard_normal(RATE // 10) * (300 if kind != "silence" else 0.4)
        header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 2**32 - 1, b"WAVEfmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16,
                             b"data", 2**32 - 1)  # fmt: skip
        with connection, contextlib.suppress(OSError):
            connection.sendall(header)
            for _ in range(round(seconds * 10)):
                connection.sendall(noise.astype("<i2").tobytes())
                time.sleep(0.05)
            if kind == "stall":
                time.sleep(PATIENCE_S)

    def close(self):
        self._server.close()


@pytest.fixture
def listen(monkeypatch):
    """Start sources in this process; return the windows of each and the messages."""
    monkeypatch.setattr(sources, "FIRST_PAUSE_S", 0.2)
    started, messages, results, shown = [], [], [], set()
    inbox, done = WindowQueue(), threading.Event()

    def take():
        while not done.is_set():
            for item in inbox.take(0.1):
                if item.window is not None:
                    results.append((item.source.name, item.connection, item.window))
                    item.source.note_silence(bool(np.ptp(item.window.samples) < 2e-3), item.window.end)
            for source in started:
                source.check()
                shown.add((source.name, source.status, source.problem.rstrip(" s0123456789")))

    def start(**settings):
        source = Source(SourceConfig(**settings), inbox, messages.append, 1.0, 0.5)
        source.start()
        started.append(source)
        return source

    thread = threading.Thread(target=take)
    thread.start()
    yield start, messages, results, shown
    for source in started:
        source.stop()
        source.join(PATIENCE_S)
        assert not source.is_alive
    done.set()
    thread.join()


@needs_ffmpeg
def test_each_problem_is_reported_once_and_the_source_reconnects(listen, monkeypatch):
    monkeypatch.setattr(sources, "CONNECT_S", 15.0)
    start, messages, results, shown = listen
    ends = Camera(("end", 1), ("play", PATIENCE_S))
    stalls = Camera(("stall", 6), ("play", PATIENCE_S))
    silent = Camera(("silence", PATIENCE_S), ("silence", PATIENCE_S), ("play", PATIENCE_S))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    start(name="ends", url=ends.address)
    start(name="stalls", url=stalls.address, stall_seconds=5)
    start(name="silent", url=silent.address, silence_seconds=2)
    refused = start(name="refused", url=f"tcp://127.0.0.1:{port}")
    steady = start(name="steady", url=Camera(("play", PATIENCE_S)).address)
    wait_for(lambda: {(name, number) for name, number, _ in results} >= {("ends", 2), ("stalls", 2), ("silent", 3)})
    wait_for(lambda: sum("again" in line and "tried" not in line for line in messages) == 3)
    lines = {
        name: [line for line in messages if line.startswith(name)] for name in ("ends", "stalls", "silent", "refused")
    }
    assert lines["ends"] == ["ends: the sound ended; it is tried again", "ends: there is sound again"]
    assert len(lines["stalls"]) == 2 and "no sound for" in lines["stalls"][0]
    offline = {(name, problem) for name, status, problem in shown if status == "offline" and name != "refused"}
    assert offline <= {("ends", "the sound ended"), ("stalls", "no sound for")}
    assert len(lines["silent"]) == 2 and "nothing but silence for 2 s" in lines["silent"][0]
    assert len(lines["refused"]) == 1 and "Connection refused" in lines["refused"][0]
    assert refused.status in ("offline", "connecting") and steady.status == "listening"
    assert not [line for line in messages if line.startswith("steady") or "secret" in line]
    times = [window.end for name, _, window in results if name == "steady"]
    assert times == [1 + 0.5 * n for n in range(len(times))]  # it lost nothing while the others failed


def test_a_connection_has_more_time_for_its_first_sound():
    messages = []
    source = Source(SourceConfig(name="a", url="rtsp://a/", stall_seconds=5), WindowQueue(), messages.append, 1.0, 0.5)
    source._last_sound -= sources.CONNECT_S - 1
    source.check()
    assert (source.status, messages) == ("connecting", [])
    source._last_sound -= 1
    source.check()
    assert (source.status, messages) == ("stalled", ["a: no sound for 30 s; it is tried again"])


def test_many_sources_take_turns():
    inbox, batches = WindowQueue(), sources.BATCH_WINDOWS
    many = [type("Quick", (), {"is_stopped": False}) for _ in range(2 * batches)]
    for _ in range(3):
        for source in many:
            inbox.put(sources.QueuedWindow(source, 1, window=1), False)
    assert {item.source for _ in range(2) for item in inbox.take(1)} == set(many)
    assert {item.source for _ in range(2) for item in inbox.take(1)} == set(many)


def test_slow_engine_drops_sound_of_addresses_and_delays_files():
    inbox, lost = WindowQueue(), []

    class Quick:
        is_stopped = False

    for number in range(sources.MAX_WAITING + 3):
        lost.append(not inbox.put(sources.QueuedWindow(Quick, number, window=number), False))
    assert lost == [False] * sources.MAX_WAITING + [True] * 3
    patient = type("Patient", (), {"is_stopped": False})
    threading.Thread(
        target=lambda: [inbox.put(sources.QueuedWindow(patient, n, window=n), True) for n in range(40)], daemon=True
    ).start()
    taken = []
    while len(taken) < 40 + sources.MAX_WAITING:
        taken += inbox.take(5)
    assert [item.window for item in taken if item.source is patient] == list(range(40))
    assert next(item.window for item in taken if item.source is Quick) == 3
    first = [item.source for item in taken[: sources.BATCH_WINDOWS]]
    assert first.count(Quick) <= sources.MAX_WAITING  # no source waits for another's windows
