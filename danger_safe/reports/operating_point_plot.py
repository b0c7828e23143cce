"""The figure of one model's operating points: recall against false alarms per hour."""

from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from danger_safe.reports.canvas import BLUE, VERMILION, frame, legend_below, new_figure, percent, save, styled

HOUR_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


@styled
def draw_operating_points(path: Path, title: str, data: str, metrics: dict) -> None:
    """Draw recall against false alarms per hour for every threshold, and mark the chosen one.

    The axes are the same in every model's figure. Arguments as in ``draw_confusion``.
    """
    hour, points = metrics["per_hour"], metrics["operating_points"]
    peak = max(range(len(points)), key=lambda i: points[i]["false_alarms_per_hour"])
    points = points[peak:]  # at lower thresholds alarms merge, until the whole hour is a single one
    thresholds, alarms, recall = (
        np.array([point[key] for point in points]) for key in ("threshold", "false_alarms_per_hour", "danger_recall")
    )

    def at(threshold: float) -> tuple[float, float]:
        """Return the point of the curve at a threshold."""
        return float(np.interp(threshold, thresholds, alarms)), float(np.interp(threshold, thresholds, recall))

    chosen = metrics["threshold"]
    (found, found_low, found_high), (rate, rate_low, rate_high) = hour["danger_recall"], hour["false_alarms_per_hour"]
    figure = new_figure(6.0)
    frame(
        figure,
        f"{title}: what does a threshold cost?",
        [
            f"Expected of new recordings at the chosen threshold: {percent(found, 0)} of dangers found "
            f"({percent(found_low, 0)} to {percent(found_high, 0)}), {rate:.0f} false alarms per hour "
            f"({rate_low:.0f} to {rate_high:.0f})."
        ],
        [
            f"{data}; scored window by window. False alarms were counted in {hour['minutes']:.0f} min of safe sound.",
            "Numbers beside the curve are thresholds. Lower: more dangers found and more false alarms; higher: fewer "
            "of both.",
            f"The threshold {metrics['threshold_rule']}. For the estimate it was chosen anew without each fold; bars: "
            "95 % interval.",
        ],
    )
    axes = figure.subplot_mosaic([["curve"], ["legend"]], height_ratios=(5.5, 0.5))
    axis = axes["curve"]
    max_x = max(1_000.0, alarms.max() * 1.05, rate_high * 1.05)
    axis.set_xscale("symlog", linthresh=1, linscale=0.6)
    axis.set(xlim=(-0.15, max_x), ylim=(-0.02, 1.05))
    axis.xaxis.set_major_locator(FixedLocator([tick for tick in HOUR_TICKS if tick <= max_x]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axis.set(xlabel="false alarms in an hour of ordinary sound (logarithmic)", ylabel="dangers found (recall)")
    axis.grid()
    axis.plot(alarms, recall, "-", color=BLUE, linewidth=2, label="every threshold", zorder=2)
    axis.errorbar(
        rate, found, xerr=[[max(rate - rate_low, 0)], [max(rate_high - rate, 0)]],
        yerr=[[max(found - found_low, 0)], [max(found_high - found, 0)]], fmt="D", color=VERMILION, markersize=7,
        capsize=5, elinewidth=1.5, zorder=3, label="expected of new recordings, with 95 % interval",
    )  # fmt: skip
    axis.plot(*at(0.5), "o", color="black", markersize=9, mfc="white", mew=1.5, zorder=4, label="threshold 0.5")
    axis.plot(
        *at(chosen), "o", color=BLUE, markersize=11, mec="black", zorder=5, label=f"chosen threshold {chosen:.3f}"
    )
    _label_thresholds(axis, thresholds, alarms, recall, [(rate, found), at(0.5), at(chosen)])
    legend_below(axes["legend"], axis, 2)
    save(figure, path)


def _label_thresholds(axis: Axes, thresholds: np.ndarray, alarms: np.ndarray, recall: np.ndarray, marks: list) -> None:
    """Label tenths along the curve with their threshold and a dot, without covering other labels or marks.

    Args:
        axis: the axis with the curve.
        thresholds: (points,).
        alarms: (points,), false alarms per hour.
        recall: (points,).
        marks: (alarms, recall) of the other symbols.
    """
    figure = cast(Figure, axis.figure)
    figure.draw_without_rendering()  # lays the axes out, so that positions on the page are known
    positions = axis.transData.transform(np.stack([alarms, recall], axis=1)) * 72 / figure.dpi  # in points
    steps = np.linspace(0, len(thresholds) - 1, 20 * len(thresholds))
    curve = np.stack([np.interp(steps, np.arange(len(thresholds)), positions[:, i]) for i in (0, 1)], axis=1)
    mark_boxes = [(x - 8, y - 8, x + 8, y + 8) for x, y in axis.transData.transform(marks) * 72 / figure.dpi]
    boxes = [*mark_boxes, *((x - 1, y - 1, x + 1, y + 1) for x, y in curve)]
    left, bottom, right, top = np.asarray(axis.bbox.extents) * 72 / figure.dpi
    tenths = [i for i, t in enumerate(thresholds) if abs(t * 10 - round(t * 10)) < 1e-6]
    for i in [*tenths, 0, len(thresholds) - 1]:
        for dx, dy in ((9, -14), (9, 5), (-34, -14), (-34, 5), (-12, -18), (-12, 9), (9, -4), (-34, -4)):
            x, y = positions[i] + (dx, dy)
            box = (x - 1, y - 1, x + 26, y + 9)
            is_inside = left < box[0] and bottom < box[1] and box[2] < right and box[3] < top
            if is_inside and all(
                box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in boxes
            ):
                boxes.append(box)
                axis.plot(alarms[i], recall[i], ".", color=BLUE, markersize=8, zorder=3)
                axis.annotate(f"{thresholds[i]:.2f}", (alarms[i], recall[i]), xytext=(dx, dy), color="#333333",
                              textcoords="offset points", fontsize=10.5)  # fmt: skip
                break
