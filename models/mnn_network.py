"""The network on MNN, the fastest CPU engine that was measured (benchmarks/speed.md), in a process of its own.

A process of its own, because MNN holds Python's lock while it computes, so that nothing could be decoded meanwhile,
and because it prints to stdout. The process ends when its stdin does: when the script ends, however it ends.

Messages: the shape as three 64-bit integers, then float32 values, in either direction; a first integer of -1 is an
error, followed by its text.
"""

import contextlib
import os
import queue
import signal
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np

from danger_safe.core.child import module_command
from danger_safe.core.errors import UserError

_SHAPE = struct.Struct("<3q")
SMALL_FILE = 64 * 2**20  # bytes: a process that runs such a network takes less than five times as much memory
MAX_PROCESSES = 8  # processes at once: 0.2 GB each
WINOGRAD_LEVEL = 3  # MNN's name for the hint: how much memory Winograd's algorithm may take, 0 (none) to 3


class NetworkError(UserError):
    """The network's process could not start, or ended."""


class MnnNetwork:
    """Log-mel batches in, embeddings out, with MNN.

    A small network runs in one process a core: processes need not wait for each other as threads in one do. A large
    one, whose memory would be too much several times, runs in one process with a thread a core. ``max_concurrency`` is
    how many batches are computed at once.
    """

    batch_size = 24

    def __init__(self, file: Path, cores: int, winograd: int):
        """``file`` is a converted network (models/converted.py). Processes start when ``start`` says, or with their
        first batch."""
        self.backend = f"MNN {version('MNN')}"
        self.max_concurrency = min(cores, MAX_PROCESSES) if file.stat().st_size <= SMALL_FILE else 1
        threads = max(1, cores // self.max_concurrency)
        self.name = f"{self.backend}, {cores} core{'s' * (cores > 1)}"
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()  # the last one that worked works first
        self._processes = [_Process(file, threads, winograd) for _ in range(self.max_concurrency)]
        for process in self._processes:
            self._idle.put(process)

    def start(self) -> None:
        """Start the processes; the first batch waits until they are ready."""
        for process in self._processes:
            process.start()

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions).

        ``max_concurrency`` threads may call it at once, others wait. Raises NetworkError when the process fails.
        """
        process = self._idle.get()
        try:
            return process.embed(logmel)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes; the next batch would start them again."""
        for process in self._processes:
            process.close()


class _Process:
    """One process, started when it is first needed."""

    def __init__(self, file: Path, threads: int, winograd: int):
        self._command = module_command(f"{__package__}.mnn_network", str(file), str(threads), str(winograd))
        self._process: subprocess.Popen | None = None

    def start(self) -> subprocess.Popen:
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        try:
            return self._embed(logmel)
        except (OSError, EOFError):  # killed, mostly for want of memory, which there may be again by now
            self.close()
        try:
            return self._embed(logmel)
        except (OSError, EOFError) as error:
            raise NetworkError(
                f"the network's process ended twice, with status {self.close()} (out of memory?): close other "
                f"programs; "
                "what was finished is kept"
            ) from error

    def _embed(self, logmel: np.ndarray) -> np.ndarray:
        process = self.start()
        assert process.stdin is not None and process.stdout is not None  # both are pipes
        _send(process.stdin, logmel)
        return _receive(process.stdout)[0]

    def close(self) -> int | None:
        """End the process, which has nothing to lose; returns its status."""
        process = self._process
        if process is None:
            return None
        assert process.stdin is not None and process.stdout is not None  # both are pipes
        process.kill()
        with contextlib.suppress(OSError):  # what it did not read
            process.stdin.close()
        status = process.wait()
        process.stdout.close()
        self._process = None
        return status


def _send(stream: IO[bytes], values: np.ndarray) -> None:
    shape = values.shape + (1,) * (3 - values.ndim)
    stream.write(_SHAPE.pack(*shape))
    stream.write(np.ascontiguousarray(values, np.float32).data.cast("B"))
    stream.flush()


def _receive(stream: IO[bytes]) -> np.ndarray:
    """An array of three axes. Raises EOFError at the end of the stream, NetworkError for an error message."""
    header = _read(stream, _SHAPE.size)
    if (shape := _SHAPE.unpack(header))[0] == -1:
        raise NetworkError(_read(stream, shape[1]).decode("utf-8", "replace"))
    return np.frombuffer(_read(stream, 4 * shape[0] * shape[1] * shape[2]), np.float32).reshape(shape)


def _read(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def serve(file: str, threads: int, winograd: int) -> None:
    """The process: embeds what comes on stdin until it ends."""
    # Ctrl+C, and the SIGTERM that service managers send to all processes of a service, are the script's to answer.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # MNN prints about the processor: not among the script's results
    try:
        import MNN

        runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "numThread": threads, "precision": "high"},))
        runtime.set_hint(WINOGRAD_LEVEL, winograd)
        with contextlib.chdir(Path(file).parent):  # on Windows MNN cannot open paths outside ASCII: a plain name
            network = MNN.nn.load_module_from_file(
                Path(file).name, ["logmel"], ["embedding"], runtime_manager=runtime, shape_mutable=True
            )
        while True:
            logmel = _receive(requests)
            shape = [len(logmel), 1, *logmel.shape[1:]]
            batch = MNN.expr.const(logmel, shape, MNN.expr.data_format.NCHW)
            embeddings = np.array(network.onForward([batch])[0].read(), np.float32)
            _send(replies, embeddings.reshape(1, len(logmel), -1))
    except EOFError:
        return
    except Exception as error:
        text = f"{type(error).__name__}: {error}".encode()
        with contextlib.suppress(OSError):
            replies.write(_SHAPE.pack(-1, len(text), 0) + text)
            replies.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
