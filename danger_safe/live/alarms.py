"""Turn a source's scored windows into events, and decide which events are alarms.

The decision depends on thresholds, confirmation, cool-down and quiet hours.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from datetime import time as clock_time
from typing import Protocol

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.detector import BuiltinDetector, Detector
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.live.config import AlarmConfig, SourceConfig, slug

UNNAMED = "danger"  # category of an event that the detector cannot name


@dataclass
class LiveEvent:
    """An event of a source, current or ended."""

    id: str
    source: str
    event: Event
    category: str
    threshold: float
    started_at: float  # wall-clock time, seconds since 1970
    ended_at: float  # wall-clock time, seconds since 1970; moves on while the event is current
    is_alarm: bool = False
    reason: str = ""  # why it is no alarm; empty if it is one
    windows: int = 0  # windows above its threshold, at most as many as the confirmation needs

    def to_dict(self) -> dict:
        """Return the event as it is logged and sent."""
        event = self.event
        return {
            "id": self.id,
            "source": self.source,
            "category": self.category,
            "score": round(event.score, 3),
            "threshold": round(self.threshold, 3),
            "started_at": _to_iso(self.started_at),
            "ended_at": _to_iso(self.ended_at),
            "start": round(event.start, 2),  # seconds since the source was connected
            "end": round(event.end, 2),
            "peak": round(event.peak, 2),
            "heard": [{"category": name, "similarity": round(similarity, 3)} for name, similarity in event.heard],
            "alarm": self.is_alarm,
            "reason": self.reason,
        }


class EventListener(Protocol):
    """Is notified of alarms and events."""

    def on_alarm_start(self, event: LiveEvent) -> None:
        """Handle an event that has become an alarm."""

    def on_event_end(self, event: LiveEvent) -> None:
        """Handle an event that has ended, alarm or not."""


class Policy:
    """Decides whether an event of a source is an alarm."""

    def __init__(self, config: AlarmConfig, categories: dict[str, bool | float], threshold: float):
        """Set up the policy of one source.

        Args:
            config: The settings of all sources.
            categories: False for a category that never alarms, a number for a threshold of its own.
            threshold: The threshold of all other categories.
        """
        self.config = config
        self._categories = categories
        self._threshold = threshold
        self._last_alarms: dict[tuple[str, str], float] = {}  # (source, category): end of its last alarm
        thresholds = [value for value in categories.values() if not isinstance(value, bool)]
        self.lowest_threshold = min([self._threshold, *thresholds])

    def threshold(self, category: str) -> float:
        """Return the threshold of a category."""
        value = self._categories.get(category, True)
        return self._threshold if isinstance(value, bool) else value

    def rejection_reason(self, event: LiveEvent, now: float) -> str:
        """Return why an event is no alarm at the wall-clock time ``now``; empty if it is one."""
        if self._categories.get(event.category) is False:
            return "category off"
        if event.event.score < event.threshold:
            return "below the category's threshold"
        if event.windows < self.config.confirm_windows:
            return "not confirmed"
        if self.quiet_hours_end(now):
            return "quiet hours"
        if self.cooldown_left(event, now) > 0:
            return "cool-down"
        return ""

    def cooldown_left(self, event: LiveEvent, now: float) -> float:
        """Return the seconds until an event of this source and category may be an alarm again; ≤ 0 if it may be now."""
        last = self._last_alarms.get((event.source, event.category))
        return 0.0 if last is None else last + self.config.cooldown_seconds - now

    def start_cooldown(self, event: LiveEvent) -> None:
        """Start the cool-down after an alarm, or restart it while the alarm continues."""
        self._last_alarms[event.source, event.category] = event.ended_at

    def quiet_hours_end(self, now: float) -> clock_time | None:
        """Return the end of the current quiet hours; None outside quiet hours."""
        clock = datetime.fromtimestamp(now).time()
        for begin, end in self.config.quiet_hours:
            if begin <= clock < end if begin < end else clock >= begin or clock < end:
                return end
        return None


def default_threshold(source: SourceConfig, alarm: AlarmConfig, detector: BuiltinDetector) -> float:
    """Return a source's threshold for categories without their own."""
    if source.sensitivity:
        return detector.threshold_of(source.sensitivity)
    if alarm.threshold is not None:
        return alarm.threshold
    return detector.threshold_of(alarm.sensitivity) if alarm.sensitivity else detector.threshold


class Tracker:
    """Finds the events of one connection of a source, and notifies the listeners of them."""

    def __init__(self, source: str, policy: Policy, detector: Detector, hop_s: float, listeners: list[EventListener]):
        """Start with the first window of a connection.

        Args:
            source: Name of the source.
            policy: Decides which events are alarms.
            detector: Names the events' categories.
            hop_s: Seconds from one window to the next.
            listeners: Are notified of alarms and events.
        """
        self._source, self._policy, self._detector, self._listeners = source, policy, detector, listeners
        config = EventConfig(policy.lowest_threshold, min_duration_s=policy.config.min_seconds)
        self._finder = EventFinder(config, hop_s)
        self._current: LiveEvent | None = None
        self._scores: list[float] = []  # highest of the current event, as many as the confirmation needs
        self._started_at = 0.0  # wall-clock time at which the connection's sound started

    @property
    def current(self) -> LiveEvent | None:
        """The event that has not ended; None if there is none."""
        return self._current

    def add(self, window: ScoredWindow, ended_at: float) -> None:
        """Process the next window; ``ended_at`` is the wall-clock time of its last sample."""
        self._started_at = ended_at - window.end
        for event in self._finder.add(window):
            self._end(event)
        event = self._finder.open_event
        if event is None and window.smoothed_score < self._policy.lowest_threshold:
            self._scores = []
        self._scores = sorted([*self._scores, window.smoothed_score])[-self._policy.config.confirm_windows :]
        if event is not None:
            self._check_alarm(self._update(event), ended_at)

    def finish(self) -> None:
        """End the current event, as the connection has ended."""
        for event in self._finder.finish():
            self._end(event)

    def _update(self, event: Event) -> LiveEvent:
        """Update the current event, or make it, and return it."""
        started_at, ended_at = self._started_at + event.start, self._started_at + event.end
        if self._current is None:
            event_id = f"{datetime.fromtimestamp(started_at):%Y%m%d-%H%M%S}-{slug(self._source)}-{secrets.token_hex(2)}"
            self._current = LiveEvent(event_id, self._source, event, "", 0.0, started_at, ended_at)
        current = self._current
        if not current.category or event.embedding is not current.event.embedding:
            event.heard = self._detector.tags(event.embedding)
            current.category = event.heard[0][0] if event.heard else UNNAMED
            current.threshold = self._policy.threshold(current.category)
        else:
            event.heard = current.event.heard
        current.event, current.started_at, current.ended_at = event, started_at, ended_at
        return current

    def _check_alarm(self, current: LiveEvent, now: float) -> None:
        """Make the current event an alarm if the policy allows it."""
        if current.is_alarm:
            self._policy.start_cooldown(current)
            return
        current.windows = sum(score >= current.threshold for score in self._scores)
        current.reason = self._policy.rejection_reason(current, now)
        if not current.reason:
            current.is_alarm = True
            self._policy.start_cooldown(current)
            for listener in self._listeners:
                listener.on_alarm_start(current)

    def _end(self, event: Event) -> None:
        was_current = self._current is not None
        current, self._current = self._update(event), None
        if not was_current:  # it reached the minimum duration only at its end
            self._check_alarm(current, current.ended_at)
        self._scores = []
        if current.is_alarm:
            self._policy.start_cooldown(current)
        elif event.score < current.threshold:  # not an event at the threshold of its category
            return
        for listener in self._listeners:
            listener.on_event_end(current)


def _to_iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
