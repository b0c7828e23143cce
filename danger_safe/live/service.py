"""The service: sources, one engine for all of them, and everybody who is told."""

import difflib
import sys
import threading
import time
from pathlib import Path

from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.cli import one_line
from danger_safe.core.errors import UserError
from danger_safe.detection.detector import BuiltinDetector
from danger_safe.detection.scorer import HOP_S, WINDOW_S, Smoother, WindowScorer
from danger_safe.live.alarms import LiveEvent, Policy, Tracker, default_threshold
from danger_safe.live.alerts import Command, Webhook
from danger_safe.live.config import Config
from danger_safe.live.event_log import EventLog
from danger_safe.live.feeds import check_can_open
from danger_safe.live.heartbeat import Heartbeat
from danger_safe.live.learning import Learner
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
        print(f"{_clock(event.ended_at)}  {event.source}: {what}, {event.category} {event.event.score:.2f}, "
            f"{seconds:.1f} s",
              flush=True)  # fmt: skip


class Service:
    """Listens until it is stopped, or everything is read that ends by itself."""

    def __init__(self, config: Config, engine: Engine, detector: BuiltinDetector):
        """Raises UserError where a package is missing, the log cannot be written or the page's port cannot be had."""
        self._policies = {
            source.name: Policy(config.alarm, config.categories, default_threshold(source, config.alarm, detector))
            for source in config.sources
        }
        self._detector = detector
        self._scorer = WindowScorer(engine, detector, WINDOW_S, HOP_S)
        self._learner = Learner(Path(config.log.file).absolute().parent, detector, self._scorer)
        self._is_quiet: set[str] = set()  # sources of what is quiet since it was learnt
        self._inbox = Inbox()
        self.sources = [Source(source, self._inbox, say, WINDOW_S, HOP_S) for source in config.sources]
        self._mqtt = Mqtt(config.mqtt, self.sources, say) if config.mqtt else None
        self._log = EventLog(Path(config.log.file), say)
        self._outboxes = [Webhook(webhook, say) for webhook in config.webhooks]
        self._outboxes += [Command(command, say) for command in config.commands]
        self._recorder = Recorder(config.record, say) if config.record else None
        if self._recorder:
            for source in self.sources:
                source.new_buffer = self._recorder.new_buffer
        told = [Terminal(), self._log, *self._outboxes, *([self._recorder] if self._recorder else [])]
        self._page = None
        if config.page:
            from danger_safe.live.page_service import PageService  # its packages are only in requirements/live.txt

            self._page = PageService(config, engine, self.sources, self._policies, say)
        self._listeners = [*told, *(listener for listener in (self._page, self._mqtt) if listener)]
        self._connections: dict[Source, tuple[int, Tracker, Smoother]] = {}
        self._heartbeat = Heartbeat()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End it tidily; from any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Listen. Afterwards every event that was heard is written down and told."""
        if self._mqtt:
            self._mqtt.start()
        self._learn()
        if self._page:
            self._page.start()
        for source in self.sources:
            source.start()
        self._heartbeat.begin()
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
        self._heartbeat.beat()
        self._learn()

    def _learn(self) -> None:
        """Where there are new verdicts, listen with a detector that has learnt from them."""
        if not self._learner.has_news:
            return
        try:
            self._detector = self._scorer.detector = self._learner.learn(say)
        except (UserError, OSError) as error:  # what was learnt before stays in use
            say(f"nothing is learnt: {error}")
            return
        if self._page:
            self._page.use(self._detector)
        try:
            self._learner.save()
        except (UserError, OSError) as error:
            say(f"learnt only until the end: {getattr(error, 'strerror', None) or error}")

    def _note_quiet(self, source: str, window: ScoredWindow) -> None:
        """Say when a source begins to be quiet because of what was learnt."""
        if window.similar_false_alarms and source not in self._is_quiet:
            say(f"{source}: {window.suppression_note}")
        (self._is_quiet.add if window.similar_false_alarms else self._is_quiet.discard)(source)

    def _close(self) -> None:
        self._heartbeat.end()
        for source in self.sources:
            source.stop()
        for source in self.sources:
            source.join(1.0)
        try:
            while heard := self._inbox.take(0):
                self._score(heard)
        except UserError as error:  # the engine has failed; what it had heard by then is told all the same
            say(str(error))
        for source, (_, tracker, _) in list(self._connections.items()):
            self._end_connection(source, tracker)
        self._scorer.close()
        self._log.close()
        if self._page:
            self._page.close()
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
            scored = iter(self._scorer.score_batch(windows))
        except NetworkError as error:  # its process was ended, as by a system that is short of memory: a new one starts
            say(str(error))
            scored = iter(self._scorer.score_batch(windows))
        for item in heard:
            number, tracker, smoother = self._connections.get(item.source, (0, None, None))
            if tracker is not None and number != item.connection:
                self._end_connection(item.source, tracker)
                tracker = None
            if item.window is None:
                if tracker is not None:
                    self._end_connection(item.source, tracker)
                if self._recorder:
                    self._recorder.flush(item.source.name)
                continue
            if tracker is None or smoother is None:
                tracker = Tracker(
                    item.source.name, self._policies[item.source.name], self._detector, HOP_S, self._listeners
                )
                smoother = Smoother(HOP_S)
                self._connections[item.source] = (item.connection, tracker, smoother)
            window = smoother.smooth(next(scored))
            tracker.add(window, item.ended_at)
            self._note_quiet(item.source.name, window)
            item.source.note_silence(window.is_silent, window.end)
            if self._page:
                self._page.follow(item.source.name, item.window.samples, window, tracker.current, item.ended_at)
            if self._recorder:
                names = [name for name, _ in self._detector.tags(window.embedding)] if not window.is_silent else []
                assert item.sound is not None  # every source has a buffer where there is a recorder
                self._recorder.follow(item.source.name, item.sound, window, names, tracker.current)

    def _end_connection(self, source: Source, tracker: Tracker) -> None:
        tracker.finish()
        del self._connections[source]
        if self._page:
            self._page.flush(source.name)


def check_config(config: Config, known: tuple[str, ...]) -> None:
    """Raises UserError for what no new try would mend: a missing program, package or file, an unknown category.

    ``known`` are the detector's categories.
    """
    for source in config.sources:
        check_can_open(source)
    if config.page:
        from danger_safe.live.page_service import check_page  # only where its packages are

        check_page(config)
    for name in config.categories:
        if known and name not in known:
            nearest = ", ".join(difflib.get_close_matches(name, known, 3)) or ", ".join(known)
            raise UserError(f"[categories]: the detector knows no {name}: {nearest}")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
