"""The service: sources, one engine for all of them, and everybody who is told."""

import difflib
import sys
import threading
import time
from pathlib import Path

from danger_safe.core.cli import one_line
from danger_safe.core.errors import UserError
from danger_safe.detection.detector import Detector
from danger_safe.detection.scorer import HOP, WINDOW, Listener, Smoother
from danger_safe.live.alarms import LiveEvent, Policy, Tracker
from danger_safe.live.alerts import Command, Webhook
from danger_safe.live.config import Config
from danger_safe.live.event_log import EventLog
from danger_safe.live.feeds import check_can_open
from danger_safe.live.mqtt import Mqtt
from danger_safe.live.recorder import Recorder
from danger_safe.live.sources import Heard, Inbox, Source
from models.engine import Engine
from models.mnn_network import NetworkError

TICK_S = 0.5  # between two looks at what stalls
CLOSE_S = 5.0  # that the last messages may take


def say(message: str) -> None:
    """A line about the service itself, on stderr, with the time."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {one_line(message)}", file=sys.stderr, flush=True)


class Terminal:
    """A line on stdout for each alarm, when it begins and when it ends."""

    @staticmethod
    def begin(event: LiveEvent) -> None:
        """An alarm begins."""
        print(
            f"{_clock(event.started_at)}  {event.source}: DANGER, {event.category} {event.event.score:.2f}", flush=True
        )

    @staticmethod
    def end(event: LiveEvent) -> None:
        """An event has ended, alarm or not."""
        what = "over" if event.is_alarm else f"no alarm ({event.reason})"
        seconds = event.ended_at - event.started_at
        print(f"{_clock(event.ended_at)}  {event.source}: {what}, {event.category} {event.event.score:.2f}, {seconds:.1f} s",
              flush=True)  # fmt: skip


class Service:
    """Listens until it is stopped, or everything is read that ends by itself."""

    def __init__(self, config: Config, engine: Engine, detector: Detector):
        """Raises UserError where a package is missing or the log cannot be written."""
        self._policy = Policy(config.alarm, config.categories, detector.threshold)
        self._detector = detector
        self._scorer = Listener(engine, detector, WINDOW, HOP)
        self._inbox = Inbox()
        self.sources = [Source(source, self._inbox, say, WINDOW, HOP) for source in config.sources]
        self._mqtt = Mqtt(config.mqtt, self.sources, say) if config.mqtt else None
        self._log = EventLog(Path(config.log.file), say)
        self._outboxes = [Webhook(webhook, say) for webhook in config.webhooks]
        self._outboxes += [Command(command, say) for command in config.commands]
        self._recorder = Recorder(config.record, say) if config.record else None
        if self._recorder:
            for source in self.sources:
                source.new_buffer = self._recorder.new_buffer
        told = [Terminal(), self._log, *self._outboxes, *([self._recorder] if self._recorder else [])]
        self._listeners = [*told, self._mqtt] if self._mqtt else told
        self._connections: dict[Source, tuple[int, Tracker, Smoother]] = {}
        self._stop = threading.Event()

    def stop(self) -> None:
        """End it tidily; from any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Listen. Afterwards every event that was heard is written down and told."""
        if self._mqtt:
            self._mqtt.start()
        for source in self.sources:
            source.start()
        try:
            self._listen()
        finally:
            self._close()

    def _listen(self) -> None:
        looked = 0.0
        while not self._stop.is_set():
            heard = self._inbox.take(TICK_S)
            self._score(heard)
            if time.monotonic() - looked >= TICK_S:
                looked = time.monotonic()
                self._look_after()
            if not heard and not any(source.is_alive for source in self.sources):
                break

    def _look_after(self) -> None:
        for source in self.sources:
            source.check()
        if self._mqtt:
            self._mqtt.update()
        self._log.flush()

    def _close(self) -> None:
        for source in self.sources:
            source.stop()
        for source in self.sources:
            source.join(1.0)
        try:
            while heard := self._inbox.take(0):
                self._score(heard)
        except UserError as error:  # the engine has failed; what it had heard by then is told all the same
            say(str(error))
        for _, tracker, _ in self._connections.values():
            tracker.finish()
        self._scorer.close()
        self._log.close()
        if self._recorder:
            self._recorder.close()
        for outbox in self._outboxes:
            outbox.close(CLOSE_S)
        if self._mqtt:
            self._mqtt.close(CLOSE_S)

    def _score(self, heard: list[Heard]) -> None:
        """Score windows of any sources in one batch, and take each into account in its turn."""
        windows = [item.window for item in heard if item.window is not None]
        try:
            scored = iter(self._scorer.score_windows(windows))
        except NetworkError as error:  # its process was ended, as by a system that is short of memory: a new one starts
            say(str(error))
            scored = iter(self._scorer.score_windows(windows))
        for item in heard:
            number, tracker, smoother = self._connections.get(item.source, (0, None, None))
            if tracker is not None and number != item.connection:
                tracker.finish()
                tracker = None
            if item.window is None:
                if tracker is not None:
                    tracker.finish()
                    del self._connections[item.source]
                if self._recorder:
                    self._recorder.flush(item.source.name)
                continue
            if tracker is None:
                tracker = Tracker(item.source.name, self._policy, self._detector, HOP, self._listeners)
                smoother = Smoother(HOP)
                self._connections[item.source] = (item.connection, tracker, smoother)
            window = smoother.smooth(next(scored))
            tracker.add(window, item.ended_at)
            item.source.note_silence(window.silent, window.end)
            if self._recorder:
                names = [name for name, _ in self._detector.tags(window.embedding)] if not window.silent else []
                self._recorder.follow(item.source.name, item.sound, window, names, tracker.current)


def check_config(config: Config, known: tuple[str, ...]) -> None:
    """Raises UserError for what no new try would mend: a missing program, package or file, an unknown category.

    ``known`` are the detector's categories.
    """
    for source in config.sources:
        check_can_open(source)
    for name in config.categories:
        if known and name not in known:
            nearest = ", ".join(difflib.get_close_matches(name, known, 3)) or ", ".join(known)
            raise UserError(f"[categories]: the detector knows no {name}: {nearest}")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
