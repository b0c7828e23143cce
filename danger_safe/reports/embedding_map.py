"""The embeddings in two dimensions: clips that the network hears alike lie near each other. PNG, CSV, and for the page.

Standardised embeddings go through PCA to 50 dimensions, then t-SNE (PCA alone for few clips). Distances between far
groups mean nothing; who is whose neighbour does. The same table gives the same map.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from danger_safe.core.atomic import write_csv
from danger_safe.data.clips import DANGER, LABEL_NAMES
from danger_safe.reports.plots import save

FEWEST = 10  # clips: below, t-SNE has nothing to arrange
MOST_POINTS = 4_000  # of one map: more can neither be told apart nor drawn by a browser
PCA_DIMENSIONS = 50
PERPLEXITY = 30.0  # how many neighbours a clip minds; scikit-learn's default
WIDTH, HEIGHT = 1000, 700  # of the map, in the page's units
MOST_NAMES = 60  # categories that are named on the map
NAME_HEIGHT, LETTER_WIDTH = 17.0, 7.2  # of a name, in the page's units

# Seven colours that differ in lightness too, all at least 3:1 on white; shapes tell further categories apart.
# Dangers have pointed shapes, safe sounds blunt ones: matplotlib's marker and the page's path of each.
COLOURS = ("#0072B2", "#D55E00", "#00795A", "#B0508A", "#8A6A00", "#222222", "#5A5FC0")
SHAPES = {
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
POINTED, BLUNT = tuple("^vD*"), tuple("oshPp")


@dataclass(frozen=True)
class Group:
    """The clips of one category and label, and how they look."""

    label: int
    category: str
    rows: np.ndarray
    colour: str
    shape: str  # a key of SHAPES
    name_at: tuple[float, float] | None  # middle of its name, in the page's units; None: not named


@dataclass(frozen=True)
class MapPlan:
    """Where everything lies."""

    rows: np.ndarray  # (points,) rows of the table that are on the map
    places: np.ndarray  # (points, 2) in the page's units: 0 to WIDTH, 0 to HEIGHT, downwards
    groups: list[Group]
    mistaken: set[int]  # rows to be ringed
    clips: int  # in the table
    method: str


def lay_out(features: np.ndarray, labels: np.ndarray, categories: list[str], mistakes: np.ndarray) -> MapPlan:
    """The map of standardised ``features``, (clips, dimensions). ``mistakes``: rows, worst first."""
    rows = _choose(len(features), mistakes)
    with tqdm(total=1, desc="Embedding map", unit="map") as bar:  # t-SNE does not say how far it is
        raw, method = _two_dimensions(features[rows])
        bar.update()
    spread = np.maximum(raw.max(axis=0) - raw.min(axis=0), 1e-9)
    shares = (raw - raw.min(axis=0)) / spread
    places = np.round(25 + shares * (WIDTH - 50, HEIGHT - 50), 1)
    return MapPlan(
        rows, places, _groups(rows, places, labels, categories), set(mistakes.tolist()), len(features), method
    )


def _choose(clips: int, mistakes: np.ndarray) -> np.ndarray:
    """All rows; of more than a map can hold, the worst mistakes for half of it, and others at even distances."""
    if clips <= MOST_POINTS:
        return np.arange(clips)
    worst = mistakes[: MOST_POINTS // 2]
    others = np.setdiff1d(np.arange(clips), worst)
    even = others[np.linspace(0, len(others) - 1, MOST_POINTS - len(worst)).astype(int)]
    return np.sort(np.concatenate([worst, even]))


def _two_dimensions(features: np.ndarray) -> tuple[np.ndarray, str]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = len(features) < FEWEST
    dimensions = min(2 if few else PCA_DIMENSIONS, *features.shape)
    reduced = PCA(dimensions, random_state=0).fit_transform(features)
    if dimensions < 2:
        return np.pad(reduced, [(0, 0), (0, 2 - reduced.shape[1])]), "PCA"
    if few:
        return reduced, "PCA"
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced), "t-SNE"


def _groups(rows: np.ndarray, places: np.ndarray, labels: np.ndarray, categories: list[str]) -> list[Group]:
    members: dict[tuple[int, str], list[int]] = {}
    for point, row in enumerate(rows):
        members.setdefault((int(labels[row]), categories[row]), []).append(point)
    keys = sorted(members)
    common = sorted(keys, key=lambda key: -len(members[key]))[:MOST_NAMES]
    names = [key for key in keys if key in common]
    middles = np.array([np.median(places[members[key]], axis=0) for key in names])
    spots = dict(zip(names, _without_overlap(middles, [key[1] for key in names]), strict=True))
    groups, counts = [], [0, 0]
    for label, category in keys:
        shapes, number = (POINTED if label == DANGER else BLUNT), counts[label]
        counts[label] += 1
        groups.append(
            Group(
                label, category, rows[members[label, category]], COLOURS[number % len(COLOURS)],
                shapes[number // len(COLOURS) % len(shapes)], spots.get((label, category)),
            )
        )  # fmt: skip
    return groups


def _without_overlap(middles: np.ndarray, names: list[str]) -> list[tuple[float, float]]:
    """Names moved apart, upwards and downwards, until none covers another, or two hundred rounds have passed."""
    spots = middles.copy()
    half = np.array([len(name) * LETTER_WIDTH / 2 for name in names])
    spots[:, 0] = np.clip(spots[:, 0], half, np.maximum(WIDTH - half, half))
    for _ in range(200):
        moved = False
        for a in range(len(spots)):
            for b in range(a + 1, len(spots)):
                apart = spots[b] - spots[a]
                lacking = NAME_HEIGHT - abs(apart[1])
                if abs(apart[0]) < half[a] + half[b] and lacking > 0.1:
                    push = lacking / 2 * (1 if apart[1] >= 0 else -1)
                    spots[a, 1], spots[b, 1] = spots[a, 1] - push, spots[b, 1] + push
                    moved = True
        spots[:, 1] = np.clip(spots[:, 1], NAME_HEIGHT, HEIGHT - NAME_HEIGHT)
        if not moved:
            break
    return [(round(float(x), 1), round(float(y), 1)) for x, y in spots]


def write_map(picture: Path, listing: Path, files: list[str], plan: MapPlan) -> None:
    """embedding_map.png and embedding_map.csv (x to the right, y upwards, both 0 to 1)."""
    of_row = {int(row): group for group in plan.groups for row in group.rows}
    lines = []
    for row, (x, y) in zip(plan.rows.tolist(), plan.places, strict=True):
        group = of_row[row]
        place = (f"{x / WIDTH:.4f}", f"{1 - y / HEIGHT:.4f}")
        lines.append((files[row], *place, group.label, group.category, int(row in plan.mistaken)))
    write_csv(listing, ("file", "x", "y", "label", "category", "mistake"), lines)
    _draw(picture, plan)


def _draw(path: Path, plan: MapPlan) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.patheffects import withStroke

    figure, axis = plt.subplots(figsize=(14, 10.6), layout="constrained")
    where = dict(zip(plan.rows.tolist(), plan.places, strict=True))
    for group in plan.groups:
        x, y = np.array([where[row] for row in group.rows.tolist()]).T
        axis.scatter(x, y, s=34, c=group.colour, marker=group.shape, linewidths=0, alpha=0.75)
    ringed = np.array([where[row] for row in sorted(plan.mistaken & set(where))]).reshape(-1, 2)
    axis.scatter(*ringed.T, s=120, facecolors="none", edgecolors="black", linewidths=1.2)
    for group in plan.groups:
        if group.name_at:
            axis.text(
                *group.name_at, group.category.replace("_", " "), ha="center", va="center",
                fontsize=11, weight="bold" if group.label == DANGER else "normal", color=group.colour,
                path_effects=[withStroke(linewidth=4, foreground="white")],
            )  # fmt: skip
    counts = [sum(len(group.rows) for group in plan.groups if group.label == label) for label in (0, 1)]
    axis.set_title(
        f"Embedding map ({plan.method}): {counts[1]} {LABEL_NAMES[1]} (pointed, bold), {counts[0]} {LABEL_NAMES[0]} "
        f"(blunt); {len(ringed)} ringed: a model gets them wrong\n" + in_words(plan),
        fontsize=13,
    )
    axis.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), xticks=(), yticks=())
    save(figure, path)


def in_words(plan: MapPlan) -> str:
    """What may be read from the map."""
    words = "Clips that the network hears alike lie near each other; distances between far groups mean nothing."
    if len(plan.rows) < plan.clips:
        words += f" {len(plan.rows):,} of {plan.clips:,} clips: the worst mistakes, and others at even distances."
    return words
