"""What the page shows, as JSON in the visitor's language: the sources and the last events."""

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
from danger_safe.live.monitor import MIN_DBFS, Monitor, SourceState
from danger_safe.live.page_texts import Texts
from danger_safe.live.recorder import SUFFIXES
from danger_safe.live.sources import Source
from danger_safe.live.verdicts import FALSE_ALARM, NONE, RIGHT, Verdict

MAX_EVENTS = 50  # the newest ones, which are shown
TAIL_BYTES = 500_000  # bytes at the end of the log that are read at the start
MIN_TAG_PROBABILITY = 0.05  # of a tag that is shown
_TEXT_KEYS = ("id", "source", "category", "started_at", "reason")
_NUMBER_KEYS = ("score", "threshold", "start", "end")


class EventList:
    """The newest events with their verdicts. One thread adds events, others read them."""

    def __init__(self, log: Path, verdicts: dict[str, Verdict]):
        """Read the events of earlier runs.

        Args:
            log: events.jsonl; lines that are no event are skipped.
            verdicts: The verdicts by the events' ids; the page updates them.
        """
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

    def add(self, event: LiveEvent) -> None:
        """List an event that has ended."""
        self._add(event.to_dict())

    def _add(self, record: dict) -> None:
        with self._lock:
            self._events[record["id"]] = record
            while len(self._events) > MAX_EVENTS:
                self._events.popitem(last=False)

    def get(self, event_id: str) -> dict | None:
        """Return the event with that id, if it is listed."""
        with self._lock:
            return self._events.get(event_id)

    def newest_first(self) -> list[dict]:
        """Return all listed events."""
        with self._lock:
            return list(reversed(self._events.values()))

    def verdict(self, event_id: str) -> str:
        """Return the verdict on an event, one of VERDICTS."""
        verdict = self._verdicts.get(event_id)
        return verdict.verdict if verdict else NONE


class View:
    """Makes the contents of the page."""

    def __init__(
        self,
        sources: list[Source],
        policies: dict[str, Policy],
        alarm: AlarmConfig,
        monitor: Monitor,
        events: EventList,
        tagger: AudioSetTagger | None,
        recordings: Path | None,
        windows: Path,
    ):
        """Connect the view with what it shows.

        Args:
            sources: The sources.
            policies: The policy of each source by its name.
            alarm: The settings of alarms.
            monitor: The sources' newest states.
            events: The newest events.
            tagger: Names what a window sounds like, if the network has AudioSet's classes.
            recordings: The folder of the events' sounds, if they are recorded.
            windows: The folder of the events' windows.
        """
        self.sources, self.events = sources, events
        self._policies, self._alarm, self._monitor, self._tagger = policies, alarm, monitor, tagger
        self._recordings, self._windows = recordings, windows

    def sound(self, event_id: str) -> Path | None:
        """Return the path of a listed event's sound; None if there is none."""
        if self._recordings is None or self.events.get(event_id) is None:
            return None
        paths = (self._recordings / f"{event_id}{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def windows(self, event_id: str) -> Path | None:
        """Return the path of a listed event's windows; None if there are none."""
        path = self._windows / f"{event_id}.npz"
        return path if self.events.get(event_id) is not None and path.is_file() else None

    def state(self, texts: Texts, seen: str) -> dict:
        """Return everything that changes, as JSON values.

        Args:
            texts: The visitor's language.
            seen: The version of the events that the browser has; they are left out if it is the newest.
        """
        sources = [self._source(source, texts) for source in self.sources]
        alarms = [f"{source['name']}: {source['category']}" for source in sources if source["danger"]]
        state = {
            "sources": sources,
            "danger": bool(alarms),
            "learnt": self._learnt(texts),
            "alarm": texts("alarm", what="; ".join(alarms)) if alarms else texts("no alarm"),
        }
        today = datetime.now()
        events = [self._event(record, texts, today) for record in self.events.newest_first()]
        version = hashlib.sha256(json.dumps(events).encode()).hexdigest()[:16]
        return state if version == seen else {**state, "events": events, "version": version}

    def _source(self, source: Source, texts: Texts) -> dict:
        reason, state = self._monitor.read(source)
        shown = {
            "name": source.name,
            "state": texts(f"state {source.status}"),
            "danger": not reason,
            "category": state.category if state else "",
            "why": self._why(source, reason, state, texts),
            "level": None,
            "score": None,
            "threshold": None,
            "levelText": "–",
            "scoreText": "–",
            "tags": [],
        }
        if state is None:
            return shown
        score, threshold = state.window.smoothed_score, state.threshold
        return shown | {
            "level": 1 - state.level_dbfs / MIN_DBFS,
            "levelText": f"{texts.number(state.level_dbfs, 0)} dBFS",
            "score": score,
            "threshold": threshold,
            "scoreText": texts("score of", score=texts.number(score, 2), threshold=texts.number(threshold, 2)),
            "tags": [] if state.window.is_silent else self._format_tags(state),
        }

    def _learnt(self, texts: Texts) -> str:
        """Say how many verdicts the detector has learnt from and what they change; empty if there are none."""
        detector = self._monitor.learnt
        if detector is None:
            return ""
        change = detector.change
        return texts(
            "learnt",
            count=len(detector.learnt.verdicts),
            found=texts.number(100 * change.found / change.dangers, 1),
            found_before=texts.number(100 * change.found_before / change.dangers, 1),
            wrong=texts.number(100 * change.false_alarms / change.safe, 1),
            wrong_before=texts.number(100 * change.false_alarms_before / change.safe, 1),
        )

    def _format_tags(self, state: SourceState) -> list[str]:
        tags = self._tagger.tags(state.window.embedding) if self._tagger else ()
        return [f"{name} {100 * score:.0f}\u00a0%" for name, score in tags if score >= MIN_TAG_PROBABILITY]

    def _why(self, source: Source, reason: str, state: SourceState | None, texts: Texts) -> str:
        """Say why there is no alarm, or what the alarm is."""
        if state is None:
            return texts(f"why {reason}", problem=source.problem or texts(f"state {source.status}"))
        policy = self._policies[source.name]
        return texts(
            f"why {reason or 'alarm'}",
            category=state.category,
            since=f"{datetime.fromtimestamp(state.since):%H:%M:%S}",
            seconds=texts.number(self._alarm.min_seconds, 1),
            windows=state.windows,
            needed=policy.config.confirm_windows,
            until=state.until,
            alarms=state.window.similar_false_alarms,
            left=f"{state.seconds_left:.0f}",
        )

    def _event(self, record: dict, texts: Texts, today: datetime) -> dict:
        time = datetime.fromisoformat(record["started_at"])
        event_id, verdict = record["id"], self.events.verdict(record["id"])
        sound = self.sound(event_id)
        clock = texts.time(time.astimezone(), today.astimezone())
        return {
            "id": event_id,
            "title": texts("event", category=record["category"], source=record["source"], time=clock),
            "time": clock,
            "iso": record["started_at"],
            "source": record["source"],
            "category": record["category"],
            "length": texts("seconds", seconds=texts.number(record["end"] - record["start"], 1)),
            "score": texts.number(record["score"], 2),
            "alarm": record["alarm"],
            "what": texts("was alarm") if record["alarm"] else texts("was none", why=texts.reason(record["reason"])),
            "sound": sound is not None,
            "drawn": ("w" if self.windows(event_id) else "") + ("s" if sound else ""),  # what the picture is made of
            "picture": texts(
                "picture", score=texts.number(record["score"], 2), threshold=texts.number(record["threshold"], 2)
            ),
            "right": verdict == RIGHT,
            "false": verdict == FALSE_ALARM,
        }


def _is_event(record: Any) -> bool:
    """Return whether a line of the log has all that the page shows, and an id that is safe in file names."""
    try:
        valid = all(isinstance(record[key], str) for key in _TEXT_KEYS) and isinstance(record["alarm"], bool)
        valid &= all(isinstance(record[key], int | float) and math.isfinite(record[key]) for key in _NUMBER_KEYS)
        datetime.fromisoformat(record["started_at"])
        return valid and record["id"].replace("-", "a").isalnum() and record["id"].isascii() and len(record["id"]) < 150
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _tail(log: Path) -> list[bytes]:
    """Return the last lines of a file; none if it cannot be read."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    return lines[1:] if size > TAIL_BYTES else lines
