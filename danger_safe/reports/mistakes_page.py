"""mistakes.html: models, misclassified clips and the embedding map in one self-contained file.

The template beside this file has the text, style and script; this module prepares its data. Everything from the data is
escaped, and the page's Content-Security-Policy allows its own script alone and no network access.
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
from danger_safe.reports.embedding_map import (
    RING,
    SHAPES,
    MapPlan,
    describe_separation,
    map_caption,
    plan_map,
    write_map,
)
from danger_safe.reports.mistakes import (
    MISTAKE_NAMES,
    Mistakes,
    column_title,
    files_and_categories,
    find_mistakes,
    nearest_neighbour_agreement,
    nearest_neighbours,
    write_mistakes_csv,
)
from danger_safe.reports.page_media import PLAYED_SECONDS, draw_logmels, encode_sounds

MAX_BYTES = 20_000_000  # size of the page
MAX_ROWS = 2_000  # mistakes in the page's list; mistakes.csv has all
TEMPLATE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class _Page:
    """The data of the page. Dictionaries are keyed by row of the table."""

    table: EmbeddingTable
    mistakes: Mistakes
    neighbours: list[list[tuple[int, float]]]  # (row, similarity), for each of mistakes.rows
    plan: MapPlan
    files: list[str]
    categories: list[str]
    logmels: dict[int, tuple[str, float]]  # (PNG in base64, seconds)


def write_mistakes(
    folder: Path, table: EmbeddingTable, results: dict[str, Evaluation], models: list[str], dataset: PathOrUrl | None
) -> list[Path]:
    """Write mistakes.html, mistakes.csv, embedding_map.png and embedding_map.csv; return their paths.

    If the sounds are not found, the page has neither players nor log-mels, and a warning says so.

    Args:
        folder: where to write.
        table: the clips.
        results: evaluations by title.
        models: titles of the models whose mistakes are listed; the others are baselines.
        dataset: folder of the sounds; None: the one that the table was made of.
    """
    mistakes = find_mistakes(results, models)
    sources = results[models[0]].sources
    standardised = StandardScaler().fit_transform(table.features)
    neighbours = nearest_neighbours(standardised, sources, mistakes.rows)
    try:
        sounds = find_sounds(table, dataset)
    except (UserError, OSError) as error:
        cli.warn(f"mistakes.html has no players and no log-mel pictures: {error}")
        sounds = None
    paths = [folder / name for name in ("mistakes.html", "mistakes.csv", "embedding_map.png", "embedding_map.csv")]
    page, mistakes_csv, map_png, map_csv = paths
    write_mistakes_csv(mistakes_csv, table, mistakes, neighbours)
    files, categories = files_and_categories(table)
    agreement = nearest_neighbour_agreement(standardised, sources, mistakes.labels)
    plan = plan_map(standardised, mistakes.labels, categories, mistakes.rows, agreement, int(table.clips["seen"].sum()))
    write_map(map_png, map_csv, files, plan)
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
    """Write the page; return warnings about what is missing in it.

    Args:
        path: the HTML file.
        table: the clips.
        mistakes: the mistakes of all models.
        neighbours: as returned by ``nearest_neighbours`` for ``mistakes.rows``.
        plan: the map.
        sounds: the file of each row of the table; None if they were not found.
    """
    files, categories = files_and_categories(table)
    listed = mistakes.rows[:MAX_ROWS].tolist()
    rows = listed + [row for row_neighbours in neighbours[:MAX_ROWS] for row, _ in row_neighbours] + plan.rows.tolist()
    rows = list(dict.fromkeys(rows))  # without duplicates, most important first
    logmels = draw_logmels({row: sounds[row] for row in listed}) if sounds and listed else {}
    page = _Page(table, mistakes, neighbours, plan, files, categories, logmels)
    if sounds is None:
        notes = ["The sounds were not found: no players, no log-mel pictures."]
        atomic_write_text(path, _render(page, {}, notes))
        return []  # write_mistakes has warned already
    max_chars = MAX_BYTES - len(_render(page, dict.fromkeys(rows, ""), []).encode()) - 2_000
    encoded, failed, left_out = encode_sounds({row: sounds[row] for row in rows}, set(listed), max_chars)
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
    """Return the page's HTML. ``sounds``: Ogg in base64, by row."""
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
        map_answer=describe_separation(page.plan),
        map_caption=map_caption(page.plan),
        seconds=f"{PLAYED_SECONDS:.0f}",
        sounds={str(row): sound for row, sound in sounds.items()},
        **_map(page, sounds),
    )


def _clean(value: object) -> object:
    """Replace characters that HTML does not allow by U+FFFD, and line ends by spaces, in a value of the template."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", value).replace("\n", " ")
    return value


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, finalize=_clean,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def _hash(template: str, tag: str) -> str:
    """Return the hash of the template's script or style for the page's policy; neither holds any placeholder."""
    match = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
    assert match is not None, tag
    return base64.b64encode(hashlib.sha256(match[1].encode()).digest()).decode()


def _models(mistakes: Mistakes) -> list[dict]:
    """Return the rows of the table of models."""
    dangers = mistakes.labels == DANGER
    return [
        {
            "title": column_title(mistakes, title), "threshold": threshold, "baseline": title in mistakes.baselines,
            "missed": int((wrong & dangers).sum()), "false_alarms": int((wrong & ~dangers).sum()),
        }
        for title, threshold, wrong in zip(mistakes.titles, mistakes.thresholds, mistakes.wrong, strict=True)
    ]  # fmt: skip


def _row(page: _Page, sounds: dict[int, str], rank: int) -> dict:
    """Return an entry of the list of mistakes."""
    mistakes, row = page.mistakes, int(page.mistakes.rows[rank])
    label = int(mistakes.labels[row])

    def clip(number: int) -> dict:
        return {"row": number, "file": page.files[number], "playable": number in sounds}

    return {
        "clip": clip(row), "label": label, "kind": MISTAKE_NAMES[label], "category": page.categories[row],
        "side": LABEL_NAMES[label], "logmel": page.logmels.get(row),
        "wrong": " ".join(map(str, np.flatnonzero(mistakes.wrong[:, row]))),
        "severity": " ".join(f"{value:.4f}" for value in mistakes.severity[:, row]),
        "scores": list(zip(mistakes.scores[:, row], mistakes.wrong[:, row], strict=True)),
        "neighbours": [
            {
                "clip": clip(neighbour), "similarity": similarity,
                "text": f"{page.categories[neighbour]} ({LABEL_NAMES[mistakes.labels[neighbour]]})",
            }
            for neighbour, similarity in page.neighbours[rank]
        ],
    }  # fmt: skip


def _map(page: _Page, sounds: dict[int, str]) -> dict:
    """Return the map's rings, points and names. Rings are drawn first, so that none covers a point."""
    plan = page.plan
    position_of = dict(zip(plan.rows.tolist(), plan.positions.tolist(), strict=True))
    points, names = [], []
    for group in plan.groups:
        shade = f"{'sd'[group.label]}{group.shade}"
        for row in group.rows.tolist():
            mistake = f", mistake: {MISTAKE_NAMES[group.label]}" if row in plan.mistaken else ""
            text = f"{group.category}, {LABEL_NAMES[group.label]}{mistake}, {page.files[row]}"
            text += "" if row in sounds else ", no player"
            (x, y), shape = position_of[row], SHAPES[group.shape]
            points.append({"row": row, "x": x, "y": y, "shape": shape, "shade": shade, "text": text})
        if group.name:
            (x, y), danger = group.name.at, group.label == DANGER
            line = group.name.line_to
            names.append({"text": group.name.text, "x": x, "y": y, "line": line, "shade": shade, "danger": danger})
    return {
        "points": points, "names": names,
        "rings": [position for row, position in position_of.items() if row in plan.mistaken],
        "scale": f"{plan.radius / 6:.2f}", "ring": f"{RING * plan.radius:.1f}",
    }  # fmt: skip
