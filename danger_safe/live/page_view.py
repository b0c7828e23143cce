"""What the page shows, as text and numbers: sources by now, the last events, in the language of whoever looks."""

import hashlib
import json
import math
import threading
from collections import OrderedDict
from datetime import datetime
from pathlib import Path
from typing import Any

from danger_safe.detection.audioset import AudioSetTagger
from danger_safe.live.alarms import LiveEvent, Policy
from danger_safe.live.config import AlarmConfig
from danger_safe.live.monitor import LOWEST_DBFS, Monitor, Now
from danger_safe.live.page_words import Words
from danger_safe.live.recorder import SUFFIXES
from danger_safe.live.sources import Source
from danger_safe.live.verdicts import FALSE_ALARM, NONE, RIGHT, Verdict

MAX_EVENTS = 50  # that are shown, the newest
TAIL_BYTES = 500_000  # of the log that are looked through at the start
_TEXTS = ("id", "source", "category", "started_at", "reason")
_NUMBERS = ("score", "threshold", "start", "end")


class EventList:
    """The newest events as they were logged, and what was said of them. Events come from one thread, looks from
    others."""

    def __init__(self, log: Path, verdicts: dict[str, Verdict]):
        """``log``: events.jsonl as it was left the last time; a line that is no event is passed over."""
        self._verdicts = verdicts
        self._events: OrderedDict[str, dict] = OrderedDict()
        self._lock = threading.Lock()
        for line in _tail(log):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if _is_event(record):
                self._add(record)

    def begin(self, event: LiveEvent) -> None:
        """It is listed when it has ended."""

    def end(self, event: LiveEvent) -> None:
        """List it."""
        self._add(event.record())

    def _add(self, record: dict) -> None:
        with self._lock:
            self._events[record["id"]] = record
            while len(self._events) > MAX_EVENTS:
                self._events.popitem(last=False)

    def get(self, name: str) -> dict | None:
        """The event of that id, if it is listed."""
        with self._lock:
            return self._events.get(name)

    def newest_first(self) -> list[dict]:
        """All that are listed."""
        with self._lock:
            return list(reversed(self._events.values()))

    def verdict(self, name: str) -> str:
        """Of an event; NONE where it has none."""
        known = self._verdicts.get(name)
        return known.verdict if known else NONE


class View:
    """Makes what the page shows of what is known."""

    def __init__(
        self, sources: list[Source], policies: dict[str, Policy], alarm: AlarmConfig, monitor: Monitor,
        events: EventList,
        tags: AudioSetTagger | None, recordings: Path | None, windows: Path,
    ):  # fmt: skip
        """``recordings``: the folder of events' sounds, if they are kept; ``windows``: that of events' windows."""
        self.sources, self.events = sources, events
        self._policies, self._alarm, self._monitor, self._tags = policies, alarm, monitor, tags
        self._recordings, self._windows = recordings, windows

    def sound(self, name: str) -> Path | None:
        """Where the sound of a listed event is; None where there is none."""
        if self._recordings is None or self.events.get(name) is None:
            return None
        paths = (self._recordings / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def windows(self, name: str) -> Path | None:
        """Where the windows of a listed event are; None where there are none."""
        path = self._windows / f"{name}.npz"
        return path if self.events.get(name) is not None and path.is_file() else None

    def state(self, words: Words, seen: str) -> dict:
        """All that changes, as JSON takes it. The events are left out where they are still those of the version
        ``seen``."""
        sources = [self._source(source, words) for source in self.sources]
        alarms = [f"{source['name']}: {source['category']}" for source in sources if source["danger"]]
        state = {
            "sources": sources,
            "danger": bool(alarms),
            "learnt": self._learnt(words),
            "alarm": words("alarm", what="; ".join(alarms)) if alarms else words("no alarm"),
        }
        today = datetime.now()
        events = [self._event(record, words, today) for record in self.events.newest_first()]
        version = hashlib.sha256(json.dumps(events).encode()).hexdigest()[:16]
        return state if version == seen else {**state, "events": events, "version": version}

    def _source(self, source: Source, words: Words) -> dict:
        reason, now = self._monitor.look(source)
        shown = {
            "name": source.name,
            "state": words(f"state {source.status}"),
            "danger": not reason,
            "category": now.category if now else "",
            "why": self._why(source, reason, now, words),
            "level": None, "score": None, "threshold": None, "levelText": "–", "scoreText": "–", "tags": [],
        }  # fmt: skip
        if now is None:
            return shown
        score = now.window.smoothed_score
        return shown | {
            "level": 1 - now.level_dbfs / LOWEST_DBFS,
            "levelText": f"{words.number(now.level_dbfs, 0)} dBFS",
            "score": score,
            "threshold": now.threshold,
            "scoreText": words(
                "score of", score=words.number(score, 2), threshold=words.number(now.threshold, 2)
            ),
            "tags": [] if now.window.is_silent else self._tags_of(now),
        }  # fmt: skip

    def _learnt(self, words: Words) -> str:
        """How many verdicts the detector has learnt from, and what that changes; empty where there are none."""
        detector = self._monitor.learnt
        if detector is None:
            return ""
        change = detector.change
        return words(
            "learnt",
            count=len(detector.learnt.verdicts),
            found=words.number(100 * change.found / change.dangers, 1),
            found_before=words.number(100 * change.found_before / change.dangers, 1),
            wrong=words.number(100 * change.false_alarms / change.safe, 1),
            wrong_before=words.number(100 * change.false_alarms_before / change.safe, 1),
        )

    def _tags_of(self, now: Now) -> list[str]:
        found = self._tags.tags(now.window.embedding) if self._tags else ()
        return [f"{name} {100 * score:.0f}\u00a0%" for name, score in found if score >= 0.05]

    def _why(self, source: Source, reason: str, now: Now | None, words: Words) -> str:
        if now is None:
            return words(f"why {reason}", problem=source.problem or words(f"state {source.status}"))
        policy = self._policies[source.name]
        return words(
            f"why {reason or 'alarm'}",
            category=now.category,
            since=f"{datetime.fromtimestamp(now.since):%H:%M:%S}",
            seconds=words.number(self._alarm.min_seconds, 1),
            windows=now.windows,
            needed=policy.config.confirm_windows,
            until=now.until,
            alarms=now.window.similar_false_alarms,
            left=f"{now.seconds_left:.0f}",
        )

    def _event(self, record: dict, words: Words, today: datetime) -> dict:
        time = datetime.fromisoformat(record["started_at"])
        name, verdict = record["id"], self.events.verdict(record["id"])
        sound = self.sound(name)
        clock = words.time(time.astimezone(), today.astimezone())
        return {
            "id": name,
            "title": words("event", category=record["category"], source=record["source"], time=clock),
            "time": clock,
            "iso": record["started_at"],
            "source": record["source"],
            "category": record["category"],
            "length": words("seconds", seconds=words.number(record["end"] - record["start"], 1)),
            "score": words.number(record["score"], 2),
            "alarm": record["alarm"],
            "what": words("was alarm") if record["alarm"] else words("was none", why=words.reason(record["reason"])),
            "sound": sound is not None,
            "drawn": ("w" if self.windows(name) else "") + ("s" if sound else ""),  # what its picture can be made of
            "picture": words(
                "picture", score=words.number(record["score"], 2), threshold=words.number(record["threshold"], 2)
            ),
            "right": verdict == RIGHT,
            "false": verdict == FALSE_ALARM,
        }  # fmt: skip


def _is_event(record: Any) -> bool:
    """Whether a line of the log has all that the page shows; its id becomes a part of files' names."""
    try:
        valid = all(isinstance(record[key], str) for key in _TEXTS) and isinstance(record["alarm"], bool)
        valid &= all(isinstance(record[key], int | float) and math.isfinite(record[key]) for key in _NUMBERS)
        datetime.fromisoformat(record["started_at"])
        return valid and record["id"].replace("-", "a").isalnum() and record["id"].isascii() and len(record["id"]) < 150
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _tail(log: Path) -> list[bytes]:
    """The last lines of a file; none where it cannot be read."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    return lines[1:] if size > TAIL_BYTES else lines
