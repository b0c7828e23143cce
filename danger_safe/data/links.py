"""Putting clips into Danger/ and Safe/, so that the folders hold what the manifest says, and nothing of a user's is
lost.

What an earlier run placed is known from .placed.txt, which is written before the first clip is: a run that was
interrupted leaves clips that the next one recognises as its own. It has what each was (where its link leads, or the
SHA-256 of its copy): a clip that somebody has edited since is somebody's own. manifest.csv is no such record: users
add rows to it, and these are kept.
"""

import csv
import hashlib
import os
import secrets
import shutil
from pathlib import Path

from tqdm import tqdm

from danger_safe.core.atomic import atomic_path, atomic_write_text, csv_line, make_folder, with_formula, write_csv
from danger_safe.core.cli import warn
from danger_safe.core.download import file_sha256
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite, is_regular_file
from danger_safe.data.clips import LABEL_NAMES, MANIFEST_COLUMNS, Clip, path_inside, read_table

_RECORD = ".placed.txt"
_FIRST_LINE = "# danger-safe: what filterAudioToDangerousAndSafe.py has put into Danger/ and Safe/. Keep this file."
_ANY = ""  # what a clip was, where it is not known: placed just now by a run that was stopped, or by an older version

Placed = dict[str, str]  # by file (Danger/… or Safe/…): what a clip is, as ``_what_is`` says it


def place_clips(clips: list[Clip], output: Path, *, copy: bool) -> tuple[int, int]:
    """Make ``output`` hold exactly ``clips`` (their ``file`` is Danger/… or Safe/…) and manifest.csv.

    Clips are linked, or copied where ``copy`` asks for it or the system has no links. Files that no run placed are
    left alone, as are those that were changed since, with a warning; one that is in the way is an error. Returns how
    many clips were placed and removed.
    """
    wanted = {clip.file: clip for clip in clips}
    _check_folders(output)
    before = _placed_before(output)
    others = _other_rows(output, before.keys() | wanted.keys())
    for file in wanted:
        target = path_inside(output, file)
        if file not in before and os.path.lexists(target) and not _is_there(Path(wanted[file].path).resolve(), target):
            raise UserError(f"{target} was not placed by this script: move it away, or use another --output")
    changed = {file for file, what in before.items() if _is_changed(output, file, what, wanted.get(file))}
    for name in LABEL_NAMES:
        make_folder(output / name)
    _write_record(output, before | {file: before.get(file, _ANY) for file in wanted})

    removed = 0
    for file in sorted(before.keys() - wanted.keys() - changed):
        target = path_inside(output, file)
        if os.path.lexists(target):
            target.unlink()
            removed += 1
    copy = copy or not _can_link(Path(clips[0].path), output)
    placed = 0
    now: Placed = {file: before[file] for file in sorted(changed)}
    for clip in tqdm(clips, desc="Placing clips", unit="clip"):
        if clip.file in changed:
            continue
        target = path_inside(output, clip.file)
        placed += _place_one(Path(clip.path), target, copy)
        now[clip.file] = _what_is(target)
    rows = [(clip.file, clip.label, clip.category, clip.fold, clip.source) for clip in clips]
    write_csv(output / "manifest.csv", MANIFEST_COLUMNS, rows + others)
    _write_record(output, now)
    for file in sorted(changed):
        kept = "is used as it is now" if file in wanted else "was left there, though the mapping has no use for it"
        warn(f"{path_inside(output, file)} was changed since it was placed, and {kept}")
    return placed, removed


def _check_folders(output: Path) -> None:
    """Raises UserError where Danger/ or Safe/ is a link: what is behind it is not this dataset's."""
    for name in LABEL_NAMES:
        folder = output / name
        if os.path.lexists(folder) and os.path.realpath(folder) != os.path.join(os.path.realpath(output), name):
            raise UserError(f"{folder} leads elsewhere, where nothing is placed or removed: use another --output")


def _placed_before(output: Path) -> Placed:
    record = output / _RECORD
    if not os.path.lexists(record):
        if os.path.lexists(output / "manifest.csv"):
            raise UserError(f"{output / 'manifest.csv'} was not written by this script: use another --output")
        return {}
    if not is_regular_file(record):
        raise UserError(f"{record} is no file: use another --output")
    try:
        with open(record, encoding="utf-8", newline="") as file:
            placed = {
                with_formula(row[0]): (row[1:] or [_ANY])[0]
                for row in csv.reader(file)
                if row and not row[0].startswith("# ")
            }
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{record} is damaged, and what is this script's own is not known: use another --output"
        ) from error
    for file in placed:
        path_inside(output, file)
        if file.count("/") != 1 or file.split("/")[0] not in LABEL_NAMES:
            raise UserError(
                f"{record}: {file!r} is not in Danger/ or Safe/: not written by this script. Use another --output"
            )
    return placed


def _write_record(output: Path, placed: Placed) -> None:
    lines = [_FIRST_LINE, *(csv_line(pair) for pair in sorted(placed.items()))]
    atomic_write_text(output / _RECORD, "".join(f"{line}\n" for line in lines))


def _other_rows(output: Path, ours: set[str]) -> list[tuple]:
    """The rows that somebody has added to the manifest, for sounds of their own that are there."""
    manifest = output / "manifest.csv"
    if not os.path.lexists(manifest):
        return []
    check_overwrite(manifest, MANIFEST_COLUMNS)
    rows = read_table(manifest, MANIFEST_COLUMNS)
    return [
        tuple(row[name] for name in MANIFEST_COLUMNS)
        for row in rows
        if row["file"] not in ours and os.path.lexists(path_inside(output, row["file"]))
    ]


def _is_changed(output: Path, file: str, what: str, clip: Clip | None) -> bool:
    """Whether what is there now is neither what was placed nor the clip that it was placed from."""
    target = path_inside(output, file)
    if not os.path.lexists(target) or (clip is not None and _is_there(Path(clip.path).resolve(), target)):
        return False
    if what == _ANY:  # not known: a link is easily made again, anything else may be somebody's
        return not target.is_symlink()
    return _what_is(target) != what


def _what_is(target: Path) -> str:
    """Where a link leads, or what a file holds."""
    if target.is_symlink():
        return f"link {hashlib.sha256(os.fsencode(os.readlink(target))).hexdigest()}"
    return f"copy {file_sha256(target)}" if is_regular_file(target) else "something else"


def _place_one(source: Path, target: Path, copy: bool) -> bool:
    """Link or copy one clip; False when it is there already."""
    source = source.resolve()
    if os.path.lexists(target):
        if _is_there(source, target) and target.is_symlink() != copy:
            return False
        target.unlink()
    if copy:
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
    else:
        target.symlink_to(os.path.relpath(source, target.parent.resolve()))
    return True


def _is_there(source: Path, target: Path) -> bool:
    """Whether ``target`` is a link to the clip, or a copy of it."""
    if target.is_symlink():
        return target.exists() and os.path.samefile(source, target)
    return is_regular_file(target) and source.stat().st_size == target.stat().st_size and _same_content(source, target)


def _can_link(source: Path, folder: Path) -> bool:
    """Whether the system lets this user link from ``folder`` to ``source``: not every Windows does."""
    probe = folder / f".probe.{secrets.token_hex(8)}"
    try:
        probe.symlink_to(os.path.relpath(source.resolve(), folder.resolve()))
    except (OSError, NotImplementedError, ValueError):  # ValueError: another drive
        return False
    probe.unlink()
    return True


def _same_content(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()
