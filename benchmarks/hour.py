"""One hour of ordinary sound with twelve sirens in it: are they found, when, and what else raises an alarm?

    python benchmarks/hour.py --dataset sounds_that_nothing_has_heard

Sirens are 6 to 12 s long, from as loud as the loudest
scenes (-20 dB) to 10 dB over. Prints a line a siren, false alarms by kind of scene, time and memory.
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
SIREN_LOUDNESS = (-20.0, -10.0)  # dB of full scale, RMS


def main() -> None:
    args = parse()
    same = read_same(args.same)
    labels = read_mappings(MAPPINGS)
    clips = [clip for folder in args.dataset for clip in read_clips(folder)]
    name = {clip: same.get(clip.category, clip.category) for clip in clips}
    scenes = set(args.scenes or labels)
    safe = [clip for clip in clips if labels[name[clip]] == 0 and name[clip] in scenes]
    rng = np.random.default_rng(args.seed)
    sirens = plant([clip for clip in clips if name[clip] == "siren"], args.minutes * 60, rng)
    recording = Soundscape(safe, args.minutes * 60, args.seed, events=sirens)

    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(open_engine(args.checkpoint, "cpu", os.cpu_count() or 1))
        detector = replace(load_builtin(args.detector), head=engine.head)
        scorer = stack.enter_context(WindowScorer(engine, detector, WINDOW_S, HOP_S))
        seen = sum(seen_clips(clips, engine.info.fingerprints, os.cpu_count() or 1))
        finder, events = EventFinder(EventConfig(detector.threshold), HOP_S), []
        for window in scorer.score_recording(recording.chunks()):
            events += finder.add(window)
        events += finder.finish()
    seconds = time.monotonic() - began
    report = judge(events, [(start, start + len(s) / SAMPLE_RATE) for start, s in sirens], recording.background)
    report |= {
        "clips": len(clips), "of them heard by the network in training": seen, "minutes": args.minutes,
        "seconds to listen": round(seconds, 1),
        "peak memory of this process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip
    print(json.dumps(report, indent=1))


def plant(sirens: list[Clip], seconds: float, rng: np.random.Generator) -> list[tuple[float, np.ndarray]]:
    """(start, samples) of sirens, one somewhere in each twelfth of the recording; without silence around them."""
    planted = []
    for number in range(SIRENS):
        sound = read_clip(sirens[rng.integers(len(sirens))].path)
        loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max() / 20)
        sound = np.tile(sound[loud[0] : loud[-1] + 1], 40)[: round(rng.uniform(6, 12) * SAMPLE_RATE)]
        sound *= 10 ** (rng.uniform(*SIREN_LOUDNESS) / 20) / np.sqrt(np.mean(np.square(sound)))
        planted.append(((number + rng.uniform(0.2, 0.8)) * seconds / SIRENS, sound))
    return planted


def judge(events: list[Event], sirens: list[tuple[float, float]], scenes: list[tuple[float, float, Clip]]) -> dict:
    """What was found of the sirens, and what else was."""

    def overlaps(event: Event, start: float, end: float) -> bool:
        return event.start < end and event.end > start

    lines, single, in_time = [], 0, 0
    for start, end in sirens:
        hits = [event for event in events if overlaps(event, start, end)]
        late = hits[0].start - start if hits else None
        single += len(hits) == 1
        in_time += bool(hits) and abs(late) <= 1
        lines.append({"start": round(start, 1), "events": len(hits), "begins": hits and round(late, 2)})
    false = [event for event in events if not any(overlaps(event, *siren) for siren in sirens)]
    heard = Counter(next((clip.category for a, b, clip in scenes if a <= event.peak < b), "") for event in false)
    hours = sum(end - start for start, end, _ in scenes) / 3600
    return {
        "sirens": lines, "found": sum(bool(line["events"]) for line in lines), "as one event": single,
        "begun within a second": in_time, "false alarms an hour": round(len(false) / hours, 1),
        "false alarms in scenes of": dict(heard.most_common()),
    }  # fmt: skip


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", type=Path, nargs="+", required=True, help="folders of sounds")
    add("--same", type=Path, default=Path(__file__).parent.parent / "models" / "compact_same.toml")
    add("--checkpoint", default="compact", help="the network")
    add("--detector", type=Path, default=None, help="its detector (default: the built-in one)")
    add(
        "--scenes",
        nargs="+",
        default=None,
        metavar="CATEGORY",
        help="make the hour of these (default: all that is safe)",
    )
    add("--minutes", type=float, default=60.0)
    add("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
