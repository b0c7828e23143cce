"""The listening service: the sources, one engine for all of them, and the recipients of alarms."""

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
from danger_safe.live.alarms import EventListener, LiveEvent, Policy, Tracker, default_threshold
from danger_safe.live.alerts import Command, Webhook
from danger_safe.live.config import Config
from danger_safe.live.event_log import EventLog
from danger_safe.live.feeds import check_can_open
from danger_safe.live.heartbeat import Heartbeat
from danger_safe.live.learning import Learner
from danger_safe.live.mqtt import Mqtt
from danger_safe.live.recorder import Recorder
from danger_safe.live.sources import QueuedWindow, Source, WindowQueue
from models.engine import Engine
from models.mnn_network import NetworkError

TICK_S = 0.5  # seconds between two checks for stalled sources
CLOSE_S = 5.0  # seconds that sending the last messages may take


def say(message: str) -> None:
    """Print a message about the service itself to stderr, with the time."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {one_line(message)}", file=sys.stderr, flush=True)


class Terminal:
    """Prints a line to stdout when an alarm starts and when an event ends."""

    @staticmethod
    def on_alarm_start(event: LiveEvent) -> None:
        """Print that an alarm has started."""
        time_of_day = _format_clock(event.started_at)
        print(f"{time_of_day}  {event.source}: DANGER, {event.category} {event.event.score:.2f}", flush=True)

    @staticmethod
    def on_event_end(event: LiveEvent) -> None:
        """Print that an event has ended, alarm or not."""
        result = "over" if event.is_alarm else f"no alarm ({event.reason})"
        details = f"{event.category} {event.event.score:.2f}, {event.ended_at - event.started_at:.1f} s"
        print(f"{_format_clock(event.ended_at)}  {event.source}: {result}, {details}", flush=True)


class Service:
    """Listens until it is stopped, or until all sources have ended by themselves."""

    def __init__(self, config: Config, engine: Engine, detector: BuiltinDetector):
        """Raises UserError if a package is missing, the log cannot be written or the page's port cannot be opened."""
        self._policies = {
            source.name: Policy(config.alarm, config.categories, default_threshold(source, config.alarm, detector))
            for source in config.sources
        }
        self._detector = detector
        self._scorer = WindowScorer(engine, detector, WINDOW_S, HOP_S)
        self._learner = Learner(Path(config.log.file).absolute().parent, detector, self._scorer)
        self._silenced: set[str] = set()  # sources whose newest window is silenced by a false alarm
        self._queue = WindowQueue()
        self.sources = [Source(source, self._queue, say, WINDOW_S, HOP_S) for source in config.sources]
        self._mqtt = Mqtt(config.mqtt, self.sources, say) if config.mqtt else None
        self._log = EventLog(Path(config.log.file), say)
        self._outboxes = [Webhook(webhook, say) for webhook in config.webhooks]
        self._outboxes += [Command(command, say) for command in config.commands]
        self._recorder = Recorder(config.record, say) if config.record else None
        if self._recorder:
            for source in self.sources:
                source.new_buffer = self._recorder.new_buffer
        self._page = None
        if config.page:
            from danger_safe.live.page_service import PageService  # its packages are only in requirements/live.txt

            self._page = PageService(config, engine, self.sources, self._policies, say)
        listeners = [Terminal(), self._log, *self._outboxes, self._recorder, self._page, self._mqtt]
        self._listeners: list[EventListener] = [listener for listener in listeners if listener]
        self._connections: dict[Source, tuple[int, Tracker, Smoother]] = {}
        self._heartbeat = Heartbeat()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Stop the service; may be called from any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Listen; at the end all events are logged and sent."""
        if self._mqtt:
            self._mqtt.start()
        self._learn()
        if self._page:
            self._page.start()
        for source in self.sources:
            source.start()
        self._heartbeat.start()
        try:
            self._listen()
        finally:
            self._close()

    def _listen(self) -> None:
        last_tick = 0.0
        while not self._stop.is_set():
            items = self._queue.take(TICK_S)
            self._process(items)
            if time.monotonic() - last_tick >= TICK_S:
                last_tick = time.monotonic()
                self._tick()
            if not items and not any(source.is_alive for source in self.sources):
                break

    def _tick(self) -> None:
        """Do what has to be done every TICK_S."""
        for source in self.sources:
            source.check()
        if self._mqtt:
            self._mqtt.update()
        self._log.flush()
        self._heartbeat.beat()
        self._learn()

    def _learn(self) -> None:
        """If there are new verdicts, switch to a detector that has learnt from them."""
        if not self._learner.has_news:
            return
        try:
            self._detector = self._scorer.detector = self._learner.learn(say)
        except (UserError, OSError) as error:  # what was learnt before stays in use
            say(f"nothing is learnt: {error}")
            return
        if self._page:
            self._page.set_detector(self._detector)
        try:
            self._learner.save()
        except (UserError, OSError) as error:
            say(f"learnt only until the end: {getattr(error, 'strerror', None) or error}")

    def _report_silenced(self, source: str, window: ScoredWindow) -> None:
        """Report once when false alarms start to silence a source's sound."""
        if not window.similar_false_alarms:
            self._silenced.discard(source)
        elif source not in self._silenced:
            self._silenced.add(source)
            say(f"{source}: {window.suppression_note}")

    def _close(self) -> None:
        self._heartbeat.stop()
        for source in self.sources:
            source.stop()
        for source in self.sources:
            source.join(1.0)
        try:
            while items := self._queue.take(0):
                self._process(items)
        except UserError as error:  # the engine has failed; the events so far are logged and sent all the same
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

    def _process(self, items: list[QueuedWindow]) -> None:
        """Score windows of any sources in one batch, and process them one by one."""
        windows = [item.window for item in items if item.window is not None]
        try:
            scored = iter(self._scorer.score_batch(windows))
        except NetworkError as error:  # its process was killed, perhaps for lack of memory: the retry starts a new one
            say(str(error))
            scored = iter(self._scorer.score_batch(windows))
        for item in items:
            number, tracker, smoother = self._connections.get(item.source, (0, None, None))
            if tracker is not None and number != item.connection:
                self._end_connection(item.source, tracker)
                tracker = None
            if item.window is None:
                if tracker is not None:
                    self._end_connection(item.source, tracker)
                if self._recorder:
                    self._recorder.on_disconnect(item.source.name)
                continue
            if tracker is None or smoother is None:
                tracker = Tracker(
                    item.source.name, self._policies[item.source.name], self._detector, HOP_S, self._listeners
                )
                smoother = Smoother(HOP_S)
                self._connections[item.source] = (item.connection, tracker, smoother)
            window = smoother.smooth(next(scored))
            tracker.add(window, item.ended_at)
            self._report_silenced(item.source.name, window)
            item.source.note_silence(window.is_silent, window.end)
            if self._page:
                self._page.on_window(item.source.name, item.window.samples, window, tracker.current, item.ended_at)
            if self._recorder:
                names = [name for name, _ in self._detector.tags(window.embedding)] if not window.is_silent else []
                assert item.sound is not None, "every source has a buffer if there is a recorder"
                self._recorder.on_window(item.source.name, item.sound, window, names, tracker.current)

    def _end_connection(self, source: Source, tracker: Tracker) -> None:
        tracker.finish()
        del self._connections[source]
        if self._page:
            self._page.on_disconnect(source.name)


def check_config(config: Config, known: tuple[str, ...]) -> None:
    """Raise UserError for a problem that a retry cannot solve: a missing program, package or file, an unknown category.

    ``known``: the detector's categories.
    """
    for source in config.sources:
        check_can_open(source)
    if config.page:
        from danger_safe.live.page_service import check_page  # its packages are only in requirements/live.txt

        check_page(config)
    for name in config.categories:
        if known and name not in known:
            nearest = ", ".join(difflib.get_close_matches(name, known, 3)) or ", ".join(known)
            raise UserError(f"[categories]: the detector knows no {name}: {nearest}")


def _format_clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
