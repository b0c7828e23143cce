"""Place category names on the embedding map: near their points, without covering other points or names."""

from dataclasses import dataclass

import numpy as np

from danger_safe.reports.canvas import text_width

# Lengths are in the map's units.
NAME_HEIGHT = 17.0
NAME_PT, UNITS_PER_INCH = 10.0, 100.0  # of the PNG; the page's letters are narrower
GAP = 3.0  # between a point's ring and its name
MAX_DISTANCE, STEP = 170.0, 8.0  # of candidate positions from the group's centre
MIN_LINE = 30.0  # a name farther from its points gets a line to the nearest one
DIRECTIONS = 24  # of candidate positions around the centre
CROWD_RADIUS = 60.0  # within which points count as neighbours


@dataclass(frozen=True)
class Name:
    """The position of a category's name."""

    text: str
    at: tuple[float, float]  # centre of the text
    line_to: tuple[float, float] | None  # the nearest point of its group, if that is far away


def place_names(
    named: list[tuple[str, bool, list[int]]], points: np.ndarray, ring: float, size: tuple[float, float]
) -> list[Name | None]:
    """Return a position for each name; None if there is no space for it.

    A name covers as few points as possible and no other name, as near as possible to the densest part of its group.
    Names in the densest parts of the map are placed first, since they have the fewest alternatives.

    Args:
        named: (text, whether it is bold, indices of its points).
        points: (points, 2), positions of all points.
        ring: radius of the ring around a point.
        size: width and height of the map.
    """
    centres = [_densest_point(points[members]) for _, _, members in named]
    n_neighbours = [int((np.linalg.norm(points - centre, axis=1) < CROWD_RADIUS).sum()) for centre in centres]
    boxes: list[np.ndarray] = []
    names: dict[int, Name | None] = {}
    for number in sorted(range(len(named)), key=lambda i: -n_neighbours[i]):
        text, is_bold, members = named[number]
        width = text_width(text, NAME_PT, "bold" if is_bold else "normal") * UNITS_PER_INCH
        half_size = np.array([width, NAME_HEIGHT]) / 2
        at = _best_position(centres[number], half_size, points, ring, boxes, np.array(size))
        if at is None:
            names[number] = None
            continue
        boxes.append(np.concatenate([at - half_size, at + half_size]))
        distances = np.linalg.norm(np.maximum(np.abs(points[members] - at) - half_size, 0), axis=1)  # to the box
        line_to = tuple(points[members][distances.argmin()].tolist()) if distances.min() > MIN_LINE else None
        names[number] = Name(text, (round(float(at[0]), 1), round(float(at[1]), 1)), line_to)
    return [names[number] for number in range(len(named))]


def _densest_point(points: np.ndarray) -> np.ndarray:
    """Return the point whose nearer half of neighbours is closest: a group may have two parts, and its mean neither."""
    distances = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)
    return points[distances[:, : max(2, len(points) // 2 + 1)].mean(axis=1).argmin()]


def _best_position(
    centre: np.ndarray, half_size: np.ndarray, points: np.ndarray, ring: float, boxes: list, size: np.ndarray
) -> np.ndarray | None:
    """Return the centre of the best free position for a name around ``centre``, or None.

    Args:
        centre: (2,), where the name should be.
        half_size: (2,), half of the name's width and height.
        points: (points, 2), positions of all points.
        ring: radius of the ring around a point.
        boxes: (left, top, right, bottom) of the names placed so far.
        size: (2,), width and height of the map.
    """
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    direction = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances = np.arange(0.0, MAX_DISTANCE, STEP)
    # An ellipse around the point, so that wide names keep a larger distance to the side than above.
    offset = direction * (half_size + ring + GAP)
    candidates = centre + (offset[None] + distances[:, None, None] * direction[None])
    candidates = candidates.reshape(-1, 2)
    candidates = np.clip(candidates, half_size + 2, np.maximum(size - half_size - 2, half_size + 2))
    distance = np.linalg.norm(np.maximum(np.abs(candidates - centre) - half_size, 0), axis=1)
    is_covered = (np.abs(candidates[:, None] - points[None]) < half_size + ring).all(axis=2)
    cost = distance / 20 + 5 * is_covered.sum(axis=1)
    for box in boxes:
        middle, other_half_size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        overlap = (half_size + other_half_size - np.abs(candidates - middle)).clip(0)
        cost[(overlap > 0).all(axis=1)] = np.inf
    return candidates[int(cost.argmin())] if np.isfinite(cost).any() else None
