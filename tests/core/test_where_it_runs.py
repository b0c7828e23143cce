"""Containers, users without a home, other working directories, Unicode forms of names."""

import importlib
import math
import os
import subprocess
import sys
from unicodedata import normalize

import pytest
from helpers import ROOT, run
from hostile_files import encoded, noise

from danger_safe.core import cache_folder as cache
from danger_safe.core.child import module_command
from danger_safe.core.cores import available_cores, cpu_quota
from danger_safe.core.errors import UserError
from danger_safe.data.clips import read_clips
from danger_safe.detection import audioset

SCRIPTS = sorted(path for path in ROOT.glob("*.py") if "cli.run(main)" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/docker/of-the-host\n", {"cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "400000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("nonsense\n", {"cpu.max": "many of them"}, math.inf),
    ],
)
def test_container_limits_of_cores_are_respected(tmp_path, groups, files, cores):
    (tmp_path / "own").write_text(groups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cpu_quota(tmp_path, tmp_path / "own") == cores
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_unicode_forms_of_a_name_are_equal(tmp_path):
    two = [normalize(form, "Nguyễn còi.wav") for form in ("NFC", "NFD")]
    for label, written in (("Danger", two[1]), ("Safe", two[0])):
        (tmp_path / label).mkdir()
        (tmp_path / label / written).write_bytes(encoded(noise(seed=len(label))))
    (tmp_path / "clips.csv").write_text(f"file,source\nDanger/{two[0]},one\nSafe/{two[1]},two\n", encoding="utf-8")
    assert [(clip.file, clip.source) for clip in read_clips(tmp_path)] == [
        (f"Danger/{two[0]}", "one"),
        (f"Safe/{two[0]}", "two"),
    ]
    rows = [f"Danger/{two[0]},1,còi,1,a", f"Safe/{two[1]},0,{normalize('NFD', 'còi')},1,b"]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,label,category,fold,source", *rows, ""]), encoding="utf-8")
    clips = read_clips(tmp_path)
    assert all(os.path.isfile(clip.path) for clip in clips) and len({clip.category for clip in clips}) == 1
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / "Safe" / two[1]).write_bytes(encoded())
    if len(os.listdir(tmp_path / "Safe")) == 2:  # macOS file systems treat both as equal
        with pytest.raises(UserError, match="written in two ways"):
            read_clips(tmp_path)


def test_isolated_python_and_another_working_directory(tmp_path):
    assert len(SCRIPTS) >= 8
    for script in SCRIPTS:
        assert "sys.path.insert(0, str(Path(__file__).resolve().parent))" in script.read_text(encoding="utf-8"), script
    command = [sys.executable, "-I", ROOT / "filterAudioToDangerousAndSafe.py", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    run("measure_false_alarms.py", "--help", own_process=True)  # a script that no other test starts in a new process
    assert done.returncode == 0 and str(ROOT / "dataset" / "categories.toml")[:20] in done.stdout, done.stderr
    done = subprocess.run(
        module_command("models.checkpoint_files"), cwd=tmp_path, env=os.environ | {"PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="users and owners are POSIX")
def test_unknown_user_without_a_home(monkeypatch, tmp_path):
    import pwd

    def unknown(_):
        raise KeyError("uid not found")

    for name in ("HOME", "DANGER_SAFE_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    importlib.reload(audioset)
    assert cache.cache_folder() == tmp_path / f"danger-safe-{os.getuid()}" and cache.is_private(cache.cache_folder())
    may = os.access
    monkeypatch.setattr(cache.os, "access", lambda path, mode: "librosa" not in str(path) and may(path, mode))
    cache.prepare_numba()
    assert os.environ.pop("NUMBA_CACHE_DIR") == str(cache.cache_folder() / "numba")
