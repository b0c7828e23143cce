"""What every script does the same: help that shows the docstring, one line for an error, the exit status.

0 done; 1 failed, with one line that says what and what to do (a traceback only with --debug); 2 wrong usage;
3 done, but some files failed and are listed.
"""

import argparse
import contextlib
import errno
import io
import math
import os
import re
import signal
import sys
import tomllib
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from danger_safe.core.atomic import DISK_FULL_ERRNOS, DISK_FULL_MESSAGE
from danger_safe.core.cores import available_cores, limit_threads
from danger_safe.core.errors import UserError
from danger_safe.core.terminal import Terminal, one_line

DONE, FAILED, SOME_FAILED = 0, 1, 3
MAX_COUNT = 2**31 - 1  # of anything that is counted; libraries take no larger numbers
# What libraries say in other errors than MemoryError where there is not enough of it.
_NO_MEMORY = re.compile(
    "can't allocate memory|annot allocate memory|failed to map segment|bad_alloc|can't start new thread"
)
_MIN_BYTES = 1 << 30  # bytes of address space that some step needs more than
_COMFORTABLE_BYTES = 4 << 30  # bytes of address space under which libraries may end a script by themselves


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines and ends each flag's help with its default, as one would type it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None:  # the help says what happens without the flag, where that needs words
            return action.help or ""
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


def _explain(kind: type[BaseException], error: BaseException, trace) -> None:
    """Of what stops a script before ``run``, while it loads its packages: one line."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    elif _of_memory(error):
        print(f"error: {_words(error)}", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError):
        print(f"error: {_missing_package(error)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _missing_package(error: ModuleNotFoundError) -> str:
    words = "activate the environment that they are in, or run: pip install -r requirements.txt"
    return f"the Python package {error.name} is missing: {words} (README.md, Install)"


limit_threads()
if "--quiet" in sys.argv or sys.stderr is None or not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars are for somebody who looks at a terminal
if "--debug" not in sys.argv:
    sys.excepthook = _explain


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line, whatever characters are in them."""

    def error(self, message: str):
        super().error(one_line(message))


class _Version(argparse.Action):
    """Prints the project's version: of this copy where it is one, else of what pip has installed."""

    def __call__(self, parser, namespace, values, option_string=None):
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if project.is_file():
            number = tomllib.loads(project.read_text("utf-8"))["project"]["version"]
        else:
            number = version("danger-safe")
        print(number)
        parser.exit()


def new_parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser whose --help is the script's docstring, with --quiet, --version and --debug."""
    parser = _Parser(description=docstring, formatter_class=_Help)
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only warnings and errors")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the project's version and leave")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _stop_on_sigterm() -> None:
    """SIGTERM, as docker stop and systemd send it, ends a script as Ctrl+C does: what was heard is answered."""
    main_process = os.getpid()

    def stop(number, frame):
        if os.getpid() != main_process:  # a forked worker just ends
            os._exit(128 + number)
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread: whoever runs us there has handlers of their own
        signal.signal(signal.SIGTERM, stop)


def run(main: Callable[[list[str]], int], arguments: list[str] | None = None) -> None:
    """Call ``main`` and leave with its exit status; errors become one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # Vietnamese file names on a Windows console
        reconfigure = getattr(stream, "reconfigure", None)  # one that something else put there may have none
        if reconfigure is not None:
            ours = not stream.isatty() and "PYTHONIOENCODING" not in os.environ
            # None: as it is. JSON, CSV and labels are UTF-8 everywhere
            reconfigure(encoding="utf-8" if ours else None, errors="backslashreplace")
    if "--debug" not in arguments:
        _silence_libraries()
    _stop_on_sigterm()
    _survive_full_stderr()
    for name in ("stdout", "stderr"):
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper) and stream.isatty():
            setattr(sys, name, Terminal(stream, is_ours=name == "stdout"))
    try:
        status = main(arguments)
        sys.stdout.flush()  # a full disk behind > is found out here, not when Python ends
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # whoever read our answers has heard enough: | head
        _drop_output()
        status = FAILED
    except (UserError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            _drop_output()
        if "--debug" in arguments:
            raise
        print(f"error: {_words(error)}", file=sys.stderr)
        status = FAILED
    except ModuleNotFoundError as error:  # most packages are loaded only once the flags are read
        if "--debug" in arguments:
            raise
        print(f"error: {_missing_package(error)}", file=sys.stderr)
        status = FAILED
    except Exception as error:
        if "--debug" in arguments:
            raise
        words = f"unexpected {type(error).__name__}: {_words(error)} (--debug shows where)"
        print(f"error: {_words(error) if _of_memory(error) else words}", file=sys.stderr)
        status = FAILED
    sys.exit(status)


def _open_closed_streams() -> None:
    """Where a caller has closed stdin, stdout or stderr (``>&-``), nothing is read and nothing is shown; and no file of
    ours gets the number of a closed one, to be written into by libraries."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115 - to the end of the program


def _silence_libraries() -> None:
    """Keep libraries from stderr, where decoders remark on every odd byte: our own lines are to be found there."""
    if sys.stderr is None or sys.stderr is not sys.__stderr__ or sys.stderr.fileno() != 2:
        return
    if (limit := _memory_limit()) < _COMFORTABLE_BYTES:
        # OpenBLAS ends the process where it gets none, and its words are then the only ones.
        if limit < _MIN_BYTES:
            warn(f"this process may use {limit / 1e6:.0f} MB of memory: a library that needs more ends it")
        return
    warnings.simplefilter("ignore")
    ours = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr.flush()
    sys.stderr = open(  # noqa: SIM115 - to the end of the program
        ours, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
    )


def _memory_limit() -> float:
    """Bytes of address space that this process may use (``ulimit -v``); infinite where nothing limits it."""
    try:
        import resource  # not on Windows
    except ImportError:
        return math.inf
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=math.inf)


class _Unfailing(io.FileIO):
    """A file that takes no more drops what it is given: words about a run must not end it before its answer."""

    def write(self, data) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def _survive_full_stderr() -> None:
    """Where stderr is a full disk, a closed pipe or one that does not wait, results are given all the same."""
    if not isinstance(sys.stderr, io.TextIOWrapper) or not isinstance(sys.stderr.buffer, io.BufferedWriter):
        return
    with contextlib.suppress(OSError, ValueError):
        raw = _Unfailing(os.dup(sys.stderr.fileno()), "w")
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stderr.encoding, sys.stderr.errors, line_buffering=True, write_through=True
        )


def _drop_output() -> None:
    """Where stdout takes no more, nothing more goes there: else Python complains while it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, is that there is not enough memory."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return bool(_NO_MEMORY.search(str(error))) or _of_memory(error.__cause__ or error.__context__)


def _words(error: BaseException) -> str:
    if _of_memory(error):
        return "not enough memory: close other programs, or let this one have more"
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return one_line(f"{error.filename}: {DISK_FULL_MESSAGE}") if error.filename else DISK_FULL_MESSAGE
    if isinstance(error, OSError) and error.filename is not None:
        # filename2: what could not be replaced, on Windows a table that is open in Excel
        return one_line(f"{error.filename2 or error.filename}: {error.strerror}")
    return one_line(str(error))


def warn(message: str) -> None:
    """A warning, on stderr."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


def whole_number(least: int, most: int = MAX_COUNT) -> Callable[[str], int]:
    """An argparse type: a whole number from ``least`` to ``most``."""

    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least} or more" + ("" if value < least else f", up to {most}"))
        return value

    parse.__name__ = "whole number"
    return parse


def cores(text: str) -> int:
    """An argparse type: how many processor cores to use; of more than this process may use, all."""
    return min(whole_number(1)(text), available_cores())


def fraction(text: str) -> float:
    """An argparse type: a number above 0 and up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def number(least: float) -> Callable[[str], float]:
    """An argparse type: a finite number of at least ``least``."""

    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"must be a number of {least:g} or more")
        return value

    parse.__name__ = "number"
    return parse


def folder(text: str) -> Path:
    """An argparse type: a folder to write to; whoever writes there makes it when absent."""
    path = Path(text)
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        raise argparse.ArgumentTypeError(f"{there} is a file, not a folder")
    return path
