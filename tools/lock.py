"""Locks every package that a requirements file leads to, with the SHA-256 of its files. `make lock` runs this.

    python -m tools.lock        # anew from the requirements files; needs uv, and asks the package index

In:   requirements.txt and requirements/*.txt: the exact versions of what the code imports
Out:  requirements/*.lock, one for each (base.lock for requirements.txt), for pip's --require-hashes. Each leads to the
      lock of the file that its requirements file leads to, and has only what comes on top; torch.lock has PyTorch as
      the package index has it, which on Linux is the CUDA build with NVIDIA's libraries.

The hashes are those of the wheels for PLATFORMS and PYTHONS; below them, their names in the same order.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {  # the end of a wheel's platform tag, and what markers ask for
    "Linux x86_64": (r"manylinux\w*_x86_64", "linux", "x86_64"),
    "Linux aarch64": (r"manylinux\w*_aarch64", "linux", "aarch64"),
    "macOS arm64": (r"macosx_\w*(arm64|universal2)", "darwin", "arm64"),
    "Windows AMD64": (r"win_amd64", "win32", "AMD64"),
}
SOURCES = {  # requirements file: the one that it begins with
    "predict": None,
    "base": "predict",
    "cluster": "base",
    "dev": "cluster",
    "export": "predict",
    "mic": "predict",
    "live": "predict",
    "bench": "dev",
}
TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")  # PyTorch, and what only its CUDA build brings


@dataclass(frozen=True)
class Package:
    """One version of a package; the same package can have another version for other Pythons."""

    name: str
    version: str
    marker: str  # where it is needed; empty: everywhere
    files: tuple[tuple[str, str], ...]  # (name, SHA-256), sorted by name

    def needed(self, platform: str, python: str) -> bool:
        """Whether a computer of PLATFORMS with this Python needs it."""
        system, machine = PLATFORMS[platform][1:]
        where = {
            "python_version": python, "python_full_version": f"{python}.0", "sys_platform": system,
            "platform_machine": machine, "implementation_name": "cpython", "platform_python_implementation": "CPython",
            "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system],
        }  # fmt: skip
        return not self.marker or Marker(self.marker).evaluate(where)

    def fits(self, platform: str, python: str) -> bool:
        """Whether one of its files can be installed there: a wheel, or the source where there are no wheels."""
        return any(not file.endswith(".whl") or _fits(file, platform, python) for file, _ in self.files)


def _fits(wheel: str, platform: str, python: str) -> bool:
    minor = int(python.split(".")[1])
    for tag in parse_wheel_filename(wheel)[3]:
        exact = tag.interpreter == f"cp3{minor}" and tag.abi in (f"cp3{minor}", "abi3", "none")
        stable = tag.abi == "abi3" and re.fullmatch(r"cp3(\d+)", tag.interpreter) and int(tag.interpreter[3:]) <= minor
        pure = tag.interpreter == "py3" and tag.abi == "none"
        if (exact or stable or pure) and (tag.platform == "any" or re.fullmatch(PLATFORMS[platform][0], tag.platform)):
            return True
    return False


def requirements_file(source: str) -> Path:
    """The requirements file of one of SOURCES."""
    return ROOT / "requirements.txt" if source == "base" else FOLDER / f"{source}.txt"


def resolve(source: str) -> list[Package]:
    """Everything that a requirements file leads to, on every platform, as uv finds it."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "pylock.toml"
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0],
             "--format", "pylock.toml", "--output-file", str(found), str(requirements_file(source))],
            check=True,
        )  # fmt: skip
        return [_package(entry) for entry in tomllib.loads(found.read_text(encoding="utf-8"))["packages"]]


def _package(entry: dict) -> Package:
    every = {unquote(file["url"].rsplit("/", 1)[1]): file["hashes"]["sha256"] for file in entry.get("wheels", [])}
    wheels = {name: sha256 for name, sha256 in every.items()
              if any(_fits(name, platform, python) for platform in PLATFORMS for python in PYTHONS)}  # fmt: skip
    if not wheels:
        source = entry["sdist"]
        wheels = {unquote(source["url"].rsplit("/", 1)[1]): source["hashes"]["sha256"]}
    marker = entry.get("marker", "")
    if " or " not in marker:  # uv says of every package that it is for the Pythons that were asked for
        marker = " and ".join(
            part for part in marker.split(" and ") if part != f"python_full_version >= '{PYTHONS[0]}'"
        )
    return Package(entry["name"], entry["version"], marker, tuple(sorted(wheels.items())))


def write(path: Path, packages: list[Package], first: str | None) -> None:
    """A requirements file for pip, with hashes."""
    lines = ["# Made by `make lock`. pip install --require-hashes -r this file."]
    if first:
        lines.append(f"-r {first}.lock")
    for package in packages:
        pin = f"{package.name}=={package.version}" + (f" ; {package.marker}" if package.marker else "")
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{sha256}" for _, sha256 in package.files)]))
        lines += [f"    # {file}" for file, _ in package.files]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def read(path: Path) -> list[Package]:
    """The packages of a lock, without those of the lock that it leads to. Raises ValueError where it is none."""
    packages = []
    for entry in re.split(r"\n(?=\w)", path.read_text(encoding="utf-8"))[1:]:
        pin, *_ = entry.split(" \\\n")
        requirement, _, marker = pin.partition(" ; ")
        name, version = requirement.split("==")
        hashes, files = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry), re.findall(r"^    # (\S+)$", entry, re.M)
        packages.append(Package(name, version, marker, tuple(zip(files, hashes, strict=True))))
    return packages


def missing(packages: list[Package], platform: str, python: str) -> list[str]:
    """The packages that such a computer needs and that have no file for it."""
    return [p.name for p in packages if p.needed(platform, python) and not p.fits(platform, python)]


def main() -> None:
    locked: dict[str, set[Package]] = {}  # by requirements file, with all that it leads to
    for source, first in SOURCES.items():
        packages = resolve(source)
        rest = [package for package in packages if not TORCH.fullmatch(package.name)]
        if source == "base":
            write(FOLDER / "torch.lock", [package for package in packages if package not in rest], None)
        known = locked.get(first, set())
        versions = {(package.name, package.version) for package in known}
        # What only some systems need in the first may be needed by all in the second.
        if changed := {p.name for p in known} - {p.name for p in rest if (p.name, p.version) in versions}:
            raise SystemExit(f"error: {source}.txt needs other versions than {first}.txt: {', '.join(sorted(changed))}")
        locked[source] = set(rest)
        write(FOLDER / f"{source}.lock", [package for package in rest if package not in known], first)
    everything = [package for lock in FOLDER.glob("*.lock") for package in read(lock)]
    for platform in PLATFORMS:
        for python in PYTHONS:
            print(f"{platform:<14} Python {python}: {', '.join(missing(everything, platform, python)) or 'all there'}")


if __name__ == "__main__":
    main()
