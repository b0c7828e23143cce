"""Run scripts in forks of a process that has already imported PyTorch, scikit-learn and pandas, which saves seconds.

``WarmServer`` starts this file as a process that imports ``LIBRARIES``, but none of the project's modules, and serves
all processes of pytest. For each connection (``Warm``) it forks a process, which forks again for each script. That fork
takes over the caller's arguments, working directory, environment and streams, and behaves like ``python script.py …``,
with its own exit status, signals, threads and ``atexit``.

Forks cannot test whether a script imports everything that it uses (a submodule may already be loaded), effects of the
environment while Python or a library starts, or a dependence on PYTHONHASHSEED, which all forks share. ``helpers.run``
starts a new process in these cases.

Linux only: elsewhere, forking a process with such libraries is not safe. The server must have a single thread before it
forks, because the thread pools of OpenMP and OpenBLAS do not survive a fork; it checks that.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "numpy", "scipy.signal", "scipy.special", "scipy.stats", "pandas", "sklearn.calibration", "sklearn.ensemble",
    "sklearn.linear_model", "sklearn.manifold", "sklearn.neighbors", "sklearn.neural_network", "skops.io", "joblib",
    "threadpoolctl", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.patheffects", "torch._dynamo",
    "soundfile", "soxr", "jinja2", "librosa.feature.spectral", "librosa.filters",
)  # fmt: skip
WARM_ADDRESS = "WARM_ADDRESS"  # environment variable: address of a running server
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Prefixes of variables that Python and the libraries read while they are loaded; changing one needs a new process.
READ_AT_START = ("PYTHON", "MPL", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "LD_", "LC_", "LANG", "SKLEARN_", "NUMBA_", "TZ")
# The only PYTHONPATH that a fork can take over: its only module is run immediately.
NO_NETWORK = ROOT / "tests" / "no_network"
PR_SET_PDEATHSIG = 1  # Linux: the signal that a process gets when its parent ends
FORKABLE = {"jemalloc_bg_thd"}  # thread of pandas' pyarrow; jemalloc restarts it in a fork


class WarmServer:
    """The process that scripts are forked from; it listens at ``address`` from the start."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory()
        self.address = str(Path(self._folder.name, "warm"))
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind(self.address)
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())], env=os.environ | ONE_THREAD, cwd=ROOT,
                pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def close(self) -> None:
        """End the process. Its forks end with the test processes that use them."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class Warm:
    """A connection to the server at ``address``; scripts run one at a time."""

    def __init__(self, address: str):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        self._env = dict(os.environ)
        self._lock = threading.Lock()

    def suits(self, env: dict[str, str]) -> bool:
        """Return whether a process with this environment would start in the same state as a fork."""
        changed = {name for name, _ in self._env.items() ^ env.items()}
        if env.get("PYTHONPATH") == str(NO_NETWORK):
            changed.discard("PYTHONPATH")
        return not any(name.startswith(READ_AT_START) for name in changed)

    def run(self, command: list[str], cwd, env: dict[str, str], content: bytes, timeout_s: float):
        """Run a script like ``subprocess.run``.

        Args:
            command: interpreter, script and arguments.
            cwd: working directory.
            env: environment.
            content: bytes for stdin.
            timeout_s: seconds after which the script is killed; the status says so.
        """
        request = json.dumps({"command": command, "cwd": str(cwd), "env": env}).encode()
        with self._lock, contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            reading, writing = os.pipe()
            feeder = threading.Thread(target=_feed, args=(writing, content))
            feeder.start()
            with open(reading, "rb") as pipe:
                size = len(request).to_bytes(8, "big")
                socket.send_fds(self._socket, [size], [pipe.fileno(), out.fileno(), err.fileno()])
                self._socket.sendall(request)
            child = self._number()
            killer = threading.Timer(timeout_s, os.kill, (child, signal.SIGKILL))
            killer.start()
            status = self._number()
            killer.cancel()
            feeder.join()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        return subprocess.CompletedProcess(command, status, *texts)

    def _number(self) -> int:
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = self._socket.recv(8)
        if not answer:
            raise RuntimeError("the warm process has ended; its messages are on stderr")
        return int.from_bytes(answer, "big", signed=True)


def _feed(writing: int, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(writing, "wb") as pipe:
        pipe.write(content)


def wait_for_callers(listener: socket.socket) -> socket.socket:
    """Fork for every connection; return the connection in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for these forks
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return connection
        connection.close()


def serve(connection: socket.socket) -> dict:
    """Fork for every request; send the fork's process ID, then its exit status. Return the request in the fork.

    Ends with the caller.
    """
    while True:
        size, streams, _, _ = socket.recv_fds(connection, 8, 3)
        if not size:
            sys.exit()
        content = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
        child = os.fork()
        if not child:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        if not child:
            connection.close()
            return json.loads(content)
        connection.sendall(child.to_bytes(8, "big"))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(status.to_bytes(8, "big", signed=True))


def become(request: dict) -> None:
    """Take over the environment, arguments and working directory of ``request``."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.orig_argv = request["command"]
    sys.argv = request["command"][1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    if os.environ.get("PYTHONPATH") == str(NO_NETWORK):
        sys.path.insert(1, str(NO_NETWORK))
        runpy.run_path(str(NO_NETWORK / "sitecustomize.py"))


def run_main() -> int:
    """Run the script that ``sys.argv`` names; return the exit status that Python would have."""
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(status: int) -> None:
    """End as Python does, in the same order, but without freeing memory, which would take half a second."""
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = 120
    os._exit(status)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # do not outlive pytest
    here = socket.socket(fileno=int(sys.argv[1]))
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:  # loaded by PyTorch; at import it
        del sys.modules[name]  # reads whether the project's cli.py wants progress bars
    threads = {task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    if len(threads - FORKABLE) > 1:
        sys.exit(f"a fork would lose all but one of these threads: {', '.join(sorted(threads))}")
    gc.collect()
    gc.freeze()  # garbage collection in forks leaves these pages shared
    become(serve(wait_for_callers(here)))
    end(run_main())
