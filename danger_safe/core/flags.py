"""The flags that several scripts share: read before scikit-learn is loaded, so that a slip in them is told at once."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from danger_safe.core import cli, paths


@dataclass(frozen=True)
class TrainingFlags:
    """What a train script was asked for."""

    embeddings: Path
    output_dir: Path
    min_recall: float
    seed: int
    jobs: int


def training_flags(arguments: list[str], docstring: str | None) -> TrainingFlags:
    """A train script's flags. Leaves with status 2 where one is wrong."""
    parser = cli.new_parser(docstring)
    add = parser.add_argument
    add("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE", help="table of step 2")
    add("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    add("--min-recall", type=cli.fraction, default=0.95, metavar="R",
        help="fraction of the dangers that the chosen threshold must find; below 0.95, it may be above "
            "0.5")  # fmt: skip
    add("--seed", type=cli.whole_number(0), default=0, metavar="N", help="of everything random")
    add("--jobs", type=cli.cores, default=2, metavar="N", help="processor cores to use")
    args = parser.parse_args(arguments)
    return TrainingFlags(args.embeddings, args.output_dir, args.min_recall, args.seed, args.jobs)


def models_parser(docstring: str | None, verb: str) -> argparse.ArgumentParser:
    """The flags that the steps after the trainings share; ``verb`` is what is done to the models."""
    parser = cli.new_parser(docstring)
    add = parser.add_argument
    add("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE", help="table of step 2")
    add("--models", type=Path, nargs="+", default=None, metavar="FILE",
        help=f"models to {verb} (default: every *_model.skops in --output-dir)")  # fmt: skip
    add("--dataset", type=paths.parse_path, default=None, metavar="DIR",
        help="folder of the sounds (default: the one that the table was made of)")  # fmt: skip
    add("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    add("--jobs", type=cli.cores, default=2, metavar="N", help="processor cores to use")
    return parser
