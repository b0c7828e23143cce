"""Makes models/detector.npz, the detector that works at once: ``make detector``.

    python -m danger_safe.build_detector --dataset ESC-50-master OTHER_SOUNDS --twins without_fold_5.pth

The classifier learns from windows of every clip, as the compact checkpoint hears them. It cannot be judged on those:
the network knows them. Its threshold and its scores come from twins, networks of the same recipe that were trained
without some recordings: a twin's classifier learns from the clips that the twin knows, and is judged on recordings
that neither has heard.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from danger_safe import cli
from danger_safe.categories import read_categories, read_same
from danger_safe.clips import LABEL_NAMES, Clip, read_clips
from danger_safe.detector import READY
from danger_safe.detector_training import ROOM, clip_score, fit, listen, quiet_rooms
from danger_safe.errors import UserError
from danger_safe.listening import HOP, WINDOW
from models.checkpoints import load_model

ROOT = Path(__file__).resolve().parent.parent
MAPPINGS = (ROOT / "dataset" / "categories_all.toml", ROOT / "models" / "detector_categories.toml")


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    same = read_same(args.same)
    labels = read_labels()
    clips = [clip for folder in args.dataset for clip in read_clips(folder)]
    category = {clip: same.get(clip.category, clip.category) for clip in clips}
    unknown = sorted(set(category.values()) - set(labels))
    if unknown:
        raise UserError(f"{', '.join(unknown)}: neither in {MAPPINGS[0]} nor in {MAPPINGS[1]}")
    rooms = quiet_rooms(args.rooms)
    truth = np.array([labels[category[clip]] for clip in clips] + [0] * len(rooms))
    names = np.array([category[clip] for clip in clips] + [ROOM] * len(rooms))

    splits = {twin: heard_and_new(twin, clips, truth) for twin in args.twins}
    twins, held_out = {}, {}  # classifier by twin; score by clip that neither network nor classifier knew
    for twin, (known, new) in splits.items():
        info, heard = listen(twin, clips, rooms)
        detector = fit(info, heard, truth, names, np.append(known, np.ones(len(rooms), bool)))
        twins[twin] = detector
        held_out |= {i: clip_score(detector, heard[i]) for i in np.flatnonzero(new)}
    which, scores = np.array(list(held_out)), np.array(list(held_out.values()))
    about = judge(truth[which], scores, names[which], args.min_recall)
    about |= {
        "clips": len(clips), "window": WINDOW, "hop": HOP,
        "mapping": {name: sorted({c for c in category.values() if labels[c] == i}) for i, name in enumerate(LABEL_NAMES)},
    }  # fmt: skip

    info, heard = listen("compact", clips, rooms)
    ready = fit(info, heard, truth, names, np.ones(len(names), bool))
    ready.stating(about | {"checkpoint": info.name, "licence": info.licence}).save(args.output)
    for twin, detector in twins.items():  # to be judged on long recordings: benchmarks/hour.py
        detector.stating(about).save(Path(twin).with_name(Path(twin).stem + "_detector.npz"))
    print(json.dumps(about, indent=2))
    print(f"Wrote {args.output}")
    return cli.DONE


def read_labels() -> dict[str, int]:
    """Label by category, from both mappings."""
    labels: dict[str, int] = {}
    for mapping in MAPPINGS:
        labels |= read_categories(mapping, valid=None)
    return labels


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
