"""The part of the service behind the page: the sources' states, events, their windows and verdicts, the web server."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.audioset import find_tagger
from danger_safe.detection.detector import Detector
from danger_safe.detection.personal import PersonalDetector
from danger_safe.live.alarms import LiveEvent, Policy
from danger_safe.live.config import Config
from danger_safe.live.event_windows import WindowStore
from danger_safe.live.monitor import Monitor
from danger_safe.live.page import Page
from danger_safe.live.page_server import open_socket
from danger_safe.live.page_view import EventList, View
from danger_safe.live.sources import Source
from danger_safe.live.verdicts import VERDICTS_FILE, WINDOWS_FOLDER, read_verdicts
from models.engine import Engine


class PageService:
    """Collects what the page shows. Any failure in here is reported once and does not stop the listening."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        sources: list[Source],
        policies: dict[str, Policy],
        say: Callable[[str], None],
    ):
        """Open the page's port.

        Args:
            config: All settings; they must have a page.
            engine: The network that makes the embeddings.
            sources: The sources.
            policies: The policy of each source by its name.
            say: Reports problems.

        Raises:
            UserError: The port cannot be opened, a package is missing or the verdicts cannot be read.
        """
        assert config.page is not None
        log = Path(config.log.file)
        file, windows = log.with_name(VERDICTS_FILE), log.with_name(WINDOWS_FOLDER)
        verdicts = read_verdicts(file)
        events, monitor = EventList(log, verdicts), Monitor()
        recordings = Path(config.record.folder) if config.record else None
        tagger = find_tagger(engine.info, engine.head)
        view = View(sources, policies, config.alarm, monitor, events, tagger, recordings, windows)
        self._page = Page(config.page, view, verdicts, file, config.record, say)
        self._store = WindowStore(windows, engine.info.sha256, verdicts.__contains__, say)
        self._policies, self._monitor, self._events, self._say = policies, monitor, events, say
        self._has_reported = False  # a failure

    def start(self) -> None:
        """Start to answer requests."""
        self._page.start()
        self._say(f"the page: {self._page.address}")

    def on_alarm_start(self, event: LiveEvent) -> None:
        """Do nothing: the state of the source shows the alarm."""

    def on_event_end(self, event: LiveEvent) -> None:
        """List an event, alarm or not, and store its windows."""
        self._guard(lambda: (self._store.on_event_end(event), self._events.add(event)))

    def on_window(
        self, source: str, samples: np.ndarray, window: ScoredWindow, event: LiveEvent | None, at: float
    ) -> None:
        """Process the next window of a source.

        Args:
            source: Its name.
            samples: The window's samples, (samples,) or (samples, channels).
            window: The window.
            event: The source's current event, if there is one.
            at: Wall-clock time of the window's last sample, seconds since 1970.
        """
        self._guard(
            lambda: (
                self._store.on_window(source, window, event),
                self._monitor.update(source, samples, window, event, self._policies[source], at),
            )
        )

    def set_detector(self, detector: Detector) -> None:
        """Show what a new detector has learnt."""
        self._monitor.learnt = detector if isinstance(detector, PersonalDetector) else None

    def on_disconnect(self, source: str) -> None:
        """Finish the events of a connection that has ended."""
        self._guard(lambda: (self._store.on_disconnect(source), self._monitor.remove(source)))

    def close(self) -> None:
        """Close the page, and write the pending events."""
        self._guard(self._page.close)
        self._guard(self._store.close)

    def _guard(self, action: Callable[[], object]) -> None:
        """Run an action; report its first failure."""
        try:
            action()
        except Exception as error:
            if not self._has_reported:
                self._has_reported = True
                self._say(f"the page: {type(error).__name__}: {error}; listening goes on")


def check_page(config: Config) -> None:
    """Raise UserError if the page's port cannot be opened or a package is missing."""
    assert config.page is not None
    open_socket(config.page.host, config.page.port).close()
