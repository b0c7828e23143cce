"""Read a folder of sounds as a list of clips, in any of three layouts.

clips = read_clips("dataset")                 # as written by filterAudioToDangerousAndSafe.py: manifest.csv
clips = read_clips("dataset/ESC-50-master")   # ESC-50 as downloaded: meta/esc50.csv
clips = read_clips("my_sounds")               # one folder a category, or Danger/ and Safe/
"""

import csv
import io
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import overload
from unicodedata import normalize

from danger_safe.audio.decode import AUDIO_SUFFIXES
from danger_safe.core.atomic import unescape_formula
from danger_safe.core.cli import one_line, warn
from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError
from danger_safe.core.paths import PathOrUrl, exists, is_url, join, list_files, open_file

SAFE, DANGER = 0, 1
LABEL_NAMES = ("Safe", "Danger")
TABLES = ("manifest.csv", "meta/esc50.csv", "clips.csv")  # that describe the clips of a folder
MANIFEST_COLUMNS = ("file", "label", "category", "fold", "source")
NO_FOLD = 0  # ESC-50 counts its folds from 1
MAX_FOLDS = 10_000
_NOT_IN_WINDOWS = re.compile(r'[<>:"|?*\x00-\x1f]')


@dataclass(frozen=True)
class Clip:
    """One sound file with its annotations."""

    file: str  # name in tables: path relative to the folder, with forward slashes
    path: PathOrUrl
    label: int | None  # SAFE, DANGER, or None if unlabelled
    category: str
    fold: int  # NO_FOLD if unassigned
    source: str  # the recording that the clip was cut from: clips of one source never sit on both sides of a split


def read_clips(folder: PathOrUrl) -> list[Clip]:
    """Return the clips of a folder (a path, or a URL such as s3://…), in the order of its table, or by name.

    Raises UserError if there is no such folder, it holds no sounds, or its table is not usable.
    """
    if not is_url(folder):
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; run {command_line('filter')} first, or give --dataset")
    if exists(join(folder, "manifest.csv")):
        clips = _from_manifest(folder)
    elif exists(join(folder, "meta/esc50.csv")):
        clips = _from_esc50(folder)
    else:
        clips = _from_folders(folder)
    duplicates = [file for file, count in Counter(clip.file for clip in clips).items() if count > 1]
    if duplicates:
        raise UserError(
            f"{folder}: {duplicates[0]} is listed twice, or is there twice with its accents written in two ways: "
            "keep one"
        )
    if not clips:
        raise UserError(
            f"{folder}: no sounds in it. Expected manifest.csv, ESC-50's meta/esc50.csv, "
            f"or folders of {', '.join(AUDIO_SUFFIXES)} files"
        )
    return clips


def list_sounds(folder: PathOrUrl) -> list[tuple[str, PathOrUrl]]:
    """Return (name, path) of the files under a folder that have one of AUDIO_SUFFIXES; tell what was skipped.

    A folder that cannot be listed is returned too: reading it will say why.
    """
    sounds, others = [], Counter()
    for file, path in list_files(folder):
        name = file.rpartition("/")[2]
        stem, dot, suffix = name.rpartition(".")
        if not name or (stem and (dot + suffix).lower() in AUDIO_SUFFIXES):
            sounds.append((file, path))
        elif file not in TABLES:
            others[(dot + suffix.lower()) or name] += 1
    if others:
        kinds = ", ".join(kind for kind, _ in others.most_common(5)) + (", …" if len(others) > 5 else "")
        count = "1 file" if others.total() == 1 else f"{others.total()} files"
        print(one_line(f"{folder}: {count} skipped (not audio files): {kinds}"), file=sys.stderr)
    return sounds


def read_csv_rows(path: PathOrUrl, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a CSV file that has ``columns``, each once. Raises UserError that names what is wrong."""
    try:
        with open_file(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            missing = [name for name in columns if name not in names]
            if missing:
                raise UserError(f"{path}: column {', '.join(missing)} is missing (found: {', '.join(names) or 'none'})")
            repeated = [name for name in columns if names.count(name) > 1]
            if repeated:
                raise UserError(f"{path}: column {repeated[0]} is there {names.count(repeated[0])} times")
            rows = []
            for row in reader:
                surplus = any(row.pop(None, ()))  # empty surplus cells are fine: spreadsheets write them
                if surplus or any(row[name] is None for name in columns):
                    raise UserError(f"{path}, line {reader.line_num}: too {'many' if surplus else 'few'} columns")
                rows.append({name: unescape_formula(text or "") for name, text in row.items()})
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as a CSV table: it is not UTF-8; save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        # All errors of the csv module come from quotes: text after a closing one, or a cell that never ends.
        reason = f"{error} (perhaps a quote is never closed)" if isinstance(error, csv.Error) else str(error)
        raise UserError(f"{path}: cannot be read as a CSV table: {reason}") from error
    return rows


def _parse_int(path: PathOrUrl, text: str, name: str, allowed: range, expected: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value not in allowed:
        raise UserError(f"{path}: {name} {text!r} is not {expected}")
    return value


def _parse_label(path: PathOrUrl, text: str) -> int:
    return _parse_int(path, text, "label", range(2), "0 or 1")


def _parse_fold(path: PathOrUrl, text: str) -> int:
    return _parse_int(path, text, "fold", range(MAX_FOLDS + 1), f"a whole number from 0 to {MAX_FOLDS}")


@overload
def path_inside(folder: Path, name: str, windows: bool = ...) -> Path: ...
@overload
def path_inside(folder: PathOrUrl, name: str, windows: bool = ...) -> PathOrUrl: ...
def path_inside(folder: PathOrUrl, name: str, windows: bool = os.name == "nt") -> PathOrUrl:
    """Return ``folder / name``. Raises UserError if that would leave the folder (``../``, absolute, a Windows drive).

    With ``windows``, also for names that Windows reserves for devices (``aux.wav``) or does not allow.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or ".." in parts or "" in parts or PureWindowsPath(name).drive or "\0" in name:
        raise UserError(f"file name {name!r} would leave {folder}")
    if windows and not all(map(_is_windows_name, parts)):
        raise UserError(f"file name {name!r} is one that Windows cannot hold")
    return join(folder, "/".join(parts))


def normalise_name(text: str) -> str:
    """Return text in Unicode's form NFC: file names from macOS have ò as o and an accent, others as one character."""
    return normalize("NFC", text)


def find_on_disk(path: PathOrUrl) -> PathOrUrl:
    """Return the path in the Unicode form (NFC or NFD) in which the file exists; unchanged if there is none."""
    if is_url(path) or os.path.lexists(path):
        return path
    candidates = (Path(normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((candidate for candidate in candidates if os.path.lexists(candidate)), path)


def _is_windows_name(name: str) -> bool:
    """Whether Windows allows a file name: not a device's, without wildcards, and no trailing dot or space."""
    return not (PureWindowsPath(name).is_reserved() or name.endswith((" ", ".")) or _NOT_IN_WINDOWS.search(name))


def _from_manifest(folder: PathOrUrl) -> list[Clip]:
    table = join(folder, "manifest.csv")
    return [
        Clip(
            normalise_name(row["file"]),
            find_on_disk(path_inside(folder, row["file"])),
            _parse_label(table, row["label"]),
            normalise_name(row["category"]),
            _parse_fold(table, row["fold"]),
            normalise_name(row["source"]),
        )
        for row in read_csv_rows(table, MANIFEST_COLUMNS)
    ]


def _from_esc50(folder: PathOrUrl) -> list[Clip]:
    table = join(folder, "meta/esc50.csv")
    return [
        Clip(
            normalise_name(row["filename"]),
            find_on_disk(path_inside(join(folder, "audio"), row["filename"])),
            None,
            normalise_name(row["category"]),
            _parse_fold(table, row["fold"]),
            row["src_file"],
        )
        for row in read_csv_rows(table, ("filename", "fold", "category", "src_file"))
    ]


def _from_folders(folder: PathOrUrl) -> list[Clip]:
    """Read one folder per category; ``Danger`` and ``Safe`` are labels too. clips.csv (file, source) may set sources.

    Raises UserError if clips.csv both lacks a file and names one that does not exist: a misspelt name could put one
    recording on both sides of a split.
    """
    sources, table = {}, join(folder, "clips.csv")
    if exists(table):
        rows = read_csv_rows(table, ("file", "source"))
        sources = {normalise_name(row["file"]).replace("\\", "/"): normalise_name(row["source"]) for row in rows}
    labels = {name: label for label, name in enumerate(LABEL_NAMES)}
    clips, without_category = [], []
    for file, path in list_sounds(folder):
        # On Linux a name is any sequence of bytes.
        file = normalise_name(file.encode(errors="surrogateescape").decode(errors="backslashreplace"))
        *folders, name = file.split("/")  # the name is empty for a folder that cannot be listed
        if not folders:
            without_category.append(file)
            continue
        stem = name.rpartition(".")[0]
        clips.append(Clip(file, path, labels.get(folders[0]), folders[-1], NO_FOLD, sources.get(file, stem)))
    if without_category:
        warn(
            f"{len(without_category)} sounds are left out, {without_category[0]} first: "
            "they must be in a folder of their category"
        )
    files = {clip.file for clip in clips}
    missing, unnamed = sorted(sources.keys() - files), sorted(files - sources.keys())
    if missing and unnamed:
        raise UserError(
            f"{table} names {missing[0]}, which is not there, and does not name {unnamed[0]}: write names as they are"
        )
    return clips
