"""The output formats of predict_danger.py: a table, CSV with a row per window, JSON with a line per file, Audacity."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from danger_safe.audio.pcm import format_time
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.atomic import csv_line
from danger_safe.core.terminal import one_json_line, one_line
from danger_safe.detection.events import Event
from danger_safe.detection.scorer import SILENCE_AMPLITUDE

SILENCE_DB = 20 * math.log10(SILENCE_AMPLITUDE)  # dB of full scale
MIN_UNKNOWN_FRACTION = 0.5  # of a recording's windows: from there on the verdict is Unknown rather than Safe


class QuietSpan(NamedTuple):
    """A stretch that would be a danger, but is similar to false alarms of this household."""

    start: float  # seconds
    end: float
    false_alarms: int  # the largest number that any of its windows is similar to


@dataclass
class Summary:
    """The result for one recording."""

    file: str
    threshold: float
    seconds: float = 0.0
    max_score: float = 0.0  # the highest smoothed score of any window
    events: list[Event] = field(default_factory=list)
    windows: int = 0
    unknown_windows: int = 0
    silent_windows: int = 0
    failure: str = ""  # why the recording could not be read to its end
    quiet_spans: list[QuietSpan] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The score of the highest-scoring event; if there is none, that of the highest-scoring window."""
        return max((event.score for event in self.events), default=self.max_score)

    @property
    def unknown_fraction(self) -> float:
        """Fraction of the windows that sound like nothing in training."""
        return self.unknown_windows / max(self.windows, 1)

    @property
    def silent_fraction(self) -> float:
        """Fraction of the windows that are too quiet to be judged."""
        return self.silent_windows / max(self.windows, 1)

    @property
    def verdict(self) -> str:
        """Danger if there is any event; otherwise Unknown if at least half of the windows are; otherwise Safe."""
        if self.events:
            return "Danger"
        return "Unknown" if self.unknown_fraction >= MIN_UNKNOWN_FRACTION else "Safe"

    def add(self, window: ScoredWindow) -> None:
        """Count a window."""
        self.seconds = window.end
        self.max_score = max(self.max_score, window.smoothed_score)
        self.windows += 1
        self.unknown_windows += window.is_unknown
        self.silent_windows += window.is_silent
        if window.similar_false_alarms:
            start, count = window.start, window.similar_false_alarms
            if self.quiet_spans and start <= self.quiet_spans[-1].end:
                before = self.quiet_spans.pop()
                start, count = before.start, max(count, before.false_alarms)
            self.quiet_spans.append(QuietSpan(start, window.end, count))


class Writer:
    """Prints results; a subclass overrides the methods that it needs.

    Events of a live recording are written when they start and end, ``seconds_ago`` seconds after their sound arrived.
    """

    def on_window(self, summary: Summary, window: ScoredWindow, is_live: bool) -> None:
        """Write a window, as soon as it is scored."""

    def on_event_start(self, summary: Summary, event: Event, seconds_ago: float) -> None:
        """Write that an event of a live recording has started."""

    def on_event_end(self, summary: Summary, event: Event, seconds_ago: float) -> None:
        """Write that an event of a live recording has ended."""

    def on_recording_end(self, summary: Summary) -> None:
        """Write the result for a recording."""


class Table(Writer):
    """A table to read."""

    def on_event_start(self, summary: Summary, event: Event, seconds_ago: float) -> None:
        start = f"{event.score:.2f}  {format_time(event.start)}"
        print(f"{wall_clock(seconds_ago)}  DANGER begins  {start}  {format_tags(event.heard)}".rstrip(), flush=True)

    def on_event_end(self, summary: Summary, event: Event, seconds_ago: float) -> None:
        print(f"{wall_clock(seconds_ago)}  DANGER ends    {self._format_event(event)}", flush=True)

    def on_recording_end(self, summary: Summary) -> None:
        verdict = "DANGER" if summary.events else summary.verdict
        name = "stream" if summary.file == "-" else one_line(summary.file)
        notes = f"; {summary.unknown_fraction:.0%} like nothing in training" if summary.unknown_windows else ""
        if summary.silent_fraction == 1:
            notes += f"; nothing in it is louder than {SILENCE_DB:.0f} dB: silence"
        if summary.failure:
            notes += "; not all of it was heard"
        print(f"{verdict:<7}  {summary.score:.2f}  {name}  ({format_time(summary.seconds)}{notes})", flush=True)
        for event in summary.events:
            print(f"         {self._format_event(event)}", flush=True)
        for span in summary.quiet_spans:
            alarms = f"{span.false_alarms} reported false alarm{'s' if span.false_alarms > 1 else ''}"
            times = f"{format_time(span.start)} – {format_time(span.end)}"
            print(f"         suppressed  {times}  similar to {alarms}", flush=True)

    @staticmethod
    def _format_event(event: Event) -> str:
        times = f"{format_time(event.start)} – {format_time(event.end)}"
        return f"{event.score:.2f}  {times}  {format_tags(event.heard)}".rstrip()


class Csv(Writer):
    """A row per window."""

    def __init__(self) -> None:
        print("file,start,end,score,danger,unknown")

    def on_window(self, summary: Summary, window: ScoredWindow, is_live: bool) -> None:
        danger = int(window.smoothed_score >= summary.threshold)
        times = (f"{window.start:.3f}", f"{window.end:.3f}")
        print(csv_line((summary.file, *times, f"{window.smoothed_score:.6f}", danger, int(window.is_unknown))))
        if is_live:
            sys.stdout.flush()

    def on_recording_end(self, summary: Summary) -> None:
        sys.stdout.flush()


class Json(Writer):
    """A line per file; for a live recording also a line when an event starts and one when it ends."""

    def on_event_start(self, summary: Summary, event: Event, seconds_ago: float) -> None:
        fields = self._event_fields(event)
        del fields["end"], fields["peak"]  # not known yet
        line = {"file": summary.file, "event": "begin", "time": wall_clock(seconds_ago)} | fields
        print(one_json_line(line), flush=True)

    def on_event_end(self, summary: Summary, event: Event, seconds_ago: float) -> None:
        line = {"file": summary.file, "event": "end", "time": wall_clock(seconds_ago)} | self._event_fields(event)
        print(one_json_line(line), flush=True)

    def on_recording_end(self, summary: Summary) -> None:
        line = {
            "file": summary.file,
            "seconds": round(summary.seconds, 3),
            "verdict": summary.verdict,
            "score": round(summary.score, 6),
            "threshold": round(summary.threshold, 6),
            "unknown": round(summary.unknown_fraction, 4),
            "silent": round(summary.silent_fraction, 4),
            "incomplete": bool(summary.failure),
            "events": [self._event_fields(event) for event in summary.events],
        }
        if summary.quiet_spans:
            line["quiet_since_learnt"] = [span._asdict() for span in summary.quiet_spans]
        print(one_json_line(line), flush=True)

    @staticmethod
    def _event_fields(event: Event) -> dict:
        return {
            "start": round(event.start, 3),
            "end": round(event.end, 3),
            "peak": round(event.peak, 3),
            "score": round(event.score, 6),
            "heard": [{"category": name, "similarity": round(value, 4)} for name, value in event.heard],
        }


class Audacity(Writer):
    """A label track (File > Import > Labels); for a live recording, each label when its event has ended."""

    def __init__(self) -> None:
        self._written: set[float] = set()  # ends of the events that were written already, in seconds

    def on_event_end(self, summary: Summary, event: Event, seconds_ago: float) -> None:
        label = f"danger {event.score:.2f} {format_tags(event.heard, 1)}".strip()
        print(f"{event.start:.6f}\t{event.end:.6f}\t{label}", flush=True)
        self._written.add(event.end)

    def on_recording_end(self, summary: Summary) -> None:
        for event in summary.events:
            if event.end not in self._written:
                self.on_event_end(summary, event, 0.0)


FORMATS = {"table": Table, "csv": Csv, "json": Json, "audacity": Audacity}


def wall_clock(seconds_ago: float) -> str:
    """Return the time of day that many seconds ago, with date and zone: ``2026-11-26T21:05:07+01:00``."""
    return (datetime.now().astimezone() - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")


def format_tags(tags: Iterable[tuple[str, float]], max_count: int = 2) -> str:
    """Format the first tags: ``siren 0.83, alarm 0.71``."""
    return ", ".join(f"{name} {similarity:.2f}" for name, similarity in islice(tags, max_count))
