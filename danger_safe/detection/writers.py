"""What predict_danger.py prints: a table to read, a row a window, a line of JSON a file, or Audacity's labels."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from danger_safe.audio.pcm import format_time
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.atomic import csv_line
from danger_safe.core.terminal import one_json_line, one_line
from danger_safe.detection.events import Event
from danger_safe.detection.scorer import SILENCE_AMPLITUDE

SILENCE = 20 * math.log10(SILENCE_AMPLITUDE)  # dB of full scale
MOSTLY = 0.5  # of a recording's windows unknown: then "Safe" would claim too much


@dataclass
class Summary:
    """What one recording came to."""

    file: str
    threshold: float
    seconds: float = 0.0
    highest: float = 0.0  # smoothed score of any window
    events: list[Event] = field(default_factory=list)
    windows: int = 0
    unknown_windows: int = 0
    silent_windows: int = 0
    broke_off: str = ""  # why no more of it could be heard
    quiet: list[tuple[float, float, int]] = field(default_factory=list)  # from, to (s): resembles so many false alarms

    @property
    def score(self) -> float:
        """That of the surest event; without one, the highest."""
        return max((event.score for event in self.events), default=self.highest)

    @property
    def unknown(self) -> float:
        """Fraction of the windows that sound like nothing that the detector was taught."""
        return self.unknown_windows / max(self.windows, 1)

    @property
    def silent(self) -> float:
        """Fraction of the windows in which nothing is loud enough to be judged."""
        return self.silent_windows / max(self.windows, 1)

    @property
    def verdict(self) -> str:
        """Danger where an event was heard, whatever else; Unknown where at least half of it is; else Safe."""
        if self.events:
            return "Danger"
        return "Unknown" if self.unknown >= MOSTLY else "Safe"

    def add(self, window: ScoredWindow) -> None:
        """Take a window into account."""
        self.seconds = window.end
        self.highest = max(self.highest, window.smoothed_score)
        self.windows += 1
        self.unknown_windows += window.is_unknown
        self.silent_windows += window.is_silent
        if window.similar_false_alarms:
            start, end, count = window.start, window.end, window.similar_false_alarms
            if self.quiet and start <= self.quiet[-1][1]:
                start, count = self.quiet[-1][0], max(count, self.quiet.pop()[2])
            self.quiet.append((start, end, count))


class Writer:
    """Prints answers. Of a live recording, events are told as they begin and end, ``ago`` seconds after their start or
    end."""

    def window(self, summary: Summary, window: ScoredWindow, live: bool) -> None:
        """A window was heard."""

    def begun(self, summary: Summary, event: Event, ago: float) -> None:
        """An event of a live recording goes on."""

    def ended(self, summary: Summary, event: Event, ago: float) -> None:
        """An event of a live recording is over."""

    def done(self, summary: Summary) -> None:
        """A recording was heard to its end."""


class Table(Writer):
    """For reading."""

    def begun(self, summary: Summary, event: Event, ago: float) -> None:
        line = f"{wall_clock(ago)}  DANGER begins  {event.score:.2f}  {format_time(event.start)}  {names(event.heard)}"
        print(line.rstrip(), flush=True)

    def ended(self, summary: Summary, event: Event, ago: float) -> None:
        times = f"{format_time(event.start)} – {format_time(event.end)}"
        print(
            f"{wall_clock(ago)}  DANGER ends    {event.score:.2f}  {times}  {names(event.heard)}".rstrip(), flush=True
        )

    def done(self, summary: Summary) -> None:
        verdict = "DANGER" if summary.events else summary.verdict
        name = "stream" if summary.file == "-" else one_line(summary.file)
        strange = f"; {summary.unknown:.0%} like nothing in training" if summary.unknown_windows else ""
        strange += f"; nothing in it is louder than {SILENCE:.0f} dB: silence" if summary.silent == 1 else ""
        strange += "; not all of it was heard" if summary.broke_off else ""
        print(f"{verdict:<7}  {summary.score:.2f}  {name}  ({format_time(summary.seconds)}{strange})", flush=True)
        for event in summary.events:
            times = f"{format_time(event.start)} – {format_time(event.end)}"
            print(f"         {event.score:.2f}  {times}  {names(event.heard)}".rstrip(), flush=True)
        for start, end, count in summary.quiet:
            alarms = f"{count} false alarm{'s' if count > 1 else ''}"
            print(
                f"         quiet since learnt  {format_time(start)} – {format_time(end)}  resembles {alarms}",
                flush=True,
            )


class Csv(Writer):
    """A row a window, as soon as it is known."""

    def __init__(self) -> None:
        print("file,start,end,score,danger,unknown")

    def window(self, summary: Summary, window: ScoredWindow, live: bool) -> None:
        danger = int(window.smoothed_score >= summary.threshold)
        times = (f"{window.start:.3f}", f"{window.end:.3f}")
        print(csv_line((summary.file, *times, f"{window.smoothed_score:.6f}", danger, int(window.is_unknown))))
        if live:
            sys.stdout.flush()

    def done(self, summary: Summary) -> None:
        sys.stdout.flush()


class Json(Writer):
    """A line a file, at its end; of a live recording, also one when an event begins and one when it ends."""

    def begun(self, summary: Summary, event: Event, ago: float) -> None:
        fields = self._fields(event)
        del fields["end"], fields["peak"]  # not known yet
        line = {"file": summary.file, "event": "begin", "time": wall_clock(ago)} | fields
        print(one_json_line(line), flush=True)

    def ended(self, summary: Summary, event: Event, ago: float) -> None:
        line = {"file": summary.file, "event": "end", "time": wall_clock(ago)} | self._fields(event)
        print(one_json_line(line), flush=True)

    def _fields(self, event: Event) -> dict:
        return {
            "start": round(event.start, 3), "end": round(event.end, 3), "peak": round(event.peak, 3),
            "score": round(event.score, 6),
            "heard": [{"category": name, "similarity": round(value, 4)} for name, value in event.heard],
        }  # fmt: skip

    def done(self, summary: Summary) -> None:
        events = [self._fields(event) for event in summary.events]
        line = {
            "file": summary.file, "seconds": round(summary.seconds, 3), "verdict": summary.verdict,
            "score": round(summary.score, 6), "threshold": round(summary.threshold, 6),
            "unknown": round(summary.unknown, 4), "silent": round(summary.silent, 4),
            "incomplete": bool(summary.broke_off), "events": events,
        }  # fmt: skip
        if summary.quiet:
            keys = ("start", "end", "false_alarms")
            line["quiet_since_learnt"] = [dict(zip(keys, stretch, strict=True)) for stretch in summary.quiet]
        print(one_json_line(line), flush=True)


class Audacity(Writer):
    """A label track: File > Import > Labels. Of a live recording, a label when its event has ended."""

    def __init__(self) -> None:
        self._told: set[float] = set()  # when events ended that were told already

    def ended(self, summary: Summary, event: Event, ago: float) -> None:
        label = f"danger {event.score:.2f} {names(event.heard, 1)}".strip()
        print(f"{event.start:.6f}\t{event.end:.6f}\t{label}", flush=True)
        self._told.add(event.end)

    def done(self, summary: Summary) -> None:
        for event in summary.events:
            if event.end not in self._told:
                self.ended(summary, event, 0.0)


FORMATS = {"table": Table, "csv": Csv, "json": Json, "audacity": Audacity}


def wall_clock(ago: float) -> str:
    """The time of day so many seconds ago, with date and zone: ``2026-11-26T21:05:07+01:00``."""
    return (datetime.now().astimezone() - timedelta(seconds=ago)).isoformat(timespec="seconds")


def names(heard: Iterable[tuple[str, float]], most: int = 2) -> str:
    """What it sounded like: ``siren 0.83, alarm 0.71``."""
    return ", ".join(f"{name} {similarity:.2f}" for name, similarity in islice(heard, most))
