"""Downloads that can be trusted: resumed where they broke off, verified, and named only when whole.

While it runs a download is called NAME.part. It gets its name when its size and hash are right; a connection that
breaks leaves the part for the next try, a wrong hash throws it away.
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

TIMEOUT_S = 30  # seconds without a byte
MIN_BYTES_PER_S = 1_000  # bytes a second over so many seconds
MAX_ATTEMPTS = 3
MAX_BYTES = 4_000_000_000  # bytes: no file that is fetched here is larger, and a server that never ends fills no disk
_CHUNK = 1 << 18  # bytes


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str, target: Path, *, size: int | None = None, sha256: str | None = None, manual_steps: str = ""
) -> Path:
    """Fetch ``url`` into ``target``; ``size`` in bytes and ``sha256`` are checked where given.

    ``manual_steps``: what to do where the server refuses.

    Raises UserError, with what to do, when the file cannot be had whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if os.path.lexists(part) and (part.is_symlink() or not is_regular_file(part)):
        raise UserError(f"{part} is in the way of the download, and no part of one: move it away")
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
                words = "the disk is full: make room, and run again: the download goes on where it stopped"
                raise UserError(f"{part}: {words}") from error
            problem = str(getattr(error, "reason", error))
        if attempt == MAX_ATTEMPTS:
            raise UserError(f"{url}: {problem}. Check the connection and run again: it goes on where it stopped")
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
    """The connection ended before the file did."""


def _fetch(url: str, part: Path, size: int | None) -> None:
    """Add what is missing to ``part``. A server that cannot resume sends the file anew."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return
    if size is not None and have > size:
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing left to send, or a part of something else
            part.unlink()
            raise _Incomplete("the server would not resume") from error
        raise
    with answer:
        resumed = answer.status == 206
        start = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
        if resumed and start and int(start[1]) != have:
            part.unlink()
            raise _Incomplete(f"the server went on at byte {int(start[1]):,}, not at {have:,}")
        total = size if answer.length is None else (have if resumed else 0) + answer.length
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(total=total, initial=have if resumed else 0, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            began, before = time.monotonic(), file.tell()
            while chunk := answer.read1(_CHUNK):
                if (
                    time.monotonic() - began > TIMEOUT_S
                ):  # a server that sends a byte now and then is as silent as one that sends none
                    if file.tell() - before < MIN_BYTES_PER_S * TIMEOUT_S:
                        raise _Incomplete(f"the server sent less than {MIN_BYTES_PER_S:,} bytes a second")
                    began, before = time.monotonic(), file.tell()
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > (MAX_BYTES if size is None else size):
                    break
            got = file.tell()
    if size is None and got > MAX_BYTES:
        part.unlink()
        raise UserError(f"{url}: the server sent more than {MAX_BYTES:,} bytes; discarded. Do not use that source")
    if size is not None and got > size:
        return  # which the caller finds out
    if total is not None and got < total:
        print(f"connection lost after {got:,} of {total:,} bytes; trying again", file=sys.stderr)
        raise _Incomplete(f"connection lost after {got:,} of {total:,} bytes")
