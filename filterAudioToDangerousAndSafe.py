"""Step 1: sort the clips of ESC-50 into Danger and Safe.

    python filterAudioToDangerousAndSafe.py             # ESC-50, downloaded when absent (600 MB)
    python filterAudioToDangerousAndSafe.py --sample    # synthesised sounds instead: offline, in seconds

In:   an ESC-50 folder (audio/*.wav, meta/esc50.csv) and dataset/categories.toml, which you may edit
Out:  dataset/Danger/, dataset/Safe/ (links to the clips, or copies) and dataset/manifest.csv

Running it twice changes nothing. After a change of the mapping it removes the clips that no longer belong, and only
those that it placed itself. Next: extractEmbeddingCnn14.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where python -I does not look by itself

import os
from collections import Counter
from dataclasses import replace

from danger_safe.core import cli
from danger_safe.core.errors import UserError
from danger_safe.data.categories import read_categories
from danger_safe.data.clips import LABEL_NAMES, read_clips
from danger_safe.data.esc50 import download_esc50
from danger_safe.data.links import place_clips

DOWNLOADED = Path("dataset/ESC-50-master")  # in the working folder


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    read_categories(args.categories, None)  # a slip in it should not be found after a download of 600 MB

    folder = args.esc50
    if args.sample:
        folder = args.output / "sample-sounds"
        if not (folder / "meta" / "esc50.csv").is_file():  # the table is written last
            from danger_safe.data.synthetic import make_samples  # SciPy takes half a second to load

            make_samples(folder)
    elif not os.path.lexists(folder) and folder == DOWNLOADED:
        download_esc50(folder)
    if not (folder / "meta" / "esc50.csv").is_file():
        raise UserError(f"{folder} {why_not_esc50(folder)}")

    found = read_clips(folder)
    labels = read_categories(args.categories, {clip.category for clip in found})
    chosen = [
        replace(clip, label=labels[clip.category], file=f"{LABEL_NAMES[labels[clip.category]]}/{Path(clip.path).name}")
        for clip in sorted(found, key=lambda clip: clip.file)
        if clip.category in labels
    ]
    twice = [file for file, count in Counter(clip.file for clip in chosen).items() if count > 1]
    if twice:
        raise UserError(f"{folder}: meta/esc50.csv lists {twice[0].split('/')[1]} twice")
    present = [clip for clip in chosen if os.path.isfile(clip.path)]  # False for a name that the system cannot have
    missing = sorted(set(chosen) - set(present), key=lambda clip: clip.file)
    if not present:
        raise UserError(f"none of the {len(chosen)} clips is in {folder / 'audio'}")
    placed, removed = place_clips(present, args.output, copy=args.copy)

    counts = Counter((labels[clip.category], clip.category) for clip in present)
    for (label, category), count in sorted(counts.items()):
        print(f"{LABEL_NAMES[label]:<7} {cli.one_line(category):<16} {count:>5}")
    for label, name in enumerate(LABEL_NAMES):
        print(f"{name:<7} {'total':<16} {sum(n for (which, _), n in counts.items() if which == label):>5}")
    print(f"{placed} clips placed, {len(present) - placed} already there, {removed} removed")
    dataset = "" if args.output == Path("dataset") else f" --dataset {args.output}"
    print(f"Wrote {args.output / 'manifest.csv'}. Next: python extractEmbeddingCnn14.py{dataset}")
    for clip in missing:
        cli.warn(f"{clip.path} is listed in meta/esc50.csv but missing")
    return cli.SOME_FAILED if missing else cli.DONE


def why_not_esc50(folder: Path) -> str:
    """In words, with what to do."""
    words = "is not an ESC-50 folder: meta/esc50.csv is not in it" if folder.exists() else "is not there"
    deeper = next((path.parent.parent for path in sorted(folder.glob("*/meta/esc50.csv"))), None)
    if deeper:
        return f"{words}, but in {deeper}: give --esc50 {deeper}"
    return f"{words}. Give the folder that has meta/ and audio/ in it; without --esc50 it is downloaded to {DOWNLOADED}"


def own_or_default(name: str) -> Path:
    """A file of the working folder, or where it has none the project's own of that name."""
    return Path(name) if os.path.lexists(name) else Path(__file__).resolve().parent / name


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    parser.add_argument("--esc50", type=Path, default=DOWNLOADED, metavar="DIR",
                        help="ESC-50 folder that you have already; by default downloaded when absent")  # fmt: skip
    parser.add_argument("--sample", action="store_true",
                        help="use synthesised sounds instead of ESC-50: they only show the pipeline "
                            "working")  # fmt: skip
    parser.add_argument("--categories", type=Path, default=own_or_default("dataset/categories.toml"), metavar="FILE",
                        help="which categories are Danger and which Safe")  # fmt: skip
    parser.add_argument("--output", type=cli.folder, default=Path("dataset"), metavar="DIR", help="where to put them")
    parser.add_argument("--copy", action="store_true", help="copy the clips instead of linking to them")
    args = parser.parse_args(arguments)
    if args.sample and args.esc50 != parser.get_default("esc50"):
        parser.error("give --sample or --esc50, not both")
    return args


if __name__ == "__main__":
    cli.run(main)
