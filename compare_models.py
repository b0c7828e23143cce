"""Step 4: all models in one picture and one table, on the same out-of-fold scores.

    python compare_models.py
    python compare_models.py --models rf_model.joblib mlp_model.joblib --output-dir results

In:   audio_embeddings.csv and the *_model.joblib files trained on it
Out:  model_comparison.png  ROC and precision–recall curves, the chosen thresholds as dots
      model_comparison.csv  one row a model

Each model is trained anew on each fold: the models in the files have seen every clip and cannot be judged on them.
Opening a .joblib file can run code that is in it: give only files that you made yourself.
"""

from pathlib import Path

import pandas as pd

from danger_safe import cli
from danger_safe.calibration import uncalibrated
from danger_safe.errors import UserError
from danger_safe.evaluation import evaluate, summarise, warnings_of
from danger_safe.files import whole_file
from danger_safe.saved_model import load_model_file
from danger_safe.table import read_table
from danger_safe.training import describe_data


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    files = args.models or sorted(args.output_dir.glob("*_model.joblib"))
    if not files:
        raise UserError(
            f"no *_model.joblib in {args.output_dir}: run the train scripts first, or name files with --models"
        )
    table = read_table(args.embeddings)

    rows, curves, warnings = [], {}, []
    for file in files:
        saved = load_model_file(file, table.checkpoint, table.features.shape[1])
        settings = saved["metrics"]
        result = evaluate(uncalibrated(saved["pipeline"]), table, settings["min_recall"], settings["seed"])
        summary = summarise(result)
        title = settings["model"] if settings["model"] not in curves else f"{settings['model']} ({file.name})"
        curves[title] = (result.labels, result.scores, result.threshold)
        rows.append(_row(title, file, summary))
        warnings += [f"{title}: {warning}" for warning in warnings_of(summary, seen=0)]

    seen = int(table.clips["seen"].sum())
    if seen:
        warnings.append(
            f"OPTIMISTIC: {seen} of {len(table.labels)} clips were in the network's own training (column seen)"
        )
    comparison = pd.DataFrame(rows).sort_values("roc_auc", ascending=False)
    table_file, picture = args.output_dir / "model_comparison.csv", args.output_dir / "model_comparison.png"
    with whole_file(table_file) as part:
        comparison.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    from danger_safe.pictures import draw_comparison

    draw_comparison(picture, describe_data(table), curves)
    shown = comparison.drop(columns=["file"])
    print(shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(f"majority baseline: {summary['majority_baseline']:.1%} accuracy")
    print(f"Wrote {picture}, {table_file}")
    for name in sorted({file.name.replace("_model.joblib", "") for file in files}):
        matrix = args.output_dir / f"{name}_confusion_matrix.png"
        if matrix.is_file():
            print(f"See   {matrix}")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


def _row(title: str, file: Path, summary: dict) -> dict:
    row = {"model": title, "file": file.name, "roc_auc": summary["ranking"]["roc_auc"]["all"]}
    row["avg_precision"] = summary["ranking"]["average_precision"]["all"]
    row["threshold"] = summary["threshold"]
    for key, ending in (("at_0.5", "@0.5"), ("at_threshold", "@threshold")):
        for name, short in (("accuracy", "accuracy"), ("danger_recall", "recall"), ("danger_precision", "precision")):
            row[short + ending] = summary[key][name]["all"]
    return row


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    parser.add_argument("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE",
                        help="table of step 2")  # fmt: skip
    parser.add_argument("--models", type=Path, nargs="+", default=None, metavar="FILE",
                        help="models to compare (default: every *_model.joblib in --output-dir)")  # fmt: skip
    parser.add_argument("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
