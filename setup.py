"""Install everything into the one package ``danger_safe`` (``pip install .``).

In a checkout the networks are in the folder ``models`` and the scripts in the root. Installed under such general names
they would hide, or be hidden by, a user's own ``models``. They become ``danger_safe.models`` and
``danger_safe.scripts``, and the import lines of the copies are changed accordingly. Nothing else differs.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

INSIDE = {"danger_safe.models": "models", "danger_safe.scripts": ".", "danger_safe.scripts.dataset": "dataset"}


def pins() -> list[str]:
    """Return the packages in requirements.txt and the file that it includes (-r), which setuptools does not follow."""
    files = [Path("requirements.txt"), Path("requirements", "predict.txt")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-r "))]


class BuildInside(build_py):
    """Copy modules as setuptools does, and change ``from models`` to ``from danger_safe.models``."""

    def finalize_options(self):
        super().finalize_options()
        if self.editable_mode:
            raise SystemExit("error: pip install -e is not for this project: a checkout's scripts run as they are")

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if entry[1] != "setup"]  # this file is in the scripts' folder

    def build_module(self, module, module_file, package):
        copy, copied = super().build_module(module, module_file, package)
        text = Path(copy).read_text(encoding="utf-8")
        text = re.sub(r"^( *)from models\b", r"\1from danger_safe.models", text, flags=re.MULTILINE)
        Path(copy).write_text(text, encoding="utf-8", newline="\n")
        return copy, copied


setup(
    packages=[*find_packages(include=["danger_safe", "danger_safe.*"]), *INSIDE],
    package_dir=INSIDE,
    package_data={
        "danger_safe.reports": ["*.html"],
        "danger_safe.live": ["*.toml", "page_files/*"],
        "danger_safe.models": ["compact.pth", "detector.npz"],
        "danger_safe.scripts.dataset": ["*.toml"],
    },
    include_package_data=False,
    install_requires=pins(),
    cmdclass={"build_py": BuildInside},
)
