"""The flags that the train scripts share: read before scikit-learn is loaded, so that a slip in them is told at once."""

from argparse import Namespace
from pathlib import Path

from danger_safe.core import cli


def training_flags(arguments: list[str], docstring: str) -> Namespace:
    """A train script's flags. Leaves with status 2 where one is wrong."""
    parser = cli.new_parser(docstring)
    add = parser.add_argument
    add("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE", help="table of step 2")
    add("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    add("--min-recall", type=cli.fraction, default=0.95, metavar="R",
        help="fraction of the dangers that the chosen threshold must find; below 0.95, it may be above 0.5")  # fmt: skip
    add("--seed", type=cli.whole_number(0), default=0, metavar="N", help="of everything random")
    add("--jobs", type=cli.cores, default=2, metavar="N", help="processor cores to use")
    return parser.parse_args(arguments)
