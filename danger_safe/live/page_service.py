"""What the service has besides for the page: the newest of each source, the windows of events, verdicts, and the page
itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.audioset import find_tagger
from danger_safe.detection.detector import Detector
from danger_safe.detection.personal import PersonalDetector
from danger_safe.live.alarms import LiveEvent, Policy
from danger_safe.live.config import Config
from danger_safe.live.event_windows import WindowKeeper
from danger_safe.live.monitor import Monitor
from danger_safe.live.page import Page
from danger_safe.live.page_server import listen
from danger_safe.live.page_view import EventList, View
from danger_safe.live.sources import Source
from danger_safe.live.verdicts import VERDICTS_FILE, WINDOWS_FOLDER, read_verdicts
from models.engine import Engine


class PageService:
    """Is told what is heard. Whatever fails in here is said once, and the listening goes on."""

    def __init__(
        self, config: Config, engine: Engine, sources: list[Source], policies: dict[str, Policy],
        say: Callable[[str], None]
    ):  # fmt: skip
        """Raises UserError where the port cannot be had, a package is missing or the verdicts cannot be read."""
        assert config.page is not None  # else there is no page to serve
        log = Path(config.log.file)
        file, windows = log.with_name(VERDICTS_FILE), log.with_name(WINDOWS_FOLDER)
        verdicts = read_verdicts(file)
        events, monitor = EventList(log, verdicts), Monitor()
        recordings = Path(config.record.folder) if config.record else None
        tags = find_tagger(engine.info, engine.head)
        view = View(sources, policies, config.alarm, monitor, events, tags, recordings, windows)
        self._page = Page(config.page, view, verdicts, file, config.record, say)
        self._keeper = WindowKeeper(windows, engine.info.sha256, verdicts.__contains__, say)
        self._policies, self._monitor, self._events, self._say = policies, monitor, events, say
        self._is_told = False

    def start(self) -> None:
        """Open the page."""
        self._page.start()
        self._say(f"the page: {self._page.address}")

    def begin(self, event: LiveEvent) -> None:
        """An alarm begins."""

    def end(self, event: LiveEvent) -> None:
        """An event has ended, alarm or not."""
        self._safely(lambda: (self._keeper.end(event), self._events.end(event)))

    def follow(
        self, source: str, samples: np.ndarray, window: ScoredWindow, event: LiveEvent | None, at: float
    ) -> None:
        """A window of a source, its samples, the event that goes on, and the wall-clock time of its last sample."""
        self._safely(
            lambda: (
                self._keeper.follow(source, window, event),
                self._monitor.note(source, samples, window, event, self._policies[source], at),
            )
        )

    def use(self, detector: Detector) -> None:
        """The detector is another one from now on."""
        self._monitor.learnt = detector if isinstance(detector, PersonalDetector) else None

    def flush(self, source: str) -> None:
        """A connection has ended."""
        self._safely(lambda: (self._keeper.flush(source), self._monitor.forget(source)))

    def close(self) -> None:
        """Close the page, and write what waits."""
        self._safely(self._page.close)
        self._safely(self._keeper.close)

    def _safely(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            if not self._is_told:
                self._is_told = True
                self._say(f"the page: {type(error).__name__}: {error}; listening goes on")


def check_page(config: Config) -> None:
    """Raises UserError where the page's port cannot be had or a package is missing."""
    assert config.page is not None  # else there is no page to check
    listen(config.page.host, config.page.port).close()
