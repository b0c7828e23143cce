"""Child processes that run this project's code in another Python interpreter.

    command = module_command("models.mnn_network", "network.mnn", "1", "3")

``python -m`` cannot be used: it searches the working directory, and under -I or PYTHONSAFEPATH not even that.
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
# Environment variable that makes glibc's malloc use pages of 2 MB, if Linux offers them. A large network touches
# gigabytes of new memory, and half of the time of its conversion was spent on page faults of 4 kB each.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_PR_SET_PDEATHSIG = 1  # prctl option of Linux: the signal that a process receives when its parent dies


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this project as ``__main__``."""
    return code_command(f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)", *arguments)


def code_command(code: str, *arguments: str) -> list[str]:
    """Return the command that runs ``code``, which can import this project, with ``arguments`` as sys.argv[1:]."""
    isolated = ["-I"] if sys.flags.isolated else []
    return [sys.executable, *isolated, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}); {code}", *arguments]


def run_code(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """Run ``code`` in a child process and wait for it. The child does not outlive this process, even if that is killed.

    Args:
        code: Python source, which can import this project's modules.
        arguments: its sys.argv[1:].
        folder: the child's working directory.

    Returns:
        The exit status, stdout and stderr.
    """
    read_end, write_end = os.pipe()  # the operating system closes the write end when this process ends
    try:
        command = code_command(
            f"from danger_safe.core.child import exit_with_parent; exit_with_parent(); {code}", *arguments
        )
        return subprocess.run(
            command, cwd=folder, env=LARGE_PAGES | os.environ, stdin=read_end, capture_output=True, encoding="utf-8",
            errors="replace", check=False,
        )  # fmt: skip
    finally:
        os.close(read_end)
        os.close(write_end)


def exit_with_parent() -> None:
    """Exit when the parent process ends. Called in the child that ``run_code`` starts."""
    if sys.platform == "linux":  # works even while a library holds the GIL
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
