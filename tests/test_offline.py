"""Only the downloads use the Internet: the pipeline runs with sockets forbidden in all of its processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT, run


def lines(offline, kind):
    """Return the lines of the record of one kind: start or tried."""
    text = Path(offline["NO_NETWORK_LOG"]).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith(kind)]


@pytest.mark.parametrize("attempt", [
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
    "import socket; socket.create_connection(('127.0.0.1', 9))",
    "import socket; socket.socket()",
    "import socket; socket.getaddrinfo('localhost', 80)",
])  # fmt: skip
def test_forbidden_sockets_are_recorded(attempt, offline, tmp_path):
    env = os.environ | {name: str(value) for name, value in offline.items()} | {"NO_NETWORK_LOG": str(tmp_path / "log")}
    done = subprocess.run([sys.executable, "-c", attempt], env=env, capture_output=True)
    assert done.returncode and b"forbid the network" in done.stderr
    assert lines(env, "tried")


def test_pipeline_runs_with_sockets_forbidden(sample, trained, offline, tmp_path):
    """The fixtures have already run the six steps this way."""
    clip = next((sample / "Danger").iterdir())
    run("predict_danger.py", clip, "--plot", tmp_path / "clip.png", env=offline)
    for category in ("Danger", "Safe"):
        (tmp_path / "own" / category).mkdir(parents=True)
        for number in range(2):
            noise = np.random.default_rng(number).standard_normal(16_000) * 0.1
            soundfile.write(tmp_path / "own" / category / f"{number}.wav", noise, 16_000)
    run("finetune_cnn14.py", "--dataset", tmp_path / "own", "--epochs", 2, "--per-category", 2, "--bad-recordings", 0.5,
        "--output", tmp_path / "own.pth", env=offline)  # fmt: skip

    started = "\n".join(lines(offline, "start"))
    for name in ("filterAudio", "extractEmbedding", "mnn_network", "train_rf", "compare_models", "finetune_cnn14"):
        assert name in started  # sockets were forbidden
    assert not lines(offline, "tried")


def test_built_in_detector_loads_without_pickle(tmp_path):
    """It has only arrays and text: NumPy opens it without pickle, and a file with a pickle is refused."""
    from danger_safe.core.errors import UserError
    from danger_safe.detection.detector import BUILTIN_FILE, load_builtin

    with np.load(BUILTIN_FILE, allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    assert all(array.dtype.kind in "fiubU" for array in content.values())
    bad = tmp_path / "bad.npz"
    np.savez(bad, **content | {"mean": np.array([print], object)})
    with pytest.raises(UserError, match="damaged"):
        load_builtin(bad)
    assert not list(ROOT.rglob("models/*.joblib"))
