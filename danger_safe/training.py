"""The body of the train scripts (read the table, cross-validate, fit on all clips, save), and loading saved models."""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from danger_safe.core import cli
from danger_safe.core.atomic import atomic_write_text
from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError
from danger_safe.core.flags import TrainingFlags
from danger_safe.core.ownership import MADE_BY, check_overwrite
from danger_safe.data.clips import LABEL_NAMES
from danger_safe.detection.model_file import load_model_file, save_model_files
from danger_safe.detection.novelty import fit_novelty
from danger_safe.embeddings.table import EmbeddingTable, describe_data, read_table
from danger_safe.embeddings.table_sounds import manifest_warnings
from danger_safe.evaluation.calibration import calibrated, fit_sigmoid
from danger_safe.evaluation.cross_validation import Evaluation, evaluate, out_of_fold
from danger_safe.evaluation.metrics import category_table, classification_text
from danger_safe.evaluation.novelty_report import NoveltyReport, summarise_novelty
from danger_safe.evaluation.report import Report, Spread, ThresholdReport, collect_warnings, summarise
from danger_safe.evaluation.thresholds import ThresholdRule
from models.checkpoint_files import NAMES

OUTPUTS = (
    "model.joblib", "model.skops", "metrics.json", "confusion_matrix.png", "category_recall.png", "reliability.png",
)  # fmt: skip
PACKAGES = ("scikit-learn", "numpy", "joblib")


def run_training(flags: TrainingFlags, key: str, title: str, build: Callable[[int], Pipeline]) -> int:
    """Train, evaluate and save one classifier; return the exit status.

    Args:
        flags: the command line.
        key: prefix of the output files' names (``rf``).
        title: the model's name in output (``Random Forest``).
        build: returns the unfitted Pipeline for a seed.
    """
    for name in OUTPUTS:
        check_overwrite(flags.output_dir / f"{key}_{name}")
    table = read_table(flags.embeddings)
    warnings = manifest_warnings(table)
    if not _has_known_network(table):
        print(
            f"{table.path} names no network of this project: predict_danger.py will not be able to use the model. "
            "From Python, load_detector(model, embed=FUNCTION) can (docs/api.md)",
            flush=True,
        )
    pipeline = build(flags.seed)
    result = evaluate(
        pipeline, table, ThresholdRule.for_recall(flags.min_recall), flags.seed, jobs=flags.jobs, fit_full=True
    )
    report, seen = summarise(result), int(table.seen.sum())
    assert result.values is not None  # evaluate keeps them
    with threadpool_limits(1, user_api="blas"):
        sigmoid = fit_sigmoid(result.values, table.labels)
        model = calibrated(pipeline, sigmoid, table.features, table.labels)
        novelty = fit_novelty(table.features)
        novelty_report = summarise_novelty(result)
    warnings += collect_warnings(report, seen)

    model_file = flags.output_dir / f"{key}_model.joblib"
    metrics = report.as_json() | {"model": title, "seen": seen, **asdict(result.rule), "seed": flags.seed}
    metrics |= {"warnings": warnings, "unknown": novelty_report.as_json(), "table_sha256": table.sha256}
    written = save_model(model_file, model, novelty, table, metrics, result)
    write_metrics(model_file, metrics)

    with cli.loading_libraries():  # matplotlib takes a second
        from danger_safe.reports.category_plot import draw_category_recall
        from danger_safe.reports.plots import draw_confusion, draw_reliability

    names = ("confusion_matrix", "category_recall", "reliability")
    pictures = [flags.output_dir / f"{key}_{name}.png" for name in names]
    data = describe_data(table)
    draw_confusion(pictures[0], title, data, metrics)
    draw_category_recall(pictures[1], title, data, result)
    draw_reliability(pictures[2], title, data, result, report.calibration_before, report.calibration_after)
    classification = classification_text(table.labels, result.scores, result.threshold)
    print_summary(title, data, report, classification, novelty_report, seen)
    print(f"Wrote {', '.join(map(str, [*written, *pictures]))}")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


def _has_known_network(table: EmbeddingTable) -> bool:
    """Whether predict_danger.py can load the network that the embeddings come from."""
    return table.checkpoint["name"] in NAMES or bool(table.info.get("made_of", {}).get("checkpoint"))


def save_model(
    path: Path, model: Pipeline, novelty: NearestNeighbors, table: EmbeddingTable, metrics: dict, result: Evaluation
) -> list[Path]:
    """Write a model as a plain dict, in both formats of model_file.py; return the paths.

    Args:
        path: the .joblib file.
        model: the fitted, calibrated Pipeline.
        novelty: the fitted novelty rule.
        table: the clips that the model was trained on.
        metrics: what *_metrics.json holds.
        result: the cross-validation, whose scores compare_models.py uses again.
    """
    packages = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    content = {
        "pipeline": model, "threshold": metrics["threshold"], "checkpoint": table.checkpoint,
        "dimensions": table.features.shape[1], "categories": categories_by_label(table), "metrics": metrics,
        "versions": packages,
        "unknown": {"rule": novelty, "level": metrics["unknown"]["level"]}, "out_of_fold": out_of_fold(result),
    }  # fmt: skip
    return save_model_files(path, content)


def metrics_file(model_file: Path) -> Path:
    """Return the path of a model's metrics: rf_metrics.json beside rf_model.skops."""
    return model_file.with_name(key_of(model_file) + "_metrics.json")


def write_metrics(model_file: Path, metrics: dict) -> None:
    """Write a model's metrics as JSON."""
    atomic_write_text(metrics_file(model_file), json.dumps(MADE_BY | metrics, indent=2, ensure_ascii=False) + "\n")


def key_of(model_file: Path) -> str:
    """Return the prefix of a model's file names: ``rf`` for rf_model.skops."""
    return model_file.stem.removesuffix("_model")


def find_models(models: list[Path] | None, folder: Path) -> list[Path]:
    """Return the given models or, without any, every *_model.skops in a folder. Raises UserError if there are none."""
    files = list(dict.fromkeys(models or [])) or sorted(folder.glob("*_model.skops"))
    if not files:
        raise UserError(
            f"no *_model.skops in {folder}: run {command_line('train rf')} first, or name models with --models "
            "(.joblib files can run code: only your own)"
        )
    return files


def load_models(files: list[Path], table: EmbeddingTable) -> list[tuple[Path, dict]]:
    """Load models that were trained on exactly this table. Raises UserError that names those that were not."""
    models = [(file, load_model_file(file, table.checkpoint, table.features.shape[1])) for file in files]
    categories = categories_by_label(table)
    if mismatched := [file.name for file, saved in models if saved["categories"] != categories]:
        theirs = next(saved["categories"] for _, saved in models if saved["categories"] != categories)
        raise UserError(
            f"{', '.join(mismatched)} were trained on other categories ({_only_in(theirs, categories)}) "
            f"than {table.path} has ({_only_in(categories, theirs)}): run the train scripts again"
        )
    if outdated := [file.name for file, saved in models if saved["metrics"].get("table_sha256") != table.sha256]:
        raise UserError(f"{', '.join(outdated)}: trained on another state of {table.path} than it has now. Train again")
    return models


def _only_in(mapping: dict[str, list[str]], other: dict[str, list[str]]) -> str:
    """Return the categories that only ``mapping`` has, or has under another label, as text."""
    extra = {label: [name for name in names if name not in other.get(label, [])] for label, names in mapping.items()}
    return "; ".join(f"{label}: {', '.join(map(str, names))}" for label, names in extra.items() if names) or "no others"


def categories_by_label(table: EmbeddingTable) -> dict[str, list[str]]:
    """Return the table's mapping: {"Safe": […], "Danger": […]}."""
    return {name: sorted(set(table.clips["category"][table.labels == label])) for label, name in enumerate(LABEL_NAMES)}


def print_summary(
    title: str, data: str, report: Report, classification: str, novelty: NoveltyReport, seen: int
) -> None:
    """Print the numbers of *_metrics.json as a table.

    Args:
        title: the model's name.
        data: description of the clips.
        report: the evaluation's numbers.
        classification: scikit-learn's classification report, as text.
        novelty: known sounds that the novelty rule calls Unknown.
        seen: number of clips that the network was trained on.
    """
    threshold = f"{report.threshold:.3f}"
    columns = ((report.at_half, "at 0.5"), (report.at_threshold, f"at {threshold}"))
    print(f"{title}: {data}")
    print(f"Every clip scored once, out of fold: {report.splitting}")
    print(f"{'':<20}{'at 0.5':>22}{'at ' + threshold:>22}")
    for name in ("accuracy", "balanced_accuracy", "danger_recall", "danger_precision", "f1", "specificity"):
        cells = "".join(f"{_cell(getattr(at, name)):>22}" for at, _ in columns)
        print(f"{name.replace('_', ' '):<20}{cells}")
    print(f"{'roc auc':<20}{_cell(report.roc_auc):>22}")
    print(f"{'average precision':<20}{_cell(report.average_precision):>22}")
    for at, heading in columns:
        print(_outcome(at, heading))
    print(f"scikit-learn's classification report at {threshold}:\n{classification}")
    print(category_table({title: report.categories}))
    before, after = report.calibration_before, report.calibration_after
    print(
        f"calibration: Brier score {after.brier:.3f}, calibration error {after.calibration_error:.1%} "
        f"(before: {before.brier:.3f}, {before.calibration_error:.1%})"
    )
    print(f"The threshold {report.threshold_rule}")
    if seen:
        print(f"NO ESTIMATE for new recordings: the network was trained on {seen} of these clips")
    basis = "On clips that it was trained on" if seen else "On new recordings like these"
    print(f"{basis}: {report.estimate.describe()}; 95 % intervals over recordings")
    print(novelty.describe())
    print(f"majority baseline: {report.majority_baseline:.1%} accuracy. Values: all clips (mean ± std over folds)")


def _outcome(at: ThresholdReport, heading: str) -> str:
    (true_safe, false_alarms), (missed, found) = at.confusion
    safe = f"{true_safe} safe clips left alone (TN), {false_alarms} false alarms (FP)"
    return f"{heading}: {found} dangers found (TP), {missed} MISSED (FN); {safe}"


def _cell(spread: Spread) -> str:
    return f"{spread.all:.3f} ({spread.mean:.3f} ± {spread.std:.3f})"
