"""Download ESC-50 once, unpack it safely and check it.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", 2015. 2,000 clips of five seconds, 50 categories,
five folds. Licence: CC BY-NC 3.0.
"""

import errno
import os
import shutil
import sys
import zipfile
from pathlib import Path

from tqdm import tqdm

from danger_safe.core.atomic import DISK_FULL_ERRNOS, DISK_FULL_MESSAGE
from danger_safe.core.download import MAX_BYTES, download
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import is_marked_folder, marked_folder
from danger_safe.data.clips import path_inside, read_csv_rows

# This address could not be tried where this was written.
URL = "https://github.com/karolpiczak/ESC-50/archive/master.zip"
CLIPS = 2_000
CLIP_BYTES = 441_044  # size of each WAV file


def download_esc50(folder: Path) -> None:
    """Download ESC-50 to ``folder``, which appears only when every clip is there in full size.

    Until then everything lies in a work folder beside it. If ``folder`` exists, only what a killed run left of that
    work folder is removed. Raises UserError if the download or the check fails; an unusable archive is removed.
    """
    work = folder.with_name(folder.name + ".download")
    if os.path.lexists(folder):
        if is_marked_folder(work):
            shutil.rmtree(work)
        return
    marked_folder(work)
    archive, unpacked = work / "ESC-50.zip", work / "unpacked"
    if not archive.is_file():
        print(f"Downloading ESC-50 (about 600 MB, CC BY-NC 3.0) from {URL}", file=sys.stderr)
        by_hand = "Download and unpack ESC-50 by hand, and give its folder with --esc50"
        download(URL, archive, manual_steps=by_hand, offline_steps="--esc50 FOLDER or --sample")
    shutil.rmtree(unpacked, ignore_errors=True)  # left by an interrupted run
    try:
        _unpack(archive, unpacked)
        _check(unpacked)
    except OSError as error:  # keep the archive, which is good, and free the space for another try
        shutil.rmtree(unpacked, ignore_errors=True)
        if error.errno in DISK_FULL_ERRNOS:
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE, str(unpacked)) from error
        raise
    except Exception as error:  # a damaged archive can raise anything
        shutil.rmtree(unpacked, ignore_errors=True)
        archive.unlink()
        raise UserError(
            f"the downloaded ESC-50 is not usable and was removed: {error}. Run again to fetch it"
        ) from error
    unpacked.replace(folder)
    shutil.rmtree(work)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack audio/ and meta/ without the archive's top folder.

    Raises UserError for a member whose name leads out of ``folder``, or an archive that expands too much.
    """
    with zipfile.ZipFile(archive) as zipped:
        if sum(member.file_size for member in zipped.infolist()) > MAX_BYTES:
            raise UserError(f"it would unpack to more than {MAX_BYTES:,} bytes")
        for member in tqdm(zipped.infolist(), desc="Unpacking ESC-50", unit="file"):
            if member.is_dir():
                continue
            path_inside(folder, member.filename)
            name = member.filename.split("/", 1)[-1]
            if not name.startswith(("audio/", "meta/")):
                continue
            target = path_inside(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)


def _check(folder: Path) -> None:
    """Raise UserError unless all clips are there in full size."""
    table = folder / "meta" / "esc50.csv"
    if not table.is_file():
        raise UserError("meta/esc50.csv is not in the archive")
    names = {row["filename"] for row in read_csv_rows(table, ("filename",))}
    if len(names) != CLIPS:
        raise UserError(f"{len(names)} clips are listed where {CLIPS} were expected")
    wrong = [
        name
        for name in sorted(names)
        if not (clip := path_inside(folder / "audio", name)).is_file() or clip.stat().st_size != CLIP_BYTES
    ]
    if wrong:
        raise UserError(f"{len(wrong)} clips are missing or have another size than {CLIP_BYTES:,} bytes: {wrong[0]} …")
