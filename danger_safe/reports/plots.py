"""The figures of one model: confusion matrices and reliability. Each title is a question, answered below it."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter

from danger_safe.data.clips import LABEL_NAMES
from danger_safe.evaluation.calibration import Calibration, expected_calibration_error
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import fraction_with_interval
from danger_safe.reports.canvas import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    frame,
    ink_on,
    legend_below,
    new_figure,
    percent,
    save,
    styled,
    tint,
)  # fmt: skip

# (plain words, standard term) of each cell of a confusion matrix, by true label and prediction
CELLS = (
    (("left alone", "true negative"), ("false alarm", "false positive")),
    (("MISSED", "false negative"), ("found", "true positive")),
)
MIN_GROUP = 5  # clips per point of the reliability curve
SIMULATIONS = 500  # of perfectly calibrated scores, for the calibration error by chance


@styled
def draw_confusion(path: Path, title: str, data: str, metrics: dict) -> None:
    """Draw two confusion matrices side by side, at 0.5 and at the chosen threshold.

    Args:
        path: the PNG.
        title: the model's name.
        data: description of the clips.
        metrics: the content of *_metrics.json.
    """
    figure = new_figure(5.6)
    (tn, fp), (fn, tp) = metrics["at_threshold"]["confusion"]
    ranking = metrics["ranking"]
    frame(
        figure,
        f"{title}: Danger or Safe?",
        [
            f"At the chosen threshold: {tp} of {tp + fn} dangers found, {fn} missed; "
            f"false alarms on {fp} of {tn + fp} safe clips."
        ],
        [
            f"{data}. Percentages are of the row: of all that are Safe, of all that are Danger.",
            f"Every clip is scored by a model that was not trained on its recording ({metrics['splitting']}); "
            f"the threshold {metrics['threshold_rule']}.",
            f"ROC-AUC {ranking['roc_auc']['all']:.3f}, average precision {ranking['average_precision']['all']:.3f}; "
            f"always giving the more frequent answer has an accuracy of {percent(metrics['majority_baseline'])}.",
        ],
        [f"WARNING: {warning}" for warning in metrics["warnings"]],
    )
    columns = (("at_0.5", "threshold 0.5"), ("at_threshold", f"chosen threshold {metrics['threshold']:.3f}"))
    for axis, (name, heading) in zip(figure.subplots(1, 2), columns, strict=True):
        counts = np.array(metrics[name]["confusion"])
        draw_matrix(axis, counts, 1.0)
        axis.set_title(heading, fontsize=14, weight="bold", pad=34)
        axis.text(0.5, 1.02, matrix_summary(counts), transform=axis.transAxes, ha="center", va="bottom", fontsize=10.5)
    save(figure, path)


def matrix_summary(counts: np.ndarray) -> str:
    """Return recall, precision, accuracy and F1 of a confusion matrix, as two lines of text."""
    (tn, fp), (fn, tp) = counts.tolist()
    recall, precision = tp / max(tp + fn, 1), f"{percent(tp / (tp + fp))}" if tp + fp else "–"
    accuracy, f1 = (tp + tn) / max(counts.sum(), 1), 2 * tp / max(2 * tp + fp + fn, 1)
    return f"recall {percent(recall)}   precision {precision}\naccuracy {percent(accuracy)}   F1 {f1:.3f}"


def draw_matrix(axis: Axes, counts: np.ndarray, scale: float) -> None:
    """Draw a confusion matrix with counts and percentages of the row; ``scale`` multiplies font sizes.

    Right answers are blue and mistakes vermilion. Mistakes are always darker, so that even a few are seen first.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = np.zeros((2, 2, 3))
    for true in (0, 1):
        for predicted in (0, 1):
            count, fraction, is_right = counts[true, predicted], fractions[true, predicted], true == predicted
            depth = 0.15 + 0.4 * fraction if is_right else 0.7 + 0.3 * np.sqrt(fraction)
            cells[true, predicted] = tint(BLUE if is_right else VERMILION, depth if count else 0.08)
            name, term = CELLS[true][predicted]
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": ink_on(cells[true, predicted])}
            axis.text(predicted, true - 0.22, f"{count}", fontsize=24 * scale, weight="bold", **style)
            axis.text(predicted, true + 0.02, percent(fraction), fontsize=14 * scale, **style)
            axis.text(predicted, true + 0.2, name, fontsize=max(13 * scale, 10), weight="bold", **style)
            axis.text(predicted, true + 0.36, term, fontsize=max(10.5 * scale, 10), **style)
    axis.imshow(cells)
    axis.spines[:].set_visible(False)
    axis.axhline(0.5, color="white", linewidth=4)
    axis.axvline(0.5, color="white", linewidth=4)
    axis.set_xticks((0, 1), LABEL_NAMES, fontsize=max(13 * scale, 11))
    axis.set_yticks((0, 1), LABEL_NAMES, fontsize=max(13 * scale, 11), rotation=90, va="center")
    axis.tick_params(length=0)
    axis.set_xlabel("predicted: what the model answers", fontsize=max(12 * scale, 10))
    axis.set_ylabel("true: what the clip is", fontsize=max(12 * scale, 10))


@styled
def draw_reliability(
    path: Path, title: str, data: str, result: Evaluation, before: Calibration, after: Calibration
) -> None:
    """Draw the fraction of dangers against the score, and a histogram of scores.

    Args:
        path: the PNG.
        title: the model's name.
        data: description of the clips.
        result: the evaluation.
        before: calibration of the raw scores.
        after: calibration of the calibrated scores.
    """
    figure = new_figure(7.4)
    frame(
        figure,
        f"{title}: are its scores probabilities?",
        describe_reliability(result, before, after),
        [
            f"{data}. Bars: 95 % intervals over recordings. A point stands for at least {MIN_GROUP} clips of similar "
            "score.",
            f"Brier score {after.brier:.3f} ({before.brier:.3f} before calibration), "
            f"calibration error {percent(after.calibration_error)} "
            f"({percent(before.calibration_error)} before); 0 is perfect.",
        ],
    )
    axes = figure.subplot_mosaic([["curve"], ["legend"], ["counts"]], height_ratios=(3, 0.3, 1.3))
    curve, counts = axes["curve"], axes["counts"]
    curve.plot((0, 1), (0, 1), color=GREY, linewidth=1.5, label="perfect: of clips with score 0.8, 80 % are dangers")
    curves = (
        ("before calibration", result.raw_scores, {"color": ORANGE, "fmt": "s:", "markersize": 6, "mfc": "white"}),
        ("after calibration", result.scores, {"color": BLUE, "fmt": "o-", "markersize": 8, "linewidth": 2}),
    )
    for label, scores, style in curves:
        groups = group_by_score(scores)
        means = [scores[group].mean() for group in groups]
        fractions = np.array(
            [fraction_with_interval(result.labels[g] == 1, result.sources[g]).as_list() for g in groups]
        )
        bars = np.abs(fractions[:, 1:].T - fractions[:, 0]) if style["fmt"] == "o-" else None
        curve.errorbar(means, fractions[:, 0], yerr=bars, capsize=4, elinewidth=1.5, label=label, **style)
    curve.set_ylabel("fraction of dangers")
    curve.set_ylim(-0.04, 1.04)
    bins = np.linspace(0, 1, 21)
    danger = result.labels == 1
    style: dict[str, Any] = {"bins": bins, "histtype": "stepfilled", "linewidth": 1.8}
    light_blue = cast(Any, tint(BLUE, 0.35))
    counts.hist(result.scores[~danger], label=LABEL_NAMES[0], color=light_blue, edgecolor=BLUE, **style)
    counts.hist(
        result.scores[danger], label=LABEL_NAMES[1], color=VERMILION, edgecolor=VERMILION, hatch="///", fill=False,
        **style,
    )  # fmt: skip
    tallest = max(np.histogram(result.scores[danger == side], bins)[0].max() for side in (False, True))
    if tallest > 60:
        counts.set_yscale("log")
        counts.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    counts.set_ylim(0.7 if tallest > 60 else 0, 6 * tallest if tallest > 60 else 1.35 * tallest)
    counts.set(xlabel="score: probability of Danger", ylabel="clips")
    for axis in (curve, counts):
        axis.axvline(
            result.threshold, color="black", linestyle="--", linewidth=1.5,
            label=f"chosen threshold {result.threshold:.3f}" if axis is curve else None,
        )  # fmt: skip
        axis.set_xlim(-0.02, 1.02)
        axis.xaxis.set_major_locator(FixedLocator(np.linspace(0, 1, 11).tolist()))
        axis.grid()
    legend_below(axes["legend"], curve, 2)
    counts.legend(loc="upper center", ncols=2)
    save(figure, path)


def group_by_score(scores: np.ndarray) -> list[np.ndarray]:
    """Group clips by tenths of the score, joining neighbours until each group has MIN_GROUP clips; returns rows."""
    tenth = np.minimum((scores * 10).astype(int), 9)
    groups: list[np.ndarray] = []
    waiting = np.empty(0, int)
    for number in range(10):
        waiting = np.concatenate([waiting, np.flatnonzero(tenth == number)])
        if len(waiting) >= MIN_GROUP:
            groups.append(waiting)
            waiting = np.empty(0, int)
    if len(waiting):
        groups = [*groups[:-1], np.concatenate([*groups[-1:], waiting])]
    return groups


def describe_reliability(result: Evaluation, before: Calibration, after: Calibration) -> list[str]:
    """Say whether scores are probabilities: yes, unless the calibration error is larger than expected by chance."""
    scores, error = result.scores, after.calibration_error
    rng = np.random.default_rng(0)
    by_chance = [
        expected_calibration_error((rng.random(len(scores)) < scores).astype(int), scores) for _ in range(SIMULATIONS)
    ]
    bound = float(np.quantile(by_chance, 0.95))
    measured = f"they are off by {percent(error)} on average"
    chance = f"by chance, perfect ones are off by up to {percent(bound)} (95 % of samples)"
    if error <= bound:
        lines = [f"Yes, as far as {len(scores)} clips can tell: {measured}; {chance}."]
    else:
        confidence, accuracy = np.maximum(scores, 1 - scores).mean(), ((scores >= 0.5) == (result.labels == 1)).mean()
        direction = "overconfident" if confidence > accuracy else "underconfident"
        lines = [f"Not quite: {measured}; {chance}. They are {direction}."]
    if after.brier > before.brier + 0.0005:
        lines.append(f"Calibration made them worse here: Brier score {after.brier:.3f} instead of {before.brier:.3f}.")
    return lines
