"""Link or copy clips into Danger/ and Safe/, and write manifest.csv, without losing any file of a user's.

The record .placed.txt lists what earlier runs placed. It is written before the first clip, so that clips of an
interrupted run are recognised. For each clip it holds a signature (the link's target, or the SHA-256 of the copy): a
clip that has been edited since belongs to the user. manifest.csv cannot serve as the record, because users add rows to
it, which are kept.
"""

import csv
import hashlib
import os
import secrets
import shutil
from pathlib import Path

from tqdm import tqdm

from danger_safe.core.atomic import atomic_path, atomic_write_text, csv_line, make_folder, unescape_formula, write_csv
from danger_safe.core.cli import warn
from danger_safe.core.download import file_sha256
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite, is_regular_file
from danger_safe.data.clips import LABEL_NAMES, MANIFEST_COLUMNS, Clip, path_inside, read_csv_rows

_RECORD = ".placed.txt"
_FIRST_LINE = "# danger-safe: what filterAudioToDangerousAndSafe.py has put into Danger/ and Safe/. Keep this file."
_UNKNOWN = ""  # signature of a clip that an interrupted run or an older version placed

Placed = dict[str, str]  # signature of each placed file (Danger/… or Safe/…), as returned by ``_signature``


def place_clips(clips: list[Clip], output: Path, *, copy: bool) -> tuple[int, int]:
    """Make ``output`` hold exactly ``clips`` (their ``file`` is Danger/… or Safe/…) and manifest.csv.

    Clips are linked, or copied if ``copy`` is set or the system has no links. Files that no run placed are left alone,
    as are placed ones that were changed since, with a warning. Returns how many clips were placed and removed.
    Raises UserError if a user's file is in the way.
    """
    wanted = {clip.file: clip for clip in clips}
    _check_folders(output)
    before = _read_record(output)
    user_rows = _user_rows(output, before.keys() | wanted.keys())
    for file, clip in wanted.items():
        target = path_inside(output, file)
        if file not in before and os.path.lexists(target) and not _is_placed(Path(clip.path).resolve(), target):
            raise UserError(f"{target} was not placed by this script: move it away, or use another --output")
    changed = {file for file, signature in before.items() if _is_changed(output, file, signature, wanted.get(file))}
    for name in LABEL_NAMES:
        make_folder(output / name)
    _write_record(output, before | {file: before.get(file, _UNKNOWN) for file in wanted})

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
        now[clip.file] = _signature(target)
    rows = [(clip.file, clip.label, clip.category, clip.fold, clip.source) for clip in clips]
    write_csv(output / "manifest.csv", MANIFEST_COLUMNS, rows + user_rows)
    _write_record(output, now)
    for file in sorted(changed):
        outcome = "is used as it is now" if file in wanted else "was left there, though the mapping has no use for it"
        warn(f"{path_inside(output, file)} was changed since it was placed, and {outcome}")
    return placed, removed


def _check_folders(output: Path) -> None:
    """Raise UserError if Danger/ or Safe/ is a link: its target does not belong to this dataset."""
    for name in LABEL_NAMES:
        folder = output / name
        if os.path.lexists(folder) and os.path.realpath(folder) != os.path.join(os.path.realpath(output), name):
            raise UserError(f"{folder} leads elsewhere, where nothing is placed or removed: use another --output")


def _read_record(output: Path) -> Placed:
    """Return what earlier runs placed. Raises UserError if ``output`` is another program's, or the record damaged."""
    record = output / _RECORD
    if not os.path.lexists(record):
        if os.path.lexists(output / "manifest.csv"):
            raise UserError(f"{output / 'manifest.csv'} was not written by this script: use another --output")
        return {}
    if not is_regular_file(record):
        raise UserError(f"{record} is not a file: use another --output")
    try:
        with open(record, encoding="utf-8", newline="") as file:
            placed = {
                unescape_formula(row[0]): (row[1:] or [_UNKNOWN])[0]
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


def _user_rows(output: Path, placed: set[str]) -> list[tuple]:
    """Return the rows that users have added to the manifest for existing sounds of their own."""
    manifest = output / "manifest.csv"
    if not os.path.lexists(manifest):
        return []
    check_overwrite(manifest, MANIFEST_COLUMNS)
    rows = read_csv_rows(manifest, MANIFEST_COLUMNS)
    return [
        tuple(row[name] for name in MANIFEST_COLUMNS)
        for row in rows
        if row["file"] not in placed and os.path.lexists(path_inside(output, row["file"]))
    ]


def _is_changed(output: Path, file: str, signature: str, clip: Clip | None) -> bool:
    """Whether a placed file has been changed, and is not the clip that belongs there either."""
    target = path_inside(output, file)
    if not os.path.lexists(target) or (clip is not None and _is_placed(Path(clip.path).resolve(), target)):
        return False
    if signature == _UNKNOWN:  # a link can be made again, but a file may be the user's
        return not target.is_symlink()
    return _signature(target) != signature


def _signature(target: Path) -> str:
    """Return a signature of a link's target or of a file's content."""
    if target.is_symlink():
        return f"link {hashlib.sha256(os.fsencode(os.readlink(target))).hexdigest()}"
    return f"copy {file_sha256(target)}" if is_regular_file(target) else "something else"


def _place_one(source: Path, target: Path, copy: bool) -> bool:
    """Link or copy one clip; return False if it is there already."""
    source = source.resolve()
    if os.path.lexists(target):
        if _is_placed(source, target) and target.is_symlink() != copy:
            return False
        target.unlink()
    if copy:
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
    else:
        target.symlink_to(os.path.relpath(source, target.parent.resolve()))
    return True


def _is_placed(source: Path, target: Path) -> bool:
    """Whether ``target`` is a link to ``source`` or a copy of it."""
    if target.is_symlink():
        return target.exists() and os.path.samefile(source, target)
    return is_regular_file(target) and source.stat().st_size == target.stat().st_size and _same_content(source, target)


def _can_link(source: Path, folder: Path) -> bool:
    """Whether the user may make links from ``folder`` to ``source``; on Windows not everybody may."""
    probe = folder / f".probe.{secrets.token_hex(8)}"
    try:
        probe.symlink_to(os.path.relpath(source.resolve(), folder.resolve()))
    except (OSError, NotImplementedError, ValueError):  # ValueError: another drive
        return False
    probe.unlink()
    return True


def _same_content(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()
