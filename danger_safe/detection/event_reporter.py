"""Reports the events of one recording to a writer, as soon as they are known."""

import time
from difflib import get_close_matches

from danger_safe.audio.read_ahead import ReadAhead
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.errors import UserError
from danger_safe.detection.detector import Detector, Tagger
from danger_safe.detection.events import Event, EventFinder
from danger_safe.detection.writers import Summary, Writer


class EventReporter:
    """Finds a recording's events, names their categories and reports those that the user asked for.

    All of them are added to the summary. Events of a live recording are also reported when they start and end.
    """

    def __init__(
        self,
        finder: EventFinder,
        tagger: Tagger,
        summary: Summary,
        writer: Writer,
        live: ReadAhead | None = None,
        only: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
    ):
        """Set up the report of one recording.

        Args:
            finder: Finds the events in the scored windows.
            tagger: Names the category of an event.
            summary: Collects the events.
            writer: Prints them.
            live: The source of a live recording, which knows when its sound arrived.
            only: Categories to report; empty for all.
            ignore: Categories not to report.
        """
        self._finder, self._tagger, self._summary, self._writer = finder, tagger, summary, writer
        self._live, self._only, self._ignore = live, only, ignore
        self._is_open = False  # the start of the current event was reported

    @property
    def has_danger(self) -> bool:
        """Whether any event was reported, the current one included."""
        return self._is_open or bool(self._summary.events)

    def add(self, window: ScoredWindow) -> None:
        """Process the next window."""
        for event in self._finder.add(window):
            self.on_event_end(event)
        if self._live and not self._is_open and (event := self._finder.open_event) is not None:
            self.on_event_start(event)

    def finish(self) -> None:
        """Report the event that is open at the end of the recording."""
        for event in self._finder.finish():
            self.on_event_end(event)

    def on_event_start(self, event: Event) -> None:
        """Report that an event of a live recording has started, if it is one that was asked for."""
        if self._is_wanted(event):
            self._is_open = True
            self._writer.on_event_start(self._summary, event, self._seconds_since(event.start))

    def on_event_end(self, event: Event) -> None:
        """Report an event that is over, if it is one that was asked for or its start was reported."""
        if self._is_wanted(event) or self._is_open:
            self._summary.events.append(event)
            if self._live:
                self._writer.on_event_end(self._summary, event, self._seconds_since(event.end))
        event.embedding = event.embedding[:0]  # a stream may collect events for days: free the window's memory
        self._is_open = False

    def _seconds_since(self, moment: float) -> float:
        """Return how long ago the sound at ``moment`` seconds of a live recording arrived."""
        assert self._live is not None  # only live events are reported with their time
        return time.monotonic() - self._live.arrival_time(moment)

    def _is_wanted(self, event: Event) -> bool:
        """Name the event's categories; return whether the most similar one passes ``only`` and ``ignore``."""
        event.heard = self._tagger.tags(event.embedding)
        category = event.heard[0][0] if event.heard else ""
        return category not in self._ignore and (not self._only or category in self._only)


def check_categories(categories: tuple[str, ...], detector: Detector) -> None:
    """Raise UserError for a category that the detector cannot name, with the nearest ones that it can."""
    tagger = getattr(detector, "tagger", detector)
    names = getattr(tagger, "categories", None) or getattr(tagger, "names", ())
    for category in categories:
        if category not in names:
            nearest = ", ".join(get_close_matches(category, names, 3) or sorted(names))
            raise UserError(f"{detector.name} names no {category} (nearest: {nearest or 'it names nothing'})")
