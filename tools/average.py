"""The mean of checkpoints of one training: ``python -m tools.average FIRST.pth SECOND.pth … OUTPUT.pth``.

A second stage of training that teaches one thing forgets a little of another; half way between the two, a network often
has most of both (Wortsman et al. 2022, arXiv:2203.05482). All must have the same layers and classes. Of one alone, with
--small, it is the same network in fewer bytes.
"""

import sys
from pathlib import Path

import torch

from danger_safe.core import cli
from danger_safe.core.errors import UserError
from models.checkpoints import COMPUTED, load_model, save_checkpoint


def main(arguments: list[str]) -> int:
    parser = cli.new_parser(__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="each was trained on from the one before")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="checkpoint to write")
    parser.add_argument("--small", action="store_true", help="one byte a weight instead of two")
    args = parser.parse_args(arguments)
    models, infos = zip(*map(load_model, args.checkpoints), strict=True)
    last, info = models[-1], infos[-1]
    for name, model, known in zip(args.checkpoints, models, infos, strict=True):
        if model.settings != last.settings or known.categories != info.categories:
            raise UserError(f"{name} and {args.checkpoints[-1]} have other layers or classes: their mean is nothing")
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        for name, values in states[-1].items():
            if values.is_floating_point() and not name.startswith(COMPUTED):
                values.copy_(torch.stack([state[name] for state in states]).mean(dim=0))
    names = [f"{Path(name).name} {known.sha256}" for name, known in zip(args.checkpoints, infos, strict=True)]
    fingerprints = set().union(*(known.fingerprints for known in infos))
    save_checkpoint(
        args.output, last, categories=list(info.categories), fingerprints=fingerprints, licence=info.licence,
        training={"mean_of": names}, small=args.small,
    )  # fmt: skip
    print(f"Wrote {args.output}")
    return cli.DONE


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
