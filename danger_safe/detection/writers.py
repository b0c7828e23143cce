"""What predict_danger.py prints: a table to read, a row a window, a line of JSON a file, or Audacity's labels."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.atomic import csv_line
from danger_safe.core.cli import one_json_line, one_line
from danger_safe.detection.events import Event
from danger_safe.detection.scorer import AUDIBLE

SILENCE = 20 * math.log10(AUDIBLE)  # dB of full scale
MOSTLY = 0.5  # of a recording's windows unknown: then "Safe" would claim too much


@dataclass
class Summary:
    """What one recording came to."""

    file: str
    threshold: float
    seconds: float = 0.0
    score: float = 0.0  # the highest
    events: list[Event] = field(default_factory=list)
    windows: int = 0
    unknown_windows: int = 0
    silent_windows: int = 0
    broke_off: str = ""  # why no more of it could be heard

    @property
    def unknown(self) -> float:
        """Share of the windows that sound like nothing that the detector was taught."""
        return self.unknown_windows / max(self.windows, 1)

    @property
    def silent(self) -> float:
        """Share of the windows in which nothing is loud enough to be judged."""
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
        self.score = max(self.score, window.smoothed_score)
        self.windows += 1
        self.unknown_windows += window.unknown
        self.silent_windows += window.silent


class Table:
    """For reading. ``live`` recordings get a line a window, as it is heard."""

    def window(self, summary: Summary, window: ScoredWindow, heard: str, live: bool) -> None:
        if live:
            quiet = "unknown" if window.unknown else "safe"
            word = "DANGER" if window.smoothed_score >= summary.threshold else quiet
            print(f"{clock(window.end)}  {window.smoothed_score:.2f}  {word:<7}  {heard}", flush=True)

    def done(self, summary: Summary) -> None:
        verdict = "DANGER" if summary.events else summary.verdict
        name = "stream" if summary.file == "-" else one_line(summary.file)
        strange = f"; {summary.unknown:.0%} like nothing in training" if summary.unknown_windows else ""
        strange += f"; nothing in it is louder than {SILENCE:.0f} dB: silence" if summary.silent == 1 else ""
        strange += "; it breaks off here" if summary.broke_off else ""
        print(f"{verdict:<7}  {summary.score:.2f}  {name}  ({clock(summary.seconds)}{strange})", flush=True)
        for event in summary.events:
            times = f"{clock(event.start)} – {clock(event.end)}"
            print(f"         {event.score:.2f}  {times}  {names(event.heard)}".rstrip(), flush=True)


class Csv:
    """A row a window, as soon as it is known."""

    def __init__(self) -> None:
        print("file,start,end,score,danger,unknown")

    def window(self, summary: Summary, window: ScoredWindow, heard: str, live: bool) -> None:
        danger = int(window.smoothed_score >= summary.threshold)
        times = (f"{window.start:.3f}", f"{window.end:.3f}")
        print(csv_line((summary.file, *times, f"{window.smoothed_score:.6f}", danger, int(window.unknown))))
        if live:
            sys.stdout.flush()

    def done(self, summary: Summary) -> None:
        sys.stdout.flush()


class Json:
    """A line a file, at its end."""

    def window(self, summary: Summary, window: ScoredWindow, heard: str, live: bool) -> None:
        pass

    def done(self, summary: Summary) -> None:
        events = [
            {
                "start": round(event.start, 3), "end": round(event.end, 3), "peak": round(event.peak, 3),
                "score": round(event.score, 6),
                "heard": [{"category": name, "similarity": round(value, 4)} for name, value in event.heard],
            }
            for event in summary.events
        ]  # fmt: skip
        line = {
            "file": summary.file, "seconds": round(summary.seconds, 3), "verdict": summary.verdict,
            "score": round(summary.score, 6), "threshold": round(summary.threshold, 6),
            "unknown": round(summary.unknown, 4), "silent": round(summary.silent, 4),
            "incomplete": bool(summary.broke_off), "events": events,
        }  # fmt: skip
        print(one_json_line(line), flush=True)


class Audacity:
    """A label track: File > Import > Labels."""

    def window(self, summary: Summary, window: ScoredWindow, heard: str, live: bool) -> None:
        pass

    def done(self, summary: Summary) -> None:
        for event in summary.events:
            label = f"danger {event.score:.2f} {names(event.heard, 1)}".strip()
            print(f"{event.start:.6f}\t{event.end:.6f}\t{label}", flush=True)


FORMATS = {"table": Table, "csv": Csv, "json": Json, "audacity": Audacity}


def names(heard: Iterable[tuple[str, float]], most: int = 2) -> str:
    """What it sounded like: ``siren 0.83, alarm 0.71``."""
    return ", ".join(f"{name} {similarity:.2f}" for name, similarity in islice(heard, most))


def clock(seconds: float) -> str:
    """``1:02:03.5``: hours only where there are any."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    end = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{end}" if hours else f"{minutes}:{end}"
