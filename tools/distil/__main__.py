"""Train the compact network as a student of mn04: from scratch, without labels, in about three hours on two cores.

    python -m tools.distil --sounds SOUNDS UNLABELLED --without-esc50 dataset/ESC-50-master --output models/compact.pth

Teacher and student get the same three seconds, mixed from several recordings; the student often gets a corrupted
version, as a bad recording would be. It learns the direction of the teacher's features (standardised, of the whole
example and of each of ten steps in time, through two linear projections that are discarded afterwards) and its 527
AudioSet logits. In the second half the learning rate rises once more, and dangers count for more. The ideas come from
S-SONDO, CED and EfficientAT; benchmarks/compact.md has the trials.

A training that was stopped is resumed by the same command: its state is saved in --work every three minutes. No clip of
ESC-50 takes part, nor any recording that one was cut from: sounds whose names contain the Freesound number of such a
recording are left out.
"""

import argparse
import csv
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from danger_safe.core import cli
from danger_safe.core.errors import UserError
from models.checkpoints import save_checkpoint
from tools.distil.corpus import collect, freesound_numbers
from tools.distil.examples import RING_SIZE, TAGS, Examples, make_validation, start_producer
from tools.distil.training import Distillation, Recipe

MIN_EXAMPLES = 9_000  # in the ring before the training starts
LICENCE = "CC BY-NC 3.0 (trained on sounds of which several forbid commercial use)"


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    tag_names = read_tag_names(args.tag_names)

    # Decode the sounds, and start to make examples of them.
    without = freesound_numbers(args.without_esc50) if args.without_esc50 else set()
    corpus = collect(args.sounds, args.work, without)
    _, held_out = corpus.split(args.hold_out)
    validation = make_validation(corpus, held_out, args.work)
    ring = Examples.open(args.work, "ring", RING_SIZE, "w+")
    producer = start_producer(args.work, args.hold_out, args.examples_per_second, seed=time.time_ns())
    with tqdm(total=MIN_EXAMPLES, desc="First mixtures", unit="example", file=sys.stderr) as bar:
        while ring.written[0] < MIN_EXAMPLES:
            if not producer.is_alive():
                raise UserError("the process that mixes examples ended: its own message is above")
            bar.update(int(ring.written[0]) - bar.n)
            time.sleep(1)

    # Train and write the checkpoint.
    training = Distillation(Recipe(args.steps), tag_names, ring, validation, args.work / "state.pth")
    training.run()
    producer.kill()
    provenance = {
        "recipe": asdict(training.recipe),
        "history": training.history,
        "collections": list(corpus.collections),
    }
    save_checkpoint(
        args.output,
        training.network(),
        categories=tag_names,
        fingerprints=[],
        licence=LICENCE,
        training=provenance,
        int8=True,
    )
    print(f"Wrote {args.output}; python -m tools.build_detector makes the detector that belongs to it")
    return cli.DONE


def read_tag_names(file: Path) -> list[str]:
    """Read AudioSet's 527 class names, in order, from its class_labels_indices.csv.

    Raises UserError if it is another table.
    """
    with open(file, newline="", encoding="utf-8-sig") as table:
        names = [row.get("display_name", "") for row in csv.DictReader(table)]
    if len(names) != TAGS or not all(names):
        raise UserError(f"{file}: not AudioSet's table of {TAGS} classes (index, mid, display_name)")
    return names


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add(
        "--sounds",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of sounds; names of files and labels do not matter",
    )
    add("--without-esc50", type=Path, metavar="DIR", help="a copy of ESC-50, whose recordings are left out")
    add("--hold-out", nargs="+", required=True, metavar="COLLECTION", help="collections for validation only")
    add("--tag-names", type=Path, required=True, metavar="FILE", help="AudioSet's class_labels_indices.csv")
    add("--steps", type=cli.whole_number(1), default=11_400, metavar="N", help="of 48 examples each")
    add("--examples-per-second", type=cli.number(0.1), default=20.0, metavar="N", help="new ones, beside the training")
    threads = max(1, (os.cpu_count() or 2) - 1)
    add("--threads", type=cli.whole_number(1), default=threads, metavar="N", help="of the training")
    add(
        "--work",
        type=Path,
        default=Path("models/distil"),
        metavar="DIR",
        help="for decoded sounds, examples and the state",
    )
    add("--output", type=Path, default=Path("models/compact.pth"), metavar="FILE", help="checkpoint to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
