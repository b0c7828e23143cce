"""The current state of each source, and why there is no alarm: written by the service, read by the page."""

import time
from dataclasses import dataclass

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.personal import PersonalDetector
from danger_safe.live.alarms import LiveEvent, Policy
from danger_safe.live.sources import Source

LEVEL_S = 0.5  # seconds; the newest sound, whose level is shown
MIN_DBFS = -100.0  # lower levels are shown as this one; 16 bits reach down to -96
BEHIND_S = 5.0  # seconds without a scored window although there is sound: the engine cannot keep up


@dataclass(frozen=True)
class SourceState:
    """A source at its newest window."""

    updated: float  # time.monotonic()
    heard_at: float  # wall-clock time of the window's last sample, seconds since 1970
    level_dbfs: float  # root mean square of the newest LEVEL_S
    window: ScoredWindow
    threshold: float
    reason: str  # why there is no alarm; empty if there is one
    category: str = ""  # of the current event
    since: float = 0.0  # wall-clock time at which the current event started, seconds since 1970
    windows: int = 0  # of the current event, above its threshold
    seconds_left: float = 0.0  # of the cool-down
    until: str = ""  # end of the quiet hours, HH:MM


class Monitor:
    """The newest state of each source. One thread writes, others read complete states."""

    def __init__(self) -> None:
        self._states: dict[str, SourceState] = {}
        self.learnt: PersonalDetector | None = None  # the detector, if it has learnt from verdicts

    def update(
        self, source: str, samples: np.ndarray, window: ScoredWindow, event: LiveEvent | None, policy: Policy, at: float
    ) -> None:
        """Update a source's state.

        Args:
            source: Its name.
            samples: Samples of its newest window, (samples,) or (samples, channels).
            window: The window.
            event: The current event, if there is one.
            policy: The source's policy.
            at: Wall-clock time of the window's last sample, seconds since 1970.
        """
        level, threshold = level_dbfs(samples[-round(LEVEL_S * SAMPLE_RATE) :]), policy.lowest_threshold
        if event is None:
            reason = _no_event_reason(window, threshold)
            self._states[source] = SourceState(time.monotonic(), at, level, window, threshold, reason)
            return
        until = policy.quiet_hours_end(at)
        self._states[source] = SourceState(
            time.monotonic(),
            at,
            level,
            window,
            event.threshold,
            reason="" if event.is_alarm else event.reason,
            category=event.category,
            since=event.started_at,
            windows=event.windows,
            seconds_left=max(0.0, policy.cooldown_left(event, at)),
            until=f"{until:%H:%M}" if until else "",
        )

    def remove(self, source: str) -> None:
        """Remove the state of a source whose connection has ended."""
        self._states.pop(source, None)

    def read(self, source: Source) -> tuple[str, SourceState | None]:
        """Return why there is no alarm at a source (empty if there is one), and its state if it has one.

        The reason is the source's status while it has no sound, ``starting`` until the first window is complete,
        ``behind`` while windows wait for the engine, and otherwise that of the policy.
        """
        state, status = self._states.get(source.name), source.status
        if status not in ("listening", "silent") or (status == "silent" and state is None):
            return status, None
        if state is None:
            return "starting", None
        if state.reason and time.monotonic() - state.updated > BEHIND_S:
            return "behind", state
        return state.reason, state


def _no_event_reason(window: ScoredWindow, threshold: float) -> str:
    if window.smoothed_score >= threshold:
        return "too short"  # it has not reached min_seconds yet
    if window.is_silent:
        return "silent"
    if window.similar_false_alarms:
        return "learnt"
    return "averaging" if window.raw_score >= threshold else "below"


def level_dbfs(samples: np.ndarray) -> float:
    """Return the root mean square of the loudest channel in dB of full scale, at least MIN_DBFS."""
    power = float(np.square(samples, dtype=np.float64).mean(axis=0).max()) if len(samples) else 0.0
    return max(MIN_DBFS, 10 * float(np.log10(power)) if power else MIN_DBFS)
