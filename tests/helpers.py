"""Shared helpers: paths, running scripts, small inputs, waiting."""

import atexit
import functools
import importlib.util
import io
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from warm import WARM_ADDRESS, Warm, WarmServer

from danger_safe.core import cli

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
REFERENCE = SHARED / "cnn14_reference"
PATIENCE_S = 600  # seconds; longer than a busy computer needs
os.environ.setdefault("OMP_NUM_THREADS", "1")  # make test runs several scripts at the same time
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared (real clips, reference network) is not here")


def run(script, *arguments, cwd=None, status=0, env=None, stdin=None, own_process=False):
    """Run a script; assert its exit status and that there is no traceback. Return the finished process, with text.

    ``env`` is added to this process's environment (None removes a name); ``stdin`` are bytes for a pipe. If possible,
    the script runs in a fork of a process that has loaded the heavy libraries (warm.py explains what that cannot test).
    It gets a new process if ``env`` has a variable that is read while Python or a library starts, in make coverage, and
    with ``own_process``, for tests of the start itself and of reproducibility.
    """
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    env = os.environ | (env or {})
    env = {name: str(value) for name, value in env.items() if value is not None}
    may_fork = sys.platform == "linux" and not own_process and "COVERAGE_PROCESS_CONFIG" not in os.environ
    if may_fork and warm_process().suits(env):
        done = warm_process().run(command, cwd or ROOT, env, stdin or b"", PATIENCE_S)
    else:
        done = subprocess.run(command, cwd=cwd or ROOT, env=env, input=stdin, capture_output=True, timeout=PATIENCE_S)
    done.stdout, done.stderr = (
        text.decode().replace("\r\n", "\n").replace("\r", "\n") for text in (done.stdout, done.stderr)
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run_in_process(script, *arguments, status=0):
    """Run a script's ``main`` in this process, in milliseconds, otherwise like ``run``. For quick scripts only."""
    main = importlib.import_module(script.removesuffix(".py")).main
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        cli.run(main, [str(argument) for argument in arguments])
    assert ended.value.code == status, output.getvalue() + errors.getvalue()
    assert "error: unexpected" not in errors.getvalue(), errors.getvalue()
    return subprocess.CompletedProcess([script, *arguments], status, output.getvalue(), errors.getvalue())


def train(script, *arguments):
    """Train in this process without drawing, which takes most of the time and which other tests do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plots.draw_confusion", "plots.draw_reliability", "category_plot.draw_category_recall"):
            patch.setattr(f"danger_safe.reports.{name}", lambda *_: None)
        assert script.main([str(argument) for argument in arguments]) == 0


@functools.cache
def warm_process():
    """Return the process that scripts are forked from: that of make test (conftest.py), otherwise a new one."""
    if WARM_ADDRESS not in os.environ:
        server = WarmServer()
        atexit.register(server.close)
        return Warm(server.address)
    return Warm(os.environ[WARM_ADDRESS])


@contextmanager
def patience(process):
    """Kill a process after PATIENCE_S, so that reading its output ends."""
    timer = threading.Timer(PATIENCE_S, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def wait_for(condition):
    """Return the value of ``condition`` once it is true. Raises AssertionError after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError("it never came")


def write_esc50(folder, clips, seconds=0.5):
    """Write a small ESC-50 folder: ``clips`` are (category, fold, source); each contains different noise."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for number, (category, fold, source) in enumerate(clips):
        name = f"{fold}-{source}-A-{number}.wav"
        noise = np.random.default_rng(number).standard_normal(int(44_100 * seconds)) * 0.1
        soundfile.write(folder / "audio" / name, noise, 44_100, subtype="PCM_16")
        rows.append(f"{name},{fold},{number},{category},False,{source},A")
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_noises(folder, clips, suffix="wav", sample_rate=32_000):
    """Write a folder of sounds: of each label, ``clips`` different noises of a second."""
    for label in ("Danger", "Safe"):
        (folder / label).mkdir(parents=True)
        for number in range(clips):
            noise = 0.1 * np.random.default_rng([number, len(label)]).standard_normal(sample_rate)
            soundfile.write(folder / label / f"{number}.{suffix}", noise, sample_rate)
    return folder


def make_table(path, clips=60, dimensions=16, apart=2.0, folds=5, takes=2, seed=0):
    """Write a table of random embeddings; the labels differ by ``apart`` standard deviations in one dimension."""
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) // takes % 2
    features = rng.standard_normal((clips, dimensions))
    features[:, 0] += apart * labels
    source = np.arange(clips) // takes
    table = pd.DataFrame(
        {
            "file": [f"{n}.wav" for n in range(clips)], "label": labels, "category": np.where(labels, "siren", "rain"),
            "fold": source // 2 % folds + 1 if folds else 0, "source": source, "seen": False,
        }
    )  # fmt: skip
    table = pd.concat([table, pd.DataFrame(features, columns=[f"feat_{n:04d}" for n in range(dimensions)])], axis=1)
    table.to_csv(path, index=False)
    return table


def tree(folder):
    """Return every path under a folder with its content, if it is a file."""
    return {p: p.read_bytes() if p.is_file() and not p.is_symlink() else None for p in folder.rglob("*")}


def reference_module():
    """Import the stand-in's weights and test signals from ../shared."""
    spec = importlib.util.spec_from_file_location("reference_weights", REFERENCE / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
