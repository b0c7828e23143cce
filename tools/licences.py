"""Write LICENCES.md, the licence that each locked package states in its metadata. `make licences` runs this.

The metadata is read from the installed packages. A package that is not installed (it may be for another system or
Python) keeps its row if LICENCES.md has one for the same version; otherwise the row says that the licence is unknown:
run this on such a system, too.
"""

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from typing import cast

from tools.lock import FOLDER, ROOT, SOURCES, Package, read

LISTING = ROOT / "LICENCES.md"
UNKNOWN = "not known here"
TITLES = {
    "predict": "Every installation, the smallest too (requirements/predict.txt)",
    "base": "Every installation but the smallest (requirements.txt)",
    "export": "Only for export_onnx.py (requirements/export.txt)",
    "cluster": "Only for a cluster or Parquet (requirements/cluster.txt)",
    "mic": "Only for the microphone (requirements/mic.txt)",
    "live": "Only for listen.py (requirements/live.txt)",
    "torch": "PyTorch; all but the first only with its CUDA build, on Linux",
    "dev": "Only for tests and checks (requirements/dev.txt)",
    "bench": "Only for make bench (requirements/bench.txt)",
}
NOTES = {  # other software in the wheels, and licences that the metadata does not state
    "mnn": "its repository says Apache-2.0",
    "soundfile": "its wheels contain libsndfile, LGPL-2.1-or-later",
    "soxr": "libsoxr is inside, LGPL-2.1-or-later",
    "numpy": "its wheels contain OpenBLAS (BSD) and GCC's runtime (GPL-3.0 with the runtime exception)",
    "scipy": "its wheels contain OpenBLAS (BSD) and GCC's runtime (GPL-3.0 with the runtime exception)",
}
HEAD = """\
# Licences of what this project uses

Written by `make licences` from the metadata of the installed packages; the tests compare it with `requirements/*.lock`.
No package is under the AGPL, or under the GPL alone. Two libraries are LGPL (libsndfile, libsoxr): they are shared
libraries in their own packages, and no part of them is in this repository. NVIDIA's libraries are proprietary and only
come with PyTorch's CUDA build.

Not packages:

| what | licence |
| --- | --- |
| the code of this project | MIT ([LICENSE](LICENSE)) |
| ESC-50 (K. J. Piczak), downloaded by step 1 | CC BY-NC 3.0 |
| Cnn14's official weights (Kong et al.), downloaded by step 2 | CC BY 4.0 |
| mn04's weights (EfficientAT, Florian Schmid), downloaded by step 2 with `--checkpoint mn04` | MIT |
| `models/compact.pth`, `models/detector.npz` | CC BY-NC 3.0: some training sounds forbid commercial use; the detector is also trained on ESC-50 |
| ffmpeg, PortAudio: used if they are installed | their own |
"""  # noqa: E501 - rows of a table in Markdown cannot be wrapped


def stated_licence(package: Package) -> str:
    """Return the licence that the installed package states; UNKNOWN if this version is not installed."""
    try:
        about = cast(Message, metadata(package.name))  # its declared type lacks get_all
    except PackageNotFoundError:
        return UNKNOWN
    if about["Version"].partition("+")[0] != package.version:
        return UNKNOWN
    classes = [line.split(" :: ")[-1] for line in about.get_all("Classifier") or [] if line.startswith("License")]
    text = (about.get("License") or "").strip()
    short = text if text and "\n" not in text and not text.startswith("Copyright") else ""
    return about.get("License-Expression") or short or ", ".join(classes) or "states none"


def rows(text: str) -> dict[tuple[str, str], str]:
    """Parse a LICENCES.md into a dict (package, version) -> licence."""
    return {
        (name, version): licence for name, version, licence in re.findall(r"^\| ([\w-]+) (\S+) \| (.*?) \|", text, re.M)
    }


def main() -> None:
    before = rows(LISTING.read_text(encoding="utf-8")) if LISTING.is_file() else {}
    sections = [HEAD]
    assert set(TITLES) == {*SOURCES, "torch"}
    for lock, title in TITLES.items():
        lines = [f"## {title}\n", "| package | licence, as it states it | note |", "| --- | --- | --- |"]
        packages = read(FOLDER / f"{lock}.lock")
        for package in sorted(packages, key=lambda package: (package.name != "torch", package.name, package.version)):
            licence = stated_licence(package)
            if licence == UNKNOWN:
                licence = before.get((package.name, package.version), UNKNOWN)
            if licence == UNKNOWN:
                print(f"{package.name} {package.version}: not installed here")
            lines.append(f"| {package.name} {package.version} | {licence} | {NOTES.get(package.name, '')} |")
        sections.append("\n".join(lines) + "\n")
    LISTING.write_text("\n".join(sections), encoding="utf-8", newline="\n")
    print(f"Wrote {LISTING}")


if __name__ == "__main__":
    main()
