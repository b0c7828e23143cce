"""Checkpoint files: located by name or path, downloaded when absent, and verified. Does not import PyTorch.

path = checkpoint_path("cnn14")     # the official network, downloaded when absent (327 MB, CC BY 4.0)
path = checkpoint_path("mn04")      # EfficientAT's small network, downloaded when absent (4 MB, MIT)
path = checkpoint_path("compact")   # the small network of this repository
path = checkpoint_path("mine.pth")  # any file; its hash is recorded
"""

import os
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from danger_safe.core.cache_folder import cache_folders
from danger_safe.core.download import download, file_sha256
from danger_safe.core.errors import UserError

COMPACT = Path(__file__).with_name("compact.pth")
# In a checkout, downloads go next to the code. An installed package may be read-only, and an update would delete them.
DOWNLOADS = Path(__file__).parent if __package__ == "models" else cache_folders()[0]


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A published checkpoint of another project, which is downloaded when absent."""

    title: str  # in messages
    path: Path
    url: str
    size: int  # bytes
    sha256: str
    licence: str


# Tests set these variables to a local server. The real URLs could not be tried on the machine this was written on.
OFFICIAL = {
    "cnn14": OfficialCheckpoint(
        "the official Cnn14",
        DOWNLOADS / "Cnn14_mAP=0.431.pth",
        os.environ.get(
            "DANGER_SAFE_CNN14_URL", "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1"
        ),
        327_428_481,
        "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
        "CC BY 4.0 (Kong et al.)",
    ),
    "mn04": OfficialCheckpoint(
        "EfficientAT's mn04",
        DOWNLOADS / "mn04_as_mAP_432.pt",
        os.environ.get(
            "DANGER_SAFE_MN04_URL",
            "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
        ),
        4_066_513,
        "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
        "MIT (Florian Schmid)",
    ),
}
NAMES = (*OFFICIAL, "compact", "mfcc")
BASELINE = Path(__file__).with_name("mfcc.py")  # it has no weights, so its source code stands for the checkpoint


@dataclass(frozen=True)
class CheckpointInfo:
    """Metadata of a checkpoint.

    Attributes:
        name: cnn14, mn04, compact, mfcc, or the file's name.
        sha256: hash of the file.
        settings: arguments of the network's constructor, or only ``dimensions``.
        categories: names of the outputs of the last layer, if the file has them.
        fingerprints: of the clips that the network was fine-tuned on (danger_safe/data/fingerprint.py).
        names_only: an older file, which identifies its training clips by their file names only.
        licence: licence of the weights, if known.
    """

    name: str
    sha256: str
    settings: dict = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    fingerprints: frozenset[str] = field(default_factory=frozenset)
    names_only: bool = False
    licence: str = ""

    @property
    def dimensions(self) -> int:
        """Dimensions of an embedding."""
        return self.settings.get("dimensions") or 32 * self.settings["width"]


def checkpoint_path(checkpoint: str) -> Path:
    """Return the file of a checkpoint given by name or path; an official one is downloaded when absent.

    Raises UserError if there is no such file, or the download fails.
    """
    if checkpoint == "compact":
        if not COMPACT.is_file():
            raise UserError(f"{COMPACT} is missing from this copy of the project: get it again")
        return COMPACT
    if official := OFFICIAL.get(checkpoint):
        if not official.path.is_file():
            facts = f"{official.size / 1e6:.0f} MB, {official.licence.partition(' (')[0]}"
            print(f"Downloading {official.title} ({facts}) from {official.url}", file=sys.stderr)
            advice = "--checkpoint compact"
            download(official.url, official.path, size=official.size, sha256=official.sha256, offline_steps=advice)
        return official.path
    if checkpoint == "mfcc":
        return BASELINE
    path = Path(checkpoint)
    if not path.is_file():
        raise UserError(f"{checkpoint}: no such checkpoint; choose {', '.join(NAMES)} or a file")
    return path


def local_checkpoint_path(checkpoint: str) -> Path:
    """Return the file of a checkpoint that a table or model names, without ever downloading it.

    Raises UserError if it is not on this computer.
    """
    if (official := OFFICIAL.get(checkpoint)) and not official.path.is_file():
        size = f"{official.size / 1e6:.0f} MB"
        raise UserError(
            f"{official.title} is not here: give --checkpoint {checkpoint} to the step that takes it ({size})"
        )
    return checkpoint_path(checkpoint)


def expected_path(checkpoint: str) -> Path:
    """Return where a checkpoint's file is, or will be after its download."""
    paths = {name: official.path for name, official in OFFICIAL.items()} | {"compact": COMPACT, "mfcc": BASELINE}
    return paths.get(checkpoint, Path(checkpoint))


def checkpoint_name(checkpoint: str) -> str:
    """Return the name of a checkpoint in tables: cnn14, mn04, compact, mfcc, or the file's name."""
    return checkpoint if checkpoint in NAMES else Path(checkpoint).name


def verified_sha256(checkpoint: str, path: Path) -> str:
    """Return the SHA-256 of a checkpoint file. Raises UserError if an official checkpoint has another one."""
    status = path.stat()
    sha256 = _sha256(path, status.st_size, status.st_mtime_ns)
    if (official := OFFICIAL.get(checkpoint)) and sha256 != official.sha256:
        raise UserError(f"{path} is not {official.title} (other SHA-256): move it away, and that is downloaded")
    return sha256


def official_licence(sha256: str) -> str:
    """Return the licence of an official checkpoint given by its hash; "" for other files."""
    return next((official.licence for official in OFFICIAL.values() if official.sha256 == sha256), "")


@lru_cache
def _sha256(path: Path, _size: int, _time: int) -> str:
    """Hash a file once per process, unless it changes: the official Cnn14 takes a third of a second."""
    return file_sha256(path)
