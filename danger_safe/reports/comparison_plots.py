"""The figures of compare_models.py: all models' curves, and all their confusion matrices."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.metrics import confusion
from danger_safe.reports.canvas import COLOURS, GREY, WIDTH, frame, new_figure, percent, save, styled, wrap
from danger_safe.reports.plots import draw_matrix, matrix_summary

LINES, MARKERS = ("-", "--", "-.", ":"), "osD^vP"  # tell models apart without colour
COLUMNS = 3  # matrices in a row
Box = tuple[float, float, float, float]
INSET: Box = (0.36, 0.1, 0.58, 0.6)  # left, bottom, width, height, as fractions of the axis
MIN_GAP = 0.04  # between a curve and the inset, as a fraction of the axis


@styled
def draw_comparison(path: Path, data: str, results: dict[str, Evaluation]) -> None:
    """Draw ROC and precision–recall curves of several models, by title, with the best corner enlarged."""
    names = {title: _legend_entry(title, result) for title, result in results.items()}
    legend_in = 0.22 * (2 + sum(name.count("\n") + 1 for name in names.values()))
    figure = new_figure(5.4 + legend_in)
    frame(
        figure,
        "Which model tells Danger from Safe best?",
        ["The nearer a curve comes to the star, the better. The mark on it is the model's chosen threshold."],
        [f"{data}. Scores are out of fold: by models that were not trained on the clip's recording."],
    )
    axes = figure.subplot_mosaic([["roc", "pr"], ["names", "names"]], height_ratios=(5.4, legend_in))
    roc, pr = axes["roc"], axes["pr"]
    curves: dict[Axes, list[tuple[np.ndarray, np.ndarray, dict]]] = {roc: [], pr: []}
    for number, (title, result) in enumerate(results.items()):
        labels, scores = result.labels, result.scores
        style = {
            "color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)], "linewidth": 2,
            "marker": MARKERS[number % len(MARKERS)], "markersize": 10, "markeredgecolor": "black",
            "label": names[title],
        }  # fmt: skip
        x, y, thresholds = roc_curve(labels, scores, drop_intermediate=False)
        style["markevery"] = [int(np.flatnonzero(thresholds >= result.threshold)[-1])]
        curves[roc].append((x, y, style))
        y, x, thresholds = precision_recall_curve(labels, scores)
        curves[pr].append((x, y, style | {"markevery": [int(np.searchsorted(thresholds, result.threshold))]}))
    prevalence = float(next(iter(results.values())).labels.mean())
    guessing = {"color": GREY, "linewidth": 1.5, "zorder": 1.6, "linestyle": (0, (1, 2)), "label": "guessing"}
    roc.plot((0, 1), (0, 1), **guessing)
    pr.axhline(prevalence, **guessing)
    for axis, corner in ((roc, (0, 1)), (pr, (1, 1))):
        for x, y, style in curves[axis]:
            axis.plot(x, y, **style)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axis.plot(*corner, marker="*", markersize=17, color="white", mec="black", zorder=3, clip_on=False)
        for direction in (axis.xaxis, axis.yaxis):
            direction.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axis.grid()
    roc.set(xlabel="safe clips with a false alarm (1 − specificity)", ylabel="dangers found (recall)", title="ROC")
    pr.set(xlabel="dangers found (recall)", ylabel="alarms that are right (precision)", title="Precision–recall")
    _zoom(roc, curves[roc], INSET)
    _zoom(pr, curves[pr], (0.17, *INSET[1:]))
    handles, labels = roc.get_legend_handles_labels()
    axes["names"].axis("off")
    axes["names"].legend(handles[1:] + handles[:1], labels[1:] + labels[:1], loc="center left", frameon=False)
    save(figure, path)


def _zoom(axis: Axes, curves: list[tuple[np.ndarray, np.ndarray, dict]], inset: Box) -> None:
    """Enlarge the best corner in an inset, unless a curve passes through the inset's area."""
    left, bottom, width, height = inset
    marks = np.array([(x[style["markevery"][0]], y[style["markevery"][0]]) for x, y, style in curves])
    is_roc = left > 0.25  # the best corner is at x = 0 for ROC, at x = 1 for precision–recall
    for x, y, _ in curves:
        inset_x = np.linspace(left - MIN_GAP, left + width + MIN_GAP, 200)
        curve_y = np.interp(inset_x, *((x, y) if is_roc else (x[::-1], y[::-1])))
        if curve_y.min() < bottom + height + MIN_GAP:
            return
    furthest = np.abs(marks[:, 0] - (0 if is_roc else 1)).max()
    x_span = float(np.clip(np.ceil(1.5 * furthest / 0.05) * 0.05, 0.05, 0.5))
    y_span = float(np.clip(np.ceil(1.5 * (1 - marks[:, 1].min()) / 0.05) * 0.05, 0.05, 0.5))
    margin = 0.03
    xlim = (-margin * x_span, x_span) if is_roc else (1 - x_span, 1 + margin * x_span)
    background = Rectangle((left - 0.14, bottom - 0.08), width + 0.17, height + 0.08, transform=axis.transAxes,
                           facecolor="white", linewidth=0, zorder=1.8)  # fmt: skip
    axis.add_patch(background)  # hides the grid and the line of guessing behind the inset, but not the curves
    zoomed = axis.inset_axes(inset, xlim=xlim, ylim=(1 - y_span, 1 + margin * y_span))
    for x, y, style in curves:
        zoomed.plot(x, y, **style)
    zoomed.grid()
    for direction in (zoomed.xaxis, zoomed.yaxis):
        direction.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
        direction.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    zoomed.tick_params(labelsize=10)
    zoomed.spines[:].set_visible(True)
    heading = zoomed.set_title("the corner, enlarged", fontsize=10)
    heading.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # hides the line of guessing
    axis.indicate_inset_zoom(zoomed, edgecolor="black", alpha=0.6)


def _legend_entry(title: str, result: Evaluation) -> str:
    """Return a model's name and metrics for the legend."""
    recall = (result.scores >= result.threshold)[result.labels == 1].mean()
    line = (
        f"{title}: ROC-AUC {roc_auc_score(result.labels, result.scores):.3f}, "
        f"average precision (AP) {average_precision_score(result.labels, result.scores):.3f}; "
        f"at its threshold {result.threshold:.3f} it finds {percent(recall)}"
    )
    return "\n".join(wrap(line, 10.5, WIDTH - 1))


@styled
def draw_confusions(path: Path, data: str, results: dict[str, Evaluation]) -> None:
    """Draw every model's confusion matrix at its chosen threshold, side by side."""
    columns = min(COLUMNS, max(len(results), 2))
    rows = -(-len(results) // columns)
    figure = new_figure((WIDTH / columns + 0.85) * rows)
    counts = {
        title: confusion(result.labels, (result.scores >= result.threshold).astype(int))
        for title, result in results.items()
    }
    min_missed = min(int(matrix[1, 0]) for matrix in counts.values())
    dangers = int(next(iter(counts.values()))[1].sum())
    frame(
        figure,
        "What does each model get wrong?",
        [
            f"Missed dangers are the worst mistake: the fewest are {min_missed} of {dangers}. "
            "Each at its chosen threshold."
        ],
        [
            f"{data}. Percentages are of the row: of all that are Safe, of all that are Danger.",
            "Scores are out of fold: by models that were not trained on the clip's recording.",
        ],
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, result) in zip(axes, results.items(), strict=False):
        draw_matrix(axis, counts[title], 0.85 if columns == COLUMNS else 1.0)
        heading = "\n".join([*wrap(title, 12, WIDTH / columns - 0.6, "bold"), f"threshold {result.threshold:.3f}"])
        axis.set_title(heading, fontsize=12, weight="bold", pad=34)
        summary = matrix_summary(counts[title])
        axis.text(0.5, 1.02, summary, transform=axis.transAxes, ha="center", va="bottom", fontsize=10)
    for axis in axes[len(results) :]:
        axis.remove()
    save(figure, path)
