"""Networks converted for MNN, kept in the user's cache folder: a checkpoint is converted once on a computer.

    converted = find_or_convert("compact")
    network = MnnNetwork(converted.file, threads=2, winograd=converted.winograd)

Files: CACHE/SHA256-mnnVERSION-CONVERSION_VERSION/ with network.mnn, arrays.npz and info.json. The folder is made beside
    and renamed,
so it is whole or not there, and nobody else may write into it. info.json holds the files' sizes and SHA-256; where they
do not fit, the folder is made anew. Every conversion is tried on probe sounds against the reference first
(models/parity.py): MNN's fastest algorithm is kept for the networks whose embeddings it does not change.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from danger_safe.core.atomic import DISK_FULL_ERRNOS, DISK_FULL_MESSAGE, fsync_file, temporary_folder
from danger_safe.core.cache_folder import cache_folder, cache_folders, is_private
from danger_safe.core.child import PROJECT, run_code
from danger_safe.core.cores import available_cores
from danger_safe.core.download import file_sha256
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import is_regular_file
from models.checkpoint_files import CheckpointInfo, checkpoint_name, checkpoint_path, verified_sha256
from models.head import Head
from models.kaldimel import KaldiMel
from models.logmel import LogMel
from models.mnn_network import MnnNetwork, NetworkError
from models.parity import MAX_PROBE_ERROR, PROBE_LENGTHS_S, largest_error

ARRAYS = "arrays.npz"  # mel bank and head
_FILES = ("network.mnn", ARRAYS)
_ELSEWHERE = "name a folder of your own in DANGER_SAFE_CACHE"
MIN_FREE_BYTES = 1 << 16  # bytes: no room at all
CONVERSION_VERSION = 5  # counts how conversions are tried: those that were tried otherwise are made anew


class ConversionError(Exception):
    """This network cannot be converted on this computer; other engines can run it."""


@dataclass(frozen=True)
class ConvertedNetwork:
    """A network that MNN can run."""

    file: Path
    info: CheckpointInfo
    front_end: LogMel | KaldiMel
    head: Head
    winograd: int  # MNN's level of Winograd's algorithm that keeps the embeddings
    sha256: str  # of the file

    def is_intact(self) -> bool:
        """Whether the file is what was converted: read once through."""
        return file_sha256(self.file) == self.sha256

    def discard(self) -> None:
        """Remove it; it is converted anew."""
        shutil.rmtree(self.file.parent)


def find_or_convert(checkpoint: str) -> ConvertedNetwork:
    """The converted network of a checkpoint given by name or path. Its file may be damaged: ask ``is_intact``.

    Raises UserError for a checkpoint that is none, ConversionError where MNN cannot take its place.
    """
    path = checkpoint_path(checkpoint)
    sha256 = verified_sha256(checkpoint, path)
    folder = _folder(sha256)
    new = not _is_whole(folder)
    if new:
        try:
            _convert(path.resolve(), folder)
        except (OSError, NetworkError, subprocess.SubprocessError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
                raise UserError(
                    f"{folder.parent}: {DISK_FULL_MESSAGE}, or name another folder in DANGER_SAFE_CACHE"
                ) from error
            raise ConversionError(str(error)) from error
    try:
        return _load(checkpoint, sha256, folder)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:  # damaged, in its full length
        shutil.rmtree(folder)
        if new:
            raise ConversionError(f"what was just converted cannot be loaded: {error}") from error
        return find_or_convert(checkpoint)


def is_converted(checkpoint: str) -> bool:
    """Whether ``find_or_convert`` would find."""
    return _is_whole(_folder(verified_sha256(checkpoint, checkpoint_path(checkpoint))))


def _folder(sha256: str) -> Path:
    """Where the network is, or will be."""
    name = f"{sha256}-mnn{version('MNN')}-{CONVERSION_VERSION}"
    found = next((folder / name for folder in cache_folders() if _is_whole(folder / name)), None)
    return found or cache_folder() / name


def _load(checkpoint: str, sha256: str, folder: Path) -> ConvertedNetwork:
    known = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    info = _info(checkpoint, sha256, known)
    if known["winograd"] is None:
        raise ConversionError(f"MNN's embeddings are {known['error']:.1e} away from the reference's")
    if file_sha256(folder / ARRAYS) != known["sha256"][ARRAYS]:
        raise ValueError("damaged")
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
        arrays = dict(file)
    if info.settings.get("network") == "mn04":
        front_end = KaldiMel(arrays["mel_bank"])
    else:
        front_end = LogMel(arrays["mel_bank"], info.settings["floor"], info.settings["normalise"])
    head, network = Head.from_arrays(arrays), folder / "network.mnn"
    return ConvertedNetwork(network, info, front_end, head, known["winograd"], known["sha256"][network.name])


def _info(checkpoint: str, sha256: str, known: dict) -> CheckpointInfo:
    return CheckpointInfo(
        checkpoint_name(checkpoint), sha256, known["settings"], tuple(known["categories"]),
        frozenset(known["fingerprints"]), known["names_only"], known["licence"],
    )  # fmt: skip


def _is_whole(folder: Path) -> bool:
    if not is_private(folder) or not is_regular_file(folder / "info.json"):
        return False
    try:
        known = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        return known["sizes"] == _sizes(folder) and known["sha256"].keys() == known["sizes"].keys()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in _FILES}


def _convert(checkpoint: Path, folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(folder) and not is_private(folder):
        raise ConversionError(f"{folder} is another user's, or others may write there: {_ELSEWHERE}")
    with (
        temporary_folder(folder.parent, "converting") as made,
        tqdm(total=3, desc="Preparing the network (once)", unit="step", file=sys.stderr) as bar,
    ):
        new = made / "new"
        new.mkdir(mode=0o700)
        if not is_private(new):
            raise ConversionError(f"{folder.parent}: everybody may write into whatever is made there: {_ELSEWHERE}")
        # One thread: beside other work, threads that wait for each other take ten times as long.
        write = (
            "import os; os.environ.setdefault('OPENBLAS_NUM_THREADS', '1'); "
            f"from danger_safe.core import cli; from {__package__}.conversion import main; cli.run(main)"
        )
        _run(write, str(checkpoint), str(new))
        bar.update()
        # Not MNN.tools, which installs packages and reports usage when imported: only its compiled converter.
        call = "import _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
        # Plain names, in the folder itself: on Windows MNN cannot open C:\Users\Nguyễn\…, a path outside ASCII.
        onnx, mnn = "network.onnx", "network.mnn"
        _run(call, "-f", "ONNX", "--modelFile", onnx, "--MNNModel", mnn, "--bizCode", "none", folder=new)
        if shutil.disk_usage(new).free < MIN_FREE_BYTES:  # the converter ends well even so
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE)
        (new / onnx).unlink()
        bar.update()
        known = json.loads((new / "info.json").read_text(encoding="utf-8"))
        known["winograd"], known["error"] = _fastest_with_parity(new)
        known["sizes"], known["sha256"] = _sizes(new), {name: file_sha256(new / name) for name in _FILES}
        for probes in new.glob("probes_*.npz"):
            probes.unlink()
        (new / "info.json").write_text(json.dumps(known), encoding="utf-8")
        for file in new.iterdir():  # on the disk before the folder gets its name
            fsync_file(file)
        if folder.exists() and not _is_whole(folder):  # damaged; else another process was quicker
            shutil.rmtree(folder)
        try:
            os.replace(new, folder)
        except OSError:
            if not _is_whole(folder):  # else another process was quicker
                raise
        bar.update()


def _fastest_with_parity(folder: Path) -> tuple[int | None, float]:
    """MNN's fastest setting that keeps the embeddings of the probe sounds, or None; and its largest error."""
    error = float("inf")
    for level in (3, 1, 0):  # from the fastest to the most exact; 2 is 1 on every processor that was tried
        error = max(_error(folder, level, seconds) for seconds in PROBE_LENGTHS_S)
        if error <= MAX_PROBE_ERROR:
            return level, error
    return None, error


def _error(folder: Path, level: int, seconds: int) -> float:
    """The largest error on probe sounds of one length, which are the first that the network gets."""
    network = MnnNetwork(folder / "network.mnn", available_cores(), level)
    try:
        with np.load(folder / f"probes_{seconds}.npz", allow_pickle=False) as probes:
            return largest_error(network.embed(probes["logmel"]), probes["embedding"])
    finally:
        network.close()


def _run(code: str, *arguments: str, folder: Path = PROJECT) -> None:
    """A step in a Python of its own, in ``folder``. Raises UserError with its words, or ConversionError."""
    done = run_code(code, *arguments, folder=folder)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        if DISK_FULL_MESSAGE in last:
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE)
        if last.startswith("error: ") and "unexpected" not in last:
            raise UserError(last.removeprefix("error: "))
        raise ConversionError(last)
