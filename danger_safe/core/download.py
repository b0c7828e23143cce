"""Resumable, verified downloads.

A download is written to NAME.part and renamed once its size and SHA-256 have been checked. If the connection breaks,
the part is kept and resumed by the next attempt; if the hash is wrong, it is deleted.
"""

import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from danger_safe.core.atomic import DISK_FULL_ERRNOS, fsync_file
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import is_regular_file

TIMEOUT_S = 30  # seconds without data after which a connection is given up
MIN_BYTES_PER_S = 1_000  # average over TIMEOUT_S below which a connection is given up
MAX_ATTEMPTS = 3
MAX_BYTES = 4_000_000_000  # bytes; no file of this project is larger, and an endless response must not fill the disk
_CHUNK_BYTES = 1 << 18


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    manual_steps: str = "",
    offline_steps: str = "",
) -> Path:
    """Download ``url`` to ``target`` and return ``target``.

    Args:
        url: the address.
        target: the file to write; its folder is created if necessary.
        size: the expected size in bytes, if known.
        sha256: the expected hash in hexadecimal, if known.
        manual_steps: advice for the user if the server refuses the request.
        offline_steps: advice for a user without Internet.

    Raises:
        UserError: the file cannot be downloaded completely, or is not the expected one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if os.path.lexists(part) and (part.is_symlink() or not is_regular_file(part)):
        raise UserError(f"{part} exists but is not a partial download: move it away")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            _fetch(url, part, size)
            break
        except urllib.error.HTTPError as error:
            problem = f"the server answered {error.code} {error.reason}"
            if error.code < 500:
                raise UserError(f"{url}: {problem}. {manual_steps or f'Save the file by hand as {target}'}") from error
        except (_Incomplete, OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
                message = "the disk is full: make room, and run again: the download resumes"
                raise UserError(f"{part}: {message}") from error
            problem = str(getattr(error, "reason", error))
        if attempt == MAX_ATTEMPTS:
            advice = "Check the connection and run again: the download resumes"
            raise UserError(f"{url}: {problem}. {advice}{offline_steps and f'. Without Internet: {offline_steps}'}")
    if size is not None and part.stat().st_size != size:
        got = part.stat().st_size
        part.unlink()
        raise UserError(f"{url}: {got:,} bytes where {size:,} were expected; discarded")
    if sha256 is not None and file_sha256(part) != sha256:
        part.unlink()
        raise UserError(f"{url}: the file has another SHA-256 than {sha256}; discarded. Do not use that source")
    fsync_file(part)
    part.replace(target)
    return target


class _Incomplete(Exception):
    """The connection ended before the file was complete."""


def _fetch(url: str, part: Path, size: int | None) -> None:
    """Append the missing bytes to ``part``, or write all of them if the server cannot resume.

    May leave more than ``size`` bytes if the server sends too many. Raises _Incomplete if the connection is lost.
    """
    offset = part.stat().st_size if part.exists() else 0
    if size is not None and offset == size:
        return
    if size is not None and offset > size:
        part.unlink()
        offset = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:  # there are no more bytes, or the part is of another file
            part.unlink()
            raise _Incomplete("the server would not resume") from error
        raise
    with response:
        is_resumed = response.status == 206
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
        if is_resumed and start and int(start[1]) != offset:
            part.unlink()
            raise _Incomplete(f"the server went on at byte {int(start[1]):,}, not at {offset:,}")
        offset = offset if is_resumed else 0
        total = size if response.length is None else offset + response.length
        with (
            open(part, "ab" if is_resumed else "wb") as file,
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            checked_at, checked_size = time.monotonic(), file.tell()
            while chunk := response.read1(_CHUNK_BYTES):
                # The socket's timeout does not catch a server that sends a single byte now and then.
                if time.monotonic() - checked_at > TIMEOUT_S:
                    if file.tell() - checked_size < MIN_BYTES_PER_S * TIMEOUT_S:
                        raise _Incomplete(f"the server sent less than {MIN_BYTES_PER_S:,} bytes a second")
                    checked_at, checked_size = time.monotonic(), file.tell()
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > (MAX_BYTES if size is None else size):
                    break
            received = file.tell()
    if size is None and received > MAX_BYTES:
        part.unlink()
        raise UserError(f"{url}: the server sent more than {MAX_BYTES:,} bytes; discarded. Do not use that source")
    if size is not None and received > size:
        return
    if total is not None and received < total:
        print(f"connection lost after {received:,} of {total:,} bytes; trying again", file=sys.stderr)
        raise _Incomplete(f"connection lost after {received:,} of {total:,} bytes")
