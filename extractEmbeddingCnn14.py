"""Step 2: turn each clip into an embedding with Cnn14: 2,048 numbers that say what it sounds like (compact: 512).

    python extractEmbeddingCnn14.py                        # the official Cnn14, downloaded when absent (327 MB)
    python extractEmbeddingCnn14.py --checkpoint compact   # the small network of this repository: offline, fast

In:   dataset/ as written by step 1, or any folder with Danger/ and Safe/ folders of sounds
Out:  audio_embeddings.csv           file, label, category, fold, source, seen, feat_0000 …: one row a clip
      audio_embeddings.json          checkpoint and its hash, settings, versions, counts
      audio_embeddings_failures.csv  clips that could not be read, and why

``seen`` is True for clips that the checkpoint was itself trained on: scores on those are too good to be true.
Next: train_rf_model.py, train_logreg_model.py, train_mlp_model.py
"""

import time
from pathlib import Path

from danger_safe import cli
from danger_safe.clips import read_clips
from danger_safe.errors import UserError
from danger_safe.files import write_csv


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    clips = read_clips(args.dataset)
    unlabelled = [clip.file for clip in clips if clip.label is None]
    if unlabelled:
        raise UserError(
            f"{args.dataset}: {unlabelled[0]} is neither Danger nor Safe. "
            "Run filterAudioToDangerousAndSafe.py first, or put the sounds into folders named Danger and Safe"
        )
    if args.output.suffix not in (".csv", ".parquet"):
        raise UserError(f"{args.output}: the table must be named .csv or .parquet")

    # PyTorch takes seconds to load: only now is it certain to be needed.
    from danger_safe.extraction import describe, extract
    from danger_safe.table import side_file, write_table
    from models.checkpoints import load_model
    from models.engine import Engine, choose_device

    device = choose_device(args.device)
    model, checkpoint = load_model(args.checkpoint)
    engine = Engine(model, device)
    started = time.monotonic()
    table, features, failures = extract(clips, engine, checkpoint.clips, args.batch_size, args.jobs)
    seconds = time.monotonic() - started

    failures_file = side_file(args.output, "_failures.csv")
    write_csv(failures_file, ("file", "reason"), failures)
    if not len(table):
        raise UserError(f"none of the {len(clips)} clips could be read; the reasons are in {failures_file}")
    write_table(args.output, table, features, describe(checkpoint, engine, table, failures))

    for file, reason in failures:
        cli.warn(f"{file} {reason}")
    seen = int(table["seen"].sum())
    if seen:
        cli.warn(
            f"{seen} of {len(table)} clips were in the checkpoint's own training (column seen): "
            "scores on them are optimistic"
        )
    print(f"Wrote {args.output}. Next: python train_logreg_model.py --embeddings {args.output}")
    print(
        f"{len(table)} clips in {seconds:.1f} s, {len(table) / seconds:.1f} clips per second, "
        f"{len(failures)} failures ({engine.name}, {checkpoint.name})"
    )
    return cli.SOME_FAILED if failures else cli.DONE


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("dataset"), metavar="DIR", help="folder of step 1")
    parser.add_argument("--output", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE",
                        help="table to write; .parquet too (needs pyarrow)")  # fmt: skip
    parser.add_argument("--checkpoint", default="cnn14", metavar="NAME|FILE",
                        help="cnn14 (official), compact (in the repository), or a checkpoint file")  # fmt: skip
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    parser.add_argument("--batch-size", type=cli.whole_number(1), default=8, metavar="N", help="clips in one step")
    parser.add_argument("--jobs", type=cli.whole_number(1), default=2, metavar="N", help="clips decoded at once")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
