"""Names on a map: each beside its points, not on others' points nor on another name."""

from dataclasses import dataclass

import numpy as np

from danger_safe.reports.canvas import text_width

HEIGHT_OF_NAME = 17.0  # in the page's units, as all here
NAME_PT, UNITS_PER_INCH = 10.0, 100.0  # as the picture draws them; the page's letters are narrower
GAP = 3.0  # between a point's ring and its name
FURTHEST = 170.0
MIN_LINE = 30.0  # a name that is farther from its points has a line to them
DIRECTIONS = 24


@dataclass(frozen=True)
class Name:
    """Where a category's name stands."""

    text: str
    at: tuple[float, float]  # its middle
    line_to: tuple[float, float] | None  # the point of its group that it is of, if it is far from it


def place_names(
    named: list[tuple[str, bool, list[int]]], places: np.ndarray, ring: float, size: tuple[float, float]
) -> list[Name | None]:
    """A place for each of ``named``: (text, whether bold, its points). ``places``: (points, 2); ``ring``: radius of the
    ring around a point; ``size``: of the map.

    A name stands where it covers fewest points and no other name, as near as can be to the middle of the densest part
    of its group. Those in the densest parts of the map come first, as they have least choice. None: there is
    no room for it.
    """
    anchors = [_densest(places[points]) for _, _, points in named]
    crowd = [int((np.linalg.norm(places - anchor, axis=1) < 60).sum()) for anchor in anchors]
    boxes: list[np.ndarray] = []
    found: dict[int, Name | None] = {}
    for number in sorted(range(len(named)), key=lambda i: -crowd[i]):
        text, bold, _ = named[number]
        width = text_width(text, NAME_PT, "bold" if bold else "normal") * UNITS_PER_INCH
        half = np.array([width, HEIGHT_OF_NAME]) / 2
        at = _best(anchors[number], half, places, ring, boxes, np.array(size))
        if at is None:
            found[number] = None
            continue
        boxes.append(np.concatenate([at - half, at + half]))
        points = places[named[number][2]]
        away = np.linalg.norm(np.maximum(np.abs(points - at) - half, 0), axis=1)  # from the name's box
        line_to = tuple(points[away.argmin()].tolist()) if away.min() > MIN_LINE else None
        found[number] = Name(text, (round(float(at[0]), 1), round(float(at[1]), 1)), line_to)
    return [found[number] for number in range(len(named))]


def _densest(points: np.ndarray) -> np.ndarray:
    """The point with the nearest neighbours: a group may lie in two places, and its middle in neither."""
    distances = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)
    return points[distances[:, : max(2, len(points) // 2 + 1)].mean(axis=1).argmin()]


def _best(
    anchor: np.ndarray, half: np.ndarray, places: np.ndarray, ring: float, boxes: list, size: np.ndarray
) -> np.ndarray | None:
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    direction = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    away = np.arange(0.0, FURTHEST, 8.0)
    # the name's box touches a circle around the point: long names stand further to the side than above
    reach = direction * (half + ring + GAP)
    candidates = anchor + (reach[None] + away[:, None, None] * direction[None])
    candidates = candidates.reshape(-1, 2)
    candidates = np.clip(candidates, half + 2, np.maximum(size - half - 2, half + 2))
    distance = np.linalg.norm(np.maximum(np.abs(candidates - anchor) - half, 0), axis=1)
    inside = (np.abs(candidates[:, None] - places[None]) < half + ring).all(axis=2)
    cost = distance / 20 + 5 * inside.sum(axis=1)
    for box in boxes:
        middle, other_half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        lacking = (half + other_half - np.abs(candidates - middle)).clip(0)
        cost[(lacking > 0).all(axis=1)] = np.inf
    return candidates[int(cost.argmin())] if np.isfinite(cost).any() else None
