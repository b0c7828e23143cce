"""A simulated week: household sounds that raise alarms every morning, verdicts on them, and dangers that must be found.

    python benchmarks/household_week.py                                       # synthesised sounds
    python benchmarks/household_week.py --household KETTLE/ DOORBELL.wav --dangers SIREN/ ALARM/ SCREAM/
    python benchmarks/household_week.py --sources 0 --household SIREN/1.wav --dangers SIREN/    # wrong verdicts

In:   recordings of household sounds, folders of takes of one, or synthesised ones; recordings of dangers, or folders
Out:  Markdown: a row a sound, and what verdicts change in all, also where three sounds are learnt at once

Each sound is heard on seven mornings: other takes, from elsewhere in the room, at another level, over other noise. The
first three alarms (with sensitivity high) are called false alarms; the mornings after those are counted. Dangers are
planted in the same room, alone and over the sound. No shipped danger protects a planted one that may be of its
collection. A danger among the household sounds is not planted: it is called a false alarm wrongly.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.household_sounds import DANGERS, HOUSEHOLD, synthesise
from danger_safe.audio.decode import read_clip
from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.audio.windows import ScoredWindow, sliding_windows
from danger_safe.core import cli
from danger_safe.data.clips import list_sounds
from danger_safe.detection.detector import BuiltinDetector
from danger_safe.detection.loading import open_detector
from danger_safe.detection.personal import LearntState, LearntVerdict, PersonalDetector, personal_detector, top_windows
from danger_safe.detection.scorer import HOP_S, WINDOW_S, Smoother, WindowScorer

MORNINGS = 7
VERDICTS = 3
TOGETHER = 3  # sounds of one household
MAX_S = 6.0  # seconds of a sound that are played
ROOM_S = 2.0  # of the room before and after it
COLLECTION_SLACK = 0.02  # a planted danger may be of a shipped collection that is so much less similar than the nearest
SEED = 11

Heard = list[ScoredWindow]  # of one recording
Scores = np.ndarray  # (recordings, 2): the highest smoothed score, before and after the verdicts


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


@dataclass(frozen=True)
class Danger:
    """What is planted."""

    name: str
    samples: np.ndarray
    near: frozenset[int]  # shipped collections that it may be of

    @property
    def is_siren(self) -> bool:
        """By the name of its file, or of the folder that it is in."""
        return "siren" in self.name.lower()


@dataclass(frozen=True)
class Week:
    """One household sound's recordings, heard."""

    name: str
    category: str  # that it was taken for
    near: frozenset[int]  # where it is a danger, as ``Danger.near``
    alarms: list[Heard]  # the first VERDICTS, from the mornings' beginning
    later: list[Heard]  # the mornings after them
    dangers: list[Danger]
    alone: list[Heard]  # of each danger, planted without the sound
    over: list[Heard]  # while the sound is there


@dataclass(frozen=True)
class Outcome:
    """What verdicts changed for one sound."""

    later: Scores
    alone: Scores
    over: Scores
    sirens: np.ndarray  # (dangers,) bool
    shipped_lost: int  # dangers of the shipped evaluation


def live_through(
    name: str, takes: list[np.ndarray], near: frozenset[int], dangers: list[Danger], number: int, scorer: WindowScorer,
    builtin: BuiltinDetector
) -> Week | None:  # fmt: skip
    """A week of ``takes`` (samples each, played in turn) in room ``number``, with ``dangers`` planted. None where no
    later morning than those of the verdicts has an alarm."""
    room, rng, least = Room(number), np.random.default_rng([SEED, number, 1]), builtin.threshold_of("high")
    mornings = embed((room.record(takes[d % len(takes)], rng, rng.uniform(-18, -4)) for d in range(MORNINGS)), scorer)
    days = [day for day, heard in enumerate(mornings) if score(heard, builtin) >= least]
    if len(days) <= VERDICTS:
        return None
    alone = embed((room.record(danger.samples, rng, rng.uniform(-16, -4)) for danger in dangers), scorer)
    mixed = (_mixed(takes[n % len(takes)], danger.samples, rng) for n, danger in enumerate(dangers))
    over = embed((room.record(sound, rng, -5) for sound in mixed), scorer)
    days = days[:VERDICTS]
    surest = max((w for day in days for w in mornings[day]), key=lambda w: builtin.scores(w.embedding[None])[0])
    later = [heard for day, heard in enumerate(mornings) if day not in days]
    category = builtin.tags(surest.embedding)[0][0]
    return Week(name, category, near, [mornings[day] for day in days], later, dangers, alone, over)


def judge(weeks: list[Week], count: int, builtin: BuiltinDetector) -> list[Outcome]:
    """What ``count`` verdicts on each of these sounds change, all given in one household, by turns."""
    detector = taught(builtin, [week.alarms[turn] for turn in range(count) for week in weeks])

    @cache
    def without(collections: frozenset[int]) -> PersonalDetector:
        shipped = detector.reference
        scores = np.where(
            np.isin(shipped.collection, list(collections)), np.float16(0), shipped.scores
        )  # found by none
        return replace(detector, reference=replace(shipped, scores=scores))

    def scores(heard: list[Heard], near: Iterable[frozenset[int]]) -> Scores:
        pairs = [(score(h, builtin), score(h, without(n))) for h, n in zip(heard, near, strict=True)]
        return np.array(pairs).reshape(-1, 2)

    def outcome(week: Week) -> Outcome:
        near = [danger.near for danger in week.dangers]
        sirens = np.array([danger.is_siren for danger in week.dangers], bool)
        later = scores(week.later, [week.near] * len(week.later))
        return Outcome(later, scores(week.alone, near), scores(week.over, near), sirens, lost)

    lost = detector.change.found_before - detector.change.found
    return list(map(outcome, weeks))


def taught(builtin: BuiltinDetector, events: list[Heard]) -> PersonalDetector:
    """The detector after these recordings' windows were called false alarms."""
    rows = [top_windows(builtin, np.array([window.embedding for window in event])) for event in events]
    verdicts = tuple(LearntVerdict(str(n), "kitchen", "", False, "") for n in range(len(rows)))
    owner = np.repeat(np.arange(len(rows), dtype=np.int32), list(map(len, rows)))
    learnt = LearntState(builtin.checkpoint_sha256, verdicts, np.concatenate(rows), owner)
    return personal_detector(builtin, learnt).limit_recall_loss()


def embed(recordings: Iterable[np.ndarray], scorer: WindowScorer) -> list[Heard]:
    """The windows of each recording."""
    cut = [list(sliding_windows([samples], WINDOW_S, HOP_S)) for samples in recordings]
    heard = iter(scorer.score(window for one in cut for window in one))
    return [[next(heard) for _ in one] for one in cut]


def score(heard: Heard, detector: BuiltinDetector) -> float:
    """The highest smoothed score of a recording."""
    smoother, raw = Smoother(HOP_S), detector.scores(np.array([window.embedding for window in heard]))
    return max(smoother.add(w.start, 0.0 if w.is_silent else float(s)) for w, s in zip(heard, raw, strict=True))


def near_collections(samples: np.ndarray, scorer: WindowScorer, builtin: BuiltinDetector) -> frozenset[int]:
    """Collections of shipped dangers that a danger may be of: that of the most similar one, and any that has one about
    as similar."""
    shipped = builtin.reference
    assert shipped is not None  # the shipped detector has one
    heard = embed([np.pad(samples, SAMPLE_RATE // 2)], scorer)[0]
    directions = shipped.project(builtin.standardise(np.array([window.embedding for window in heard])))
    similarity = (shipped.clip_directions()[shipped.danger] @ directions.T).max(axis=1)
    is_near = similarity >= similarity.max() - COLLECTION_SLACK
    return frozenset(shipped.collection[shipped.danger][is_near].tolist())


def _mixed(sound: np.ndarray, danger: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The danger begins while the sound goes on, up to 6 dB louder or softer."""
    sound, danger = (part[: round(MAX_S * SAMPLE_RATE)] / max(np.abs(part).max(), 1e-9) for part in (sound, danger))
    begin = round(rng.uniform(0.5, 2) * SAMPLE_RATE)
    mixed = np.zeros(max(len(sound), begin + len(danger)))
    mixed[: len(sound)] += sound
    mixed[begin : begin + len(danger)] += danger * 10 ** (rng.uniform(-6, 6) / 20)
    return mixed


def counts(outcomes: list[Outcome], threshold: float) -> str:
    """The columns of both tables: mornings that are quiet now, dangers that are lost, of those above the threshold."""

    def below(scores: list[Scores]) -> str:
        before, after = np.concatenate(scores).T
        return f"{int(((before >= threshold) & (after < threshold)).sum())} of {int((before >= threshold).sum())}"

    over = ([o.over[o.sirens] for o in outcomes], [o.over[~o.sirens] for o in outcomes])
    columns = map(below, ([o.later for o in outcomes], [o.alone for o in outcomes], *over))
    return " | ".join([*columns, str(max(o.shipped_lost for o in outcomes))]) + " |"


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    heads = "later mornings quiet | dangers lost, alone | over the sound: sirens | others | shipped dangers lost |"
    print(f"| sound | taken for | mean score, before and after | {heads}\n{'| --- ' * 8}|")
    with (
        open_detector(device="cpu", cores=1) as (engine, builtin),
        WindowScorer(engine, builtin, WINDOW_S, HOP_S) as scorer,
    ):
        assert isinstance(builtin, BuiltinDetector)  # no model was asked for
        kinds = [(name, source) for name in HOUSEHOLD for source in range(args.sources)]
        made = [(f"{n} {s + 1}", [synthesise(n, s, take) for take in range(MORNINGS)]) for n, s in kinds]
        real = [(path, [read_clip(file) for file in recordings([path])]) for path in args.household]
        files = recordings(args.dangers)
        planted = [(f"{file.parent.name}/{file.name}", read_clip(file)) for file in files]
        if not files:
            planted = [(f"{name} {source + 1}", synthesise(name, source, 0)) for name in DANGERS for source in range(2)]
        dangers = [Danger(name, samples, near_collections(samples, scorer, builtin)) for name, samples in planted]
        weeks: list[Week] = []
        try:
            for number, (name, takes) in enumerate(tqdm([*made, *real], disable=args.quiet or None)):
                wrong = [n for n, file in enumerate(files) if file == name]
                near = dangers[wrong[0]].near if wrong else frozenset()
                others = [danger for n, danger in enumerate(dangers) if n not in wrong]
                title = name.stem if isinstance(name, Path) else name
                week = live_through(title, takes, near, others, number, scorer, builtin)
                if week is None:
                    print(f"| {title} | too few alarms | | | | | | |", flush=True)
                    continue
                weeks.append(week)
                outcome = judge([week], VERDICTS, builtin)[0]
                mean = " → ".join(f"{scores:.2f}" for scores in outcome.later.mean(axis=0))
                print(f"| {title} | {week.category} | {mean} | {counts([outcome], builtin.threshold)}", flush=True)
        finally:  # of what was heard until somebody stopped it
            print(f"\n| sensitivity | sounds × verdicts | {heads}\n{'| --- ' * 7}|")
            print_totals(weeks, builtin)
    return cli.DONE


def print_totals(weeks: list[Week], builtin: BuiltinDetector) -> None:
    """The second table: each sound in a household of its own, and TOGETHER of them in one."""
    order = np.random.default_rng(SEED).permutation(len(weeks)).tolist()
    starts = range(0, len(weeks) - TOGETHER + 1, TOGETHER)
    houses = [[weeks[n] for n in order[start : start + TOGETHER]] for start in starts]
    tries = [(f"1 × {count}", [[week] for week in weeks], count) for count in range(1, VERDICTS + 1)]
    for title, some, count in [*tries, (f"{TOGETHER} × {VERDICTS}", houses, VERDICTS)]:
        outcomes = list(chain.from_iterable(judge(one, count, builtin) for one in some))
        for sensitivity in ("normal", "high") if outcomes else ():
            print(f"| {sensitivity} | {title} | {counts(outcomes, builtin.threshold_of(sensitivity))}", flush=True)


def recordings(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, and the sounds in folders."""
    return [file for path in paths for file in ([f for _, f in list_sounds(path)] if path.is_dir() else [path])]


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add(
        "--household",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="recordings or folders of takes, a sound each",
    )
    add(
        "--dangers",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="recordings or folders (default: synthesised)",
    )
    add("--sources", type=cli.whole_number(0), default=2, metavar="N", help="of each synthesised household sound")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
