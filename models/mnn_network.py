"""The network on MNN, the fastest CPU engine of all that were measured (benchmarks/speed.md), in child processes.

MNN holds the GIL while it computes, which would block decoding, and prints to stdout; so it runs in child processes. A
child exits when its stdin is closed, and so never outlives the script.

Messages in both directions: the shape as three 64-bit integers, followed by float32 values. If the first integer is -1,
the message is an error: the second integer is the length of the text that follows.
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

from danger_safe.core.child import LARGE_PAGES, module_command
from danger_safe.core.errors import UserError

_SHAPE = struct.Struct("<3q")
MAX_SMALL_FILE_BYTES = 64 * 2**20  # a process needs up to five times the size of its network
MAX_PROCESSES = 8  # each takes 0.2 GB
WINOGRAD_HINT = 3  # MNN's number for the hint of how much memory Winograd's algorithm may use, from 0 (none) to 3


class NetworkError(UserError):
    """A child process could not be started, or has ended."""


class MnnNetwork:
    """Log-mel batches in, embeddings out, with MNN.

    A small network runs in one process per core, which is faster than threads, because these wait for each other. A
    large one, whose memory cannot be multiplied, runs in one process with one thread per core.
    """

    batch_size = 24

    def __init__(self, file: Path, cores: int, winograd: int):
        """Does not start any process yet: ``start`` does, or the first batch.

        Args:
            file: a converted network (converted.py).
            cores: processor cores to use.
            winograd: level of Winograd's algorithm, 0 to 3.
        """
        self.backend = f"MNN {version('MNN')}"
        self.max_concurrency = min(cores, MAX_PROCESSES) if file.stat().st_size <= MAX_SMALL_FILE_BYTES else 1
        threads = max(1, cores // self.max_concurrency)
        self.name = f"{self.backend}, {cores} core{'s' * (cores > 1)}"
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()  # last in, first out: few processes start
        self._processes = [_Process(file, threads, winograd) for _ in range(self.max_concurrency)]
        for process in self._processes:
            self._idle.put(process)

    def start(self) -> None:
        """Start all processes. Returns at once; the first batch waits until they have loaded the network."""
        for process in self._processes:
            process.start()

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """float32 log-mels of one length, (batch, frames, mel bins) -> float32 embeddings, (batch, dimensions).

        Up to ``max_concurrency`` threads can call this at the same time, others wait. Raises NetworkError on failure.
        """
        process = self._idle.get()
        try:
            return process.embed(logmel)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes. Another batch would start them again."""
        for process in self._processes:
            process.close()


class _Process:
    """A child process that starts on its first use."""

    def __init__(self, file: Path, threads: int, winograd: int):
        self._command = module_command(f"{__package__}.mnn_network", str(file), str(threads), str(winograd))
        self._process: subprocess.Popen | None = None

    def start(self) -> subprocess.Popen:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, env=LARGE_PAGES | os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        return self._process

    def embed(self, logmel: np.ndarray) -> np.ndarray:
        """Embed a batch; if the process has died, start another one and try once more."""
        try:
            return self._embed(logmel)
        except (OSError, EOFError):  # killed, usually for lack of memory, which may be available again now
            self.close()
        try:
            return self._embed(logmel)
        except (OSError, EOFError) as error:
            raise NetworkError(
                f"the network's process ended twice, with status {self.close()} (out of memory?): "
                "close other programs; what was finished is kept"
            ) from error

    def _embed(self, logmel: np.ndarray) -> np.ndarray:
        process = self.start()
        assert process.stdin is not None and process.stdout is not None  # both are pipes
        _send(process.stdin, logmel)
        return _receive(process.stdout)[0]

    def close(self) -> int | None:
        """Kill the process, and return its exit status; None if it was not running."""
        process = self._process
        if process is None:
            return None
        assert process.stdin is not None and process.stdout is not None  # both are pipes
        process.kill()
        with contextlib.suppress(OSError):  # it may not have read all of its input
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
    """Receive a three-dimensional array. Raises EOFError at the end of the stream, NetworkError if the child failed."""
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
    """Embed the batches that arrive on stdin until it is closed. Runs in the child process."""
    # Ctrl+C, and the SIGTERM that service managers send to all processes of a service, are handled by the script.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # keep MNN's messages out of the script's output
    try:
        import MNN

        runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "numThread": threads, "precision": "high"},))
        runtime.set_hint(WINOGRAD_HINT, winograd)
        with contextlib.chdir(Path(file).parent):  # a bare file name, as for the converter (converted.py)
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
