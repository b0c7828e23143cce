"""Pictures that are read without the code: large type, numbers in every cell, fit for grey and the colour-blind."""

import os
import textwrap
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # no screen needed, whatever a notebook has set
import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from danger_safe.core.atomic import whole_file
from danger_safe.core.ownership import MARK, check_ours
from danger_safe.data.clips import LABEL_NAMES
from danger_safe.evaluation.calibration import BINS
from danger_safe.evaluation.cross_validation import Evaluation

plt.rcParams["text.parse_math"] = False  # a file name may hold $
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, safe for the colour-blind
NARROW = 66  # letters of a heading that fit over one diagram
STYLES = ("-", "--", "-.", ":")


def save(figure: plt.Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    check_ours(path)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120, metadata={"Software": MARK})
    plt.close(figure)


def draw_confusion(path: Path, title: str, data: str, metrics: dict) -> None:
    """Two confusion matrices side by side, at 0.5 and at the chosen threshold: counts and row percentages."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 6.2), layout="constrained")
    ranking = metrics["ranking"]
    figure.suptitle(
        f"{title} – Danger or Safe?\n{data}\n"
        f"ROC-AUC {ranking['roc_auc']['all']:.3f}   average precision {ranking['average_precision']['all']:.3f}   "
        f"majority baseline {metrics['majority_baseline']:.1%}",
        fontsize=13,
    )
    columns = (("at_0.5", "at 0.5"), ("at_threshold", f"at the chosen threshold {metrics['threshold']:.3f}"))
    for axis, (name, words) in zip(axes, columns, strict=True):
        at = metrics[name]
        _draw_matrix(axis, np.array(at["confusion"]))
        axis.set_title(
            f"{words}\naccuracy {at['accuracy']['all']:.1%} · finds {at['danger_recall']['all']:.1%} of dangers\n"
            f"{at['danger_precision']['all']:.1%} of alarms are right",
            fontsize=12,
        )
    notes = [f"out of fold: {metrics['splitting']}; the threshold {metrics['threshold_rule']}"]
    notes += [f"WARNING: {warning}" for warning in metrics["warnings"]]
    figure.supxlabel("\n".join(textwrap.fill(note, 125) for note in notes), fontsize=9.5)
    save(figure, path)


def _draw_matrix(axis: plt.Axes, counts: np.ndarray) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    remarks = (("left alone", "false alarm"), ("MISSED", "found"))
    for row in (0, 1):
        for column in (0, 1):
            axis.text(
                column, row, f"{counts[row, column]}\n{share[row, column]:.1%}\n{remarks[row][column]}",
                ha="center", va="center", fontsize=15, color="white" if share[row, column] > 0.5 else "black",
            )  # fmt: skip
    axis.set_xticks((0, 1), [f"answered {name}" for name in LABEL_NAMES], fontsize=11)
    axis.set_yticks((0, 1), [f"is {name}" for name in LABEL_NAMES], fontsize=11, rotation=90, va="center")


def draw_comparison(path: Path, data: str, results: dict[str, Evaluation]) -> None:
    """ROC and precision–recall curves of several models, by title."""
    figure, (roc, pr) = plt.subplots(1, 2, figsize=(12, 6.2), layout="constrained")
    figure.suptitle(f"Models compared on out-of-fold scores\n{data}", fontsize=13)
    for number, (title, result) in enumerate(results.items()):
        labels, scores, threshold = result.labels, result.scores, result.threshold
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)], "linewidth": 2}
        false_alarms, recall, _ = roc_curve(labels, scores)
        roc.plot(false_alarms, recall, label=title, **look)
        precision, found, _ = precision_recall_curve(labels, scores)
        pr.plot(found, precision, label=title, **look)
        alarms = scores >= threshold
        recall_there = alarms[labels == 1].mean()
        dot = {"marker": "o", "markersize": 9, "color": look["color"], "markeredgecolor": "black"}
        roc.plot(alarms[labels == 0].mean(), recall_there, **dot)
        pr.plot(recall_there, labels[alarms].mean() if alarms.any() else 1.0, **dot)
    roc.plot((0, 1), (0, 1), color="grey", linewidth=1, label="guessing")
    roc.set(xlabel="share of safe clips that raise an alarm", ylabel="share of dangers found", title="ROC")
    pr.set(xlabel="share of dangers found (recall)", ylabel="share of alarms that are right (precision)")
    pr.set_title("Precision–recall")
    for axis in (roc, pr):
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axis.grid(alpha=0.3)
        axis.legend(loc="lower center" if axis is pr else "lower right", fontsize=10, title="dot: chosen threshold")
    save(figure, path)


def draw_reliability(path: Path, title: str, data: str, result: Evaluation, measures: dict) -> None:
    """Is a score a probability? Share of dangers against mean score, before and after calibration, and the counts."""
    figure, (curve, counts) = plt.subplots(
        2, 1, figsize=(8, 8.6), layout="constrained", height_ratios=(3, 1), sharex=True
    )
    figure.suptitle(f"{title} – are the scores probabilities?\n{textwrap.fill(data, NARROW)}", fontsize=13)
    curve.plot((0, 1), (0, 1), color="grey", linewidth=1, label="perfect: of clips with score p, the share p is danger")
    bins = np.linspace(0, 1, 21)
    looks = (("before", result.raw_scores, COLOURS[1], "s--"), ("after", result.scores, COLOURS[0], "o-"))
    for when, scores, colour, style in looks:
        shares, means = calibration_curve(result.labels, scores, n_bins=BINS, strategy="quantile")
        numbers = measures[when]
        words = f"{when} calibration: Brier {numbers['brier']:.3f}, error {numbers['calibration_error']:.1%}"
        curve.plot(means, shares, style, color=colour, linewidth=2, label=words)
        counts.hist(scores, bins, color=colour, histtype="step", linewidth=2)
    curve.axvline(result.threshold, color="black", linestyle=":", label=f"chosen threshold {result.threshold:.3f}")
    curve.set(ylabel="share of dangers among these clips", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    curve.legend(loc="upper left", fontsize=10)
    counts.set(xlabel="score: probability of Danger, out of fold", ylabel="clips")
    for axis in (curve, counts):
        axis.grid(alpha=0.3)
    save(figure, path)


def draw_operating_points(path: Path, title: str, data: str, metrics: dict) -> None:
    """Dangers found against false alarms an hour, heard window by window, for every threshold; the chosen one marked."""
    hour, points = metrics["by_the_hour"], metrics["operating_points"]
    most_alarms = max(range(len(points)), key=lambda i: points[i]["false_alarms_an_hour"])
    points = points[most_alarms:]  # below that, the whole hour is one alarm: that it counts as one is no merit
    words = f"thresholds from {points[0]['threshold']:.2f} to {points[-1]['threshold']:.2f}"
    if most_alarms:
        words += " (below, alarms run into one)"
    figure, axis = plt.subplots(figsize=(9, 6.6), layout="constrained")
    figure.suptitle(f"{title} – what does a threshold cost?\n{textwrap.fill(data, NARROW)}", fontsize=13)
    alarms, recall = ([point[key] for point in points] for key in ("false_alarms_an_hour", "danger_recall"))
    axis.plot(alarms, recall, ".-", color=COLOURS[0], linewidth=1.5, label=words)
    named: list[tuple[float, float]] = []
    width = max(*alarms, 1.0)
    for point, x, y in zip(points, alarms, recall, strict=True):
        if all(abs(x - a) > 0.06 * width or abs(y - b) > 0.05 for a, b in named):  # no name on another
            named.append((x, y))
            offset = {"xytext": (7, -12), "textcoords": "offset points", "fontsize": 9, "color": "#444444"}
            axis.annotate(f"{point['threshold']:.2f}", (x, y), **offset)
    (found, low, high), (rate, fewest, most) = hour["danger_recall"], hour["false_alarms_an_hour"]
    axis.errorbar(
        rate, found, xerr=[[max(rate - fewest, 0)], [max(most - rate, 0)]],
        yerr=[[max(found - low, 0)], [max(high - found, 0)]], fmt="o", color=COLOURS[1], markersize=9, capsize=4,
        label=f"chosen threshold {metrics['threshold']:.3f}, chosen without each fold: to be expected, with 95 % interval",
    )  # fmt: skip
    axis.set(ylabel="share of dangers found", ylim=(min(0.5, *recall, low) - 0.02, 1.03))
    axis.set_xlabel(f"false alarms in an hour of ordinary sound (measured on {hour['minutes']:.0f} minutes)")
    axis.set_xlim(-0.03 * width, 1.06 * max(width, most))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize=10)
    save(figure, path)
