"""A simulated week: a household whose kettle is called a danger every morning, and dangers that must still be found.

    python benchmarks/household_week.py                                       # synthesised sounds
    python benchmarks/household_week.py --household KETTLE/ DOORBELL.wav --dangers SIRENS/ --limit 12

Each household sound is heard on seven mornings: other takes, from elsewhere in the room, at another level, over other
noise. The first three alarms get the verdict "false alarm", one after the other; the mornings after those are what is
shown. Dangers are planted in the same room, alone and over the sound. --household: recordings, or folders of takes;
--dangers: recordings or folders of them; with --strangers, no shipped danger protects them, as those of the same
collection would.

Out: a table in Markdown, a row a sound.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.household_sounds import DANGERS, HOUSEHOLD, synthesise
from danger_safe.audio.decode import read_clip
from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.audio.windows import ScoredWindow, sliding_windows
from danger_safe.core import cli
from danger_safe.data.clips import list_sounds
from danger_safe.detection.detector import BuiltinDetector
from danger_safe.detection.loading import open_detector
from danger_safe.detection.personal import Learnt, LearntVerdict, PersonalDetector, personal_detector, surest_windows
from danger_safe.detection.reference import Reference
from danger_safe.detection.scorer import HOP, WINDOW, Listener, Smoother

MORNINGS = 7
VERDICTS = 3
MAX_S = 6.0  # seconds of a sound that are played
ROOM_S = 2.0  # of the room before and after it
SEED = 11


class Room:
    """Echoes and background noise of one room; the same number gives the same room."""

    def __init__(self, number: int):
        rng = np.random.default_rng([SEED, number])
        length = round(rng.uniform(0.2, 0.6) * SAMPLE_RATE)
        self._echoes = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
        self._echoes *= rng.uniform(0.3, 1) / np.sqrt(np.square(self._echoes).sum())
        self._echoes[0] = 1
        self._colour, self._level = rng.uniform(0.2, 1.2), rng.uniform(-60, -42)

    def record(self, sound: np.ndarray, rng: np.random.Generator, level: float) -> np.ndarray:
        """The sound with its peak at ``level`` (dB), played somewhere in the room: float32, (samples,)."""
        here = np.append(1, 0.2 * rng.standard_normal(200) * np.exp(-np.arange(200) / 50))  # other early echoes
        wet = fftconvolve(fftconvolve(sound[: round(MAX_S * SAMPLE_RATE)], here), self._echoes)
        wet *= 10 ** (level / 20) / max(np.abs(wet).max(), 1e-9)
        begin = round((ROOM_S + rng.uniform(0, 0.5)) * SAMPLE_RATE)
        whole = self._noise(begin + len(wet) + round(ROOM_S * SAMPLE_RATE), rng)
        whole[begin : begin + len(wet)] += wet
        return np.clip(whole, -1, 1).astype(np.float32)

    def _noise(self, size: int, rng: np.random.Generator) -> np.ndarray:
        frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20.0)
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * (frequency / 20) ** -self._colour, size)
        return noise / noise.std() * 10 ** (self._level / 20)


@dataclass
class Week:
    """What came of one household sound. Scores are smoothed ones, the highest of a recording."""

    name: str
    category: str  # that it was taken for
    mornings: np.ndarray  # (verdicts + 1, mornings) scores after so many verdicts, of the mornings after the verdicts
    alone: np.ndarray  # (verdicts + 1, dangers), planted without the sound
    over: np.ndarray  # (verdicts + 1, dangers), while the sound is there
    detector: PersonalDetector | None  # after all verdicts; None where there were not enough alarms


def live_through(
    name: str, takes: list[np.ndarray], dangers: list[np.ndarray], number: int, listener: Listener,
    builtin: BuiltinDetector
) -> Week:  # fmt: skip
    """A week of ``takes`` (samples each, played in turn) in room ``number``, with ``dangers`` planted."""
    room, rng = Room(number), np.random.default_rng([SEED, number, 1])
    mornings = [room.record(takes[day % len(takes)], rng, rng.uniform(-18, -4)) for day in range(MORNINGS)]
    alone = [room.record(danger, rng, rng.uniform(-16, -4)) for danger in dangers]
    over = [room.record(_mixed(takes[n % len(takes)], danger, rng), rng, -5) for n, danger in enumerate(dangers)]
    heard = embed([*mornings, *alone, *over], listener)
    before = [score(windows_, builtin) for windows_ in heard]
    alarms = [day for day in range(MORNINGS) if before[day] >= builtin.threshold][:VERDICTS]
    surest = max(
        (w for day in alarms for w in heard[day]), key=lambda w: builtin.scores(w.embedding[None])[0], default=None
    )
    category = builtin.tags(surest.embedding)[0][0] if surest else ""
    later = [day for day in range(MORNINGS) if day not in alarms]
    scores, detector = [before], None
    if len(alarms) == VERDICTS:
        for count in range(1, VERDICTS + 1):
            detector = taught(builtin, [heard[day] for day in alarms[:count]])
            scores.append([score(windows_, detector) for windows_ in heard])
    table = np.array(scores)
    split = [table[:, later], *np.split(table[:, MORNINGS:], 2, axis=1)]
    return Week(name, category, *split, detector)


def taught(builtin: BuiltinDetector, events: list[list[ScoredWindow]]) -> PersonalDetector:
    """The detector after these recordings' windows were called false alarms."""
    rows = [surest_windows(builtin, np.array([window.embedding for window in event])) for event in events]
    verdicts = tuple(LearntVerdict(str(n), "kitchen", "", False, "") for n in range(len(rows)))
    owner = np.repeat(np.arange(len(rows), dtype=np.int32), list(map(len, rows)))
    learnt = Learnt(builtin.checkpoint_sha256, verdicts, np.concatenate(rows), owner)
    return personal_detector(builtin, learnt).within_bounds()


def embed(recordings: list[np.ndarray], listener: Listener) -> list[list[ScoredWindow]]:
    """The windows of each recording."""
    cut = [list(sliding_windows([samples], WINDOW, HOP)) for samples in recordings]
    heard = iter(listener.score(window for one in cut for window in one))
    return [[next(heard) for _ in one] for one in cut]


def score(heard: list[ScoredWindow], detector: BuiltinDetector) -> float:
    """The highest smoothed score of a recording."""
    smoother, raw = Smoother(HOP), detector.scores(np.array([window.embedding for window in heard]))
    return max(smoother.add(w.start, 0.0 if w.is_silent else float(s)) for w, s in zip(heard, raw, strict=True))


def _mixed(sound: np.ndarray, danger: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The danger begins while the sound goes on, up to 6 dB louder or softer."""
    sound, danger = (part[: round(MAX_S * SAMPLE_RATE)] / max(np.abs(part).max(), 1e-9) for part in (sound, danger))
    begin = round(rng.uniform(0.5, 2) * SAMPLE_RATE)
    mixed = np.zeros(max(len(sound), begin + len(danger)))
    mixed[: len(sound)] += sound
    mixed[begin : begin + len(danger)] += danger * 10 ** (rng.uniform(-6, 6) / 20)
    return mixed


def row(week: Week, threshold: float, shipped: Reference) -> str:
    """A row of the table. ``shipped``: the clips that the detector was judged on."""
    mean = " | ".join(f"{scores.mean():.2f}" for scores in week.mornings)
    if week.detector is None:
        count = int((week.mornings[0] >= threshold).sum())
        return f"| {week.name} | {week.category} | {mean} | | | | {count}: too few | | | |"
    was = week.alone[0] >= threshold
    lost = [f"{int((was & (scores[-1] < threshold)).sum())} of {int(was.sum())}" for scores in (week.alone, week.over)]
    alarms = [int((scores >= threshold).sum()) for scores in (week.mornings[0], week.mornings[-1])]
    change = replace(week.detector, reference=shipped).change
    return (
        f"| {week.name} | {week.category} | {mean} | {alarms[0]} → {alarms[1]} | {lost[0]} | {lost[1]} | "
        f"{change.found_before - change.found} of {change.found_before} |"
    )


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    if args.household:
        sounds = {path.stem: [read_clip(file) for file in recordings([path])] for path in args.household}
    else:
        kinds = [(name, source) for name in HOUSEHOLD for source in range(args.sources)]
        sounds = {f"{n} {s + 1}": [synthesise(n, s, take) for take in range(MORNINGS)] for n, s in kinds}
    if args.dangers:
        files = recordings(args.dangers)
        if args.limit:
            files = [files[n] for n in np.linspace(0, len(files) - 1, min(args.limit, len(files))).astype(int)]
        dangers = [read_clip(file) for file in files]
    else:
        dangers = [synthesise(name, source, 0) for name in DANGERS for source in range(2)]
    print("| sound | taken for | before | 1 verdict | 2 | 3 | alarms on later mornings | dangers lost, alone | over "
        "the sound | "
          "shipped dangers lost |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    with open_detector(device="cpu", cores=1) as (engine, builtin), Listener(engine, builtin, WINDOW, HOP) as listener:
        shipped = builtin.reference
        if args.strangers:  # no shipped danger protects any: what is planted may be of a shipped collection
            unknown = np.where(shipped.danger, 0, shipped.scores).astype(np.float16)
            builtin = replace(builtin, reference=replace(shipped, scores=unknown))
        for number, (name, takes) in enumerate(sounds.items()):
            week = live_through(name, takes, dangers, number, listener, builtin)
            print(row(week, builtin.threshold, shipped), flush=True)
    return cli.DONE


def recordings(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, and the sounds in folders."""
    return [file for path in paths for file in ([f for _, f in list_sounds(path)] if path.is_dir() else [path])]


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--household", type=Path, nargs="+", metavar="PATH", help="recordings, or folders of takes, of one sound each")
    add("--dangers", type=Path, nargs="+", metavar="PATH", help="recordings of dangers, or folders of them")
    add("--limit", type=cli.whole_number(1), default=None, metavar="N", help="take only so many of the dangers")
    add("--sources", type=cli.whole_number(1), default=2, metavar="N", help="of each synthesised household sound")
    add("--strangers", action="store_true", help="without the protection that the shipped dangers give")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
