"""Step 4: all models in one picture and one table, on the same out-of-fold scores.

    python compare_models.py
    python compare_models.py --baseline audio_mfcc.csv
    python compare_models.py --models rf_model.skops mlp_model.skops --output-dir results

In:   audio_embeddings.csv and the *_model.skops files trained on it
Out:  model_comparison.png  ROC and precision–recall curves, the chosen thresholds as dots
      model_comparison.csv  one row a model, with its training time, size and speed
      model_confusion_matrices.png  what each gets wrong, side by side
      mistakes.html, .csv   every clip that a model gets wrong, worst first, to be heard and seen
      embedding_map.png, .csv  all clips in two dimensions, mistakes ringed
      the terminal also shows whether differences may be due to chance, and which model to use

Each model is evaluated by cross-validation: the saved models were trained on all clips and cannot be judged on them.
Opening a .joblib file can run code that is in it: such files are opened only if you name them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split
from danger_safe.core.errors import UserError
from danger_safe.core.flags import models_parser
from danger_safe.core.ownership import check_overwrite

OUTPUTS = {  # and the first columns of those that are tables
    "model_comparison.png": (), "model_comparison.csv": ("model", "file"), "model_confusion_matrices.png": (),
    "mistakes.html": (), "mistakes.csv": ("file", "label"), "embedding_map.png": (), "embedding_map.csv": ("file", "x"),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = models_parser(__doc__, "compare")
    parser.add_argument("--baseline", type=Path, default=None, metavar="FILE", help="the same clips without a network, "
                        "from extractEmbeddingCnn14.py --checkpoint mfcc: does the network matter?")  # fmt: skip
    args = parser.parse_args(arguments)
    with cli.loading_libraries():  # after the flags are checked: pandas, scikit-learn and matplotlib load for seconds
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
    models = evaluate_all(load_models(files, table), table, baseline, args.jobs)

    warnings = manifest_warnings(table)
    for model in models:
        if not model.is_baseline:
            warnings += [f"{model.title}: {warning}" for warning in collect_warnings(model.report, seen=0)]
    if seen := int(table.seen.sum()):
        warnings.append(
            f"OPTIMISTIC: {seen} of {len(table.labels)} clips were in the network's own training (column seen)"
        )
    written = write_comparison(folder, table, models, args.dataset)
    print(f"Wrote {', '.join(map(str, written))}")
    for name in sorted({file.stem.removesuffix("_model") for file in files}):
        matrix = folder / f"{name}_confusion_matrix.png"
        if matrix.is_file():
            print(f"See   {matrix}")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


def check_outputs(folder: Path, inputs: list[Path]) -> None:
    """Raise UserError if an output is one of the inputs, or a file that this project did not make."""
    input_paths = {path.resolve() for path in inputs}
    for name in OUTPUTS:
        if (folder / name).resolve() in input_paths:
            raise UserError(f"{folder / name} is read, and would be written over: give another --output-dir")
    for name, columns in OUTPUTS.items():
        check_overwrite(folder / name, columns)


if __name__ == "__main__":
    cli.run(main)
