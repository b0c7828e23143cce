"""Flags that several scripts share. They are parsed before scikit-learn is imported, so that mistakes show at once."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from danger_safe.core import cli, paths


@dataclass(frozen=True)
class TrainingFlags:
    """The settings of a train script."""

    embeddings: Path
    output_dir: Path
    min_recall: float
    seed: int
    jobs: int


def training_flags(arguments: list[str], docstring: str | None) -> TrainingFlags:
    """Parse the flags of a train script. Exits with status 2 if one is wrong."""
    parser = cli.new_parser(docstring)
    add = parser.add_argument
    add("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE", help="table of step 2")
    add("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    add("--min-recall", type=cli.fraction, default=0.95, metavar="R",
        help="fraction of the dangers that the chosen threshold must find; "
             "below 0.95, it may be above 0.5")  # fmt: skip
    add("--seed", type=cli.whole_number(0), default=0, metavar="N", help="of everything random")
    add("--jobs", type=cli.cores, default=2, metavar="N", help="processor cores to use")
    args = parser.parse_args(arguments)
    return TrainingFlags(args.embeddings, args.output_dir, args.min_recall, args.seed, args.jobs)


def models_parser(docstring: str | None, verb: str) -> argparse.ArgumentParser:
    """Return a parser with the flags that the evaluation scripts share.

    Args:
        docstring: the script's docstring, which --help prints.
        verb: what the script does with the models, for the help text ("compare").
    """
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
