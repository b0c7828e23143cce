"""The installed package finds its networks and data from any folder, next to users' packages of any name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT

from danger_safe.__main__ import COMMANDS


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the package: (environment, folder). The folder has a user's ``models.py`` and ``tools.py``."""
    build, folder = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("user")
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(build), "--build-lib", str(build / "lib")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (build / "lib").iterdir()] == ["danger_safe"]
    for name in ("models.py", "tools.py"):
        (folder / name).write_text("raise SystemExit('this file is the user\\'s')\n")
    soundfile.write(folder / "kitchen.wav", 0.1 * np.random.default_rng(0).standard_normal(96_000), 32_000)
    return os.environ | {"PYTHONPATH": str(build / "lib")}, folder


def test_commands_work_from_any_folder(installed):
    environment, folder = installed

    def run(*words):
        command = [sys.executable, "-m", "danger_safe", *words]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")

    listed = run("--help")
    assert listed.returncode == 0 and "danger-safe train logreg" in listed.stdout
    assert run("listn").returncode == 2
    output = run("predict", "kitchen.wav", "--format", "json")
    assert output.returncode == 0 and '"file": "kitchen.wav"' in output.stdout, output.stderr
    absent = run("filter", "--esc50", "nowhere")  # after the included mapping has been read
    assert absent.returncode == 1 and "nowhere is not there" in absent.stderr
    assert (
        "run danger-safe filter first" in run("extract", "--dataset", "nowhere").stderr
    )  # not a script, as in a checkout
    wrong = run("train", "rf", "--seed", "x")
    assert wrong.returncode == 2 and "usage: danger-safe train rf" in wrong.stderr


def test_every_script_is_a_command_and_every_module_is_installed(installed):
    inside = Path(installed[0]["PYTHONPATH"], "danger_safe")
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"setup"}
    assert {script for script, _ in COMMANDS.values()} == scripts
    assert {path.stem for path in (inside / "scripts").glob("*.py")} == scripts
    for folder, copies in ((ROOT / "danger_safe", inside), (ROOT / "models", inside / "models")):
        kinds = (".py", ".html", ".css", ".js", ".svg")
        files = {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in kinds}
        assert files <= {path.relative_to(copies) for path in copies.rglob("*")}
    stale = [
        path for path in inside.rglob("*.py") if re.search(r"^ *(from|import) models\b", path.read_text("utf-8"), re.M)
    ]
    assert not stale
