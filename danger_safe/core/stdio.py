"""The standard streams of a script: always open, in UTF-8, free of library output, and able to survive a full disk."""

import contextlib
import io
import math
import os
import sys
import warnings

from danger_safe.core.terminal import Terminal

_MIN_ADDRESS_SPACE = 1 << 30  # bytes; some step needs more than this
_COMFORTABLE_ADDRESS_SPACE = 4 << 30  # bytes; below it, a library may end the process by itself


def open_closed_streams() -> None:
    """Open stdin, stdout and stderr on the null device if the caller has closed them (``>&-``).

    Otherwise the next file opened would get the descriptor of a closed stream, and libraries would write into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open until the program ends


def use_utf8() -> None:
    """Write UTF-8 to files and pipes on every system, and never fail at a character that a console cannot show."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a replaced stream may not have it
        if reconfigure is not None:
            is_redirected = not stream.isatty() and "PYTHONIOENCODING" not in os.environ
            # None keeps the console's encoding, which Vietnamese file names may not fit into on Windows.
            reconfigure(encoding="utf-8" if is_redirected else None, errors="backslashreplace")


def silence_libraries() -> None:
    """Send what libraries print on stderr to the null device; ``sys.stderr`` still reaches the user.

    Decoders print a line for every odd byte in a file, and the script's own messages would be lost among them.
    """
    if sys.stderr is None or sys.stderr is not sys.__stderr__ or sys.stderr.fileno() != 2:
        return
    if (limit := _address_space_limit()) < _COMFORTABLE_ADDRESS_SPACE:
        # OpenBLAS ends the process if it gets no memory, and its message is then the only explanation.
        if limit < _MIN_ADDRESS_SPACE:
            message = f"this process may use {limit / 1e6:.0f} MB of memory: a library that needs more ends it"
            print(f"warning: {message}", file=sys.stderr)
        return
    warnings.simplefilter("ignore")
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    sys.stderr.flush()
    encoding = sys.stderr.encoding
    sys.stderr = open(stderr, "w", buffering=1, encoding=encoding, errors="backslashreplace")  # noqa: SIM115 - as above


def _address_space_limit() -> float:
    """Return how many bytes of address space this process may use (``ulimit -v``); infinity without a limit."""
    try:
        import resource  # not on Windows
    except ImportError:
        return math.inf
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=math.inf)


class _LossyFile(io.FileIO):
    """A file that drops what it cannot write, instead of raising: progress must not end a run before its results."""

    def write(self, data) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def survive_full_stderr() -> None:
    """Drop messages that stderr cannot take (a full disk, a closed or non-blocking pipe); results are still printed."""
    if not isinstance(sys.stderr, io.TextIOWrapper) or not isinstance(sys.stderr.buffer, io.BufferedWriter):
        return
    with contextlib.suppress(OSError, ValueError):
        raw = _LossyFile(os.dup(sys.stderr.fileno()), "w")
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stderr.encoding, sys.stderr.errors, line_buffering=True, write_through=True
        )


def protect_terminals() -> None:
    """Keep control characters and right-to-left text in file names from disturbing a terminal."""
    for name in ("stdout", "stderr"):
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper) and stream.isatty():
            setattr(sys, name, Terminal(stream, escape_controls=name == "stdout"))


def discard_stdout() -> None:
    """Send the rest of stdout to the null device if it takes no more; otherwise Python complains while it exits."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
