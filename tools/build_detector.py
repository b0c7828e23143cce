"""Makes models/detector.npz, the detector that works at once: ``make detector``.

    python -m tools.build_detector --dataset ESC-50-master OTHER_SOUNDS --twins without_fold_5.pth

The compact network's own last layer decides: it was trained with the network, on sounds recorded well and badly. It
cannot be judged on those sounds. Threshold, calibration and stated scores come from twins, networks of the same recipe
that were trained without some recordings, on just those recordings.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from danger_safe.core import cli
from danger_safe.core.errors import UserError
from danger_safe.data.categories import read_mappings, read_same
from danger_safe.data.clips import LABEL_NAMES, Clip, read_clips
from danger_safe.data.fingerprint import seen_clips
from danger_safe.detection.detector import READY
from danger_safe.detection.novelty import unknown_level
from danger_safe.detection.scorer import HOP, WINDOW
from danger_safe.evaluation.calibration import calibration
from danger_safe.evaluation.intervals import share_with_interval
from danger_safe.evaluation.thresholds import choose_threshold
from models.checkpoints import load_model
from tools.detector_training import (
    clip_scores,
    clip_similarities,
    false_alarms_per_hour,
    from_network,
    listen,
    sigmoid_of,
)

ROOT = Path(__file__).resolve().parent.parent
MAPPINGS = (ROOT / "dataset" / "categories_all.toml", ROOT / "models" / "detector_categories.toml")
GRID = [round(0.02 * number, 2) for number in range(1, 50)]  # thresholds whose promises are stated


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

    splits = {twin: heard_and_new(twin, clips, truth) for twin in args.twins}
    twins, which, heard_new = {}, [], []  # detectors; clips that neither network nor last layer knew, as heard
    for twin, (known, new) in splits.items():
        heard = listen(twin, clips)
        numbers = np.flatnonzero(known)
        known_clips, known_heard = [clips[i] for i in numbers], [heard[i] for i in numbers]
        twins[twin] = from_network(twin, labels, known_clips, known_heard, names[known], args.rooms)
        which.append(np.flatnonzero(new))
        heard_new.append([heard[i] for i in which[-1]])
    held_out = np.concatenate(which)

    def scores(**sigmoid: float) -> np.ndarray:
        pairs = zip(twins.values(), heard_new, strict=True)
        return np.concatenate([clip_scores(replace(detector, **sigmoid), heard) for detector, heard in pairs])

    pairs = zip(twins.values(), heard_new, strict=True)
    similar = np.concatenate([clip_similarities(detector, heard, np.unique(names)) for detector, heard in pairs])
    slope, offset = sigmoid_of(scores(), truth[held_out])
    final = scores(slope=slope, offset=offset)
    sources = np.array([clip.source for clip in clips])[held_out]
    about = judge(truth[held_out], final, names[held_out], sources, args.min_recall)
    about["unknown"] = judge_unknown(
        truth[held_out], final, names[held_out], sources, similar, np.unique(names), about["threshold"]
    )
    thresholds = [about["threshold"], *(point["threshold"] for point in about["operating_points"])]
    alarms = np.zeros(len(thresholds))
    for (twin, detector), new in zip(twins.items(), which, strict=True):
        safe = [clips[i] for i in new if not truth[i]]
        there = replace(detector, slope=slope, offset=offset)
        alarms += false_alarms_per_hour(there, twin, safe, args.hours / len(twins), thresholds)
    about["held_out"]["false_alarms_per_hour"], *per_hour = alarms / len(twins)
    about["held_out"]["hours"] = args.hours  # of safe sound, in which they were counted
    for point, value in zip(about["operating_points"], per_hour, strict=True):
        point["false_alarms_per_hour"] = value
    about |= {
        "clips": len(clips), "window": WINDOW, "hop": HOP,
        "mapping": {name: sorted({c for c in category.values() if labels[c] == i}) for i, name in enumerate(LABEL_NAMES)},
    }  # fmt: skip

    _, info = load_model("compact")
    ready = from_network("compact", labels, clips, listen("compact", clips), names, args.rooms)
    about |= {"checkpoint": info.name, "licence": info.licence}
    least = about["unknown"]["least_familiar"]
    replace(ready.stating(about), slope=slope, offset=offset, least_familiar=least).save(args.output)
    for twin, detector in twins.items():  # to be judged on long recordings: benchmarks/hour.py
        file = Path(twin).with_name(Path(twin).stem + "_detector.npz")
        replace(detector.stating(about), slope=slope, offset=offset, least_familiar=least).save(file)
    print(json.dumps(about, indent=2))
    print(f"Wrote {args.output}")
    return cli.DONE


def read_labels() -> dict[str, int]:
    """Label by category, from both mappings."""
    return read_mappings(MAPPINGS)


def heard_and_new(twin: str, clips: list[Clip], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which clips a twin was trained on, and which are of recordings that it never heard: two masks.

    Raises UserError where one of the two is not enough to learn from or to judge by.
    """
    known = np.array(seen_clips(clips, load_model(twin)[1].fingerprints, jobs=2))
    sources = {clip.source for clip, seen in zip(clips, known, strict=True) if seen}
    new = np.array([clip.source not in sources for clip in clips]) & ~known
    for mask, words in ((known, "was trained on"), (new, "has not heard")):
        if len(set(truth[mask])) < 2:
            raise UserError(
                f"the recordings that {twin} {words} are not dangers and safe sounds: it is no twin for them"
            )
    return known, new


def judge(truth: np.ndarray, scores: np.ndarray, names: np.ndarray, sources: np.ndarray, min_recall: float) -> dict:
    """Threshold and what it does, on clips that nothing knew: of the thresholds that find enough, the quietest."""
    threshold = choose_threshold(truth, scores, min_recall)
    alarm = scores >= threshold
    recall, false_alarms = (share_with_interval(alarm[truth == label], sources[truth == label]) for label in (1, 0))
    points = [
        {"threshold": t, "danger_recall": float((scores[truth == 1] >= t).mean()),
         "false_alarms": float((scores[truth == 0] >= t).mean())}
        for t in GRID
    ]  # fmt: skip
    by_category = {
        str(name): f"{int(alarm[names == name].sum())} of {int((names == name).sum())}" for name in np.unique(names)
    }
    return {
        "threshold": threshold,
        "min_recall": min_recall,
        "held_out": {
            "clips": len(truth), "danger": int(truth.sum()), "recordings": len(np.unique(sources)),
            "roc_auc": float(roc_auc_score(truth, scores)), "danger_recall": recall, "false_alarms": false_alarms,
            "calibration": calibration(truth, scores), "alarms_by_category": by_category,
        },
        "operating_points": points,  # false alarms an hour are few at very low thresholds, where all run into one
    }  # fmt: skip


def judge_unknown(
    truth: np.ndarray,
    scores: np.ndarray,
    names: np.ndarray,
    sources: np.ndarray,
    similar: np.ndarray,
    categories: np.ndarray,
    threshold: float,
) -> dict:
    """From where on a sound is unknown, what that costs among the categories, and what becomes of one left out.

    ``similar``: of each clip, to each of the sorted ``categories``. A category is left out by forgetting its mean; the
    network was taught it all the same.
    """
    least = unknown_level(similar.max(axis=1))
    quiet = scores < threshold  # no danger
    own = categories[None, :] == names[:, None]
    unknown, without_own = (quiet & (s.max(axis=1) < least) for s in (similar, np.where(own, -1, similar)))
    return {
        "least_familiar": least,
        "known_called_unknown": share_with_interval(unknown[quiet], sources[quiet]),
        "missed_called_unknown": [int((unknown & (truth == 1)).sum()), int((quiet & (truth == 1)).sum())],
        "left_out_called_unknown": share_with_interval(without_own[quiet], sources[quiet]),
        "left_out_categories": {
            str(name): f"{int(without_own[names == name].sum())} of {int(quiet[names == name].sum())}"
            for name in np.unique(names)
        },
    }


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=Path, nargs="+", required=True, metavar="DIR", help="folders of sounds")
    add("--twins", type=str, nargs="+", required=True, metavar="FILE", help="networks of the same recipe, each trained "
        "without some recordings")  # fmt: skip
    add("--same", type=Path, default=ROOT / "models" / "compact_same.toml", metavar="FILE", help="as finetune_cnn14.py")
    add("--rooms", type=cli.whole_number(1), default=200, metavar="N", help="synthesised quiet rooms to learn from")
    add(
        "--hours",
        type=cli.number(0.01),
        default=2.0,
        metavar="H",
        help="of ordinary sound in which false alarms are counted",
    )
    add("--min-recall", type=cli.share, default=0.9, metavar="R", help="share of dangers the threshold must find")
    add("--output", type=Path, default=READY, metavar="FILE", help="detector to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
