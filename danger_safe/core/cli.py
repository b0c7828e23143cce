"""Command-line conventions of all scripts: flags, one-line errors, exit statuses.

0: done. 1: failed; one line says what and what to do (with a traceback only under --debug). 2: wrong usage.
3: done, but some files failed and are listed.
"""

import argparse
import contextlib
import difflib
import errno
import gc
import math
import os
import re
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from danger_safe.core import stdio
from danger_safe.core.atomic import DISK_FULL_ERRNOS, DISK_FULL_MESSAGE
from danger_safe.core.cores import available_cores, limit_threads
from danger_safe.core.errors import UserError
from danger_safe.core.terminal import one_line

DONE, FAILED, SOME_FAILED = 0, 1, 3
MAX_COUNT = 2**31 - 1  # upper limit of whole-number flags; libraries accept no larger integers
# Messages of libraries that run out of memory without raising MemoryError.
_OUT_OF_MEMORY = re.compile(
    "can't allocate memory|annot allocate memory|failed to map segment|bad_alloc|can't start new thread"
)


def _excepthook(kind: type[BaseException], error: BaseException, trace) -> None:
    """Print a one-line message for an exception raised while the script is still importing."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    elif _is_out_of_memory(error):
        print(f"error: {_message(error)}", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError):
        print(f"error: {_missing_package(error)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


limit_threads()
if "--quiet" in sys.argv or sys.stderr is None or not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars are for somebody who looks at a terminal
if "--debug" not in sys.argv:
    sys.excepthook = _excepthook


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and ends each flag's help with its default as one would type it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):  # the help says what happens without the flag
            return action.help or ""
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Reports wrong flags in one line, whatever characters they contain, and names the flag that may be meant."""

    def error(self, message: str):
        unknown = message.removeprefix("unrecognized arguments: ")
        flag = unknown.split()[0].partition("=")[0] if unknown != message else ""
        if flag.startswith("--") and (near := difflib.get_close_matches(flag, self._option_string_actions, n=1)):
            message += f" (did you mean {near[0]}?)"
        super().error(one_line(message))


class _VersionAction(argparse.Action):
    """Prints the version of this checkout or, without one, of the installed package."""

    def __call__(self, parser, namespace, values, option_string=None):
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if project.is_file():
            print(tomllib.loads(project.read_text("utf-8"))["project"]["version"])
        else:
            print(version("danger-safe"))
        parser.exit()


def new_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser whose --help is the script's docstring, with the flags --quiet, --version and --debug."""
    parser = _Parser(description=docstring, formatter_class=_HelpFormatter, allow_abbrev=False)
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only warnings and errors")
    parser.add_argument("--version", action=_VersionAction, nargs=0, help="print the project's version and exit")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(main: Callable[[list[str]], int], arguments: list[str] | None = None) -> None:
    """Call ``main`` and exit with the status that it returns; an error becomes one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    stdio.open_closed_streams()
    stdio.use_utf8()
    if "--debug" not in arguments:
        stdio.silence_libraries()
    _stop_on_sigterm()
    stdio.survive_full_stderr()
    stdio.protect_terminals()
    try:
        status = main(arguments)
        sys.stdout.flush()  # find out here, not at interpreter exit, that the disk behind > is full
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader has closed the pipe: | head
        stdio.discard_stdout()
        status = FAILED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            stdio.discard_stdout()
        if "--debug" in arguments:
            raise
        print(f"error: {_error_line(error)}", file=sys.stderr)
        status = FAILED
    sys.exit(status)


@contextlib.contextmanager
def loading_libraries() -> Iterator[None]:
    """Import large packages in a ``with`` block without garbage collection.

    It finds nothing among modules, now or when Python ends, and takes a fifth of a script's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _stop_on_sigterm() -> None:
    """Let SIGTERM (docker stop, systemd) end a script as Ctrl+C does, so that finished work is kept and reported."""
    main_process = os.getpid()

    def stop(number, frame):
        if os.getpid() != main_process:  # a forked worker exits at once
            os._exit(128 + number)
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # outside the main thread, signals belong to the program that embeds us
        signal.signal(signal.SIGTERM, stop)


def _error_line(error: Exception) -> str:
    """Return what is printed for an exception that ended ``main``."""
    if isinstance(error, ModuleNotFoundError):  # most packages are imported only after the flags are parsed
        return _missing_package(error)
    if isinstance(error, UserError | OSError | MemoryError) or _is_out_of_memory(error):
        return _message(error)
    return f"unexpected {type(error).__name__}: {_message(error)} (--debug shows where)"


def _missing_package(error: ModuleNotFoundError) -> str:
    remedy = "activate the environment that they are in, or run: pip install -r requirements.txt"
    return f"the Python package {error.name} is missing: {remedy} (README.md, Install)"


def _message(error: BaseException) -> str:
    """Return the message of an exception as one line, with advice for the user if memory or disk space ran out."""
    if _is_out_of_memory(error):
        return "not enough memory: close other programs, or let this one have more"
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return one_line(f"{error.filename}: {DISK_FULL_MESSAGE}") if error.filename else DISK_FULL_MESSAGE
    if isinstance(error, OSError) and error.filename is not None:
        # filename2 is the file that could not be replaced: on Windows, a table that is open in Excel.
        return one_line(f"{error.filename2 or error.filename}: {error.strerror}")
    return one_line(str(error))


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an exception, or one that led to it, reports a lack of memory."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return bool(_OUT_OF_MEMORY.search(str(error))) or _is_out_of_memory(error.__cause__ or error.__context__)


def warn(message: str) -> None:
    """Print a one-line warning on stderr."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


# Types of argparse. Their __name__ is what argparse calls an invalid value.


def whole_number(minimum: int, maximum: int = MAX_COUNT) -> Callable[[str], int]:
    """Return an argparse type: an integer from ``minimum`` to ``maximum``."""

    def parse(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            limit = f"must be {minimum} or more" + ("" if value < minimum else f", up to {maximum}")
            raise argparse.ArgumentTypeError(limit)
        return value

    parse.__name__ = "whole number"
    return parse


def cores(text: str) -> int:
    """An argparse type: a number of processor cores, limited to those that this process may use."""
    return min(whole_number(1)(text), available_cores())


def fraction(text: str) -> float:
    """An argparse type: a number in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def number(minimum: float) -> Callable[[str], float]:
    """Return an argparse type: a finite number of at least ``minimum``."""

    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and value >= minimum):
            raise argparse.ArgumentTypeError(f"must be a number of {minimum:g} or more")
        return value

    parse.__name__ = "number"
    return parse


def folder(text: str) -> Path:
    """An argparse type: a folder to write to, which need not exist yet."""
    path = Path(text)
    existing = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
    if not os.path.isdir(existing):
        raise argparse.ArgumentTypeError(f"{existing} is a file, not a folder")
    return path
