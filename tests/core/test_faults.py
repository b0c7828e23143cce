"""Full disks, kills and clock changes: no output file is ever partial, and the next run continues.

Full disks are simulated by a limit on file sizes: writing fails in the middle in the same way. tests/kill_moments.py
kills scripts at many more moments; tests/embeddings/test_resume.py kills extractions.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT, run, write_esc50

from danger_safe.core import atomic
from danger_safe.core.atomic import atomic_path

posix = pytest.mark.skipif(os.name == "nt", reason="limits on files and SIGKILL are POSIX")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Make a few sounds and a table for training."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    for label in ("Danger", "Safe"):
        (folder / "sounds" / label).mkdir(parents=True)
        for n in range(4):
            soundfile.write(folder / "sounds" / label / f"{n}.wav", 0.3 * rng.standard_normal(32_000), 32_000)
    rows = rng.standard_normal((60, 16))
    rows[:30, 0] += 2
    lines = ["file,label,category,fold,source,seen," + ",".join(f"feat_{n:04d}" for n in range(16))]
    lines += [
        f"{n},{int(n < 30)},c,{n % 5 + 1},{n},False," + ",".join(f"{v:.6g}" for v in row) for n, row in enumerate(rows)
    ]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def limited(kilobytes, script, *arguments):
    """Run a script with a limit on file sizes; return its error line."""
    unmeasured = {"COVERAGE_PROCESS_CONFIG": None}  # make coverage could not write its data
    done = run("tests/limited.py", kilobytes, ROOT / script, *arguments, status=1, env=unmeasured)
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")][-1]


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@posix
def test_full_disk_in_training(inputs, tmp_path):
    command = ("train_logreg_model.py", "--embeddings", inputs / "table.csv", "--output-dir", tmp_path)
    assert f"{tmp_path / 'logreg_model.joblib'}: the disk is full: make room" in limited(1, *command)
    assert left(tmp_path) == []
    assert f"{tmp_path / 'logreg_confusion_matrix.png'}: the disk is full" in limited(30, *command)
    assert left(tmp_path) == ["logreg_metrics.json", "logreg_model.joblib", "logreg_model.skops"]
    json.loads((tmp_path / "logreg_metrics.json").read_text())


@posix
def test_full_disk_while_sounds_are_made(tmp_path):
    error = limited(100, "filterAudioToDangerousAndSafe.py", "--sample", "--output", tmp_path)
    assert re.search(r"audio.*\.wav: the disk is full: make room", error)
    assert left(tmp_path) == [str(Path("sample-sounds", ".danger-safe"))]  # marks a folder of this project


@posix
def test_full_disk_in_prediction(inputs, tmp_path):
    sound = inputs / "sounds" / "Danger" / "0.wav"
    assert f"{tmp_path / 'p.png'}: the disk is full" in limited(
        10, "predict_danger.py", sound, "--plot", tmp_path / "p.png"
    )
    assert left(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk_for_redirected_output(tmp_path):
    esc50, mapping = write_esc50(tmp_path / "esc50", [("dog", 1, 1), ("rain", 2, 2)]), tmp_path / "mapping.toml"
    mapping.write_text('Danger = ["dog"]\nSafe = ["rain"]\n')
    command = [
        sys.executable,
        ROOT / "filterAudioToDangerousAndSafe.py",
        "--esc50",
        esc50,
        "--categories",
        mapping,
        "--output",
        tmp_path / "out",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "error: the disk is full" in done.stderr and "Exception" not in done.stderr


@posix
def test_full_disk_while_a_network_is_converted_or_saved(inputs, tmp_path):
    sound = inputs / "sounds" / "Danger" / "0.wav"
    cache = tmp_path / "cache"
    os.environ["DANGER_SAFE_CACHE"], before = str(cache), os.environ["DANGER_SAFE_CACHE"]
    try:
        error = limited(1_000, "predict_danger.py", sound, sound)  # a single one is processed before the conversion
    finally:
        os.environ["DANGER_SAFE_CACHE"] = before
    assert f"{cache}: the disk is full" in error and "DANGER_SAFE_CACHE" in error
    assert left(tmp_path) == []


class Broken(RuntimeError):
    """Fails as PyTorch and libsndfile do on a full disk: without the system's reason."""


@posix
def test_reason_of_a_failed_write_is_reported(tmp_path, monkeypatch):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(OSError, match="the disk is full") as raised, atomic_path(tmp_path / "a.pth") as part:
            part.write_bytes(bytes(9_999))
            raise Broken("unexpected pos 576 vs 534")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path / "a.pth")
    with pytest.raises(Broken), atomic_path(tmp_path / "a.pth") as part:
        part.write_bytes(b"1")
        raise Broken("something else")
    assert left(tmp_path) == []


@posix
@pytest.mark.parametrize(("cases", "moments"), [(("filter", "download"), 6), (("train_logreg",), 1)])
def test_kills_at_a_few_moments(cases, moments):
    done = run("tests/kill_moments.py", *cases, "--moments", moments)
    assert done.stdout.count(" 0 wrong") == len(cases)


def test_process_that_cannot_be_queried_counts_as_running():
    assert atomic._is_running(os.getpid())
    assert atomic._is_running(os.getppid())
    assert not atomic._is_running(2**31 - 2)


def test_clock_that_was_changed(inputs, tmp_path):
    """File times are only compared for equality."""
    sounds = tmp_path / "sounds"
    shutil.copytree(inputs / "sounds", sounds)
    command = ("extractEmbeddingCnn14.py", "--dataset", sounds, "--checkpoint", "mfcc", "--output", tmp_path / "t.csv")
    run(*command)
    table = (tmp_path / "t.csv").read_bytes()
    decades = 30 * 365 * 86_400
    for name, then in (("Safe/0.wav", time.time() - decades), ("Safe/1.wav", time.time() + decades)):
        soundfile.write(sounds / name, 0.1 * np.random.default_rng(int(then)).standard_normal(32_000), 32_000)
        os.utime(sounds / name, (then, then))
    assert "2 clips to embed" in run(*command).stdout
    after = (tmp_path / "t.csv").read_bytes()
    assert after != table
    for file in tmp_path.glob("t*"):
        os.utime(file, (then, then))
    assert "0 clips to embed" in run(*command).stdout  # a table with another time is written again
    assert (tmp_path / "t.csv").read_bytes() == after


def test_durations_are_measured_with_a_monotonic_clock():
    """time.time jumps when the clock is set. Only the times of day of listen.py and live streams use it."""
    sources = [
        *ROOT.glob("*.py"),
        *(path for part in ("danger_safe", "models", "tools") for path in (ROOT / part).rglob("*.py")),
    ]
    wrong = [
        path.name
        for path in sources
        if path.parent.name != "live"
        and path.name != "writers.py"
        and re.search(r"time\.time\(|datetime|st_[mc]time(?!_ns)", path.read_text("utf-8"))
    ]
    assert wrong == []
    assert Path(atomic.__file__) in sources
