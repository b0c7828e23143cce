"""The figure of recall per category: which dangers are missed, and which safe sounds raise false alarms."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator, PercentFormatter

from danger_safe.core.cli import one_line
from danger_safe.data.clips import DANGER, SAFE
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import Estimate, fraction_with_interval
from danger_safe.reports.canvas import BLUE, VERMILION, frame, new_figure, save, styled, text_width, tint

MAX_BARS = 30  # of each label; categories with the fewest mistakes are left out
BAR_IN, HEADING_IN = 0.3, 0.95  # inches; height of a bar, and of a panel's heading, ticks and axis label together
MAX_NAME_IN = 2.6  # inches; longer names are shortened
MAX_LISTED = 3  # categories in the line under the title


@dataclass(frozen=True)
class CategoryMistakes:
    """The mistakes on one category's clips at the chosen threshold."""

    name: str
    clips: int
    wrong: int  # dangers that are missed, or safe clips with a false alarm
    alarms: Estimate  # fraction of the clips called Danger


@styled
def draw_category_recall(path: Path, title: str, data: str, result: Evaluation) -> None:
    """Draw a bar for each dangerous category (recall) and each safe one (false alarms), worst first.

    Args:
        path: the PNG.
        title: the model's name.
        data: description of the clips.
        result: the evaluation.
    """
    missed, alarms = category_mistakes(result, DANGER), category_mistakes(result, SAFE)
    panels = [(label, rows[:MAX_BARS], len(rows)) for label, rows in ((DANGER, missed), (SAFE, alarms)) if rows]
    heights = [BAR_IN * len(bars) + HEADING_IN for _, bars, _ in panels]
    figure = new_figure(sum(heights))
    frame(
        figure,
        f"{title}: which dangers are missed?",
        [
            worst_categories("Missed most often", missed, "No danger is missed"),
            worst_categories("False alarms come most often from", alarms, "No safe clip raises a false alarm"),
        ],
        [
            f"{data}. Every clip is scored by a model that was not trained on its recording, at the chosen threshold "
            f"{result.threshold:.3f}.",
            "Blue: dangers found; vermilion: mistakes. Whiskers: 95 % intervals over recordings; categories whose "
            "intervals overlap may differ by chance.",
        ],
    )
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (label, bars, count) in zip(axes, panels, strict=True):
        _draw_bars(axis, label, bars)
        heading, mistakes = ("Dangerous", "missed most") if label == DANGER else ("Safe", "with most false alarms")
        left_out = f": the {len(bars)} of {count} {mistakes}" if len(bars) < count else ""
        axis.set_title(f"{heading} categories{left_out}", weight="bold", loc="left")
    save(figure, path)


def category_mistakes(result: Evaluation, label: int) -> list[CategoryMistakes]:
    """Count the mistakes on each category of a label, the one with the largest fraction of mistakes first."""
    if result.categories is None:
        return []
    called_danger = result.scores >= result.threshold
    rows = []
    for category in np.unique(result.categories[result.labels == label]):
        mask = (result.labels == label) & (result.categories == category)
        wrong = int((called_danger[mask] != (label == DANGER)).sum())
        alarms = fraction_with_interval(called_danger[mask], result.sources[mask])
        rows.append(CategoryMistakes(_short(str(category)), int(mask.sum()), wrong, alarms))
    return sorted(rows, key=lambda row: (-row.wrong / row.clips, row.name))


def worst_categories(heading: str, rows: list[CategoryMistakes], otherwise: str) -> str:
    """Return a sentence that lists the categories with the most mistakes, or ``otherwise`` if there are none."""
    worst = [f"{row.name} ({row.wrong} of {row.clips})" for row in rows[:MAX_LISTED] if row.wrong]
    return f"{heading}: {', '.join(worst)}." if worst else f"{otherwise}."


def _draw_bars(axis: Axes, label: int, rows: list[CategoryMistakes]) -> None:
    heights = np.arange(len(rows))
    values, lows, highs = np.array([row.alarms.as_list() for row in rows]).T
    if label == DANGER:
        axis.barh(heights, values, 0.7, color=tint(BLUE, 0.6))
        axis.barh(heights, 1 - values, 0.7, left=values, color=VERMILION)
    else:
        axis.barh(heights, values, 0.7, color=VERMILION)
    axis.errorbar(
        values, heights, xerr=(values - lows, highs - values), fmt="none", ecolor="black", elinewidth=1.3, capsize=3
    )
    for height, row in enumerate(rows):
        axis.text(1.015, height, f"{row.wrong} of {row.clips}", fontsize=11, va="center",
                  weight="bold" if row.wrong else "normal")  # fmt: skip
    axis.text(1.015, -0.75, "missed" if label == DANGER else "alarms", fontsize=11, va="bottom")
    axis.set_yticks(heights, [row.name for row in rows], fontsize=11)
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axis.set_xlabel("dangers found (recall)" if label == DANGER else "safe clips with a false alarm (1 − specificity)")
    axis.xaxis.set_major_locator(MultipleLocator(0.2))
    axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    axis.set_axisbelow(True)


def _short(category: str) -> str:
    """Return a category's name, shortened to MAX_NAME_IN."""
    name = one_line(category).replace("_", " ")
    if text_width(name, 11) <= MAX_NAME_IN:
        return name
    while text_width(name + "…", 11) > MAX_NAME_IN:
        name = name[:-1]
    return name + "…"
