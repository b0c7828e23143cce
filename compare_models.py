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
import math
import time

from danger_safe.core import paths
from danger_safe.core.atomic import atomic_path, without_formula
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_ours

OUTPUTS = {  # and how the tables among them begin
    "model_comparison.png": (), "model_comparison.csv": ("model", "file"), "model_confusion_matrices.png": (),
    "mistakes.html": (), "mistakes.csv": ("file", "label"), "embedding_map.png": (), "embedding_map.csv": ("file", "x"),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    # pandas, scikit-learn and matplotlib take seconds to load: what is wrong with the flags is said before.
    import pandas as pd

    from danger_safe.embeddings.table import describe_data, read_baseline, read_table
    from danger_safe.embeddings.table_sounds import older_than_manifest
    from danger_safe.evaluation.calibration import uncalibrated
    from danger_safe.evaluation.cross_validation import evaluate, summarise, warnings_of
    from danger_safe.evaluation.metrics import category_table, matrices_side_by_side
    from danger_safe.evaluation.model_comparison import comparison_row, recommend, seconds_per_thousand
    from danger_safe.evaluation.thresholds import Rule
    from danger_safe.reports.comparison_plots import draw_comparison, draw_confusions
    from danger_safe.reports.mistakes_page import write_mistakes
    from danger_safe.training import find_models, load_models

    files = find_models(args.models, args.output_dir)
    given = {path.resolve() for path in (args.embeddings, args.baseline) if path}
    for name in OUTPUTS:
        if (args.output_dir / name).resolve() in given:
            raise UserError(f"{args.output_dir / name} is read, and would be written over: give another --output-dir")
    for name, columns in OUTPUTS.items():
        check_ours(args.output_dir / name, columns)
    table = read_table(args.embeddings)
    warnings = older_than_manifest(table)

    models = load_models(files, table)
    contests = [(file, saved, table) for file, saved in models]
    if args.baseline:
        baseline = read_baseline(args.baseline, table)
        contests += [(file, saved, baseline) for file, saved in models]

    rows, results, summaries, per_hour, own_models = [], {}, {}, {}, []
    for file, saved, embeddings in contests:
        settings, own = saved["metrics"], embeddings is table
        rule = Rule(settings["min_recall"], settings["max_threshold"])
        began = time.perf_counter()
        result = evaluate(uncalibrated(saved["pipeline"]), embeddings, rule, settings["seed"], jobs=args.jobs)
        learning = time.perf_counter() - began
        summary = summarise(result)
        title = settings["model"] if own else f"{settings['model']} on {embeddings.checkpoint['name']}"
        if title in results:
            title += f" ({file})"
        results[title] = result
        summaries[title] = summary
        if own and "per_hour" in settings:
            per_hour[title] = settings["per_hour"]
        # a baseline is there to be beaten: no model of it is saved, and none recommended
        if own:
            own_models.append(title)
        speed = seconds_per_thousand(saved["pipeline"], table.features) if own else math.nan
        rows.append(comparison_row(title, file if own else None, summary, per_hour.get(title), learning, speed))
        if own:
            warnings += [f"{title}: {warning}" for warning in warnings_of(summary, seen=0)]

    if seen := int(table.seen.sum()):
        warnings.append(
            f"OPTIMISTIC: {seen} of {len(table.labels)} clips were in the network's own training (column seen)"
        )
    comparison = pd.DataFrame(rows).sort_values("roc_auc", ascending=False)
    table_file, picture = args.output_dir / "model_comparison.csv", args.output_dir / "model_comparison.png"
    with atomic_path(table_file) as part:
        comparison.map(without_formula).to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    matrices = args.output_dir / "model_confusion_matrices.png"
    draw_comparison(picture, describe_data(table), results)
    draw_confusions(matrices, describe_data(table), results)
    counted = [name for name in comparison if name[:3] in ("TN@", "FP@", "FN@", "TP@") or name.startswith("recall of ")]
    shown = comparison.drop(columns=["file", *counted]).set_index("model").T  # measures down, models across
    print(shown.to_string(header=True, float_format=lambda value: f"{value:.3f}"))
    print(matrices_side_by_side(summaries))
    print(category_table({title: summaries[title]["categories"] for title in own_models}))
    recommendation = recommend(results, own_models, per_hour)
    for line in [*recommendation.differences, recommendation.sentence]:
        print(line)
    print(f"majority baseline: {summary['majority_baseline']:.1%} accuracy")
    further = write_mistakes(args.output_dir, table, results, own_models, args.dataset)
    print(f"Wrote {', '.join(map(str, [picture, table_file, matrices, *further]))}")
    for name in sorted({file.stem.removesuffix("_model") for file in files}):
        matrix = args.output_dir / f"{name}_confusion_matrix.png"
        if matrix.is_file():
            print(f"See   {matrix}")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    parser.add_argument("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE",
                        help="table of step 2")  # fmt: skip
    parser.add_argument("--models", type=Path, nargs="+", default=None, metavar="FILE",
                        help="models to compare (default: every *_model.skops in --output-dir)")  # fmt: skip
    parser.add_argument("--baseline", type=Path, default=None, metavar="FILE", help="the same clips without a network, "
                        "from extractEmbeddingCnn14.py --checkpoint mfcc: does the network matter?")  # fmt: skip
    parser.add_argument("--dataset", type=paths.parse_path, default=None, metavar="DIR",
                        help="folder of the sounds (default: the one that the table was made of)")  # fmt: skip
    parser.add_argument("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    parser.add_argument("--jobs", type=cli.cores, default=2, metavar="N", help="processor cores to use")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
