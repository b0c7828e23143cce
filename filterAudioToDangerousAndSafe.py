"""Step 1: sort the clips of ESC-50 into Danger and Safe.

    python filterAudioToDangerousAndSafe.py             # ESC-50, downloaded when absent (600 MB)
    python filterAudioToDangerousAndSafe.py --sample    # synthesised sounds instead: offline, in seconds

In:   an ESC-50 folder (audio/*.wav, meta/esc50.csv) and dataset/categories.toml, which you may edit
Out:  dataset/Danger/, dataset/Safe/ (links to the clips, or copies) and dataset/manifest.csv

Running it twice changes nothing. After a change of the mapping it removes the clips that no longer belong, but never a
file that it did not place itself. Next: extractEmbeddingCnn14.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

import os
from collections import Counter
from dataclasses import replace

from danger_safe.core import cli
from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError
from danger_safe.data.categories import read_categories
from danger_safe.data.clips import LABEL_NAMES, SAFE, Clip, read_clips
from danger_safe.data.esc50 import download_esc50
from danger_safe.data.links import place_clips

ESC50_FOLDER = Path("dataset/ESC-50-master")  # in the working folder; downloaded there when absent


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    read_categories(args.categories, None)  # finds a mistake in it before 600 MB are downloaded
    folder = find_sounds(args.esc50, args.sample, args.output)
    chosen = choose_clips(folder, args.categories)
    present = [clip for clip in chosen if os.path.isfile(clip.path)]  # False for a name that the system cannot have
    missing = sorted(set(chosen) - set(present), key=lambda clip: clip.file)
    if not present:
        raise UserError(f"none of the {len(chosen)} clips is in {folder / 'audio'}")
    placed, removed = place_clips(present, args.output, copy=args.copy)

    print_counts(present)
    print(f"{placed} clips placed, {len(present) - placed} already there, {removed} removed")
    flags = ("" if args.output == Path("dataset") else f" --dataset {args.output}") + (
        " --checkpoint compact" if args.sample else ""
    )
    print(f"Wrote {args.output / 'manifest.csv'}. Next: {command_line('extract')}{flags}")
    for clip in missing:
        cli.warn(f"{clip.path} is listed in meta/esc50.csv but missing")
    return cli.SOME_FAILED if missing else cli.DONE


def find_sounds(esc50: Path, sample: bool, output: Path) -> Path:
    """Return the ESC-50 folder, downloaded or, with ``sample``, synthesised if need be.

    Raises UserError when ``esc50`` is not an ESC-50 folder.
    """
    folder = output / "sample-sounds" if sample else esc50
    if sample:
        if not (folder / "meta" / "esc50.csv").is_file():  # the table is written last
            from danger_safe.data.synthetic import make_samples  # SciPy takes half a second to load

            make_samples(folder)
    elif folder == ESC50_FOLDER:
        download_esc50(folder)  # unless it is there
    if not (folder / "meta" / "esc50.csv").is_file():
        raise UserError(f"{folder} {why_not_esc50(folder)}")
    return folder


def choose_clips(folder: Path, categories: Path) -> list[Clip]:
    """Return the clips of an ESC-50 folder that the mapping names, with label and file (``Danger/….wav``), by name."""
    clips = read_clips(folder)
    labels = read_categories(categories, {clip.category for clip in clips})
    chosen = [
        replace(clip, label=labels[clip.category], file=f"{LABEL_NAMES[labels[clip.category]]}/{Path(clip.path).name}")
        for clip in sorted(clips, key=lambda clip: clip.file)
        if clip.category in labels
    ]
    duplicates = [file for file, count in Counter(clip.file for clip in chosen).items() if count > 1]
    if duplicates:
        raise UserError(f"{folder}: meta/esc50.csv lists {duplicates[0].split('/')[1]} twice")
    return chosen


def print_counts(clips: list[Clip]) -> None:
    """Print how many clips each category and each label has."""
    counts = Counter((clip.label or SAFE, clip.category) for clip in clips)
    totals = Counter(clip.label for clip in clips)
    for (label, category), count in sorted(counts.items()):
        print(f"{LABEL_NAMES[label]:<7} {cli.one_line(category):<16} {count:>5}")
    for label, name in enumerate(LABEL_NAMES):
        print(f"{name:<7} {'total':<16} {totals[label]:>5}")


def why_not_esc50(folder: Path) -> str:
    """Return why a folder is not ESC-50, and what to do about it, as the end of a sentence."""
    reason = "is not an ESC-50 folder: meta/esc50.csv is not in it" if folder.exists() else "is not there"
    nested = next((path.parent.parent for path in sorted(folder.glob("*/meta/esc50.csv"))), None)
    if nested:
        return f"{reason}, but in {nested}: give --esc50 {nested}"
    advice = f"Give the folder that has meta/ and audio/ in it; without --esc50 it is downloaded to {ESC50_FOLDER}"
    return f"{reason}. {advice}"


def user_or_default(name: str) -> Path:
    """Return the file of that name in the working folder or, if there is none, the one that the project brings."""
    return Path(name) if os.path.lexists(name) else Path(__file__).resolve().parent / name


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--esc50", type=Path, default=ESC50_FOLDER, metavar="DIR",
        help="ESC-50 folder that you have already; by default downloaded when absent")  # fmt: skip
    add("--sample", action="store_true",
        help="use synthesised sounds instead of ESC-50: they only show the pipeline working")  # fmt: skip
    add("--categories", type=Path, default=user_or_default("dataset/categories.toml"), metavar="FILE",
        help="which categories are Danger and which Safe")  # fmt: skip
    add("--output", type=cli.folder, default=Path("dataset"), metavar="DIR", help="where to put them")
    add("--copy", action="store_true", help="copy the clips instead of linking to them")
    args = parser.parse_args(arguments)
    if args.sample and args.esc50 != parser.get_default("esc50"):
        parser.error("give --sample or --esc50, not both")
    return args


if __name__ == "__main__":
    cli.run(main)
