"""mistakes.html: the models side by side, every misclassified clip, and the embedding map, in one file that needs nothing.

The template beside this file has the words, the looks and the behaviour; here its tables and points are made.
Whatever comes from the data is escaped; the page's policy lets only its own script run, and nothing go online.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

from danger_safe.core import cli
from danger_safe.core.atomic import write_whole
from danger_safe.core.errors import UserError
from danger_safe.core.paths import Place
from danger_safe.data.clips import LABEL_NAMES
from danger_safe.embeddings.table import EmbeddingTable, describe_data
from danger_safe.embeddings.table_sounds import find_sounds
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.reports.embedding_map import SHAPES, MapPlan, in_words, lay_out, write_map
from danger_safe.reports.mistakes import KINDS, Mistakes, find_mistakes, names_of, nearest, title_in_words, write_list
from danger_safe.reports.page_media import PLAYED_SECONDS, draw_all, encode_all

MOST_BYTES = 20_000_000  # of the page
MOST_ROWS = 2_000  # mistakes in its list; mistakes.csv has them all
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
    sounds: dict[int, str]  # Ogg in base64
    notes: list[str] = field(default_factory=list)  # what is missing


def write_mistakes(
    folder: Path, table: EmbeddingTable, results: dict[str, Evaluation], own: list[str], dataset: Place | None
) -> list[Path]:
    """Write mistakes.html, mistakes.csv, embedding_map.png and embedding_map.csv into ``folder``; their paths.

    ``own``: titles of the models whose mistakes count. Where the sounds are not found (``find_sounds``) the page has
    neither players nor log-mels, and a warning says so.
    """
    mistakes = find_mistakes(results, own)
    standardised = StandardScaler().fit_transform(table.features)
    neighbours = nearest(standardised, results[own[0]].sources, mistakes.rows)
    try:
        sounds = find_sounds(table, dataset)
    except (UserError, OSError) as error:
        cli.warn(f"mistakes.html has no players and no log-mel pictures: {error}")
        sounds = None
    paths = [folder / name for name in ("mistakes.html", "mistakes.csv", "embedding_map.png", "embedding_map.csv")]
    page, listing, picture, places = paths
    write_list(listing, table, mistakes, neighbours)
    plan = lay_out(standardised, mistakes.labels, names_of(table)[1], mistakes.rows)
    write_map(picture, places, names_of(table)[0], plan)
    for problem in write_page(page, table, mistakes, neighbours, plan, sounds):
        cli.warn(problem)
    return paths


def write_page(
    path: Path, table: EmbeddingTable, mistakes: Mistakes, neighbours: list, plan: MapPlan, sounds: list[Place] | None
) -> list[str]:
    """Write the page. ``sounds``: the file of each of the table's rows, or None. Returns what is missing, in words."""
    files, categories = names_of(table)
    listed = mistakes.rows[:MOST_ROWS].tolist()
    important = listed + [row for near in neighbours[:MOST_ROWS] for row, _ in near] + plan.rows.tolist()
    important = list(dict.fromkeys(important))  # each once, in this order
    pictures = draw_all({row: sounds[row] for row in listed}) if sounds and listed else {}
    page = _Page(table, mistakes, neighbours, plan, files, categories, pictures, {})
    if sounds is None:
        notes = ["The sounds were not found: no players, no log-mel pictures."]
        write_whole(path, _render(page, {}, notes))
        return []  # said before
    room = MOST_BYTES - len(_render(page, dict.fromkeys(important, ""), []).encode()) - 2_000
    encoded, failed, left_out = encode_all({row: sounds[row] for row in important}, set(listed), room)
    notes = []
    if failed:
        first = next(iter(failed))
        notes.append(f"Clips that cannot be played: {len(failed)}, first {files[first]}: {failed[first]}.")
    if left_out:
        notes.append(
            f"Clips without a player: {len(left_out)}; with them the page would be over {MOST_BYTES / 1e6:.0f} MB."
        )
    write_whole(path, _render(page, encoded, notes))
    return [f"mistakes.html: {note}" for note in notes]


def _render(page: _Page, sounds: dict[int, str], notes: list[str]) -> str:
    page = _Page(**{**vars(page), "sounds": sounds, "notes": notes})
    mistakes = page.mistakes
    template = TEMPLATE.read_text(encoding="utf-8")
    titles = [_text(title_in_words(mistakes, title)) for title in mistakes.titles]
    own = titles[: len(titles) - len(mistakes.baselines)]
    if seen := int(page.table.seen.sum()):
        notes = [f"Too good to be true: the network was trained on {seen} of these clips (column seen).", *notes]
    if len(mistakes.rows) > MOST_ROWS:
        notes = [*notes, f"The {MOST_ROWS} worst of {len(mistakes.rows)} mistakes; mistakes.csv has them all."]
    missed = int(mistakes.labels[mistakes.rows].sum())
    parts = {
        "style_hash": _hash(template, "style"),
        "script_hash": _hash(template, "script"),
        "data": _text(describe_data(page.table)),
        "clips": len(mistakes.labels),
        "mistakes": len(mistakes.rows),
        "missed": missed,
        "false_alarms": len(mistakes.rows) - missed,
        "notes": "".join(f'<p class="note">{_text(note)}</p>\n' for note in notes),
        "models": "\n".join(map(_model, [mistakes] * len(titles), range(len(titles)))),
        "model_options": "".join(f'<option value="{number}">{title}</option>' for number, title in enumerate(own)),
        "model_headings": "".join(
            f'<th scope="col" role="columnheader">{title}<br><small>threshold {threshold:.3f}</small></th>'
            for title, threshold in zip(titles, mistakes.thresholds, strict=True)
        ),
        "rows": "\n".join(map(_row, [page] * MOST_ROWS, range(min(len(mistakes.rows), MOST_ROWS)))),
        "map_words": _text(in_words(page.plan)),
        "points": _points(page),
        "names": _names(page.plan),
        "seconds": f"{PLAYED_SECONDS:.0f}",
        "sounds": json.dumps(sounds),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: str(parts[match[1]]), template)


def _text(text: str) -> str:
    """Text for HTML, also inside quotes. Characters that HTML cannot hold become a question mark."""
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)).replace("\n", " ")


def _hash(template: str, tag: str) -> str:
    """How the policy names the template's own script or style: no other runs."""
    content = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)[1]
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _model(mistakes: Mistakes, number: int) -> str:
    """A line of the models' table."""
    wrong, dangers = mistakes.wrong[number], mistakes.labels == 1
    cells = (
        f"{mistakes.thresholds[number]:.3f}",
        f"{(wrong & dangers).sum()} of {dangers.sum()}",
        f"{(wrong & ~dangers).sum()} of {(~dangers).sum()}",
    )
    title = _text(title_in_words(mistakes, mistakes.titles[number]))
    return f'<tr><th scope="row">{title}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _row(page: _Page, rank: int) -> str:
    """A line of the list of mistakes."""
    mistakes, row = page.mistakes, int(page.mistakes.rows[rank])
    label, file, category = mistakes.labels[row], _text(page.files[row]), _text(page.categories[row])
    wrong = " ".join(str(number) for number in np.flatnonzero(mistakes.wrong[:, row]))
    far = " ".join(f"{value:.4f}" for value in mistakes.far[:, row])
    cells = [
        f'<th scope="row" role="rowheader"><span class="rank">{rank + 1}.</span> <span class="file">{file}</span>'
        f"{_button(page, row, 'Play')}</th>",
        _cell("Mistake", f'<strong class="kind">{KINDS[label]}</strong><br>{category} ({LABEL_NAMES[label]})'),
        _cell("Log-mel", _picture(page, row)),
    ]
    for number, title in enumerate(mistakes.titles):
        score = f"{mistakes.scores[number, row]:.3f}"
        mark = '<br> <strong class="wrong">✗ wrong</strong>' if mistakes.wrong[number, row] else "<br> right"
        cells.append(_cell(_text(title_in_words(mistakes, title)), score + mark))
    near = "".join(
        f"<li>{_button(page, other, f'{page.categories[other]} ({LABEL_NAMES[mistakes.labels[other]]})')}"
        f" {similarity:.2f}</li>"
        for other, similarity in page.neighbours[rank]
    )
    cells.append(_cell("Nearest neighbours", f"<ol>{near}</ol>"))
    return (
        f'<tr role="row" data-rank="{rank}" data-kind="{label}" data-wrong="{wrong}" data-far="{far}" '
        f'data-category="{category}">{"".join(cells)}</tr>'
    )


def _cell(heading: str, content: str) -> str:
    """A cell that knows its heading: narrow screens show it beside the content."""
    return f'<td role="cell" data-heading="{heading}">{content}</td>'


def _button(page: _Page, row: int, words: str) -> str:
    if row not in page.sounds:
        return f'<span class="silent">{_text(words if words != "Play" else "no player")}</span>'
    name = _text(f"{words}: {page.files[row]}" if words == "Play" else f"Play neighbour: {words}, {page.files[row]}")
    return (
        f'<button type="button" data-clip="{row}" aria-label="{name}" title="{_text(page.files[row])}">'
        f'<span aria-hidden="true">▶</span> {_text(words)}</button>'
    )


def _picture(page: _Page, row: int) -> str:
    if row not in page.pictures:
        return "none"
    image, seconds = page.pictures[row]
    words = f"Log-mel picture of {page.files[row]}: {seconds:.1f} s to the right, 50 Hz to 14 kHz upwards"
    return (
        f'<img src="data:image/png;base64,{image}" alt="{_text(words)}" width="200" height="64" loading="lazy" '
        f'decoding="async"><br><small>0 – {seconds:.1f} s</small>'
    )


def _points(page: _Page) -> str:
    """The map's points: rings first, so that no ring covers a point."""
    where = dict(zip(page.plan.rows.tolist(), page.plan.places.tolist(), strict=True))
    rings = [
        f'<circle class="ring" cx="{where[row][0]}" cy="{where[row][1]}" r="8"/>'
        for row in page.plan.rows.tolist()
        if row in page.plan.mistaken
    ]
    points = []
    for group in page.plan.groups:
        for row in group.rows.tolist():
            x, y = where[row]
            mistake = f", mistake: {KINDS[group.label]}" if row in page.plan.mistaken else ""
            words = f"{group.category}, {LABEL_NAMES[group.label]}{mistake}, {page.files[row]}"
            words += "" if row in page.sounds else ", no player"
            points.append(
                f'<path role="option" aria-selected="false" tabindex="-1" data-point="{row}" '
                f'transform="translate({x} {y}) scale(.75)" fill="{group.colour}" d="{SHAPES[group.shape]}" '
                f'aria-label="{_text(words)}"/>'
            )
    return "\n".join(
        ['<g aria-hidden="true">', *rings, "</g>", '<g id="points" role="listbox" aria-labelledby="map-title" '
         'aria-describedby="map-keys">', *points, "</g>"]
    )  # fmt: skip


def _names(plan: MapPlan) -> str:
    """The categories' names on the map."""
    return "\n".join(
        f'<text x="{group.name_at[0]}" y="{group.name_at[1]}" fill="{group.colour}"'
        f"{' class=danger' if group.label else ''}>{_text(group.category.replace('_', ' '))}</text>"
        for group in plan.groups
        if group.name_at
    )
