"""Build models/detector.npz, the built-in detector: ``make detector``.

    python -m tools.build_detector --labelled ESC-50-master SOUNDS --unlabelled UNLABELLED --ordinary ORDINARY \\
        --hold-out "Starluxa" "Aweeesome-lab"

A logistic regression is trained on windows of labelled clips, and of unlabelled sounds in which the teacher, mn04,
finds nothing dangerous. It is evaluated collection by collection: each clip is scored by a regression that was trained
on other collections. Most of these sounds were in the network's own training, but without labels.

The operating points come from ORDINARY, long recordings in one folder per collection: the collections named in
--hold-out were in the training of neither the network nor the regression, and their false alarms are counted per hour.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from danger_safe.core import cli
from danger_safe.core.errors import UserError
from danger_safe.data.categories import read_mappings, read_same
from danger_safe.detection.detector import BUILTIN_FILE, SENSITIVITIES, BuiltinDetector, OperatingPoint
from danger_safe.detection.scorer import WINDOW_S
from danger_safe.evaluation.calibration import calibration
from danger_safe.evaluation.false_alarms import SECONDS_PER_HOUR, THRESHOLDS, find_events, with_scores
from danger_safe.evaluation.intervals import fraction_with_interval, rate_with_interval
from danger_safe.evaluation.thresholds import lowest_threshold
from models.checkpoints import load_model
from tools.detector_tags import DANGEROUS_TAGS, PRIMARY_TAGS
from tools.detector_training import FALSE_UNKNOWN_RATE, ClipScores, TrainingData, fit_sigmoid
from tools.detector_windows import Sound, are_safe, embed_windows, labelled_sounds, room_tones, unlabelled_sounds
from tools.model_card import MAPPINGS, ROOT

MAX_FALSE_ALARMS_PER_HOUR = {"low": 1.0, "normal": 5.0, "high": 20.0}  # by sensitivity


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    network, info = load_model(args.checkpoint)
    dangerous_tags = [info.categories.index(name) for name in DANGEROUS_TAGS]
    groups = (tuple(dangerous_tags[: len(PRIMARY_TAGS)]), tuple(dangerous_tags))
    labels = read_mappings(MAPPINGS)

    # List the sounds.
    ordinary = unlabelled_sounds(args.ordinary)
    held_out = [sound for sound in ordinary if sound.collection in args.hold_out]
    if not held_out:
        raise UserError(f"{args.ordinary}: none of --hold-out's collections is in it")
    labelled = list_labelled(args.labelled, read_same(args.same), args.rooms, labels)
    unlabelled = ordinary + [sound for folder in args.unlabelled for sound in unlabelled_sounds(folder)]
    train_unlabelled = [sound for sound in unlabelled if sound.collection not in args.hold_out]
    safe = select_safe(train_unlabelled, args.teacher, dangerous_tags)

    # Embed their windows and cross-validate over collections.
    windows = embed_windows(args.checkpoint, labelled).followed_by(embed_windows(args.checkpoint, safe, WINDOW_S))
    data = TrainingData(labelled + safe, windows, network.head, groups, labels)
    values = data.cross_validate()
    uncalibrated = ClipScores(data, values)
    slope, offset = fit_sigmoid(uncalibrated.scores, uncalibrated.truth)
    clips = ClipScores(data, values, slope, offset)

    # Train on everything, count false alarms and write the detector.
    detector = data.fit_detector(info.sha256, slope, offset)
    hours, counts = count_false_alarms(args.checkpoint, detector, held_out)
    about = evaluate(clips, hours, counts, held_out) | {"unknown_rate": FALSE_UNKNOWN_RATE}
    detector = replace(detector, reference=clips.reference(detector, data))
    detector.with_evaluation(about).save(args.output)
    print(json.dumps(about, indent=2))
    print(f"Wrote {args.output}")
    return cli.DONE


def list_labelled(folders: list[Path], same: dict[str, str], room_count: int, labels: dict[str, int]) -> list[Sound]:
    """List labelled clips and synthetic room tones.

    Args:
        folders: Folders of labelled clips.
        same: Other names of categories.
        room_count: Number of room tones.
        labels: 0 (Safe) or 1 (Danger) of each category.

    Raises:
        UserError: A category has no label.
    """
    sounds = [sound for folder in folders for sound in labelled_sounds(folder, same)] + room_tones(room_count)
    unknown = sorted({sound.category for sound in sounds} - set(labels))
    if unknown:
        raise UserError(f"{', '.join(unknown)}: neither in {MAPPINGS[0]} nor in {MAPPINGS[1]}")
    return sounds


def select_safe(sounds: list[Sound], teacher: str, dangerous_tags: list[int]) -> list[Sound]:
    """Return the sounds in which the teacher finds nothing dangerous."""
    is_safe = are_safe(teacher, sounds, dangerous_tags)
    print(f"{int(is_safe.sum())} of {len(sounds)} unlabelled sounds have nothing dangerous in them, says {teacher}")
    return [sound for sound, safe in zip(sounds, is_safe, strict=True) if safe]


def count_false_alarms(
    checkpoint: str, detector: BuiltinDetector, ordinary: list[Sound]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hours of each recording, (recordings,), and its events per threshold, (thresholds, recordings)."""
    embedded = embed_windows(checkpoint, ordinary)
    raw = detector.scores(embedded.embeddings)
    hours, counts = np.zeros(len(ordinary)), np.zeros((len(THRESHOLDS), len(ordinary)))
    for number in range(len(ordinary)):
        rows = np.flatnonzero(embedded.sound == number)
        unscored = [embedded.windows[row] for row in rows]
        windows = with_scores(unscored, np.where([window.is_silent for window in unscored], 0.0, raw[rows]).tolist())
        hours[number] = windows[-1].end / SECONDS_PER_HOUR if windows else 0.0
        for index, threshold in enumerate(THRESHOLDS):
            counts[index, number] = len(find_events(windows, float(threshold)))
    return hours, counts


def evaluate(clips: ClipScores, hours: np.ndarray, counts: np.ndarray, ordinary: list[Sound]) -> dict:
    """Return the operating points with rates and intervals, as the detector's file states them.

    Args:
        clips: Out-of-fold scores of the labelled clips.
        hours: Length of each ordinary recording, (recordings,).
        counts: Its events per threshold, (thresholds, recordings).
        ordinary: The ordinary recordings.
    """
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
    sides = np.char.add(clips.collection, np.where(danger, " (danger)", " (safe)"))
    sensitivities = {}
    for name in SENSITIVITIES:
        point = lowest_threshold(points, MAX_FALSE_ALARMS_PER_HOUR[name]) or points[-1]
        is_alarm = clips.scores >= point.threshold
        per_hour = rate_with_interval(counts[points.index(point)], hours, recordings)
        sensitivities[name] = {
            "threshold": point.threshold,
            "danger_recall": fraction_with_interval(is_alarm[danger], clips.source[danger]).as_list(),
            "false_alarms": fraction_with_interval(is_alarm[~danger], clips.source[~danger]).as_list(),
            "false_alarms_per_hour": per_hour.as_list(),
            "alarms_by_category": count_by_name(is_alarm, clips.category),
            "alarms_by_collection": count_by_name(is_alarm, sides),
        }
    return {
        "sensitivities": sensitivities,
        "operating_points": [
            asdict(point) | {"false_alarms": float((clips.scores[~danger] >= point.threshold).mean())}
            for point in points
        ],
        "left_out": {
            "clips": len(clips.truth),
            "danger": int(danger.sum()),
            "recordings": len(np.unique(clips.source)),
            "collections": len(np.unique(clips.collection)),
            "roc_auc": float(roc_auc_score(clips.truth, clips.scores)),
            "calibration": asdict(calibration(clips.truth, clips.scores)),
        },
        "ordinary": {
            "hours": float(hours.sum()),
            "recordings": len(ordinary),
            "collections": sorted({sound.collection for sound in ordinary}),
        },
    }


def count_by_name(is_alarm: np.ndarray, names: np.ndarray) -> dict[str, str]:
    """Return the number of alarms for each name, as ``"12 of 30"``."""
    return {str(n): f"{int(is_alarm[names == n].sum())} of {int((names == n).sum())}" for n in np.unique(names)}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--labelled", type=Path, nargs="+", required=True, metavar="DIR", help="folders of clips with categories")
    add("--unlabelled", type=Path, nargs="+", required=True, metavar="DIR", help="folders of everyday sounds")
    add("--ordinary", type=Path, required=True, metavar="DIR", help="long recordings in one folder per collection")
    add("--hold-out", nargs="+", required=True, metavar="COLLECTION", help="collections for evaluation only")
    add("--same", type=Path, default=ROOT / "models" / "compact_same.toml", metavar="FILE", help="as finetune_cnn14.py")
    add("--rooms", type=cli.whole_number(1), default=200, metavar="N", help="synthetic quiet rooms to train on")
    add("--checkpoint", default="compact", metavar="NAME|FILE", help="the network that makes embeddings")
    add("--teacher", default="mn04", metavar="NAME|FILE", help="the network that says which unlabelled sounds are safe")
    add("--output", type=Path, default=BUILTIN_FILE, metavar="FILE", help="detector to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
