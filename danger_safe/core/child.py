"""Another Python that does part of the work: it finds the project wherever and however this one was started.

command = module_command("models.mnn_network", "network.mnn", "1", "3")

``python -m`` would not do: it looks for modules in the working folder, and not even there with -I or PYTHONSAFEPATH.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
_PR_SET_PDEATHSIG = 1  # Linux: which signal a process gets when its parent ends


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this project as ``__main__``."""
    return code_command(f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)", *arguments)


def code_command(code: str, *arguments: str) -> list[str]:
    """The command that runs ``code``, which may import this project's modules; sys.argv[1:] are the ``arguments``."""
    isolated = ["-I"] if sys.flags.isolated else []
    return [sys.executable, *isolated, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}); {code}", *arguments]


def run_code(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """Run ``code`` in ``folder``, capturing what it prints; it does not outlive this process, however that ends."""
    reading, writing = os.pipe()  # its other end closes when this process ends
    try:
        command = code_command(
            f"from danger_safe.core.child import exit_with_parent; exit_with_parent(); {code}", *arguments
        )
        return subprocess.run(
            command, cwd=folder, stdin=reading, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    finally:
        os.close(reading)
        os.close(writing)


def exit_with_parent() -> None:
    """In a process of ``run_code``: end when the parent ends."""
    if sys.platform == "linux":  # also while a library holds Python's lock
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
