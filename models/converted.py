"""Networks converted for MNN, which are stored in the user's cache folder and converted only once.

    converted = find_or_convert("compact")
    network = MnnNetwork(converted.file, threads=2, winograd=converted.winograd)

Files: CACHE/SHA256-mnnVERSION-CONVERSION_VERSION/ with network.mnn, arrays.npz and info.json. The folder is created
under a temporary name and renamed, so it is always complete, and no other user may write to it. info.json has the sizes
and SHA-256 of the files; if they do not match, the network is converted again. Every conversion is checked on probe
sounds (models/parity.py), and the fastest of MNN's algorithms is used that leaves the embeddings unchanged.
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

ARRAYS = "arrays.npz"  # the mel bank and the head
_FILES = ("network.mnn", ARRAYS)
_ADVICE = "name a folder of your own in DANGER_SAFE_CACHE"
MIN_FREE_BYTES = 1 << 16  # below this, the disk was full during the conversion
CONVERSION_VERSION = 5  # to be increased when the check of a conversion changes, so that all are repeated


class ConversionError(Exception):
    """This network cannot be converted on this computer; other engines can run it."""


@dataclass(frozen=True)
class ConvertedNetwork:
    """A network in MNN's format."""

    file: Path
    info: CheckpointInfo
    front_end: LogMel | KaldiMel
    head: Head
    winograd: int  # the level of MNN's Winograd algorithm that leaves the embeddings unchanged
    sha256: str  # hash of the file when it was converted

    def is_intact(self) -> bool:
        """Return whether the file still has its hash, which takes one read of it."""
        return file_sha256(self.file) == self.sha256

    def discard(self) -> None:
        """Delete a damaged conversion."""
        shutil.rmtree(self.file.parent)


def find_or_convert(checkpoint: str) -> ConvertedNetwork:
    """Return the converted network of a checkpoint given by name or path; convert it if necessary.

    Its file may be damaged: call ``is_intact``.

    Raises:
        UserError: the checkpoint cannot be read.
        ConversionError: MNN cannot run it with the same results.
    """
    path = checkpoint_path(checkpoint)
    sha256 = verified_sha256(checkpoint, path)
    folder = _folder(sha256)
    is_new = not _is_complete(folder)
    if is_new:
        try:
            _convert(path.resolve(), folder)
        except (OSError, NetworkError, subprocess.SubprocessError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
                advice = f"{DISK_FULL_MESSAGE}, or name another folder in DANGER_SAFE_CACHE"
                raise UserError(f"{folder.parent}: {advice}") from error
            raise ConversionError(str(error)) from error
    try:
        return _load(checkpoint, sha256, folder)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:  # damaged, but of the right size
        shutil.rmtree(folder)
        if is_new:
            raise ConversionError(f"what was just converted cannot be loaded: {error}") from error
        return find_or_convert(checkpoint)


def is_converted(checkpoint: str) -> bool:
    """Return whether a checkpoint has already been converted."""
    return _is_complete(_folder(verified_sha256(checkpoint, checkpoint_path(checkpoint))))


def _folder(sha256: str) -> Path:
    """Return the folder in which a network is, or will be stored."""
    name = f"{sha256}-mnn{version('MNN')}-{CONVERSION_VERSION}"
    existing = next((folder / name for folder in cache_folders() if _is_complete(folder / name)), None)
    return existing or cache_folder() / name


def _load(checkpoint: str, sha256: str, folder: Path) -> ConvertedNetwork:
    """Load a finished conversion. Raises ConversionError if it has failed its check, ValueError if it is damaged."""
    metadata = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    info = _checkpoint_info(checkpoint, sha256, metadata)
    if metadata["winograd"] is None:
        raise ConversionError(f"MNN's embeddings are {metadata['error']:.1e} away from the reference's")
    if file_sha256(folder / ARRAYS) != metadata["sha256"][ARRAYS]:
        raise ValueError("damaged")
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
        arrays = dict(file)
    if info.settings.get("network") == "mn04":
        front_end = KaldiMel(arrays["mel_bank"])
    else:
        front_end = LogMel(arrays["mel_bank"], info.settings["floor"], info.settings["normalise"])
    head, network = Head.from_arrays(arrays), folder / "network.mnn"
    return ConvertedNetwork(network, info, front_end, head, metadata["winograd"], metadata["sha256"][network.name])


def _checkpoint_info(checkpoint: str, sha256: str, metadata: dict) -> CheckpointInfo:
    return CheckpointInfo(
        checkpoint_name(checkpoint), sha256, metadata["settings"], tuple(metadata["categories"]),
        frozenset(metadata["fingerprints"]), metadata["names_only"], metadata["licence"],
    )  # fmt: skip


def _is_complete(folder: Path) -> bool:
    """Return whether a private folder has all files of a conversion, in the right sizes."""
    if not is_private(folder) or not is_regular_file(folder / "info.json"):
        return False
    try:
        metadata = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        return metadata["sizes"] == _sizes(folder) and metadata["sha256"].keys() == metadata["sizes"].keys()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in _FILES}


def _convert(checkpoint: Path, folder: Path) -> None:
    """Convert a checkpoint into ``folder``, atomically."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(folder) and not is_private(folder):
        raise ConversionError(f"{folder} is another user's, or others may write there: {_ADVICE}")
    with (
        temporary_folder(folder.parent, "converting") as temporary,
        tqdm(total=3, desc="Preparing the network (once)", unit="step", file=sys.stderr) as bar,
    ):
        new = temporary / "new"
        new.mkdir(mode=0o700)
        if not is_private(new):
            raise ConversionError(f"{folder.parent}: everybody may write into whatever is made there: {_ADVICE}")
        _export(checkpoint, new)
        bar.update()
        _run_converter(new)
        bar.update()
        metadata = json.loads((new / "info.json").read_text(encoding="utf-8"))
        metadata["winograd"], metadata["error"] = _fastest_with_parity(new)
        metadata["sizes"], metadata["sha256"] = _sizes(new), {name: file_sha256(new / name) for name in _FILES}
        for probes in new.glob("probes_*.npz"):
            probes.unlink()
        (new / "info.json").write_text(json.dumps(metadata), encoding="utf-8")
        for file in new.iterdir():
            fsync_file(file)
        if folder.exists() and not _is_complete(folder):  # a damaged conversion
            shutil.rmtree(folder)
        try:
            os.replace(new, folder)
        except OSError:
            if not _is_complete(folder):  # otherwise, another process has finished the same conversion first
                raise
        bar.update()


def _export(checkpoint: Path, folder: Path) -> None:
    """Write network.onnx, the arrays and the probes (conversion.py)."""
    # One thread: while other programs run, threads that wait for each other take ten times as long.
    code = (
        "import os; os.environ.setdefault('OPENBLAS_NUM_THREADS', '1'); "
        f"from danger_safe.core import cli; from {__package__}.conversion import main; cli.run(main)"
    )
    _run(code, str(checkpoint), str(folder))


def _run_converter(folder: Path) -> None:
    """Convert network.onnx to network.mnn."""
    # The compiled converter without MNN.tools, which installs packages and reports usage when it is imported.
    code = "import _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
    # Bare file names: on Windows, MNN cannot open a path with characters outside ASCII (C:\Users\Nguyễn\…).
    onnx, mnn = "network.onnx", "network.mnn"
    _run(code, "-f", "ONNX", "--modelFile", onnx, "--MNNModel", mnn, "--bizCode", "none", folder=folder)
    if shutil.disk_usage(folder).free < MIN_FREE_BYTES:  # the converter reports success even so
        raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE)
    (folder / onnx).unlink()


def _fastest_with_parity(folder: Path) -> tuple[int | None, float]:
    """Find the fastest Winograd level whose embeddings of the probes are within MAX_PROBE_ERROR.

    Returns:
        (level, largest error); the level is None if none is accurate enough.
    """
    error = float("inf")
    for level in (3, 1, 0):  # from the fastest to the most accurate; 2 equals 1 on every processor that was tried
        error = max(_probe_error(folder, level, seconds) for seconds in PROBE_LENGTHS_S)
        if error <= MAX_PROBE_ERROR:
            return level, error
    return None, error


def _probe_error(folder: Path, level: int, seconds: int) -> float:
    """Return the largest error on probes of one length, in a new process, since the first batch selects algorithms."""
    network = MnnNetwork(folder / "network.mnn", available_cores(), level)
    try:
        with np.load(folder / f"probes_{seconds}.npz", allow_pickle=False) as probes:
            return largest_error(network.embed(probes["logmel"]), probes["embedding"])
    finally:
        network.close()


def _run(code: str, *arguments: str, folder: Path = PROJECT) -> None:
    """Run one step in a child process. Raises UserError or OSError if the step did, otherwise ConversionError."""
    done = run_code(code, *arguments, folder=folder)
    if done.returncode:
        message = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        if DISK_FULL_MESSAGE in message:
            raise OSError(errno.ENOSPC, DISK_FULL_MESSAGE)
        if message.startswith("error: ") and "unexpected" not in message:
            raise UserError(message.removeprefix("error: "))
        raise ConversionError(message)
