"""A training's pictures: confusion matrices, reliability, operating points. Numbers in every cell, an answer to each
title."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

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

# (what it is for whoever listens, the standard word), by true label and answer
CELLS = (
    (("left alone", "true negative"), ("false alarm", "false positive")),
    (("MISSED", "false negative"), ("found", "true positive")),
)
MIN_GROUP = 5  # clips of one point of the reliability curve
SIMULATIONS = 500
HOUR_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


@styled
def draw_confusion(path: Path, title: str, data: str, metrics: dict) -> None:
    """Two confusion matrices side by side, at 0.5 and at the chosen threshold."""
    figure = new_figure(5.6)
    (tn, fp), (fn, tp) = metrics["at_threshold"]["confusion"]
    ranking = metrics["ranking"]
    frame(
        figure,
        f"{title}: Danger or Safe?",
        [
            f"At the chosen threshold it finds {tp} of {tp + fn} dangers, misses {fn}, "
            f"and raises a false alarm on {fp} of {tn + fp} safe clips."
        ],
        [
            f"{data}. Percentages are of the row: of all that are Safe, of all that are Danger.",
            f"Every clip is scored by a model that had not learnt from its recording ({metrics['splitting']}); "
            f"the threshold {metrics['threshold_rule']}.",
            f"ROC-AUC {ranking['roc_auc']['all']:.3f}, average precision {ranking['average_precision']['all']:.3f}; "
            f"always giving the more frequent answer has an accuracy of {percent(metrics['majority_baseline'])}.",
        ],
        [f"WARNING: {warning}" for warning in metrics["warnings"]],
    )
    columns = (("at_0.5", "threshold 0.5"), ("at_threshold", f"chosen threshold {metrics['threshold']:.3f}"))
    for axis, (name, words) in zip(figure.subplots(1, 2), columns, strict=True):
        counts = np.array(metrics[name]["confusion"])
        draw_matrix(axis, counts, 1.0)
        axis.set_title(words, fontsize=14, weight="bold", pad=34)
        axis.text(0.5, 1.02, in_words(counts), transform=axis.transAxes, ha="center", va="bottom", fontsize=10.5)
    save(figure, path)


def in_words(counts: np.ndarray) -> str:
    """What a confusion matrix comes to, in the standard words."""
    (tn, fp), (fn, tp) = counts.tolist()
    recall, precision = tp / max(tp + fn, 1), f"{percent(tp / (tp + fp))}" if tp + fp else "–"
    accuracy, f1 = (tp + tn) / max(counts.sum(), 1), 2 * tp / max(2 * tp + fp + fn, 1)
    return f"recall {percent(recall)}   precision {precision}\naccuracy {percent(accuracy)}   F1 {f1:.3f}"


def draw_matrix(axis: Axes, counts: np.ndarray, scale: float) -> None:
    """Counts and percentages of the row. What is right is blue and what is wrong vermilion, and mistakes are always the
    darker: however few there are, they are seen first."""
    fraction = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = np.zeros((2, 2, 3))
    for true in (0, 1):
        for answer in (0, 1):
            count, part = counts[true, answer], fraction[true, answer]
            depth = 0.15 + 0.4 * part if true == answer else 0.7 + 0.3 * np.sqrt(part)
            cells[true, answer] = tint(BLUE if true == answer else VERMILION, depth if count else 0.08)
            ink = ink_on(cells[true, answer])
            name, standard = CELLS[true][answer]
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
            axis.text(answer, true - 0.22, f"{count}", fontsize=24 * scale, weight="bold", **look)
            axis.text(answer, true + 0.02, percent(part), fontsize=14 * scale, **look)
            axis.text(answer, true + 0.2, name, fontsize=max(13 * scale, 10), weight="bold", **look)
            axis.text(answer, true + 0.36, standard, fontsize=max(10.5 * scale, 10), **look)
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
    """Is a score a probability? Fraction of dangers against mean score, with intervals, and how many clips have which
    score."""
    figure = new_figure(7.4)
    frame(
        figure,
        f"{title}: are its scores probabilities?",
        describe_reliability(result, before, after),
        [
            f"{data}. Bars: 95 % intervals over recordings. A point stands for at least {MIN_GROUP} clips "
            "of similar score.",
            f"Brier score {after.brier:.3f} ({before.brier:.3f} before calibration), "
            f"calibration error {percent(after.calibration_error)} "
            f"({percent(before.calibration_error)} before); 0 is perfect.",
        ],
    )
    axes = figure.subplot_mosaic([["curve"], ["legend"], ["counts"]], height_ratios=(3, 0.3, 1.3))
    curve, counts = axes["curve"], axes["counts"]
    curve.plot((0, 1), (0, 1), color=GREY, linewidth=1.5, label="perfect: of clips with score 0.8, 80 % are dangers")
    looks = (
        ("before calibration", result.raw_scores, {"color": ORANGE, "fmt": "s:", "markersize": 6, "mfc": "white"}),
        ("after calibration", result.scores, {"color": BLUE, "fmt": "o-", "markersize": 8, "linewidth": 2}),
    )
    for words, scores, look in looks:
        groups = groups_of(scores)
        means = [scores[group].mean() for group in groups]
        fractions = np.array(
            [fraction_with_interval(result.labels[g] == 1, result.sources[g]).as_list() for g in groups]
        )
        bars = np.abs(fractions[:, 1:].T - fractions[:, 0]) if look["fmt"] == "o-" else None
        curve.errorbar(means, fractions[:, 0], yerr=bars, capsize=4, elinewidth=1.5, label=words, **look)
    curve.set_ylabel("fraction of dangers")
    curve.set_ylim(-0.04, 1.04)
    bins = np.linspace(0, 1, 21)
    danger = result.labels == 1
    look: dict[str, Any] = {"bins": bins, "histtype": "stepfilled", "linewidth": 1.8}
    counts.hist(result.scores[~danger], label=LABEL_NAMES[0], color=cast(Any, tint(BLUE, 0.35)), edgecolor=BLUE, **look)
    counts.hist(
        result.scores[danger], label=LABEL_NAMES[1], color=VERMILION, edgecolor=VERMILION, hatch="///", fill=False,
        **look,
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


def groups_of(scores: np.ndarray) -> list[np.ndarray]:
    """Clips of similar score, as rows: tenths of the scale, neighbours joined until each group has MIN_GROUP clips."""
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
    """The answer to the title: yes, unless the scores are farther off than perfect ones are by chance."""
    scores, off = result.scores, after.calibration_error
    rng = np.random.default_rng(0)
    by_chance = [
        expected_calibration_error((rng.random(len(scores)) < scores).astype(int), scores) for _ in range(SIMULATIONS)
    ]
    bound = float(np.quantile(by_chance, 0.95))
    away = f"they are off by {percent(off)} on average"
    if off <= bound:
        lines = [
            f"Yes, as far as {len(scores)} clips can tell: {away}; by chance, perfect ones are off by up to "
            f"{percent(bound)} (95 % of samples)."
        ]
    else:
        confidence, right = np.maximum(scores, 1 - scores).mean(), ((scores >= 0.5) == (result.labels == 1)).mean()
        word = "too sure" if confidence > right else "not sure enough"
        lines = [
            f"Not quite: {away}; by chance, perfect ones are off by up to "
            f"{percent(bound)} (95 % of samples). They are {word}."
        ]
    if after.brier > before.brier + 0.0005:
        lines.append(f"Calibration made them worse here: Brier score {after.brier:.3f} instead of {before.brier:.3f}.")
    return lines


@styled
def draw_operating_points(path: Path, title: str, data: str, metrics: dict) -> None:
    """Dangers found against false alarms an hour, heard window by window, for every threshold; the chosen one marked.

    Both axes are the same in every model's picture.
    """
    hour, points = metrics["per_hour"], metrics["operating_points"]
    most_alarms = max(range(len(points)), key=lambda i: points[i]["false_alarms_per_hour"])
    points = points[most_alarms:]  # below that, the whole hour is one alarm: that it counts as one is no merit
    thresholds, alarms, recall = (
        np.array([point[key] for point in points]) for key in ("threshold", "false_alarms_per_hour", "danger_recall")
    )

    def at(threshold: float) -> tuple[float, float]:
        """The place on the curve."""
        return float(np.interp(threshold, thresholds, alarms)), float(np.interp(threshold, thresholds, recall))

    chosen = metrics["threshold"]
    (found, low, high), (rate, fewest, most) = hour["danger_recall"], hour["false_alarms_per_hour"]
    figure = new_figure(6.0)
    frame(
        figure,
        f"{title}: what does a threshold cost?",
        [
            f"Expected of new recordings at the chosen threshold: {percent(found, 0)} of dangers found "
            f"({percent(low, 0)} "
            f"to {percent(high, 0)}), {rate:.0f} false alarms an hour ({fewest:.0f} to {most:.0f})."
        ],
        [
            f"{data}; heard window by window. False alarms were counted in {hour['minutes']:.0f} min of safe "
            f"sound.",
            "Numbers beside the curve are thresholds. Lower: more dangers found and more false alarms; higher: fewer "
            "of both.",
            f"The threshold {metrics['threshold_rule']}. For the estimate it was chosen "
            "anew without each fold; bars: 95 % interval.",
        ],
    )  # fmt: skip
    axes = figure.subplot_mosaic([["curve"], ["legend"]], height_ratios=(5.5, 0.5))
    axis = axes["curve"]
    furthest = max(1_000.0, alarms.max() * 1.05, most * 1.05)
    axis.set_xscale("symlog", linthresh=1, linscale=0.6)
    axis.set(xlim=(-0.15, furthest), ylim=(-0.02, 1.05))
    axis.xaxis.set_major_locator(FixedLocator([tick for tick in HOUR_TICKS if tick <= furthest]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axis.set(xlabel="false alarms in an hour of ordinary sound (logarithmic)", ylabel="dangers found (recall)")
    axis.grid()
    axis.plot(alarms, recall, "-", color=BLUE, linewidth=2, label="every threshold", zorder=2)
    axis.errorbar(
        rate, found, xerr=[[max(rate - fewest, 0)], [max(most - rate, 0)]],
        yerr=[[max(found - low, 0)], [max(high - found, 0)]], fmt="D", color=VERMILION, markersize=7, capsize=5,
        elinewidth=1.5, zorder=3, label="expected of new recordings, with 95 % interval",
    )  # fmt: skip
    axis.plot(*at(0.5), "o", color="black", markersize=9, mfc="white", mew=1.5, zorder=4, label="threshold 0.5")
    axis.plot(
        *at(chosen), "o", color=BLUE, markersize=11, mec="black", zorder=5, label=f"chosen threshold {chosen:.3f}"
    )
    _name_thresholds(axis, thresholds, alarms, recall, [(rate, found), at(0.5), at(chosen)])
    legend_below(axes["legend"], axis, 2)
    save(figure, path)


def _name_thresholds(axis: Axes, thresholds: np.ndarray, alarms: np.ndarray, recall: np.ndarray, taken: list) -> None:
    """Names beside the curve, to its lower right, each with a dot; none on another, nor on what else is marked."""
    figure = cast(Figure, axis.figure)
    figure.draw_without_rendering()  # now the places on the page are known
    places = axis.transData.transform(np.stack([alarms, recall], axis=1)) * 72 / figure.dpi  # points
    steps = np.linspace(0, len(thresholds) - 1, 20 * len(thresholds))
    curve = np.stack([np.interp(steps, np.arange(len(thresholds)), places[:, i]) for i in (0, 1)], axis=1)
    marks = [(x - 8, y - 8, x + 8, y + 8) for x, y in axis.transData.transform(taken) * 72 / figure.dpi]
    boxes = [*marks, *((x - 1, y - 1, x + 1, y + 1) for x, y in curve)]
    left, bottom, right, top = np.asarray(axis.bbox.extents) * 72 / figure.dpi
    tenths = [i for i, t in enumerate(thresholds) if abs(t * 10 - round(t * 10)) < 1e-6]
    for i in [*tenths, 0, len(thresholds) - 1]:
        for dx, dy in ((9, -14), (9, 5), (-34, -14), (-34, 5), (-12, -18), (-12, 9), (9, -4), (-34, -4)):
            x, y = places[i] + (dx, dy)
            box = (x - 1, y - 1, x + 26, y + 9)
            inside = left < box[0] and bottom < box[1] and box[2] < right and box[3] < top
            if inside and all(
                box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in boxes
            ):
                boxes.append(box)
                axis.plot(alarms[i], recall[i], ".", color=BLUE, markersize=8, zorder=3)
                axis.annotate(f"{thresholds[i]:.2f}", (alarms[i], recall[i]), xytext=(dx, dy), color="#333333",
                              textcoords="offset points", fontsize=10.5)  # fmt: skip
                break
