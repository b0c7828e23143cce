"""What each source hears now, and why there is no alarm: noted by whoever listens, looked at by the page."""

import time
from dataclasses import dataclass

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.personal import PersonalDetector
from danger_safe.live.alarms import LiveEvent, Policy
from danger_safe.live.sources import Source

LEVEL_S = 0.5  # of sound, the newest, whose level is shown
LOWEST_DBFS = -100.0  # 16 bits reach to -96
BEHIND_S = 5.0  # without a window of a source that gives sound: the engine has too much to do


@dataclass(frozen=True)
class Now:
    """A source as its newest window left it."""

    noted: float  # time.monotonic()
    heard_at: float  # wall-clock time of the window's last sample
    level_dbfs: float  # root mean square of the newest LEVEL_S
    window: ScoredWindow
    threshold: float
    reason: str  # why there is no alarm, of REASONS; empty where there is one
    category: str = ""  # of the event that goes on
    since: float = 0.0  # wall-clock time
    windows: int = 0  # above the threshold
    seconds_left: float = 0.0  # of the cool-down
    until: str = ""  # quiet hours, HH:MM


class Monitor:
    """The newest of each source. One thread writes, others read whole values."""

    def __init__(self) -> None:
        self._now: dict[str, Now] = {}
        self.learnt: PersonalDetector | None = None  # the detector, where verdicts have changed it

    def note(
        self, source: str, samples: np.ndarray, window: ScoredWindow, event: LiveEvent | None, policy: Policy, at: float
    ) -> None:
        """A window, its samples, (samples,) or (samples, channels), and the event that goes on; ``at``: its wall-clock
        time."""
        level, threshold = level_dbfs(samples[-round(LEVEL_S * SAMPLE_RATE) :]), policy.lowest_threshold
        if event is None:
            reason = _no_event(window, threshold)
            self._now[source] = Now(time.monotonic(), at, level, window, threshold, reason)
            return
        until = policy.quiet_until(at)
        self._now[source] = Now(
            time.monotonic(), at, level, window, event.threshold, "" if event.is_alarm else event.reason,
            event.category, event.started_at, event.windows, max(0.0, policy.cooldown_left(event, at)),
            f"{until:%H:%M}" if until else "",
        )  # fmt: skip

    def forget(self, source: str) -> None:
        """Its connection has ended."""
        self._now.pop(source, None)

    def look(self, source: Source) -> tuple[str, Now | None]:
        """Why there is no alarm at a source (empty where there is one), and its newest window, if it has one.

        The reason is a status of the source while it gives no sound, ``starting`` until the first window is full,
        ``behind`` where windows wait for the engine, or else what the policy says.
        """
        now, status = self._now.get(source.name), source.status
        if status not in ("listening", "silent") or (status == "silent" and now is None):
            return status, None
        if now is None:
            return "starting", None
        if now.reason and time.monotonic() - now.noted > BEHIND_S:
            return "behind", now
        return now.reason, now


def _no_event(window: ScoredWindow, threshold: float) -> str:
    if window.smoothed_score >= threshold:
        return "too short"  # by now: min_seconds
    if window.is_silent:
        return "silent"
    if window.similar_false_alarms:
        return "learnt"
    return "averaging" if window.raw_score >= threshold else "below"


def level_dbfs(samples: np.ndarray) -> float:
    """Root mean square of the loudest channel, in dB of full scale; never below LOWEST_DBFS."""
    power = float(np.square(samples, dtype=np.float64).mean(axis=0).max()) if len(samples) else 0.0
    return max(LOWEST_DBFS, 10 * float(np.log10(power)) if power else LOWEST_DBFS)
