"""Run the detector on an hour of ordinary sound with twelve sirens; report detections, delays and false alarms.

    python benchmarks/hour.py --dataset unseen_sounds

Sirens are 6 to 12 s long, and 0 to 10 dB louder than the loudest background (-20 dB). Prints one line per siren, false
alarms by category of the background, time and memory.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from danger_safe.audio.decode import SAMPLE_RATE, read_clip
from danger_safe.data.categories import read_mappings, read_same
from danger_safe.data.clips import Clip, read_clips
from danger_safe.data.fingerprint import seen_clips
from danger_safe.data.soundscape import Soundscape
from danger_safe.detection.detector import load_builtin
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.detection.scorer import HOP_S, WINDOW_S, WindowScorer
from models.engine import open_engine
from tools.model_card import MAPPINGS

SIRENS = 12
SIREN_RMS_DB = (-20.0, -10.0)  # dB of full scale


def main() -> None:
    args = parse()
    same = read_same(args.same)
    labels = read_mappings(MAPPINGS)
    clips = [clip for folder in args.dataset for clip in read_clips(folder)]
    category = {clip: same.get(clip.category, clip.category) for clip in clips}
    backgrounds = set(args.background or labels)
    safe = [clip for clip in clips if labels[category[clip]] == 0 and category[clip] in backgrounds]
    rng = np.random.default_rng(args.seed)
    sirens = place_sirens([clip for clip in clips if category[clip] == "siren"], args.minutes * 60, rng)
    recording = Soundscape(safe, args.minutes * 60, args.seed, events=sirens)

    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(open_engine(args.checkpoint, "cpu", os.cpu_count() or 1))
        detector = replace(load_builtin(args.detector), head=engine.head)
        scorer = stack.enter_context(WindowScorer(engine, detector, WINDOW_S, HOP_S))
        seen = sum(seen_clips(clips, engine.info.fingerprints, os.cpu_count() or 1))
        finder, events = EventFinder(EventConfig(detector.threshold), HOP_S), []
        for window in scorer.score_recording(recording.chunks()):
            events += finder.add(window)
        events += finder.finish()
    seconds = time.monotonic() - started
    report = summarise(events, [(start, start + len(s) / SAMPLE_RATE) for start, s in sirens], recording.background)
    report |= {
        "clips": len(clips), "seen in training": seen, "minutes": args.minutes,
        "processing time, s": round(seconds, 1),
        "peak memory of this process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip
    print(json.dumps(report, indent=1))


def place_sirens(sirens: list[Clip], seconds: float, rng: np.random.Generator) -> list[tuple[float, np.ndarray]]:
    """Return (start in seconds, samples) of trimmed sirens, one at a random time in each twelfth of the recording."""
    placed = []
    for number in range(SIRENS):
        sound = read_clip(sirens[rng.integers(len(sirens))].path)
        audible = np.flatnonzero(np.abs(sound) > np.abs(sound).max() / 20)
        sound = np.tile(sound[audible[0] : audible[-1] + 1], 40)[: round(rng.uniform(6, 12) * SAMPLE_RATE)]
        sound *= 10 ** (rng.uniform(*SIREN_RMS_DB) / 20) / np.sqrt(np.mean(np.square(sound)))
        placed.append(((number + rng.uniform(0.2, 0.8)) * seconds / SIRENS, sound))
    return placed


def summarise(
    events: list[Event], sirens: list[tuple[float, float]], background: list[tuple[float, float, Clip]]
) -> dict:
    """Compare events with the sirens; count false alarms by category of the background.

    Args:
        events: what the detector found.
        sirens: (start, end) in seconds.
        background: (start, end, clip), start and end in seconds.
    """

    def overlaps(event: Event, start: float, end: float) -> bool:
        return event.start < end and event.end > start

    lines, single, in_time = [], 0, 0
    for start, end in sirens:
        hits = [event for event in events if overlaps(event, start, end)]
        delay = hits[0].start - start if hits else None
        single += len(hits) == 1
        in_time += bool(hits) and abs(delay) <= 1
        lines.append({"start": round(start, 1), "events": len(hits), "delay": hits and round(delay, 2)})
    false = [event for event in events if not any(overlaps(event, *siren) for siren in sirens)]
    categories = Counter(next((c.category for a, b, c in background if a <= event.peak < b), "") for event in false)
    hours = sum(end - start for start, end, _ in background) / 3600
    return {
        "sirens": lines, "found": sum(bool(line["events"]) for line in lines), "as one event": single,
        "start within a second": in_time, "false alarms per hour": round(len(false) / hours, 1),
        "false alarms by background": dict(categories.most_common()),
    }  # fmt: skip


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset", type=Path, nargs="+", required=True, help="folders of sounds")
    add("--same", type=Path, default=Path(__file__).parent.parent / "models" / "compact_same.toml")
    add("--checkpoint", default="compact", help="the network")
    add("--detector", type=Path, default=None, help="its detector (default: the built-in one)")
    add("--background", nargs="+", default=None, metavar="CATEGORY", help="safe categories to use (default: all)")
    add("--minutes", type=float, default=60.0)
    add("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
