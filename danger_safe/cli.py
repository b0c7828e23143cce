"""What every script does the same: help that shows the docstring, one line for an error, the exit status.

0 done; 1 failed, with one line that says what and what to do (a traceback only with --debug); 2 wrong usage;
3 done, but some files failed and are listed.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from danger_safe.errors import UserError
from danger_safe.files import FULL, FULL_WORDS

DONE, FAILED, SOME_FAILED = 0, 1, 3


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines and ends each flag's help with its default, as one would type it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None:  # the help says what happens without the flag, where that needs words
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


def new_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser whose --help is the script's docstring, with --debug."""
    parser = argparse.ArgumentParser(description=docstring, formatter_class=_Help)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(main: Callable[[list[str]], int], arguments: list[str] | None = None) -> None:
    """Call ``main`` and leave with its exit status; errors become one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):  # Vietnamese file names on a Windows console
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
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
        if isinstance(error, OSError) and error.errno in FULL:
            _drop_output()
        if "--debug" in arguments:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        status = FAILED
    except Exception as error:
        if "--debug" in arguments:
            raise
        print(f"error: unexpected {type(error).__name__}: {_one_line(error)} (--debug shows where)", file=sys.stderr)
        status = FAILED
    sys.exit(status)


def _drop_output() -> None:
    """Where stdout takes no more, nothing more goes there: else Python complains while it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.filename}: {FULL_WORDS}" if error.filename else FULL_WORDS
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "not enough memory: use a smaller --batch-size or close other programs"
    return " ".join(str(error).split())


def warn(message: str) -> None:
    """A warning, on stderr."""
    print(f"warning: {message}", file=sys.stderr)


def whole_number(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least ``least``."""

    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more")
        return value

    parse.__name__ = "whole number"
    return parse


def share(text: str) -> float:
    """An argparse type: a number above 0 and up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def folder(text: str) -> Path:
    """An argparse type: a folder to write to, made when absent."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file, not a folder")
    return path
