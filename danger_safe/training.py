"""What the three train scripts share: read the table, evaluate, fit on everything, save model, numbers and picture."""

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from danger_safe.core import cli, paths
from danger_safe.core.atomic import write_whole
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import MADE_BY, check_ours
from danger_safe.core.paths import Place
from danger_safe.data.clips import LABEL_NAMES
from danger_safe.detection.model_file import save_model_files
from danger_safe.detection.novelty import learn_known
from danger_safe.embeddings.table import EmbeddingTable, describe_data, read_table
from danger_safe.embeddings.table_sounds import checkpoint_of, find_sounds
from danger_safe.evaluation.calibration import calibrated, fit_sigmoid
from danger_safe.evaluation.cross_validation import Rule, evaluate, folds_of, summarise, warnings_of
from danger_safe.evaluation.novelty_report import in_words as unknown_in_words
from danger_safe.evaluation.novelty_report import summarise_unknown
from danger_safe.evaluation.thresholds import in_words, in_words_by_the_hour
from danger_safe.evaluation.window_table import Heard, hear_again

OUTPUTS = (
    "model.joblib",
    "model.skops",
    "metrics.json",
    "confusion_matrix.png",
    "reliability.png",
    "operating_point.png",
)
PACKAGES = ("scikit-learn", "numpy", "joblib")


def run_training(arguments: list[str], docstring: str, key: str, title: str, build) -> int:
    """The body of a train script. ``build(seed, jobs)`` returns the unfitted scikit-learn Pipeline."""
    parser = cli.new_parser(docstring)
    parser.add_argument("--embeddings", type=Path, default=Path("audio_embeddings.csv"), metavar="FILE",
                        help="table of step 2")  # fmt: skip
    parser.add_argument("--output-dir", type=cli.folder, default=Path("."), metavar="DIR", help="where the results go")
    parser.add_argument("--min-recall", type=cli.share, default=0.95, metavar="R",
                        help="share of the dangers that the chosen threshold must find")  # fmt: skip
    parser.add_argument("--max-false-alarms-per-hour", type=cli.number(0), default=None, metavar="N",
                        help="choose the threshold by this instead: how many are bearable in an hour of ordinary sound")  # fmt: skip
    parser.add_argument("--dataset", type=paths.place, default=None, metavar="DIR", help="where the table's sounds "
                        "are, to listen to them by the hour (default: where they were in step 2)")  # fmt: skip
    parser.add_argument("--ordinary-minutes", type=cli.number(0), default=20.0, metavar="M",
                        help="of safe sounds, joined, in which false alarms are counted; 0: do not count them")  # fmt: skip
    parser.add_argument("--seed", type=cli.whole_number(0), default=0, metavar="N", help="of everything random")
    parser.add_argument("--jobs", type=cli.cores, default=2, metavar="N", help="processor cores to use")
    args = parser.parse_args(arguments)
    if args.max_false_alarms_per_hour is not None and not args.ordinary_minutes:
        parser.error("--max-false-alarms-per-hour needs --ordinary-minutes, in which they are counted")

    for name in OUTPUTS:
        check_ours(args.output_dir / f"{key}_{name}")
    table = read_table(args.embeddings)
    pipeline = build(args.seed, args.jobs)
    rule = Rule(args.min_recall, args.max_false_alarms_per_hour)
    heard, not_heard = hear_by_the_hour(table, args.seed, args.dataset, args.ordinary_minutes, args.jobs)
    result = evaluate(pipeline, table, rule, args.seed, heard)
    summary, seen = summarise(result), int(table.seen.sum())
    warnings = warnings_of(summary, seen) + not_heard
    # the ones that are kept learn from every clip
    with threadpool_limits(1, user_api="blas"):
        sigmoid = fit_sigmoid(result.values, table.labels)
        model = calibrated(pipeline.fit(table.features, table.labels), sigmoid, table.features, table.labels)
        novelty = learn_known(table.features)
        unknown = summarise_unknown(result, pipeline, sigmoid, table)

    model_file = args.output_dir / f"{key}_model.joblib"
    metrics = summary | {"model": title, "seen": seen, **asdict(result.rule), "seed": args.seed, "warnings": warnings}
    metrics["ordinary_minutes"] = args.ordinary_minutes
    metrics["unknown"] = unknown
    written = save_model(model_file, model, novelty, table, metrics)
    write_whole(
        args.output_dir / f"{key}_metrics.json", json.dumps(MADE_BY | metrics, indent=2, ensure_ascii=False) + "\n"
    )
    picture = args.output_dir / f"{key}_confusion_matrix.png"
    pictures = [picture, reliability := args.output_dir / f"{key}_reliability.png"]
    from danger_safe.reports.plots import draw_confusion, draw_reliability  # matplotlib takes a second to load

    draw_confusion(picture, title, describe_data(table), metrics)
    draw_reliability(reliability, title, describe_data(table), result, metrics["calibration"])
    if heard is not None:
        from danger_safe.reports.plots import draw_operating_points  # as above

        pictures.append(args.output_dir / f"{key}_operating_point.png")
        draw_operating_points(pictures[-1], title, describe_data(table), metrics)

    print_summary(title, describe_data(table), metrics)
    print(f"Wrote {', '.join(map(str, [*written, *pictures]))}")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


def hear_by_the_hour(
    table: EmbeddingTable, seed: int, dataset: Place | None, minutes: float, jobs: int
) -> tuple[Heard | None, list[str]]:
    """The windows of the table's sounds, or None and a warning that says why they could not be heard."""
    if not minutes:
        return None, []
    folds = folds_of(table, seed)[0]  # outside: where it cannot be split there is nothing to train
    try:
        sounds, checkpoint = find_sounds(table, dataset), checkpoint_of(table)
        return hear_again(table, folds, sounds, checkpoint, minutes, jobs), []
    except UserError as error:
        if dataset is not None:
            raise
        return None, [f"FALSE ALARMS AN HOUR ARE NOT KNOWN: {error}"]


def save_model(
    path: Path, model: Pipeline, novelty: NearestNeighbors, table: EmbeddingTable, metrics: dict
) -> list[Path]:
    """Write a model as a plain dict, in both formats of model_file.py; their paths."""
    packages = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    categories = {
        name: sorted(set(table.clips["category"][table.labels == label])) for label, name in enumerate(LABEL_NAMES)
    }
    content = {
        "pipeline": model, "threshold": metrics["threshold"], "checkpoint": table.checkpoint,
        "dimensions": table.features.shape[1], "categories": categories, "metrics": metrics, "versions": packages,
        "unknown": {"rule": novelty, "level": metrics["unknown"]["level"]},
    }  # fmt: skip
    return save_model_files(path, content)


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
    print(f"The threshold {metrics['threshold_rule']}")
    if metrics["seen"]:
        print(
            f"NO PROMISE for new recordings: the network knows {metrics['seen']} of these clips, and new ones less well"
        )
    where = "On clips that it knows" if metrics["seen"] else "On new recordings like these"
    print(f"{where}: {in_words(metrics['promise'])}; 95 % intervals over recordings")
    if "by_the_hour" in metrics:
        hour = metrics["by_the_hour"]
        print(f"Heard window by window: {in_words_by_the_hour(hour)} (measured on {hour['minutes']:.0f} minutes)")
    print(unknown_in_words(metrics["unknown"]))
    print(f"majority baseline: {metrics['majority_baseline']:.1%} accuracy. Values: all clips (mean ± std over folds)")


def _cell(number: dict) -> str:
    return f"{number['all']:.3f} ({number['mean']:.3f} ± {number['std']:.3f})"
