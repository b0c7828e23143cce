"""Shared parts of all figures: no screen needed, colours for the colour-blind, readable text.

    figure = new_figure(height=6.5)
    frame(figure, "Is it danger?", ["12 of 12 dangers are found."], ["24 clips"])
    axis = figure.subplots()
    save(figure, path)

Figures use matplotlib's object-oriented interface alone: ``matplotlib.pyplot`` would load a GUI backend, and an invalid
``MPLBACKEND`` would end a training at its last step.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextToPath

from danger_safe.core.atomic import atomic_path
from danger_safe.core.ownership import MARK, check_overwrite

# The palette of Okabe and Ito, safe for the colour-blind. Right is blue and wrong is vermilion in every figure.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
)  # fmt: skip
GREY = "#555555"
WIDTH = 10.0  # inches; GitHub shows a README's pictures at about 840 pixels, where 10 pt are 12 pixels
TITLE_PT, TEXT_PT, NOTE_PT, MIN_PT = 16.0, 12.0, 10.5, 10.0
DPI = 120
MARGIN_IN = 0.12  # inches around the text
_LINE_HEIGHT = 1.4  # in font sizes

# matplotlib's defaults, so that a user's matplotlibrc does not change the figures
STYLE: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key} | {
    "text.parse_math": False,  # a file name may hold $
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 12, "legend.fontsize": 10.5, "legend.framealpha": 0.9,
    "xtick.labelsize": 11, "ytick.labelsize": 11, "axes.spines.top": False, "axes.spines.right": False,
    "grid.alpha": 0.3,
}  # fmt: skip
styled = matplotlib.rc_context(STYLE)  # decorator of functions that draw


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically. Raises UserError if the file exists and was not made by this project."""
    check_overwrite(path)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=DPI, metadata={"Software": MARK})


def frame(
    figure: Figure, title: str, lines: Sequence[str] = (), notes: Sequence[str] = (), warnings: Sequence[str] = ()
) -> None:
    """Write wrapped text around the axes. The figure grows by the height of the text; the axes keep theirs.

    Args:
        figure: a figure from ``new_figure``, without axes.
        title: heading in bold.
        lines: paragraphs under the title.
        notes: small paragraphs below the axes.
        warnings: paragraphs in red above the axes.
    """
    width, height = figure.get_size_inches()
    text_in = width - 2 * MARGIN_IN
    above = [(line, TITLE_PT, "bold", "black") for line in wrap(title, TITLE_PT, text_in, "bold")]
    above += [(line, TEXT_PT, "normal", "black") for text in lines for line in wrap(text, TEXT_PT, text_in)]
    above += [(line, TEXT_PT, "bold", "#A02000") for text in warnings for line in wrap(text, TEXT_PT, text_in, "bold")]
    below = [(line, NOTE_PT, "normal", "#333333") for text in notes for line in wrap(text, NOTE_PT, text_in)]
    top, bottom = (sum(size * _LINE_HEIGHT / 72 for _, size, *_ in block) + 2 * MARGIN_IN for block in (above, below))
    total = top + height + bottom
    figure.set_size_inches(width, total)
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(rect=(0, bottom / total, 1, height / total))
    for block, y in ((above, total - MARGIN_IN), (below, bottom - MARGIN_IN)):
        for line, size, weight, colour in block:
            figure.text(MARGIN_IN / width, y / total, line, fontsize=size, weight=weight, color=colour, va="top")
            y -= size * _LINE_HEIGHT / 72


def legend_below(legend_axis: Axes, axis: Axes, columns: int) -> None:
    """Draw the legend of ``axis`` in ``legend_axis``, an empty one, so that it covers no curve."""
    legend_axis.axis("off")
    legend_axis.legend(*axis.get_legend_handles_labels(), loc="center", ncols=columns, frameon=False)


def wrap(text: str, size: float, inches: float, weight: str = "normal") -> list[str]:
    """Break text into lines of at most ``inches``; wider words, such as long file names, are broken too."""
    lines = [""]
    for word in text.replace("\n", " ").split(" "):
        candidate = f"{lines[-1]} {word}".lstrip(" ")
        if text_width(candidate, size, weight) <= inches:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if text_width(lines[-1] + letter, size, weight) > inches:
                lines.append("")
            lines[-1] += letter
    return lines


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line of text, in inches."""
    return sum(_letter_width(letter, weight) for letter in text) * size / 72


@cache
def _letter_width(letter: str, weight: str) -> float:
    """Return a letter's width in font sizes, slightly too large: drawn letters are aligned to whole pixels."""
    font = FontProperties(family="sans-serif", size=100, weight=weight)
    return TextToPath().get_text_width_height_descent(letter * 8, font, ismath=False)[0] / 780


def tint(colour: str, depth: float) -> np.ndarray:
    """Mix a colour with white: ``depth`` 0 is white, 1 the colour itself. Returns RGB, (3,)."""
    return 1 - depth * (1 - np.array(to_rgb(colour)))


def ink_on(background: np.ndarray) -> str:
    """Return black or white, whichever has the higher contrast on an RGB colour."""
    linear = np.where(background <= 0.04045, background / 12.92, ((background + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def percent(fraction: float, digits: int = 1) -> str:
    """Format as ``95.8 %``, with a no-break space."""
    return f"{100 * fraction:.{digits}f}\u00a0%"


def palette(name: str, count: int) -> np.ndarray:
    """Return ``count`` evenly spaced colours of a matplotlib colour map: (count, 3), 0 to 1."""
    return matplotlib.colormaps[name](np.linspace(0, 1, count))[:, :3]
