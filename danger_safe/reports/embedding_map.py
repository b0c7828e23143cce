"""The embedding map: all clips in two dimensions, similar embeddings near each other. As PNG, CSV and in the page.

Standardised embeddings go through PCA to 50 dimensions, then t-SNE (PCA alone for few clips). Neighbourhoods are
meaningful, distances between far groups are not. The same table gives the same map.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.patheffects import withStroke
from tqdm import tqdm

from danger_safe.core.atomic import write_csv
from danger_safe.data.clips import DANGER, LABEL_NAMES
from danger_safe.reports.canvas import frame, new_figure, percent, save, styled
from danger_safe.reports.map_names import Name, place_names

MIN_TSNE_CLIPS = 10  # with fewer, PCA alone
MAX_POINTS = 4_000  # more can neither be told apart nor drawn smoothly by a browser
PCA_DIMENSIONS = 50
PERPLEXITY = 30.0  # scikit-learn's default
WIDTH, HEIGHT = 1000, 700  # map units, as in the page's SVG
MAX_NAMES = 60  # categories whose names are shown
RING = 1.6  # radius of the ring around a mistake, in radii of a point

# Dangers have warm colours and pointed marks, safe sounds cool colours and blunt marks, so that the two are told apart
# at once, also by the colour-blind. Shades and shapes tell the categories of a label apart. All shades have a contrast
# of at least 3:1 on white; the second of each pair is for a dark page.
WARM = (
    ("#C14400", "#FF9A5C"),
    ("#6E1A00", "#FFC9B0"),
    ("#B07400", "#FFD05C"),
    ("#4A3000", "#D9B27C"),
    ("#E0572B", "#FF7A4D"),
)
COOL = (
    ("#0072B2", "#57B4F0"), ("#00335E", "#B5DAFF"), ("#5A5FC0", "#A9ADFF"), ("#1F7A7A", "#6FD0D0"),
    ("#5E6B7A", "#B4C0CE"), ("#3D8FCB", "#8CCBFF"),
)  # fmt: skip
SHADES = (COOL, WARM)  # by label
SHAPES = {  # matplotlib's marker: path in the page's SVG
    "^": "M0-6.5 5.8 4.5H-5.8z",
    "v": "M0 6.5 5.8-4.5H-5.8z",
    "D": "M0-6 6 0 0 6-6 0z",
    "*": "M0-7 1.9-2 7-2 3 1.5 4.5 6.5 0 3.4-4.5 6.5-3 1.5-7-2-1.9-2z",
    "o": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "s": "M-4.5-4.5h9v9h-9z",
    "h": "M0-5.5 4.8-2.7V2.7L0 5.5-4.8 2.7V-2.7z",
    "P": "M-2-5.5h4v3.5h3.5v4H2v3.5h-4V2h-3.5v-4H-2z",
    "p": "M0-5.5 5.2-1.7 3.2 4.5H-3.2L-5.2-1.7z",
}
BLUNT, POINTED = tuple("oshPp"), tuple("^vD*")


@dataclass(frozen=True)
class Group:
    """The clips of one category and label, with their symbol."""

    label: int
    category: str
    rows: np.ndarray  # of the table
    shade: int  # index in SHADES[label]
    shape: str  # key of SHAPES
    name: Name | None  # the name's position; None if it is not shown

    @property
    def colour(self) -> str:
        """The colour on white."""
        return SHADES[self.label][self.shade][0]


@dataclass(frozen=True)
class MapPlan:
    """The layout of a map."""

    rows: np.ndarray  # (points,), rows of the table that are on the map
    positions: np.ndarray  # (points, 2), map units: 0 to WIDTH, 0 to HEIGHT, y downwards
    groups: list[Group]
    mistaken: set[int]  # rows that get a ring
    clips: int  # number of clips in the table
    seen: int  # number of clips that the network was trained on
    neighbour_agreement: float  # fraction of clips whose nearest clip of another recording has their label
    method: str  # t-SNE or PCA

    @property
    def radius(self) -> float:
        """Radius of a point, in map units."""
        return radius_of(len(self.rows))


def radius_of(points: int) -> float:
    """Return the radius of a point, in map units, for a number of points."""
    return float(np.clip(70 / np.sqrt(points), 2.6, 7.5))


def plan_map(
    features: np.ndarray,
    labels: np.ndarray,
    categories: list[str],
    mistakes: np.ndarray,
    neighbour_agreement: float,
    seen: int,
) -> MapPlan:
    """Lay out the map.

    Args:
        features: standardised embeddings, (clips, dimensions).
        labels: (clips,) 0 Safe, 1 Danger.
        categories: of each clip.
        mistakes: rows of misclassified clips, worst first.
        neighbour_agreement: see MapPlan.
        seen: see MapPlan.
    """
    rows = _choose_rows(len(features), mistakes)
    with tqdm(total=1, desc="Embedding map", unit="map") as bar:  # t-SNE does not say how far it is
        raw, method = _reduce(features[rows])
        bar.update()
    spread = np.maximum(raw.max(axis=0) - raw.min(axis=0), 1e-9)
    fractions = (raw - raw.min(axis=0)) / spread
    positions = np.round(25 + fractions * (WIDTH - 50, HEIGHT - 50), 1)
    groups = _groups(rows, positions, labels, categories)
    return MapPlan(rows, positions, groups, set(mistakes.tolist()), len(features), seen, neighbour_agreement, method)


def _choose_rows(clips: int, mistakes: np.ndarray) -> np.ndarray:
    """Return the rows to show: all or, of more than MAX_POINTS, the worst mistakes and evenly spaced others."""
    if clips <= MAX_POINTS:
        return np.arange(clips)
    worst = mistakes[: MAX_POINTS // 2]
    others = np.setdiff1d(np.arange(clips), worst)
    evenly_spaced = others[np.linspace(0, len(others) - 1, MAX_POINTS - len(worst)).astype(int)]
    return np.sort(np.concatenate([worst, evenly_spaced]))


def _reduce(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Reduce features to two dimensions: (points, 2), and the name of the method."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    has_few = len(features) < MIN_TSNE_CLIPS
    dimensions = min(2 if has_few else PCA_DIMENSIONS, *features.shape)
    reduced = PCA(dimensions, random_state=0).fit_transform(features)
    if dimensions < 2:
        return np.pad(reduced, [(0, 0), (0, 2 - reduced.shape[1])]), "PCA"
    if has_few:
        return reduced, "PCA"
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced), "t-SNE"


def _groups(rows: np.ndarray, positions: np.ndarray, labels: np.ndarray, categories: list[str]) -> list[Group]:
    """Group the points by label and category, and give each group a symbol and, if there is space, a name."""
    members: dict[tuple[int, str], list[int]] = {}
    for point, row in enumerate(rows):
        members.setdefault((int(labels[row]), categories[row]), []).append(point)
    keys = sorted(members)
    common = sorted(keys, key=lambda key: -len(members[key]))[:MAX_NAMES]
    named = [(category.replace("_", " "), label == DANGER, members[label, category]) for label, category in common]
    placed = place_names(named, positions, RING * radius_of(len(rows)), (WIDTH, HEIGHT))
    names = dict(zip(common, placed, strict=True))
    groups, counts = [], [0, 0]
    for label, category in keys:
        shapes, shades, number = (POINTED if label == DANGER else BLUNT), SHADES[label], counts[label]
        counts[label] += 1
        groups.append(
            Group(
                label, category, rows[members[label, category]], number % len(shades),
                shapes[number // len(shades) % len(shapes)], names.get((label, category)),
            )
        )  # fmt: skip
    return groups


def write_map(picture: Path, listing: Path, files: list[str], plan: MapPlan) -> None:
    """Write embedding_map.png and embedding_map.csv (x to the right, y upwards, both 0 to 1)."""
    group_of = {int(row): group for group in plan.groups for row in group.rows}
    lines = []
    for row, (x, y) in zip(plan.rows.tolist(), plan.positions, strict=True):
        group = group_of[row]
        position = (f"{x / WIDTH:.4f}", f"{1 - y / HEIGHT:.4f}")
        lines.append((files[row], *position, group.label, group.category, int(row in plan.mistaken)))
    write_csv(listing, ("file", "x", "y", "label", "category", "mistake"), lines)
    draw_map(picture, plan)


@styled
def draw_map(path: Path, plan: MapPlan) -> None:
    """Draw the map as a PNG."""
    figure = new_figure(HEIGHT / 100)
    counts = [sum(len(group.rows) for group in plan.groups if group.label == label) for label in (0, 1)]
    position_of = dict(zip(plan.rows.tolist(), plan.positions, strict=True))
    ringed = np.array([position_of[row] for row in sorted(plan.mistaken & set(position_of))]).reshape(-1, 2)
    frame(
        figure,
        "Embedding map: does the network separate Danger from Safe?",
        [describe_separation(plan)],
        [
            f"{counts[DANGER]} {LABEL_NAMES[DANGER]}: warm colours, pointed marks, bold names. "
            f"{counts[0]} {LABEL_NAMES[0]}: cool colours, blunt marks. "
            + (f"{len(ringed)} ringed: a model gets them wrong." if len(ringed) else "No mistakes."),
            f"{plan.method}. {map_caption(plan)}",
        ],
    )
    axis = figure.subplots()
    size = (plan.radius * 0.72 * 2) ** 2  # in square points; a map unit is 0.72 points
    for group in plan.groups:
        x, y = np.array([position_of[row] for row in group.rows.tolist()]).T
        axis.scatter(x, y, s=size, c=group.colour, marker=group.shape, linewidths=0.5, edgecolors="white", alpha=0.85)
    axis.scatter(*ringed.T, s=RING**2 * size, facecolors="none", edgecolors="black", linewidths=1.1)
    for group in plan.groups:
        if group.name:
            if group.name.line_to:
                ends = zip(group.name.at, group.name.line_to, strict=True)
                axis.plot(*ends, color=group.colour, linewidth=0.8)
            axis.text(
                *group.name.at, group.name.text, ha="center", va="center", fontsize=10,
                weight="bold" if group.label == DANGER else "normal", color=group.colour,
                path_effects=[withStroke(linewidth=3, foreground="white")],
            )  # fmt: skip
    axis.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), xticks=(), yticks=())
    axis.spines[:].set(visible=True, color="#aaaaaa")
    save(figure, path)


def describe_separation(plan: MapPlan) -> str:
    """Say how well Danger and Safe are separated, in the embeddings themselves rather than on the map."""
    agreement = percent(plan.neighbour_agreement, 0)
    return f"For {agreement} of the clips, the nearest clip of another recording has the same label."


def map_caption(plan: MapPlan) -> str:
    """Say how to read the map."""
    caption = "Clips with similar embeddings lie near each other; distances between far groups mean nothing."
    if plan.seen:
        seen = f"{plan.seen:,} of the {plan.clips:,} clips"
        caption += f" The network was trained on {seen}: groups of new sounds are less tidy."
    else:
        caption += " None of the clips is marked as used in the network's training (column seen)."
    if len(plan.rows) < plan.clips:
        caption += f" {len(plan.rows):,} of {plan.clips:,} clips: the worst mistakes, and others evenly spaced."
    return caption
