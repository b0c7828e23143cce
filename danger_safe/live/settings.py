"""Settings in a TOML table as dataclasses: each field has a check, whose error says which values are valid."""

import difflib
import math
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, field, fields
from datetime import time
from typing import Any
from urllib.parse import urlsplit

from danger_safe.detection.detector import SENSITIVITIES

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "tcp", "udp")
MAX_NAME_LENGTH = 60  # letters of a source's name
MIN_PASSWORD_LENGTH = 8  # letters
PHASES = ("begin", "end")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def setting(check: Callable[[Any], Any], default: Any = MISSING) -> Any:
    """Declare a dataclass field.

    ``check`` converts the value from the file, or raises ValueError with what it must be.
    """
    return field(default=default, metadata={"check": check})


def number(minimum: float, maximum: float = math.inf) -> Callable[[Any], float]:
    limits = f"from {minimum:g} to {maximum:g}" if maximum < math.inf else f"of {minimum:g} or more"

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise ValueError(f"must be a number {limits}")
        return float(value)

    return check


def whole_number(minimum: int, maximum: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return value

    return check


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError('must be a text in quotes, "like this"')
    return value


def name(value: Any) -> str:
    if not text(value).isprintable() or len(value) > MAX_NAME_LENGTH:
        raise ValueError(f"must be one line of at most {MAX_NAME_LENGTH} letters")
    return value


def switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false, without quotes")
    return value


def web_address(value: Any) -> str:
    _check_address(value, ("http", "https"))
    return value


def sound_address(value: Any) -> str:
    _check_address(value, SCHEMES)
    return value


def _check_address(value: Any, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(text(value))
        valid = parts.scheme in schemes and bool(parts.hostname)
        _ = parts.port  # raises ValueError if the port is not a number
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"must be an address that begins with {', '.join(f'{scheme}://' for scheme in schemes)}")


def microphone(value: Any) -> str | bool:
    if value is not True and (not isinstance(value, str) or not value):
        raise ValueError("must be true, or a part of a device's name in quotes")
    return value


def stdin(value: Any) -> str | int:
    if value == "wav":
        return value
    try:
        return whole_number(1_000, 1_000_000)(value)
    except ValueError:
        raise ValueError('must be "wav", or the sample rate in Hz of mono 16-bit PCM without a header') from None


def command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise ValueError(
            'must be a list of the program and its arguments, ["/path/to/program", "argument"]: no shell reads it'
        )
    return tuple(value)


def phases(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(phase not in PHASES for phase in value):
        raise ValueError('must be ["begin"], ["end"] or ["begin", "end"]')
    return tuple(value)


def hours(value: Any) -> tuple[tuple[time, time], ...]:
    try:
        ranges = [tuple(map(time.fromisoformat, text.split("-"))) for text in value]
        if isinstance(value, str) or any(len(r) != 2 or r[0] == r[1] or r[0].tzinfo or r[1].tzinfo for r in ranges):
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise ValueError('must be a list of hours, ["22:00-07:00"]') from None
    return tuple((begin, end) for begin, end in ranges)


def sensitivity(value: Any) -> str:
    if value not in SENSITIVITIES:
        raise ValueError(f"must be one of {', '.join(SENSITIVITIES)}, in quotes")
    return value


def password(value: Any) -> str:
    if not isinstance(value, str) or len(value) < MIN_PASSWORD_LENGTH:
        raise ValueError(f"must be a text of at least {MIN_PASSWORD_LENGTH} letters")
    return value


def host_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(n, str) and re.fullmatch(r"[\w.-]+", n) for n in value):
        raise ValueError('must be a list of names without http:// and port, ["pi.home"]')
    return tuple(name.lower() for name in value)


def sound_format(value: Any) -> str:
    if value not in ("flac", "ogg"):
        raise ValueError('must be "flac" or "ogg"')
    return value


def discovery(value: Any) -> str | bool:
    if value is not False and (not isinstance(value, str) or not _is_topic(value)):
        raise ValueError('must be false, or Home Assistant\'s prefix: "homeassistant" where nobody changed it')
    return value


def topic(value: Any) -> str:
    if not _is_topic(text(value)):
        raise ValueError('must be a topic such as "danger-safe", without + and # and no / at its ends')
    return value


def _is_topic(value: str) -> bool:
    return bool(value) and not re.search(r"[+#\0\s]|^\$|^/|/$|//", value)


def read_table(cls: type, table: Any, place: str) -> Any:
    """Convert a table into a dataclass.

    Args:
        cls: The dataclass, whose fields were declared with ``setting``.
        table: The table as TOML has it.
        place: Its name in error messages.

    Raises:
        ValueError: A setting is missing, unknown or invalid.
    """
    if not isinstance(table, dict):
        raise ValueError(f"{place} must be a table of settings")
    settings = {f.name: f for f in fields(cls)}
    refuse_unknown(table, list(settings), place)
    for name, declared in settings.items():
        if name not in table and declared.default is MISSING:
            raise ValueError(f"{place}: {name} is missing")
    values = {}
    for name, value in table.items():
        try:
            values[name] = settings[name].metadata["check"](_expand_variables(value))
        except ValueError as error:
            raise ValueError(f"{place}: {name} {error}") from None
    return cls(**values)


def _expand_variables(value: Any) -> Any:
    """Replace each ``${NAME}`` in a text by that environment variable, so that passwords need not be in the file."""
    if not isinstance(value, str):
        return value

    def variable(match: re.Match) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"names the environment variable {match[1]}, which is not set")
        return os.environ[match[1]]

    return _VARIABLE.sub(variable, value)


def refuse_unknown(table: dict, known: list[str], place: str) -> None:
    """Raise ValueError for a name in ``table`` that is not in ``known``, with the nearest one that is."""
    for name in table:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
            raise ValueError(f"{place}: there is no setting {name}: {hint}")
