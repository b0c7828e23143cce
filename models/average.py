"""The mean of two checkpoints of one training: ``python -m models.average FIRST.pth SECOND.pth OUTPUT.pth``.

A second stage of training that teaches one thing forgets a little of another; half way between the two, a network often
has most of both (Wortsman et al. 2022, arXiv:2203.05482). Both must have the same layers and classes.
"""

import sys
from pathlib import Path

import torch

from danger_safe import cli
from danger_safe.errors import UserError
from models.checkpoints import COMPUTED, load_model, save_checkpoint


def main(arguments: list[str]) -> int:
    parser = cli.new_parser(__doc__)
    parser.add_argument("first", metavar="FIRST", help="checkpoint")
    parser.add_argument("second", metavar="SECOND", help="checkpoint that was trained on from the first")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="checkpoint to write")
    parser.add_argument("--small", action="store_true", help="one byte a weight instead of two: for a twin")
    args = parser.parse_args(arguments)
    (first, known), (second, info) = load_model(args.first), load_model(args.second)
    if first.settings != second.settings or known.categories != info.categories:
        raise UserError(f"{args.first} and {args.second} have other layers or classes: their mean is nothing")
    before, state = first.state_dict(), second.state_dict()
    with torch.no_grad():
        for name, values in state.items():
            if values.is_floating_point() and not name.startswith(COMPUTED):
                values.lerp_(before[name], 0.5)
    training = {"mean_of": [f"{Path(args.first).name} {known.sha256}", f"{Path(args.second).name} {info.sha256}"]}
    clips = sorted(known.clips | info.clips)
    save_checkpoint(
        args.output, second, categories=list(info.categories), clips=clips, licence=info.licence, training=training,
        small=args.small,
    )  # fmt: skip
    print(f"Wrote {args.output}")
    return cli.DONE


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
