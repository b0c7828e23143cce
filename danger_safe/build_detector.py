"""Makes models/detector.npz, the detector that works at once: ``make detector``.

    python -m danger_safe.build_detector --dataset ESC-50-master OTHER_SOUNDS --twins without_fold_5.pth

The classifier learns from windows of every clip, as the compact checkpoint hears them. It cannot be judged on those:
the network knows them. Its threshold and its scores come from twins, networks of the same recipe that were trained
without some recordings: a twin's classifier learns from the clips that the twin knows, and is judged on recordings
that neither has heard.
"""

import json
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from tqdm import tqdm

from danger_safe import cli
from danger_safe.audio import SAMPLE_RATE, read_clip
from danger_safe.categories import read_same
from danger_safe.clips import LABEL_NAMES, Clip, read_clips
from danger_safe.detector import READY, ReadyDetector
from danger_safe.errors import UserError
from danger_safe.events import Scored
from danger_safe.listening import HOP, WINDOW, Listener
from danger_safe.windows import Window, windows
from models.checkpoint_files import CheckpointInfo
from models.checkpoints import load_model
from models.engine import open_engine

ROOT = Path(__file__).resolve().parent.parent
MAPPINGS = (ROOT / "dataset" / "categories_all.toml", ROOT / "models" / "detector_categories.toml")
ROOM = "room_tone_noise"
AUDIBLE = 0.1  # of a clip's peak: quieter windows of a clip do not hold what its name says
STRENGTH = 0.01  # of the regression, C


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    same = read_same(args.same)
    labels = read_labels()
    clips = [clip for folder in args.dataset for clip in read_clips(folder)]
    category = {clip: same.get(clip.category, clip.category) for clip in clips}
    unknown = sorted(set(category.values()) - set(labels))
    if unknown:
        raise UserError(f"{', '.join(unknown)}: neither in {MAPPINGS[0]} nor in {MAPPINGS[1]}")
    truth = np.array([labels[category[clip]] for clip in clips])
    names = np.array([category[clip] for clip in clips])

    rooms = quiet_rooms(args.rooms)
    names = np.concatenate([names, [ROOM] * len(rooms)])
    truth = np.concatenate([truth, np.zeros(len(rooms), int)])
    splits = {twin: heard_and_new(twin, clips, truth) for twin in args.twins}
    held_out = []  # (clip, score) of clips that neither network nor classifier knew
    strange = []  # whether not even their category was
    for twin, (known, new) in splits.items():
        _, heard = listen(twin, clips, rooms)
        classifier = fit(heard, truth, names, np.append(known, np.ones(len(rooms), bool)))
        held_out += [(i, max(classifier.scores(embeddings(heard[i])))) for i in np.flatnonzero(new)]
        taught = set(names[: len(clips)][known])
        strange += [names[i] not in taught for i in np.flatnonzero(new)]
    which, scores = (np.array(column) for column in zip(*held_out, strict=True))
    strange = np.array(strange)
    about = judge(truth[which][~strange], scores[~strange], names[which][~strange], args.min_recall)
    if len(set(truth[which][strange])) == 2:  # what it makes of categories that it was never taught
        about["held_out"]["roc_auc_of_untaught_categories"] = float(
            roc_auc_score(truth[which][strange], scores[strange])
        )

    info, heard = listen("compact", clips, rooms)
    detector = fit(heard, truth, names, np.ones(len(names), bool))
    about |= {
        "checkpoint": info.name, "licence": info.licence, "clips": len(clips), "window": WINDOW, "hop": HOP,
        "mapping": {name: sorted({c for c in category.values() if labels[c] == i}) for i, name in enumerate(LABEL_NAMES)},
    }  # fmt: skip
    ready = ReadyDetector(
        "ready detector", about["threshold"], info.sha256, about, detector.mean, detector.scale, detector.weights,
        detector.bias, detector.categories, detector.centres,
    )  # fmt: skip
    ready.save(args.output)
    print(json.dumps(about, indent=2))
    print(f"Wrote {args.output}")
    return cli.DONE


def heard_and_new(twin: str, clips: list[Clip], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which clips a twin was trained on, and which are of recordings that it never heard: two masks.

    Raises UserError where one of the two is not enough to learn from or to judge by.
    """
    names = load_model(twin)[1].clips
    known = np.array([clip.path.name in names for clip in clips])
    sources = {clip.source for clip, seen in zip(clips, known, strict=True) if seen}
    new = np.array([clip.source not in sources for clip in clips]) & ~known
    for mask, words in ((known, "was trained on"), (new, "has not heard")):
        if len(set(truth[: len(clips)][mask])) < 2:
            raise UserError(
                f"the recordings that {twin} {words} are not dangers and safe sounds: it is no twin for them"
            )
    return known, new


def read_labels() -> dict[str, int]:
    """Label by category, from both mappings."""
    labels = {}
    for path in MAPPINGS:
        lists = tomllib.loads(path.read_text(encoding="utf-8"))
        labels |= {category: label for label, name in enumerate(LABEL_NAMES) for category in lists[name]}
    return labels


def quiet_rooms(count: int) -> list[np.ndarray]:
    """Clips of what a microphone hears where nothing happens: its own noise of any colour, hum, digital silence.

    Peak normalisation makes the quietest room loud; collections have few of them, and none is danger.
    """
    rooms = []
    size = 5 * SAMPLE_RATE
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20)
    times = np.arange(size) / SAMPLE_RATE
    for number in range(count):
        rng = np.random.default_rng(number)
        shape = (frequency / 20) ** -rng.uniform(0, 1.5) / (1 + (frequency / rng.uniform(800, 16_000)) ** 4)
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape)
        noise *= 1 + rng.uniform(0, 0.5) * np.sin(2 * np.pi * rng.uniform(0.1, 1) * times)
        hum = sum(np.sin(2 * np.pi * rng.choice([50, 60]) * k * times) * rng.uniform(0, 1) / k for k in (1, 2, 3, 4))
        room = noise / noise.std() + rng.choice([0, rng.uniform(0, 2)]) * hum
        rooms.append((room * (number > 0) * 0.01).astype(np.float32))
    return rooms


def listen(
    checkpoint: str, clips: list[Clip], rooms: list[np.ndarray]
) -> tuple[CheckpointInfo, list[list[tuple[Scored, float]]]]:
    """The windows of every clip and room, each with its peak, as a share of the clip's."""

    class Nothing:  # the embeddings are wanted, not scores
        @staticmethod
        def scores(embeddings: np.ndarray) -> np.ndarray:
            return np.zeros(len(embeddings))

    peaks: list[list[float]] = []  # of the windows of each clip

    def all_windows() -> Iterator[Window]:
        for clip in tqdm([*clips, *rooms], f"Listening with {Path(checkpoint).name}", unit="clip", file=sys.stderr):
            samples = clip if isinstance(clip, np.ndarray) else read_clip(clip.path)
            loudest = max(float(np.abs(samples).max()), 1e-9)
            peaks.append([])
            for window in windows([samples], WINDOW, HOP):
                peaks[-1].append(float(np.abs(window.samples).max()) / loudest)
                yield window

    with (
        open_engine(checkpoint, "cpu", os.cpu_count() or 1) as engine,
        Listener(engine, Nothing, WINDOW, HOP) as listener,
    ):
        scored = iter(list(listener.score(all_windows())))
        return engine.info, [[(next(scored), peak) for peak in of_clip] for of_clip in peaks]


def embeddings(windows: list[tuple[Scored, float]]) -> np.ndarray:
    return np.stack([window.embedding for window, _ in windows])


def fit(heard: list, truth: np.ndarray, names: np.ndarray, known: np.ndarray) -> ReadyDetector:
    """A classifier of the known clips' audible windows. Categories weigh alike within a label, and the labels alike."""
    features, owner = [], []
    for i in np.flatnonzero(known):
        audible = [window.embedding for window, peak in heard[i] if peak >= AUDIBLE]
        features += audible
        owner += [i] * len(audible)
    features, owner = np.stack(features).astype(np.float64), np.array(owner)
    labels, categories = truth[owner], names[owner]
    weight = 1 / np.bincount(owner)[owner]  # every clip alike
    for name in np.unique(categories):  # then large categories less, as the root of their size
        members = categories == name
        weight[members] /= np.sqrt(weight[members].sum())
    for label in (0, 1):
        weight[labels == label] *= len(owner) / 2 / weight[labels == label].sum()
    mean = np.average(features, axis=0, weights=weight)
    scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weight)) + 1e-3
    standard = (features - mean) / scale
    model = LogisticRegression(C=STRENGTH, max_iter=2_000).fit(standard, labels, sample_weight=weight)
    unique = tuple(str(name) for name in np.unique(categories))
    centres = np.stack([np.average(standard[categories == n], axis=0, weights=weight[categories == n]) for n in unique])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return ReadyDetector("", 0.5, "", {}, mean, scale, model.coef_[0], float(model.intercept_[0]), unique, centres)


def judge(truth: np.ndarray, scores: np.ndarray, names: np.ndarray, min_recall: float) -> dict:
    """Threshold and what it does, on clips that nothing knew: of the thresholds that find enough, the quietest."""
    _, recall, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    threshold = float(thresholds[np.argmax(recall >= min_recall)])
    alarm = scores >= threshold
    return {
        "threshold": threshold,
        "min_recall": min_recall,
        "held_out": {
            "clips": len(truth),
            "danger": int(truth.sum()),
            "roc_auc": float(roc_auc_score(truth, scores)),
            "danger_recall": float(alarm[truth == 1].mean()),
            "false_alarms": float(alarm[truth == 0].mean()),
            "alarms_by_category": {
                str(name): f"{int(alarm[names == name].sum())} of {int((names == name).sum())}"
                for name in np.unique(names)
            },
        },
    }


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=Path, nargs="+", required=True, metavar="DIR", help="folders of sounds")
    add("--twins", type=str, nargs="+", required=True, metavar="FILE", help="networks of the same recipe, each trained "
        "without some recordings")  # fmt: skip
    add("--same", type=Path, default=ROOT / "models" / "compact_same.toml", metavar="FILE", help="as finetune_cnn14.py")
    add("--rooms", type=cli.whole_number(0), default=200, metavar="N", help="synthesised clips of rooms where nothing "
        "happens, to learn from")  # fmt: skip
    add("--min-recall", type=cli.share, default=0.9, metavar="R", help="share of dangers the threshold must find")
    add("--output", type=Path, default=READY, metavar="FILE", help="detector to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
