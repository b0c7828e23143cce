"""Makes models/detector.npz, the detector that works at once: ``make detector``.

    python -m tools.build_detector --labelled ESC-50-master SOUNDS --unlabelled UNLABELLED --ordinary ORDINARY \\
        --hold-out "Starluxa" "Aweeesome-lab"

A logistic regression learns from windows of labelled clips, and from unlabelled sounds in which the teacher, mn04,
hears nothing dangerous. It is judged on collections that it was not taught: each clip by a regression that learnt from
other collections. The network has heard most of these sounds in its own training, but no label of any.

The operating points come from ORDINARY, long recordings in one folder a collection: those of the collections named in
--hold-out were heard neither by the network nor by the regression, and their false alarms are counted by the hour.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from danger_safe.core import cli
from danger_safe.core.errors import UserError
from danger_safe.data.categories import read_mappings, read_same
from danger_safe.detection.detector import BUILTIN_FILE, SENSITIVITIES, BuiltinDetector, OperatingPoint, add_tag_groups
from danger_safe.detection.reference import Reference
from danger_safe.detection.scorer import WINDOW_S
from danger_safe.evaluation.calibration import calibration
from danger_safe.evaluation.false_alarms import SECONDS_PER_HOUR, THRESHOLDS, find_events, with_scores
from danger_safe.evaluation.intervals import fraction_with_interval, rate_with_interval
from danger_safe.evaluation.thresholds import lowest_threshold
from models.checkpoints import load_model
from models.head import Head
from tools.detector_tags import DANGEROUS_TAGS, SUREST_TAGS
from tools.detector_windows import (
    Sound,
    WindowSet,
    labelled_sounds,
    listen,
    rooms,
    unlabelled_sounds,
    without_dangers,
)
from tools.model_card import MAPPINGS, ROOT

FOLDS = 6
C = 1e-3  # of the regression; 1e-5 to 1e-2 were tried (benchmarks/detector.md)
CATEGORY_C = 1e-3
FALSE_UNKNOWN_RATE = 0.05
MAX_FALSE_ALARMS_PER_HOUR = {"low": 1.0, "normal": 5.0, "high": 20.0}


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    network, info = load_model(args.checkpoint)
    tags = [info.categories.index(name) for name in DANGEROUS_TAGS]
    groups = (tuple(tags[: len(SUREST_TAGS)]), tuple(tags))
    labels = read_mappings(MAPPINGS)
    ordinary = unlabelled_sounds(args.ordinary)
    held_out = [sound for sound in ordinary if sound.collection in args.hold_out]
    if not held_out:
        raise UserError(f"{args.ordinary}: none of --hold-out's collections is in it")
    labelled = read_labelled(args.labelled, read_same(args.same), args.rooms, labels)
    unlabelled = ordinary + [sound for folder in args.unlabelled for sound in unlabelled_sounds(folder)]
    safe = find_safe([sound for sound in unlabelled if sound.collection not in args.hold_out], args.teacher, tags)
    heard = listen(args.checkpoint, labelled).followed_by(listen(args.checkpoint, safe, hop=WINDOW_S))
    data = TrainingData(labelled + safe, heard, network.head, groups, labels)

    values = data.leave_collections_out()  # of each window, by a regression that was not taught its collection
    clips = ClipScores(data, values)
    slope, offset = sigmoid_of(clips.scores, clips.truth)
    clips = ClipScores(data, values, slope, offset)
    detector = data.detector(info.sha256, slope, offset)

    hours, counts = false_alarms(args.checkpoint, detector, held_out)
    about = judge(clips, hours, counts, held_out) | {"unknown_rate": FALSE_UNKNOWN_RATE}
    detector = replace(detector, reference=clips.reference(detector, data))
    detector.with_evaluation(about).save(args.output)
    print(json.dumps(about, indent=2))
    print(f"Wrote {args.output}")
    return cli.DONE


def read_labelled(folders: list[Path], same: dict[str, str], room_count: int, labels: dict[str, int]) -> list[Sound]:
    """Labelled clips and synthetic rooms. Raises UserError for a category that no mapping has.

    ``same``: other names of categories; ``labels``: 0 or 1 by category.
    """
    sounds = [sound for folder in folders for sound in labelled_sounds(folder, same)] + rooms(room_count)
    unknown = sorted({sound.category for sound in sounds} - set(labels))
    if unknown:
        raise UserError(f"{', '.join(unknown)}: neither in {MAPPINGS[0]} nor in {MAPPINGS[1]}")
    return sounds


def find_safe(sounds: list[Sound], teacher: str, dangerous_tags: list[int]) -> list[Sound]:
    """Those of the sounds in which the teacher hears nothing dangerous."""
    is_safe = without_dangers(teacher, sounds, dangerous_tags)
    print(f"{int(is_safe.sum())} of {len(sounds)} unlabelled sounds have nothing dangerous in them, says {teacher}")
    return [sound for sound, safe in zip(sounds, is_safe, strict=True) if safe]


class TrainingData:
    """Windows with what is known of each."""

    def __init__(self, sounds: list[Sound], heard: WindowSet, head: Head, groups: tuple, labels: dict[str, int]):
        self.sounds, self.heard, self.head, self.groups = sounds, heard, head, groups
        self.embeddings = heard.embeddings
        self.features = add_tag_groups(self.embeddings, head, groups)
        owner = heard.sound
        self.truth = np.array([labels.get(sound.category, 0) for sound in sounds])[owner]
        self.is_labelled = np.array([bool(sound.category) for sound in sounds])[owner]
        self.category = np.array([sound.category for sound in sounds])[owner]
        collection = np.array([sound.collection for sound in sounds])
        self.collection = collection[owner]
        self.group = np.where(self.is_labelled, self.category, np.char.add("from ", self.collection))
        fold_of = collection_folds(collection)
        self.fold = np.array([fold_of[name] for name in collection])[owner]

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Every clip alike; every category, and every unlabelled collection, by the root of its size; dangers as much
        as
        safe sounds."""
        _, clip = np.unique(self.heard.sound[rows], return_inverse=True)
        weights = 1 / np.bincount(clip)[clip]
        for side in (0, 1):
            here = self.truth[rows] == side
            for name in np.unique(self.group[rows][here]):
                members = here & (self.group[rows] == name)
                weights[members] /= np.sqrt(weights[members].sum())
            weights[here] /= weights[here].sum()
        return weights * len(rows)

    def fit(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, LogisticRegression]:
        """Mean, scale and the regression on windows of those numbers that are loud enough."""
        rows = rows[self.heard.audible[rows]]
        mean, scale = self.features[rows].mean(axis=0), self.features[rows].std(axis=0) + 1e-3
        model = LogisticRegression(C=C, max_iter=1_000)
        return mean, scale, model.fit((self.features[rows] - mean) / scale, self.truth[rows], self.weights(rows))

    def leave_collections_out(self) -> np.ndarray:
        """(windows,) the value of each by a regression that learnt from other collections."""
        values = np.zeros(len(self.truth))
        for fold in np.unique(self.fold):
            if len(set(self.truth[self.fold != fold])) < 2:
                left = ", ".join(sorted(set(self.collection[self.fold != fold])))
                raise UserError(f"{left}: no dangers or no safe sounds in them, so the others cannot be left out")
            mean, scale, model = self.fit(np.flatnonzero(self.fold != fold))
            here = self.fold == fold
            values[here] = model.decision_function((self.features[here] - mean) / scale)
        return values

    def detector(self, checkpoint_sha256: str, slope: float, offset: float) -> BuiltinDetector:
        """The regression on everything, and what its embeddings resemble."""
        mean, scale, model = self.fit(np.arange(len(self.truth)))
        standard = (self.embeddings - mean[: self.embeddings.shape[1]]) / scale[: self.embeddings.shape[1]]
        taught = self.is_labelled & self.heard.audible
        names = np.unique(self.category[taught])
        which = LogisticRegression(C=CATEGORY_C, class_weight="balanced", max_iter=1_000)
        which.fit(standard[taught], self.category[taught])
        centres = np.stack([standard[taught & (self.category == name)].mean(axis=0) for name in names])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        detector = BuiltinDetector(
            name="built-in detector", threshold=0.5, checkpoint_sha256=checkpoint_sha256, about={},
            tag_groups=self.groups, head=self.head,
            mean=mean, scale=scale, weights=model.coef_[0], bias=float(model.intercept_[0]), slope=slope, offset=offset,
            categories=tuple(map(str, names)), category_weights=which.coef_, category_bias=which.intercept_,
            centres=centres, min_similarity=-1.0,
        )  # fmt: skip
        similarity = detector.similarities(self.embeddings[taught]).max(axis=1)
        return replace(detector, min_similarity=float(np.quantile(similarity, FALSE_UNKNOWN_RATE)))


def collection_folds(collection: np.ndarray) -> dict[str, int]:
    """Collections to FOLDS parts of about as many sounds each, the largest first."""
    names, counts = np.unique(collection, return_counts=True)
    sizes, fold = np.zeros(FOLDS), {}
    for number in np.argsort(-counts, kind="stable"):
        smallest = int(np.argmin(sizes))
        fold[str(names[number])] = smallest
        sizes[smallest] += counts[number]
    return fold


class ClipScores:
    """Each labelled clip's score: its most dangerous stretch, as predict_danger.py has it."""

    def __init__(self, data: TrainingData, values: np.ndarray, slope: float = 1.0, offset: float = 0.0):
        labelled = np.flatnonzero(data.is_labelled)
        self.clip, place = np.unique(data.heard.sound[labelled], return_inverse=True)
        first = labelled[np.searchsorted(data.heard.sound[labelled], self.clip)]
        self.truth, self.category = data.truth[first], data.category[first]
        self.source = np.array([data.sounds[number].source for number in self.clip])
        self.collection = data.collection[first]
        windows = [data.heard.windows[row] for row in labelled]
        raw = np.where([window.is_silent for window in windows], 0.0, expit(slope * values[labelled] + offset))
        smoothed = [window.smoothed_score for window in with_scores(windows, raw.tolist())]
        self.scores = np.zeros(len(self.clip))
        np.maximum.at(self.scores, place, smoothed)
        self.surest, surest = first.copy(), np.full(len(self.clip), -1.0)  # the window of each clip that is surest
        for row, number, score in zip(labelled, place, raw, strict=True):
            if score > surest[number]:
                self.surest[number], surest[number] = row, score

    def reference(self, detector: BuiltinDetector, data: TrainingData) -> Reference:
        """What the detector keeps of these clips, to tell what a household's verdicts do to them."""
        standardised = detector.standardise(data.embeddings)
        return Reference.make(
            standardised[data.heard.audible], standardised[self.surest], self.scores, self.truth == 1, self.collection
        )


def sigmoid_of(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make probabilities of scores: Platt's sigmoid, both sides weighing alike.

    Balanced, so that 0.5 is where dangers and safe sounds are as likely; how rare dangers are in a home, no clips can
    say.
    """
    scores = np.clip(scores, 1e-6, 1 - 1e-6)
    fitted = LogisticRegression(C=1e6, class_weight="balanced").fit(logit(scores)[:, None], truth)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def false_alarms(checkpoint: str, detector: BuiltinDetector, ordinary: list[Sound]) -> tuple[np.ndarray, np.ndarray]:
    """Hours of each recording, (recordings,), and its events at each of THRESHOLDS, (thresholds, recordings)."""
    heard = listen(checkpoint, ordinary)
    raw = detector.scores(heard.embeddings)
    hours, counts = np.zeros(len(ordinary)), np.zeros((len(THRESHOLDS), len(ordinary)))
    for number in range(len(ordinary)):
        rows = np.flatnonzero(heard.sound == number)
        plain = [heard.windows[row] for row in rows]
        windows = with_scores(plain, np.where([window.is_silent for window in plain], 0.0, raw[rows]).tolist())
        hours[number] = windows[-1].end / SECONDS_PER_HOUR if windows else 0.0
        for place, threshold in enumerate(THRESHOLDS):
            counts[place, number] = len(find_events(windows, float(threshold)))
    return hours, counts


def judge(clips: ClipScores, hours: np.ndarray, counts: np.ndarray, ordinary: list[Sound]) -> dict:
    """The operating points and what is known of each."""
    danger = clips.truth == 1
    points = [
        OperatingPoint(
            threshold=float(threshold),
            danger_recall=float((clips.scores[danger] >= threshold).mean()),
            false_alarms_per_hour=float(count.sum() / hours.sum()),
        )
        for threshold, count in zip(THRESHOLDS, counts, strict=True)
    ]
    recordings = np.arange(len(hours)).astype(str)
    sensitivities = {}
    for name in SENSITIVITIES:
        point = lowest_threshold(points, MAX_FALSE_ALARMS_PER_HOUR[name]) or points[-1]
        alarm = clips.scores >= point.threshold
        per_hour = rate_with_interval(counts[points.index(point)], hours, recordings)
        sensitivities[name] = {
            "threshold": point.threshold,
            "danger_recall": fraction_with_interval(alarm[danger], clips.source[danger]).as_list(),
            "false_alarms": fraction_with_interval(alarm[~danger], clips.source[~danger]).as_list(),
            "false_alarms_per_hour": per_hour.as_list(),
            "alarms_by_category": by_name(alarm, clips.category),
            "alarms_by_collection": by_name(alarm, np.char.add(clips.collection,
            np.where(danger, " (danger)", " (safe)"))),
        }  # fmt: skip
    return {
        "sensitivities": sensitivities,
        "operating_points": [
            asdict(point) | {"false_alarms": float((clips.scores[~danger] >= point.threshold).mean())}
            for point in points
        ],
        "left_out": {
            "clips": len(clips.truth), "danger": int(danger.sum()), "recordings": len(np.unique(clips.source)),
            "collections": len(np.unique(clips.collection)), "roc_auc": float(roc_auc_score(clips.truth, clips.scores)),
            "calibration": asdict(calibration(clips.truth, clips.scores)),
        },
        "ordinary": {"hours": float(hours.sum()), "recordings": len(ordinary),
        "collections": sorted({s.collection for s in ordinary})},
    }  # fmt: skip


def by_name(alarm: np.ndarray, names: np.ndarray) -> dict[str, str]:
    """``"12 of 30"`` alarms for each name."""
    return {str(n): f"{int(alarm[names == n].sum())} of {int((names == n).sum())}" for n in np.unique(names)}


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--labelled", type=Path, nargs="+", required=True, metavar="DIR", help="folders of clips with categories")
    add(
        "--unlabelled",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of everyday sounds, to be no danger",
    )
    add("--ordinary", type=Path, required=True, metavar="DIR", help="long recordings in one folder a collection")
    add("--hold-out", nargs="+", required=True, metavar="COLLECTION", help="collections that nothing learns from")
    add("--same", type=Path, default=ROOT / "models" / "compact_same.toml", metavar="FILE", help="as finetune_cnn14.py")
    add("--rooms", type=cli.whole_number(1), default=200, metavar="N", help="synthesised quiet rooms to learn from")
    add("--checkpoint", default="compact", metavar="NAME|FILE", help="the network that listens")
    add("--teacher", default="mn04", metavar="NAME|FILE", help="the network that says which unlabelled sounds are safe")
    add("--output", type=Path, default=BUILTIN_FILE, metavar="FILE", help="detector to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
