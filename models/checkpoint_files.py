"""Checkpoint files by name or path: found, downloaded when absent, verified. Nothing here loads PyTorch.

path = checkpoint_path("cnn14")     # the official network, downloaded when absent (327 MB, CC BY 4.0)
path = checkpoint_path("compact")   # the small network of this repository
path = checkpoint_path("mine.pth")  # any file; its hash is recorded
"""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from glob import escape
from pathlib import Path

from danger_safe.core.download import download, file_sha256
from danger_safe.core.errors import UserError

COMPACT = Path(__file__).with_name("cnn14_compact.pth")
OFFICIAL = Path(__file__).with_name("Cnn14_mAP=0.431.pth")
OFFICIAL_SIZE = 327_428_481  # bytes
OFFICIAL_SHA256 = "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31"
# A test points this at a local server; the real address could not be tried where this was written.
OFFICIAL_URL = os.environ.get(
    "DANGER_SAFE_CNN14_URL", "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1"
)
NAMES = ("cnn14", "compact", "mfcc")
BASELINE = Path(__file__).with_name("mfcc.py")  # no weights: what it computes is what the file says


@dataclass(frozen=True)
class CheckpointInfo:
    """What is known of a checkpoint."""

    name: str  # cnn14, compact, or the file's name
    sha256: str
    settings: dict = field(default_factory=dict)  # the arguments of Cnn14 or CompactNet, or dimensions
    categories: tuple[str, ...] = ()  # of its last layer, where the file tells
    clips: frozenset[str] = field(default_factory=frozenset)  # names of the clips it was trained on
    licence: str = ""

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.settings.get("dimensions") or 32 * self.settings["width"]


def checkpoint_path(checkpoint: str) -> Path:
    """The file of a checkpoint given by name or path; the official one is downloaded when absent.

    Raises UserError when there is no such file, or the official one cannot be had.
    """
    if checkpoint == "compact":
        if not COMPACT.is_file():
            raise UserError(f"{COMPACT} is missing from this copy of the project: get it again")
        return COMPACT
    if checkpoint == "cnn14":
        if not OFFICIAL.is_file():
            download(OFFICIAL_URL, OFFICIAL, size=OFFICIAL_SIZE, sha256=OFFICIAL_SHA256)
        return OFFICIAL
    if checkpoint == "mfcc":
        return BASELINE
    path = Path(checkpoint)
    if not path.is_file():
        raise UserError(f"{checkpoint}: no such checkpoint; give {' or '.join(NAMES)}, or the path of a file")
    return path


def checkpoint_here(checkpoint: str) -> Path:
    """As ``checkpoint_path`` for a checkpoint that only a file names: nothing is downloaded because a file says so."""
    if checkpoint == "cnn14" and not OFFICIAL.is_file():
        raise UserError("the official Cnn14 is not here: give --checkpoint cnn14 to the step that takes it (327 MB)")
    return checkpoint_path(checkpoint)


def place_of(checkpoint: str) -> Path:
    """Where a checkpoint's file is, or will be."""
    return {"cnn14": OFFICIAL, "compact": COMPACT, "mfcc": BASELINE}.get(checkpoint, Path(checkpoint))


def twins_beside(path: Path) -> list[Path]:
    """The files of a checkpoint's twins: networks of its recipe that some of its recordings were kept from."""
    return sorted(path.parent.glob(f"{escape(path.stem)}_without_*.pth"))


def checkpoint_name(checkpoint: str) -> str:
    """What tables call it: cnn14, compact, or the file's name."""
    return checkpoint if checkpoint in NAMES else Path(checkpoint).name


def verified_sha256(checkpoint: str, path: Path) -> str:
    """The file's SHA-256. Raises UserError when it should be the official network and is not."""
    status = path.stat()
    sha256 = _sha256(path, status.st_size, status.st_mtime_ns)
    if checkpoint == "cnn14" and sha256 != OFFICIAL_SHA256:
        raise UserError(f"{path} is not the official Cnn14 (other SHA-256): move it away, and that is downloaded")
    return sha256


@lru_cache
def _sha256(path: Path, _size: int, _time: int) -> str:
    """Once in a process: the official file takes a third of a second."""
    return file_sha256(path)
