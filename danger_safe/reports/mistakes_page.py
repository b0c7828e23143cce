"""mistakes.html: the models side by side, every misclassified clip, and the embedding map, in one file that needs
nothing.

The template beside this file has the words, the looks and the behaviour; here its tables and points are made.
Whatever comes from the data is escaped; the page's policy lets only its own script run, and nothing go online.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sklearn.preprocessing import StandardScaler

from danger_safe.core import cli
from danger_safe.core.atomic import atomic_write_text
from danger_safe.core.errors import UserError
from danger_safe.core.paths import PathOrUrl
from danger_safe.data.clips import DANGER, LABEL_NAMES
from danger_safe.embeddings.table import EmbeddingTable, describe_data
from danger_safe.embeddings.table_sounds import find_sounds
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.reports.embedding_map import RING, SHAPES, MapPlan, answer, in_words, plan_map, write_map
from danger_safe.reports.mistakes import (
    KINDS,
    Mistakes,
    column_title,
    find_mistakes,
    names_of,
    nearest_neighbours,
    same_side,
    write_list,
)
from danger_safe.reports.page_media import PLAYED_SECONDS, draw_logmels, encode_sounds

MAX_BYTES = 20_000_000  # of the page
MAX_ROWS = 2_000  # mistakes in its list; mistakes.csv has them all
TEMPLATE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class _Page:
    """All that the page shows. Dictionaries are by row of the table."""

    table: EmbeddingTable
    mistakes: Mistakes
    neighbours: list[list[tuple[int, float]]]  # of mistakes.rows
    plan: MapPlan
    files: list[str]
    categories: list[str]
    pictures: dict[int, tuple[str, float]]  # PNG in base64, seconds


def write_mistakes(
    folder: Path, table: EmbeddingTable, results: dict[str, Evaluation], own: list[str], dataset: PathOrUrl | None
) -> list[Path]:
    """Write mistakes.html, mistakes.csv, embedding_map.png and embedding_map.csv into ``folder``; their paths.

    ``own``: titles of the models whose mistakes count. Where the sounds are not found (``find_sounds``) the page has
    neither players nor log-mels, and a warning says so.
    """
    mistakes = find_mistakes(results, own)
    standardised = StandardScaler().fit_transform(table.features)
    neighbours = nearest_neighbours(standardised, results[own[0]].sources, mistakes.rows)
    try:
        sounds = find_sounds(table, dataset)
    except (UserError, OSError) as error:
        cli.warn(f"mistakes.html has no players and no log-mel pictures: {error}")
        sounds = None
    paths = [folder / name for name in ("mistakes.html", "mistakes.csv", "embedding_map.png", "embedding_map.csv")]
    page, listing, picture, places = paths
    write_list(listing, table, mistakes, neighbours)
    seen = int(table.clips["seen"].sum())
    same = same_side(standardised, results[own[0]].sources, mistakes.labels)
    plan = plan_map(standardised, mistakes.labels, names_of(table)[1], mistakes.rows, same, seen)
    write_map(picture, places, names_of(table)[0], plan)
    for problem in write_page(page, table, mistakes, neighbours, plan, sounds):
        cli.warn(problem)
    return paths


def write_page(
    path: Path,
    table: EmbeddingTable,
    mistakes: Mistakes,
    neighbours: list,
    plan: MapPlan,
    sounds: list[PathOrUrl] | None,
) -> list[str]:
    """Write the page. ``sounds``: the file of each of the table's rows, or None. Returns what is missing, in words."""
    files, categories = names_of(table)
    listed = mistakes.rows[:MAX_ROWS].tolist()
    important = listed + [row for near in neighbours[:MAX_ROWS] for row, _ in near] + plan.rows.tolist()
    important = list(dict.fromkeys(important))  # each once, in this order
    pictures = draw_logmels({row: sounds[row] for row in listed}) if sounds and listed else {}
    page = _Page(table, mistakes, neighbours, plan, files, categories, pictures)
    if sounds is None:
        notes = ["The sounds were not found: no players, no log-mel pictures."]
        atomic_write_text(path, _render(page, {}, notes))
        return []  # said before
    room = MAX_BYTES - len(_render(page, dict.fromkeys(important, ""), []).encode()) - 2_000
    encoded, failed, left_out = encode_sounds({row: sounds[row] for row in important}, set(listed), room)
    notes = []
    if failed:
        first = next(iter(failed))
        notes.append(f"Clips that cannot be played: {len(failed)}, first {files[first]}: {failed[first]}.")
    if left_out:
        notes.append(
            f"Clips without a player: {len(left_out)}; with them the page would be over {MAX_BYTES / 1e6:.0f} MB."
        )
    atomic_write_text(path, _render(page, encoded, notes))
    return [f"mistakes.html: {note}" for note in notes]


def _render(page: _Page, sounds: dict[int, str], notes: list[str]) -> str:
    mistakes, table = page.mistakes, page.table
    if seen := int(table.seen.sum()):
        notes = [f"Too good to be true: the network was trained on {seen} of these clips (column seen).", *notes]
    if len(mistakes.rows) > MAX_ROWS:
        notes = [*notes, f"The {MAX_ROWS} worst of {len(mistakes.rows)} mistakes; mistakes.csv has them all."]
    source = TEMPLATE.read_text(encoding="utf-8")
    return _ENVIRONMENT.get_template(TEMPLATE.name).render(
        style_hash=_hash(source, "style"),
        script_hash=_hash(source, "script"),
        data=describe_data(table),
        clips=len(mistakes.labels),
        dangers=int(mistakes.labels.sum()),
        mistakes=len(mistakes.rows),
        missed=int(mistakes.labels[mistakes.rows].sum()),
        notes=notes,
        models=_models(mistakes),
        rows=[_row(page, sounds, rank) for rank in range(min(len(mistakes.rows), MAX_ROWS))],
        map_answer=answer(page.plan),
        map_words=in_words(page.plan),
        seconds=f"{PLAYED_SECONDS:.0f}",
        sounds={str(row): sound for row, sound in sounds.items()},
        **_map(page, sounds),
    )


def _clean(value: object) -> object:
    """Whatever a template shows: characters that HTML cannot hold become a question mark, line ends a space."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", value).replace("\n", " ")
    return value


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, finalize=_clean,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def _hash(template: str, tag: str) -> str:
    """How the policy names the template's own script or style: no other runs. Nothing is filled into either."""
    found = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
    assert found is not None, tag  # the template is our own
    return base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()


def _models(mistakes: Mistakes) -> list[dict]:
    dangers = mistakes.labels == DANGER
    return [
        {
            "title": column_title(mistakes, title), "threshold": threshold, "baseline": title in mistakes.baselines,
            "missed": int((wrong & dangers).sum()), "false_alarms": int((wrong & ~dangers).sum()),
        }
        for title, threshold, wrong in zip(mistakes.titles, mistakes.thresholds, mistakes.wrong, strict=True)
    ]  # fmt: skip


def _row(page: _Page, sounds: dict[int, str], rank: int) -> dict:
    """A line of the list of mistakes."""
    mistakes, row = page.mistakes, int(page.mistakes.rows[rank])
    label = int(mistakes.labels[row])

    def clip(number: int) -> dict:
        return {"row": number, "file": page.files[number], "playable": number in sounds}

    return {
        "clip": clip(row), "label": label, "kind": KINDS[label], "category": page.categories[row],
        "side": LABEL_NAMES[label], "picture": page.pictures.get(row),
        "wrong": " ".join(map(str, np.flatnonzero(mistakes.wrong[:, row]))),
        "far": " ".join(f"{value:.4f}" for value in mistakes.far[:, row]),
        "scores": list(zip(mistakes.scores[:, row], mistakes.wrong[:, row], strict=True)),
        "neighbours": [
            {
                "clip": clip(other), "similarity": similarity,
                "words": f"{page.categories[other]} ({LABEL_NAMES[mistakes.labels[other]]})",
            }
            for other, similarity in page.neighbours[rank]
        ],
    }  # fmt: skip


def _map(page: _Page, sounds: dict[int, str]) -> dict:
    """The map's rings, points and names. Rings are drawn first, so that none covers a point."""
    plan = page.plan
    where = dict(zip(plan.rows.tolist(), plan.places.tolist(), strict=True))
    points, names = [], []
    for group in plan.groups:
        shade = f"{'sd'[group.label]}{group.shade}"
        for row in group.rows.tolist():
            mistake = f", mistake: {KINDS[group.label]}" if row in plan.mistaken else ""
            words = f"{group.category}, {LABEL_NAMES[group.label]}{mistake}, {page.files[row]}"
            words += "" if row in sounds else ", no player"
            (x, y), shape = where[row], SHAPES[group.shape]
            points.append({"row": row, "x": x, "y": y, "shape": shape, "shade": shade, "words": words})
        if group.name:
            (x, y), danger = group.name.at, group.label == DANGER
            line = group.name.line_to
            names.append({"text": group.name.text, "x": x, "y": y, "line": line, "shade": shade, "danger": danger})
    return {
        "points": points, "names": names, "rings": [where[row] for row in where if row in plan.mistaken],
        "scale": f"{plan.radius / 6:.2f}", "ring": f"{RING * plan.radius:.1f}",
    }  # fmt: skip
