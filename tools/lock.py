"""Lock every direct and indirect requirement with the SHA-256 of its files. `make lock` runs this.

    python -m tools.lock        # needs uv and access to the package index

In:   requirements.txt and requirements/*.txt: the exact versions of what the code imports
Out:  requirements/*.lock, one for each (base.lock for requirements.txt), for pip's --require-hashes. Like its
      requirements file, a lock includes another one and lists only what is added; torch.lock has PyTorch as the package
      index has it, which on Linux is the CUDA build with NVIDIA's libraries.

The hashes are those of the wheels for PLATFORMS and PYTHONS; their names follow in the same order.
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
PLATFORMS = {  # name: (pattern of a wheel's platform tag, sys_platform, platform_machine)
    "Linux x86_64": (r"manylinux\w*_x86_64", "linux", "x86_64"),
    "Linux aarch64": (r"manylinux\w*_aarch64", "linux", "aarch64"),
    "macOS arm64": (r"macosx_\w*(arm64|universal2)", "darwin", "arm64"),
    "Windows AMD64": (r"win_amd64", "win32", "AMD64"),
}
SOURCES = {  # requirements file: the one that it includes
    "predict": None,
    "base": "predict",
    "cluster": "base",
    "dev": "cluster",
    "export": "predict",
    "mic": "predict",
    "live": "predict",
    "bench": "dev",
}
TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")  # PyTorch and the requirements of its CUDA build


@dataclass(frozen=True)
class Package:
    """One version of a package; other Pythons may have another version of it."""

    name: str
    version: str
    marker: str  # environments that need it; empty for all
    files: tuple[tuple[str, str], ...]  # (name, SHA-256), sorted by name

    def is_needed(self, platform: str, python: str) -> bool:
        """Return whether one of PLATFORMS with this Python needs the package."""
        system, machine = PLATFORMS[platform][1:]
        environment = {
            "python_version": python, "python_full_version": f"{python}.0", "sys_platform": system,
            "platform_machine": machine, "implementation_name": "cpython", "platform_python_implementation": "CPython",
            "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system],
        }  # fmt: skip
        return not self.marker or Marker(self.marker).evaluate(environment)

    def is_installable(self, platform: str, python: str) -> bool:
        """Return whether a file of the package can be installed there: a wheel, or the source if there is none."""
        return any(not file.endswith(".whl") or _is_compatible(file, platform, python) for file, _ in self.files)


def _is_compatible(wheel: str, platform: str, python: str) -> bool:
    minor = int(python.split(".")[1])
    for tag in parse_wheel_filename(wheel)[3]:
        exact = tag.interpreter == f"cp3{minor}" and tag.abi in (f"cp3{minor}", "abi3", "none")
        stable = tag.abi == "abi3" and re.fullmatch(r"cp3(\d+)", tag.interpreter) and int(tag.interpreter[3:]) <= minor
        pure = tag.interpreter == "py3" and tag.abi == "none"
        if (exact or stable or pure) and (tag.platform == "any" or re.fullmatch(PLATFORMS[platform][0], tag.platform)):
            return True
    return False


def requirements_file(source: str) -> Path:
    """Return the path of a requirements file of SOURCES."""
    return ROOT / "requirements.txt" if source == "base" else FOLDER / f"{source}.txt"


def resolve(source: str) -> list[Package]:
    """Return all direct and indirect requirements of a file, on every platform, as uv resolves them."""
    with tempfile.TemporaryDirectory() as folder:
        pylock = Path(folder) / "pylock.toml"
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0],
             "--format", "pylock.toml", "--output-file", str(pylock), str(requirements_file(source))],
            check=True,
        )  # fmt: skip
        return [_package(entry) for entry in tomllib.loads(pylock.read_text(encoding="utf-8"))["packages"]]


def _package(entry: dict) -> Package:
    all_wheels = {unquote(file["url"].rsplit("/", 1)[1]): file["hashes"]["sha256"] for file in entry.get("wheels", [])}
    wheels = {
        name: sha256
        for name, sha256 in all_wheels.items()
        if any(_is_compatible(name, platform, python) for platform in PLATFORMS for python in PYTHONS)
    }
    if not wheels:
        source = entry["sdist"]
        wheels = {unquote(source["url"].rsplit("/", 1)[1]): source["hashes"]["sha256"]}
    marker = entry.get("marker", "")
    if " or " not in marker:  # uv repeats the lowest Python version for every package
        marker = " and ".join(
            part for part in marker.split(" and ") if part != f"python_full_version >= '{PYTHONS[0]}'"
        )
    return Package(entry["name"], entry["version"], marker, tuple(sorted(wheels.items())))


def write(path: Path, packages: list[Package], included: str | None) -> None:
    """Write a requirements file for pip, with hashes, that includes the lock named ``included``."""
    lines = ["# Made by `make lock`. pip install --require-hashes -r this file."]
    if included:
        lines.append(f"-r {included}.lock")
    for package in packages:
        pin = f"{package.name}=={package.version}" + (f" ; {package.marker}" if package.marker else "")
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{sha256}" for _, sha256 in package.files)]))
        lines += [f"    # {file}" for file, _ in package.files]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def read(path: Path) -> list[Package]:
    """Return the packages of a lock without those of the lock that it includes. Raises ValueError if it is no lock."""
    packages = []
    for entry in re.split(r"\n(?=\w)", path.read_text(encoding="utf-8"))[1:]:
        pin, *_ = entry.split(" \\\n")
        requirement, _, marker = pin.partition(" ; ")
        name, version = requirement.split("==")
        hashes, files = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry), re.findall(r"^    # (\S+)$", entry, re.M)
        packages.append(Package(name, version, marker, tuple(zip(files, hashes, strict=True))))
    return packages


def missing(packages: list[Package], platform: str, python: str) -> list[str]:
    """Return the packages that a platform with this Python needs and that have no file for it."""
    return [p.name for p in packages if p.is_needed(platform, python) and not p.is_installable(platform, python)]


def main() -> None:
    locked: dict[str, set[Package]] = {}  # all direct and indirect requirements of each file
    for source, included in SOURCES.items():
        packages = resolve(source)
        without_torch = [package for package in packages if not TORCH.fullmatch(package.name)]
        if source == "base":
            write(FOLDER / "torch.lock", [package for package in packages if package not in without_torch], None)
        before = locked.get(included, set())
        versions = {(package.name, package.version) for package in before}
        # Names and versions are compared, but not markers: more systems may need a package of the included file.
        if changed := {p.name for p in before} - {p.name for p in without_torch if (p.name, p.version) in versions}:
            names = ", ".join(sorted(changed))
            raise SystemExit(f"error: {source}.txt needs other versions than {included}.txt: {names}")
        locked[source] = set(without_torch)
        write(FOLDER / f"{source}.lock", [package for package in without_torch if package not in before], included)
    everything = [package for lock in FOLDER.glob("*.lock") for package in read(lock)]
    for platform in PLATFORMS:
        for python in PYTHONS:
            print(f"{platform:<14} Python {python}: {', '.join(missing(everything, platform, python)) or 'all there'}")


if __name__ == "__main__":
    main()
