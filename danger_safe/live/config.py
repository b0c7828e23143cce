"""The settings in listen.toml: sources, alarms and where they are sent. ``EXAMPLE`` explains every setting.

Anything wrong in the file is an error that names the place and says what to write instead: if a misspelt setting were
ignored, an alarm might never come.
"""

import ipaddress
import os
import re
import tomllib
import unicodedata
from dataclasses import dataclass, replace
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from danger_safe.core.errors import UserError
from danger_safe.core.ownership import is_regular_file
from danger_safe.live import settings as s

MAX_CONFIG_BYTES = 1 << 20
EXAMPLE = Path(__file__).with_name("example.toml")


@dataclass(frozen=True)
class SourceConfig:
    """A camera, a microphone, a file or a stream: one of ``url``, ``file``, ``microphone`` and ``stdin``."""

    name: str = s.setting(s.name)
    url: str = s.setting(s.sound_address, "")
    file: str = s.setting(s.text, "")
    microphone: str | bool = s.setting(s.microphone, "")
    stdin: str | int = s.setting(s.stdin, "")
    stall_seconds: float = s.setting(s.number(1, 3600), 10.0)
    silence_seconds: float = s.setting(s.number(1, 86400), 300.0)
    sensitivity: str = s.setting(s.sensitivity, "")  # empty for that of [alarm]

    @property
    def slug(self) -> str:
        """The name for topics and file names: a-z, 0-9 and hyphens."""
        return slug(self.name)


@dataclass(frozen=True)
class AlarmConfig:
    """When an event is an alarm."""

    sensitivity: str = s.setting(s.sensitivity, "")  # empty for ``threshold``, or else the detector's own
    threshold: float | None = s.setting(s.number(0.001, 1), None)
    min_seconds: float = s.setting(s.number(0, 60), 0.0)
    confirm_windows: int = s.setting(s.whole_number(1, 100), 1)
    cooldown_seconds: float = s.setting(s.number(0, 86400), 60.0)
    quiet_hours: tuple[tuple[time, time], ...] = s.setting(s.hours, ())


@dataclass(frozen=True)
class MqttConfig:
    """The MQTT broker and the topics on it."""

    host: str = s.setting(s.text)
    port: int | None = s.setting(s.whole_number(1, 65535), None)
    user: str = s.setting(s.text, "")
    password: str = s.setting(s.text, "")
    tls: bool = s.setting(s.switch, False)
    ca_file: str = s.setting(s.text, "")
    topic: str = s.setting(s.topic, "danger-safe")
    discovery: str | bool = s.setting(s.discovery, "homeassistant")


@dataclass(frozen=True)
class WebhookConfig:
    """A web address to which alarms are posted."""

    url: str = s.setting(s.web_address)
    secret: str = s.setting(s.text, "")
    on: tuple[str, ...] = s.setting(s.phases, ("begin", "end"))


@dataclass(frozen=True)
class CommandConfig:
    """A program that is run on alarms."""

    run: tuple[str, ...] = s.setting(s.command)
    on: tuple[str, ...] = s.setting(s.phases, ("begin",))


@dataclass(frozen=True)
class LogConfig:
    """Where events are logged."""

    file: str = s.setting(s.text, "events.jsonl")


@dataclass(frozen=True)
class RecordConfig:
    """Which sound of events is recorded, and for how long it is kept."""

    folder: str = s.setting(s.text, "recordings")
    before_seconds: float = s.setting(s.number(0, 60), 5.0)
    after_seconds: float = s.setting(s.number(0, 60), 5.0)
    max_seconds: float = s.setting(s.number(5, 300), 30.0)
    format: str = s.setting(s.sound_format, "flac")
    max_megabytes: float = s.setting(s.number(1, 1e6), 1000.0)
    max_days: float = s.setting(s.number(0.01, 36500), 30.0)
    speech_too: bool = s.setting(s.switch, False)


@dataclass(frozen=True)
class PageConfig:
    """The address of the page, and who may open it."""

    host: str = s.setting(s.text, "127.0.0.1")
    port: int = s.setting(s.whole_number(1, 65535), 8750)
    password: str = s.setting(s.password, "")
    password_file: str = s.setting(s.text, "")
    names: tuple[str, ...] = s.setting(s.host_names, ())


@dataclass(frozen=True)
class Config:
    """All settings. ``categories``: False for a category that never alarms, a number for a threshold of its own."""

    sources: list[SourceConfig]
    alarm: AlarmConfig
    categories: dict[str, bool | float]
    mqtt: MqttConfig | None
    webhooks: list[WebhookConfig]
    commands: list[CommandConfig]
    log: LogConfig
    record: RecordConfig | None
    page: PageConfig | None


TABLES = {"alarm": AlarmConfig, "mqtt": MqttConfig, "log": LogConfig, "record": RecordConfig, "page": PageConfig}
LISTS = {"source": SourceConfig, "webhook": WebhookConfig, "command": CommandConfig}


def read_config(path: Path) -> Config:
    """Read and check a file. Raises UserError that names the place and says what to write."""
    if os.path.exists(path) and (not is_regular_file(path) or os.path.getsize(path) > MAX_CONFIG_BYTES):
        raise UserError(f"{path} is not a settings file, or is too large for one")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: listen.py --init writes an example to begin with") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # RecursionError: nested too deeply
        raise UserError(f"{path} is not valid TOML: {error}") from error
    try:
        return _parse_config(data)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _parse_config(data: dict) -> Config:
    s.refuse_unknown(data, [*TABLES, *LISTS, "categories"], "the file")
    tables = {
        name: s.read_table(cls, data[name], f"[{name}]") if name in data else None for name, cls in TABLES.items()
    }
    lists = {name: _read_list(name, data.get(name, [])) for name in LISTS}
    sources = lists["source"]
    if not sources:
        raise ValueError("there is nothing to listen to: write a [[source]] with a name and a url")
    _check_sources(sources)
    alarm = tables["alarm"] or AlarmConfig()
    if alarm.sensitivity and alarm.threshold is not None:
        raise ValueError("[alarm]: give one of sensitivity and threshold")
    mqtt = tables["mqtt"]
    if mqtt and mqtt.password and not mqtt.user:
        raise ValueError("[mqtt]: a password needs a user")
    if mqtt and mqtt.ca_file and not mqtt.tls:
        raise ValueError("[mqtt]: ca_file needs tls = true")
    categories = _parse_categories(data.get("categories", {}))
    return Config(
        sources,
        alarm,
        categories,
        mqtt,
        lists["webhook"],
        lists["command"],
        tables["log"] or LogConfig(),
        tables["record"],
        _check_page(tables["page"]),
    )


def _check_page(page: PageConfig | None) -> PageConfig | None:
    """Read the password file. Raises ValueError if other computers could open the page without a password."""
    if page is None:
        return None
    if page.password and page.password_file:
        raise ValueError("[page]: give one of password and password_file")
    if page.password_file:
        try:
            lines = Path(page.password_file).read_text(encoding="utf-8-sig").splitlines()
            page = replace(page, password=s.password(lines[0] if lines else ""))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"its first line {error}"
            raise ValueError(f"[page]: password_file {page.password_file}: {reason}") from None
    if not page.password and not is_loopback(page.host):
        raise ValueError(f"[page]: host {page.host} can be reached from other computers: that needs a password")
    return page


def is_loopback(host: str) -> bool:
    """Return whether a host can only be reached from this computer."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_sources(sources: list[SourceConfig]) -> None:
    for source in sources:
        inputs = [name for name in ("url", "file", "microphone", "stdin") if getattr(source, name) != ""]
        if len(inputs) != 1:
            found = " and ".join(inputs) or "none of them"
            raise ValueError(f'[[source]] "{source.name}": give one of url, file, microphone and stdin; it has {found}')
        if not source.slug:
            raise ValueError(f'[[source]] "{source.name}": the name needs a letter from a to z or a digit')
    slugs = [source.slug for source in sources]
    name = next((source.name for source in sources if slugs.count(source.slug) > 1), None)
    if name is not None:
        raise ValueError(f'[[source]] "{name}": another source has that name; accents and capitals make no difference')
    if sum(source.stdin != "" for source in sources) > 1:
        raise ValueError("[[source]]: only one source can read stdin")


def _parse_categories(table: Any) -> dict[str, bool | float]:
    if not isinstance(table, dict):
        raise ValueError("categories must be a table: write [categories] above its lines")
    for name, value in table.items():
        if not isinstance(value, bool):
            try:
                s.number(0.001, 1)(value)
            except ValueError:
                raise ValueError(f"[categories]: {name} must be true, false or a threshold from 0.001 to 1") from None
    return dict(table)


def _read_list(name: str, tables: Any) -> list:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{name} must stand in double brackets: [[{name}]]")
    configs = []
    for number, table in enumerate(tables, start=1):
        title = table.get("name")
        place = f'[[{name}]] "{title}"' if title else f"[[{name}]] number {number}"
        configs.append(s.read_table(LISTS[name], table, place))
    return configs


def slug(name: str) -> str:
    """Return a name as lower-case ASCII letters, digits and hyphens: "Cửa trước" becomes cua-truoc."""
    plain = unicodedata.normalize("NFKD", name.lower().replace("đ", "d"))
    return re.sub(r"[^a-z0-9]+", "-", "".join(c for c in plain if not unicodedata.combining(c))).strip("-")


def without_secrets(url: str) -> str:
    """Return an address without user, password and query, so that it can be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="", fragment="").geturl()
