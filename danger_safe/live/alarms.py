"""From a source's scored windows to events, and from events to alarms: thresholds, confirmation, cool-down, quiet
hours."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from datetime import time as clock_time
from typing import Protocol

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.detector import BuiltinDetector, Detector
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.live.config import AlarmConfig, SourceConfig, slug

UNNAMED = "danger"  # the category where the detector has no name for it


@dataclass
class LiveEvent:
    """A danger at a source, from its first window on."""

    id: str
    source: str
    event: Event
    category: str
    threshold: float
    started_at: float  # wall-clock time, seconds since 1970
    ended_at: float  # of what was heard by now
    is_alarm: bool = False
    reason: str = ""  # why it is no alarm
    windows: int = 0  # above its threshold, as many as a confirmation needs

    def record(self) -> dict:
        """As it is logged and sent."""
        event = self.event
        return {
            "id": self.id,
            "source": self.source,
            "category": self.category,
            "score": round(event.score, 3),
            "threshold": round(self.threshold, 3),
            "started_at": _iso(self.started_at),
            "ended_at": _iso(self.ended_at),
            "start": round(event.start, 2),  # seconds from when the source was connected
            "end": round(event.end, 2),
            "peak": round(event.peak, 2),
            "heard": [{"category": name, "similarity": round(similarity, 3)} for name, similarity in event.heard],
            "alarm": self.is_alarm,
            "reason": self.reason,
        }


class Listener(Protocol):
    """Is told of events."""

    def begin(self, event: LiveEvent) -> None:
        """An alarm begins."""

    def end(self, event: LiveEvent) -> None:
        """An event has ended, alarm or not."""


class Policy:
    """When an event of a source is an alarm."""

    def __init__(self, config: AlarmConfig, categories: dict[str, bool | float], threshold: float):
        """``threshold`` is for categories without one of their own."""
        self.config = config
        self._categories = categories
        self._threshold = threshold
        self._last_alarms: dict[tuple[str, str], float] = {}  # (source, category): when one ended last
        own = [value for value in categories.values() if not isinstance(value, bool)]
        self.lowest_threshold = min([self._threshold, *own])

    def threshold(self, category: str) -> float:
        """Of a category."""
        own = self._categories.get(category, True)
        return self._threshold if isinstance(own, bool) else own

    def objection(self, event: LiveEvent, now: float) -> str:
        """Why an event is no alarm, by now; empty where it is one."""
        if self._categories.get(event.category) is False:
            return "category off"
        if event.event.score < event.threshold:
            return "below the category's threshold"
        if event.windows < self.config.confirm_windows:
            return "not confirmed"
        if self.quiet_until(now):
            return "quiet hours"
        if self.cooldown_left(event, now) > 0:
            return "cool-down"
        return ""

    def cooldown_left(self, event: LiveEvent, now: float) -> float:
        """Seconds until an event like this one may be an alarm again; not above 0 where it may be by now."""
        last = self._last_alarms.get((event.source, event.category))
        return 0.0 if last is None else last + self.config.cooldown_seconds - now

    def note_alarm(self, event: LiveEvent) -> None:
        """An alarm goes on, or has ended: the cool-down begins."""
        self._last_alarms[event.source, event.category] = event.ended_at

    def quiet_until(self, now: float) -> clock_time | None:
        """When the quiet hours end that it is in; None where it is in none."""
        clock = datetime.fromtimestamp(now).time()
        for begin, end in self.config.quiet_hours:
            if begin <= clock < end if begin < end else clock >= begin or clock < end:
                return end
        return None


def default_threshold(source: SourceConfig, alarm: AlarmConfig, detector: BuiltinDetector) -> float:
    """Of a source, for categories without a threshold of their own."""
    if source.sensitivity:
        return detector.threshold_of(source.sensitivity)
    if alarm.threshold is not None:
        return alarm.threshold
    return detector.threshold_of(alarm.sensitivity) if alarm.sensitivity else detector.threshold


class Tracker:
    """The events of one connection of a source."""

    def __init__(self, source: str, policy: Policy, detector: Detector, hop_s: float, listeners: list[Listener]):
        self._source, self._policy, self._detector, self._listeners = source, policy, detector, listeners
        config = EventConfig(policy.lowest_threshold, min_duration_s=policy.config.min_seconds)
        self._finder = EventFinder(config, hop_s)
        self._current: LiveEvent | None = None
        self._scores: list[float] = []  # of the current event's windows, as many as a confirmation needs
        self._begun_at = 0.0  # wall-clock time of second 0 of the connection

    @property
    def current(self) -> LiveEvent | None:
        """The event that goes on."""
        return self._current

    def add(self, window: ScoredWindow, ended_at: float) -> None:
        """Take a window; ``ended_at`` is the wall-clock time of its last sample."""
        self._begun_at = ended_at - window.end
        for event in self._finder.add(window):
            self._end(event)
        event = self._finder.open_event
        if event is None and window.smoothed_score < self._policy.lowest_threshold:
            self._scores = []
        self._scores = sorted([*self._scores, window.smoothed_score])[-self._policy.config.confirm_windows :]
        if event is not None:
            self._judge(self._update(event), ended_at)

    def finish(self) -> None:
        """The connection has ended."""
        for event in self._finder.finish():
            self._end(event)

    def _update(self, event: Event) -> LiveEvent:
        """The event that goes on, with what is known of it by now."""
        started_at, ended_at = self._begun_at + event.start, self._begun_at + event.end
        if self._current is None:
            name = f"{datetime.fromtimestamp(started_at):%Y%m%d-%H%M%S}-{slug(self._source)}-{secrets.token_hex(2)}"
            self._current = LiveEvent(name, self._source, event, "", 0.0, started_at, ended_at)
        current = self._current
        if not current.category or event.embedding is not current.event.embedding:
            event.heard = self._detector.tags(event.embedding)
            current.category = event.heard[0][0] if event.heard else UNNAMED
            current.threshold = self._policy.threshold(current.category)
        else:
            event.heard = current.event.heard
        current.event, current.started_at, current.ended_at = event, started_at, ended_at
        return current

    def _judge(self, current: LiveEvent, now: float) -> None:
        if current.is_alarm:
            self._policy.note_alarm(current)
            return
        current.windows = sum(score >= current.threshold for score in self._scores)
        current.reason = self._policy.objection(current, now)
        if not current.reason:
            current.is_alarm = True
            self._policy.note_alarm(current)
            self._tell(lambda listener: listener.begin(current))

    def _end(self, event: Event) -> None:
        was_shown = self._current is not None
        current, self._current = self._update(event), None
        if not was_shown:  # it was long enough only at its end
            self._judge(current, current.ended_at)
        self._scores = []
        if current.is_alarm:
            self._policy.note_alarm(current)
        elif event.score < current.threshold:
            return  # no event, by the threshold of its category
        self._tell(lambda listener: listener.end(current))

    def _tell(self, what: Callable[[Listener], None]) -> None:
        for listener in self._listeners:
            what(listener)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
