"""What every picture stands on: a figure that needs no screen, colours for the colour-blind, text that stays readable.

    figure = new_figure(height=6.5)
    frame(figure, "Is it danger?", ["12 of 12 dangers are found."], ["24 clips"])
    axis = figure.subplots()
    save(figure, path)

Figures are made by matplotlib's object-oriented interface alone. ``matplotlib.pyplot`` picks a window system, and a
notebook's or an impossible ``MPLBACKEND`` would end a training at its last step.
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

# Okabe and Ito, safe for the colour-blind. Right is blue and wrong is vermilion in every picture.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
)  # fmt: skip
GREY = "#555555"
WIDTH = 10.0  # inches; a README shows it in about 840 pixels, where ten points are twelve pixels high
TITLE_PT, TEXT_PT, NOTE_PT, MIN_PT = 16.0, 12.0, 10.5, 10.0
DPI = 120
MARGIN_IN = 0.12  # around the text
_LINE = 1.4  # height of a line, in font sizes

# The user's own matplotlibrc does not change our pictures.
STYLE: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key} | {
    "text.parse_math": False,  # a file name may hold $
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 12, "legend.fontsize": 10.5, "legend.framealpha": 0.9,
    "xtick.labelsize": 11, "ytick.labelsize": 11, "axes.spines.top": False, "axes.spines.right": False,
    "grid.alpha": 0.3,
}  # fmt: skip
styled = matplotlib.rc_context(STYLE)  # a decorator of whatever draws


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all. Raises UserError where a file is there that this project did not make."""
    check_overwrite(path)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=DPI, metadata={"Software": MARK})


def frame(
    figure: Figure, title: str, lines: Sequence[str] = (), notes: Sequence[str] = (), warnings: Sequence[str] = ()
) -> None:
    """Write a title, ``lines`` and ``warnings`` above the axes and ``notes`` below them, wrapped.

    The figure grows by the height that the text needs; the axes keep theirs.
    """
    width, height = figure.get_size_inches()
    room = width - 2 * MARGIN_IN
    above = [(line, TITLE_PT, "bold", "black") for line in wrap(title, TITLE_PT, room, "bold")]
    above += [(line, TEXT_PT, "normal", "black") for text in lines for line in wrap(text, TEXT_PT, room)]
    above += [(line, TEXT_PT, "bold", "#A02000") for text in warnings for line in wrap(text, TEXT_PT, room, "bold")]
    below = [(line, NOTE_PT, "normal", "#333333") for text in notes for line in wrap(text, NOTE_PT, room)]
    top, bottom = (sum(size * _LINE / 72 for _, size, *_ in block) + 2 * MARGIN_IN for block in (above, below))
    total = top + height + bottom
    figure.set_size_inches(width, total)
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(rect=(0, bottom / total, 1, height / total))
    for block, at in ((above, total - MARGIN_IN), (below, bottom - MARGIN_IN)):
        for line, size, weight, colour in block:
            figure.text(MARGIN_IN / width, at / total, line, fontsize=size, weight=weight, color=colour, va="top")
            at -= size * _LINE / 72


def legend_below(place: Axes, axis: Axes, columns: int) -> None:
    """The legend of ``axis`` in an empty axis of its own: nothing that is drawn is behind it."""
    place.axis("off")
    place.legend(*axis.get_legend_handles_labels(), loc="center", ncols=columns, frameon=False)


def wrap(text: str, size: float, inches: float, weight: str = "normal") -> list[str]:
    """``text`` in lines that are at most so wide; words that are wider, as long file names, are broken."""
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
    """Width of one line of text, in inches."""
    return sum(_letter_width(letter, weight) for letter in text) * size / 72


@cache
def _letter_width(letter: str, weight: str) -> float:
    """In font sizes, a little more than it is: drawn letters stand on whole pixels."""
    font = FontProperties(family="sans-serif", size=100, weight=weight)
    return TextToPath().get_text_width_height_descent(letter * 8, font, ismath=False)[0] / 780


def tint(colour: str, depth: float) -> np.ndarray:
    """A colour between white (``depth`` 0) and itself (1): red, green, blue."""
    return 1 - depth * (1 - np.array(to_rgb(colour)))


def ink_on(background: np.ndarray) -> str:
    """Black or white, whichever is read more easily on a colour."""
    linear = np.where(background <= 0.04045, background / 12.92, ((background + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def percent(fraction: float, digits: int = 1) -> str:
    """``95.8 %``, never broken at the end of a line."""
    return f"{100 * fraction:.{digits}f}\u00a0%"


def palette(name: str, count: int) -> np.ndarray:
    """``count`` colours of a matplotlib colour map, evenly spaced: (count, 3), 0 to 1."""
    return matplotlib.colormaps[name](np.linspace(0, 1, count))[:, :3]
