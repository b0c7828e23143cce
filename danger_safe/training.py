"""What the three train scripts share: read the table, evaluate, fit on everything, save model, numbers and picture."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import joblib
from sklearn.pipeline import Pipeline

from danger_safe import cli
from danger_safe.calibration import calibrated
from danger_safe.clips import LABEL_NAMES
from danger_safe.evaluation import evaluate, summarise, warnings_of
from danger_safe.files import whole_file, write_whole
from danger_safe.operating_point import in_words
from danger_safe.table import EmbeddingTable, read_table

PACKAGES = ("scikit-learn", "numpy", "joblib")


def run_training(arguments: list[str], docstring: str, key: str, title: str, build) -> int:
    """The body of a train script. ``build(seed, jobs)`` returns the unfitted scikit-learn Pipeline."""
    parser = cli.new_parser(docstring)
    parser.add_argument("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE",
                        help="table of step 2")  # fmt: skip
    parser.add_argument("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    parser.add_argument("--min-recall", type=cli.share, default=0.95, metavar="R",
                        help="share of the dangers that the chosen threshold must find")  # fmt: skip
    parser.add_argument("--seed", type=cli.whole_number(0), default=0, metavar="N", help="of everything random")
    parser.add_argument("--jobs", type=cli.cores, default=2, metavar="N", help="processor cores to use")
    args = parser.parse_args(arguments)

    table = read_table(args.embeddings)
    pipeline = build(args.seed, args.jobs)
    result = evaluate(pipeline, table, args.min_recall, args.seed)
    summary = summarise(result)
    warnings = warnings_of(summary, int(table.clips["seen"].sum()))
    # the one that is kept learns from every clip
    model = calibrated(pipeline, result.folds).fit(table.features, table.labels)

    model_file = args.output_dir / f"{key}_model.joblib"
    metrics = summary | {"model": title, "min_recall": args.min_recall, "seed": args.seed, "warnings": warnings}
    save_model(model_file, model, table, metrics)
    write_whole(args.output_dir / f"{key}_metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    picture = args.output_dir / f"{key}_confusion_matrix.png"
    reliability = args.output_dir / f"{key}_reliability.png"
    from danger_safe.pictures import draw_confusion, draw_reliability  # matplotlib takes a second to load

    draw_confusion(picture, title, describe_data(table), metrics)
    draw_reliability(reliability, title, describe_data(table), result, metrics["calibration"])

    print_summary(title, describe_data(table), metrics)
    print(f"Wrote {model_file}, {picture}, {reliability}")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


def save_model(path: Path, model: Pipeline, table: EmbeddingTable, metrics: dict) -> None:
    """Write a model as a plain dict. Opening it can run code, as with every joblib file: open only your own."""
    packages = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    categories = {
        name: sorted(set(table.clips["category"][table.labels == label])) for label, name in enumerate(LABEL_NAMES)
    }
    content = {
        "pipeline": model, "threshold": metrics["threshold"], "checkpoint": table.checkpoint,
        "dimensions": table.features.shape[1], "categories": categories, "metrics": metrics, "versions": packages,
    }  # fmt: skip
    with whole_file(path) as part:
        joblib.dump(content, part, compress=3)


def describe_data(table: EmbeddingTable) -> str:
    """One line for titles: how many clips of what, seen through which network."""
    danger = int(table.labels.sum())
    seen = int(table.clips["seen"].sum())
    words = (
        f"{len(table.labels)} clips ({danger} Danger, {len(table.labels) - danger} Safe), {table.checkpoint['name']}"
    )
    return words + (f", {seen} SEEN by the network" if seen else "")


def print_summary(title: str, data: str, metrics: dict) -> None:
    """The same numbers as in *_metrics.json, as a table."""
    print(f"{title}: {data}")
    print(f"Every clip scored once, out of fold: {metrics['splitting']}")
    print(f"{'':<20}{'at 0.5':>22}{'at ' + format(metrics['threshold'], '.3f'):>22}")
    for name in ("accuracy", "balanced_accuracy", "danger_recall", "danger_precision", "specificity"):
        cells = [_cell(metrics[at][name]) for at in ("at_0.5", "at_threshold")]
        print(f"{name.replace('_', ' '):<20}{cells[0]:>22}{cells[1]:>22}")
    for name in ("roc_auc", "average_precision"):
        print(f"{name.replace('_', ' '):<20}{_cell(metrics['ranking'][name]):>22}")
    for at, words in (("at_0.5", "at 0.5"), ("at_threshold", f"at {metrics['threshold']:.3f}")):
        (tn, fp), (fn, tp) = metrics[at]["confusion"]
        print(f"{words}: {tp} dangers found, {fn} MISSED; {tn} safe clips left alone, {fp} false alarms")
    before, after = metrics["calibration"]["before"], metrics["calibration"]["after"]
    print(
        f"calibration: Brier score {after['brier']:.3f}, calibration error {after['calibration_error']:.1%} "
        f"(before: {before['brier']:.3f}, {before['calibration_error']:.1%})"
    )
    print(f"On new recordings like these: {in_words(metrics['promise'])}; 95 % intervals over recordings")
    print(f"majority baseline: {metrics['majority_baseline']:.1%} accuracy. Values: all clips (mean ± std over folds)")


def _cell(number: dict) -> str:
    return f"{number['all']:.3f} ({number['mean']:.3f} ± {number['std']:.3f})"
