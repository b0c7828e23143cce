"""Putting clips into Danger/ and Safe/, so that the folders hold what the manifest says, and nothing of a user's is lost.

What an earlier run placed is known from .placed.txt, which is written before the first clip is: a run that was
interrupted leaves clips that the next one recognises as its own. manifest.csv is no such record: users add rows to it.
"""

import csv
import os
import shutil
from pathlib import Path

from tqdm import tqdm

from danger_safe.core.atomic import csv_line, make_folder, whole_file, write_csv, write_whole
from danger_safe.core.errors import UserError
from danger_safe.data.clips import LABEL_NAMES, MANIFEST_COLUMNS, Clip, inside


def place(clips: list[Clip], output: Path, *, copy: bool) -> tuple[int, int]:
    """Make ``output`` hold exactly ``clips`` (their ``file`` is Danger/… or Safe/…) and manifest.csv.

    Clips are linked, or copied where ``copy`` asks for it or the system has no links. Files that no run placed are
    left alone; one that is in the way is an error. Returns how many clips were placed and removed.
    """
    wanted = {clip.file: clip for clip in clips}
    ours = _placed_before(output)
    for file in wanted:
        target = inside(output, file)
        if file not in ours and os.path.lexists(target) and not _is_there(wanted[file].path.resolve(), target):
            raise UserError(f"{target} was not placed by this script: move it away, or use another --output")
    for name in LABEL_NAMES:
        make_folder(output / name)
    journal = output / ".placed.txt"
    write_whole(journal, "".join(f"{csv_line([file])}\n" for file in sorted(ours | set(wanted))))

    removed = 0
    for file in sorted(ours - set(wanted)):
        target = inside(output, file)
        if os.path.lexists(target):
            target.unlink()
            removed += 1
    copy = copy or not _can_link(clips[0].path, output)
    placed = 0
    for clip in tqdm(clips, desc="Placing clips", unit="clip"):
        placed += _place_one(clip.path, inside(output, clip.file), copy)
    rows = [(clip.file, clip.label, clip.category, clip.fold, clip.source) for clip in clips]
    write_csv(output / "manifest.csv", MANIFEST_COLUMNS, rows)
    write_whole(journal, "".join(f"{csv_line([file])}\n" for file in sorted(wanted)))
    return placed, removed


def _placed_before(output: Path) -> set[str]:
    record = output / ".placed.txt"
    if not record.is_file():
        return set()
    try:
        with open(record, encoding="utf-8", newline="") as file:
            files = {row[0] for row in csv.reader(file) if row}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{record} is damaged: remove it") from error
    for file in files:
        if inside(output, file).parent.name not in LABEL_NAMES:
            raise UserError(f"{record}: {file!r} is not in Danger/ or Safe/: not written by this script. Remove it")
    return files


def _place_one(source: Path, target: Path, copy: bool) -> bool:
    """Link or copy one clip; False when it is there already."""
    source = source.resolve()
    if os.path.lexists(target):
        if _is_there(source, target) and target.is_symlink() != copy:
            return False
        target.unlink()
    if copy:
        with whole_file(target) as part:
            shutil.copyfile(source, part)
    else:
        target.symlink_to(os.path.relpath(source, target.parent.resolve()))
    return True


def _is_there(source: Path, target: Path) -> bool:
    """Whether ``target`` is a link to the clip, or a copy of it."""
    if target.is_symlink():
        return target.exists() and os.path.samefile(source, target)
    return target.is_file() and source.stat().st_size == target.stat().st_size and _same_content(source, target)


def _can_link(source: Path, folder: Path) -> bool:
    """Whether the system lets this user link from ``folder`` to ``source``: not every Windows does."""
    probe = folder / f".probe.{os.getpid()}.part"
    try:
        probe.symlink_to(os.path.relpath(source.resolve(), folder.resolve()))
    except (OSError, NotImplementedError, ValueError):  # ValueError: another drive
        return False
    probe.unlink()
    return True


def _same_content(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()
