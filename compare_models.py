"""Step 4: all models in one picture and one table, on the same out-of-fold scores.

    python compare_models.py
    python compare_models.py --baseline audio_mfcc.csv
    python compare_models.py --models rf_model.skops mlp_model.skops --output-dir results

In:   audio_embeddings.csv and the *_model.skops files trained on it
Out:  model_comparison.png  ROC and precision–recall curves, the chosen thresholds as dots
      model_comparison.csv  one row a model, with its learning time, size and speed
      model_confusion_matrices.png  what each gets wrong, side by side
      mistakes.html, .csv   every clip that a model gets wrong, worst first, to be heard and seen
      embedding_map.png, .csv  all clips in two dimensions, mistakes ringed
      on the terminal also how sure the differences are, and which model to use

Each model is trained anew on each fold: the models in the files have seen every clip and cannot be judged on them.
Opening a .joblib file can run code that is in it: such files are opened only where you name them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where python -I does not look by itself

from danger_safe.core import cli  # first: where a package is missing, it says what to do

# isort: split
from danger_safe.core.errors import UserError
from danger_safe.core.flags import models_parser
from danger_safe.core.ownership import check_overwrite

OUTPUTS = {  # and how the tables among them begin
    "model_comparison.png": (), "model_comparison.csv": ("model", "file"), "model_confusion_matrices.png": (),
    "mistakes.html": (), "mistakes.csv": ("file", "label"), "embedding_map.png": (), "embedding_map.csv": ("file", "x"),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = models_parser(__doc__, "compare")
    parser.add_argument("--baseline", type=Path, default=None, metavar="FILE", help="the same clips without a network, "
                        "from extractEmbeddingCnn14.py --checkpoint mfcc: does the network matter?")  # fmt: skip
    args = parser.parse_args(arguments)
    # pandas, scikit-learn and matplotlib take seconds to load: what is wrong with the flags is said before.
    from danger_safe.embeddings.table import read_baseline, read_table
    from danger_safe.embeddings.table_sounds import manifest_warnings
    from danger_safe.evaluation.compared_models import evaluate_all
    from danger_safe.evaluation.report import collect_warnings
    from danger_safe.reports.comparison import write_comparison
    from danger_safe.training import find_models, load_models

    folder = args.output_dir
    files = find_models(args.models, folder)
    check_outputs(folder, [path for path in (args.embeddings, args.baseline) if path])
    table = read_table(args.embeddings)
    baseline = read_baseline(args.baseline, table) if args.baseline else None
    contestants = evaluate_all(load_models(files, table), table, baseline, args.jobs)

    warnings = manifest_warnings(table)
    own = [contestant for contestant in contestants if contestant.file]
    for contestant in own:
        warnings += [f"{contestant.title}: {warning}" for warning in collect_warnings(contestant.report, seen=0)]
    if seen := int(table.seen.sum()):
        warnings.append(
            f"OPTIMISTIC: {seen} of {len(table.labels)} clips were in the network's own training (column seen)"
        )
    written = write_comparison(folder, table, contestants, args.dataset)
    print(f"Wrote {', '.join(map(str, written))}")
    for name in sorted({file.stem.removesuffix("_model") for file in files}):
        matrix = folder / f"{name}_confusion_matrix.png"
        if matrix.is_file():
            print(f"See   {matrix}")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


def check_outputs(folder: Path, inputs: list[Path]) -> None:
    """Raises UserError where a file to be written is read, too, or is somebody else's."""
    given = {path.resolve() for path in inputs}
    for name in OUTPUTS:
        if (folder / name).resolve() in given:
            raise UserError(f"{folder / name} is read, and would be written over: give another --output-dir")
    for name, columns in OUTPUTS.items():
        check_overwrite(folder / name, columns)


if __name__ == "__main__":
    cli.run(main)
