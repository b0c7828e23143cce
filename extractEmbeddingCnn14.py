"""Step 2: turn each clip into an embedding: 2,048 numbers from Cnn14 (384 from mn04, 768 from compact).

    python extractEmbeddingCnn14.py                        # the official Cnn14, downloaded when absent (327 MB)
    python extractEmbeddingCnn14.py --checkpoint mn04      # as accurate on AudioSet, 4 MB, many times faster
    python extractEmbeddingCnn14.py --checkpoint compact   # the small network of this repository: offline, fast

In:   dataset/ as written by step 1, or any folder with Danger/ and Safe/ folders of sounds
Out:  audio_embeddings.csv           file, label, category, fold, source, seen, feat_0000 …: one row a clip
      audio_embeddings.json          checkpoint and its hash, settings, versions, counts
      audio_embeddings_failures.csv  clips that could not be read, and why
      audio_embeddings.journal       finished clips: stop whenever you like, the same command resumes

``seen`` is True for clips that the checkpoint itself was fine-tuned on, under whatever name: scores on them are
optimistic. On several computers: start a Dask cluster as the README shows, and give --scheduler tcp://HOST:8786.
Next: train_rf_model.py, train_logreg_model.py, train_mlp_model.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

import os
import time

from danger_safe.core import cli, paths
from danger_safe.core.commands import command_line
from danger_safe.core.cores import available_cores
from danger_safe.core.errors import UserError
from danger_safe.data.clips import TABLES, Clip, read_clips
from danger_safe.data.fingerprint import seen_clips
from danger_safe.data.splits import with_folds
from danger_safe.embeddings.journal import Journal
from danger_safe.embeddings.plan import plan_extraction
from danger_safe.embeddings.table_files import SUFFIXES, TableFiles
from models.checkpoint_files import checkpoint_path, verified_sha256


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    clips = labelled_clips(args.dataset)
    if args.output.resolve() in [Path(paths.join(args.dataset, name)).resolve() for name in TABLES]:
        raise UserError(f"{args.output} is the dataset's own table: give another --output")
    made_of = {"dataset": str(args.dataset), "checkpoint": args.checkpoint}  # for later steps, in the table's .json
    table = TableFiles(args.output, args.rows_per_part, made_of)
    table.check_overwrite()
    path = checkpoint_path(args.checkpoint)
    sha256 = verified_sha256(args.checkpoint, path)
    with Journal(table.journal) as journal:
        if journal.damaged:
            cli.warn(f"{journal.path} was damaged: starting anew")
        finished = journal.results() if journal.made_with.get("checkpoint") == sha256 else {}
        plan = plan_extraction(clips, finished, args.jobs)
        request = table.request(clips, sha256)
        if plan.is_empty and journal.note("table") == {"request": request, "files": table.stamps()}:
            print(f"Nothing new: {args.output} has all {len(clips)} clips already")
            results = {clip.file: finished[clip.file] for clip in clips}
            return report_failures({file: result.reason for file, result in results.items() if result.reason})

        # Imported only when they are needed: the network's libraries load for seconds.
        from danger_safe.embeddings.cluster import embed_on_cluster
        from danger_safe.embeddings.extractor import embed_here
        from models.engine import open_engine

        started = time.monotonic()
        with open_engine(args.checkpoint, args.device, args.jobs) as engine:
            if journal.begin({"checkpoint": sha256, "engine": "cluster" if args.scheduler else engine.backend}):
                cli.warn(f"{journal.path} was made with another checkpoint or engine: starting anew")
                plan = plan_extraction(clips, {}, args.jobs)
            print(plan.describe())
            journal.add(plan.unreadable)
            batch_size = args.batch_size or engine.network.batch_size
            if args.scheduler:
                name = embed_on_cluster(
                    args.scheduler, plan.tasks, journal, args.checkpoint, sha256, engine.info.dimensions, batch_size
                )
            else:
                name = engine.name
                embed_here(engine, plan.tasks, journal, args.jobs, batch_size)
            info = engine.info
        seconds = time.monotonic() - started

        seen = seen_clips(clips, info.fingerprints, args.jobs)
        failures = table.write(clips, seen, journal, info, name)
        journal.set_note("table", {"request": request, "files": table.stamps()})
    status = report_failures(failures)
    if any(seen):
        cli.warn(
            f"{sum(seen)} of {len(clips)} clips were in the checkpoint's own training (column seen): "
            "scores on them are optimistic"
        )
    if info.names_only:
        cli.warn(
            f"{path} is of an older version, which knew its training sounds by name: whether these clips were among "
            "them is not known, and scores on them may be optimistic. Fine-tune it anew to know"
        )
    print(f"Wrote {args.output}. Next: {command_line('train logreg')} --embeddings {args.output}")
    new = sum(task.clip.file not in failures for task in plan.tasks)
    print(
        f"{new} clips in {seconds:.1f} s, {new / seconds:.1f} clips per second, {len(failures)} failures "
        f"({name}, {info.name})" + (f"; {plan.finished} clips were done before" if plan.finished else "")
    )
    return status


def labelled_clips(dataset: paths.PathOrUrl) -> list[Clip]:
    """Return the clips of a dataset, with the folds of their evaluation. Raises UserError for a clip without label."""
    clips = read_clips(dataset)
    unlabelled = [clip.file for clip in clips if clip.label is None]
    if unlabelled:
        raise UserError(
            f"{dataset}: {unlabelled[0]} is neither Danger nor Safe. "
            f"Run {command_line('filter')} first, or put the sounds into folders named Danger and Safe"
        )
    return with_folds(clips)


def report_failures(failures: dict[str, str]) -> int:
    """Warn of each clip that could not be read; return the exit status."""
    for file, reason in failures.items():
        cli.warn(f"{file} {reason}")
    return cli.SOME_FAILED if failures else cli.DONE


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=paths.parse_path, default=Path("dataset"), metavar="DIR",
        help="folder of step 1, or an address such as s3://bucket/dataset")  # fmt: skip
    add("--output", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE",
        help="table to write; .parquet too (needs pyarrow)")  # fmt: skip
    add("--rows-per-part", type=cli.whole_number(0), default=0, metavar="N",
        help="make the Parquet table a folder of parts of N clips; 0: one file")  # fmt: skip
    add("--checkpoint", default="cnn14", metavar="NAME|FILE",
        help="cnn14 (official, 327 MB), mn04 (EfficientAT's, 4 MB), compact (in the repository), mfcc (a baseline "
             "without a network), or a checkpoint file")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one")
    add("--batch-size", type=cli.whole_number(1), default=None, metavar="N",
        help="clips of 5 s in one step (default: what suits the engine)")  # fmt: skip
    add("--jobs", type=cli.cores, default=available_cores(), metavar="N", help="processor cores to use")
    add("--scheduler", default=None, metavar="ADDRESS", help="Dask scheduler, tcp://HOST:8786, to work on a cluster")
    args = parser.parse_args(arguments)
    if args.output.suffix not in SUFFIXES:
        parser.error(f"--output {args.output}: the table must be named .csv or .parquet")
    for suffix in set(SUFFIXES) - {args.output.suffix}:
        if os.path.lexists(other := args.output.with_suffix(suffix)):
            parser.error(f"--output {args.output}: {other} is there, and the files beside the two would have one name")
    if args.rows_per_part and args.output.suffix != ".parquet":
        parser.error("--rows-per-part is for a table named .parquet")
    return args


if __name__ == "__main__":
    cli.run(main)
