"""Predictions with only the packages of requirements/predict.txt: importing any other package fails in these tests."""

import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from helpers import ROOT, run

from danger_safe.api import load_detector
from danger_safe.audio.decode import read_clip
from danger_safe.live.heartbeat import Heartbeat
from models.checkpoints import load_model
from models.parity import MAX_ENGINE_ERROR, largest_error

ABSENT = (
    "torch", "torchlibrosa", "librosa", "numba", "scipy", "pandas", "sklearn", "joblib", "skops", "matplotlib", "PIL",
    "jinja2",
    "threadpoolctl", "onnx", "onnxruntime",
)  # fmt: skip
EMBED = """
import sys, numpy
from danger_safe.audio.decode import read_clip
from danger_safe.live.heartbeat import Heartbeat
from models.engine import open_engine
from models.numpy_network import NumpyNetwork
from models.weights import read_weights
clips = [read_clip(path) for path in sys.argv[2:]]
with open_engine("compact") as engine:
    assert engine.name.startswith("MNN"), engine.name
    for network in (engine, NumpyNetwork(read_weights("compact"))):
        embeddings = [network.embed(engine.front_end(clip)[None])[0] for clip in clips]
        numpy.save(f"{sys.argv[1]}/{type(network).__name__}.npy", embeddings)
"""
LISTEN = '[[source]]\nname = "file"\nfile = {file}\n[log]\nfile = {log}\n'


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The environment of a script that finds only the packages of the small installation."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    return {"PYTHONPATH": str(site)}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Ten seconds of siren and ten seconds of noise."""
    folder, time = tmp_path_factory.mktemp("recordings"), np.arange(320_000) / 32_000
    phase = 2 * np.pi * np.cumsum(900 + 300 * np.sin(np.pi * time)) / 32_000
    siren, noise = sum(np.sin(k * phase) / k for k in range(1, 6)), np.random.default_rng(0).standard_normal(320_000)
    for name, sound in (("siren", 0.3 * siren), ("noise", 0.01 * noise)):
        soundfile.write(folder / f"{name}.wav", sound, 32_000)
    return [folder / "siren.wav", folder / "noise.wav"]


def test_predictions_equal_those_of_the_full_installation(recordings, small, tmp_path):
    done = run("predict_danger.py", *recordings, "--format", "json", "--jobs", 1, env=small, own_process=True)
    with load_detector() as detector:
        for line, recording in zip(done.stdout.splitlines(), recordings, strict=True):
            answer, expected = json.loads(line), detector.detect(recording)
            assert answer["score"] == pytest.approx(expected.score, abs=1e-3)
            assert len(answer["events"]) == len(expected.events)
    (tmp_path / "listen.toml").write_text(
        LISTEN.format(file=json.dumps(str(recordings[0])), log=json.dumps(str(tmp_path / "events.jsonl")))
    )
    beat = {"DANGER_SAFE_HEARTBEAT": tmp_path / "beat"}
    done = run("listen.py", "--config", tmp_path / "listen.toml", env=small | beat, own_process=True)
    assert "listening to file; MNN" in done.stderr and "DANGER" in done.stdout
    assert (tmp_path / "beat").exists()


def test_embeddings_equal_pytorch_s(recordings, small, tmp_path):
    code = [sys.executable, "-c", EMBED, str(tmp_path), *map(str, recordings)]
    done = subprocess.run(code, cwd=ROOT, env=os.environ | small, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    model, _ = load_model("compact")
    with torch.inference_mode():
        expected = np.stack([model(torch.from_numpy(read_clip(f))[None])["embedding"][0].numpy() for f in recordings])
    for engine in ("Engine", "NumpyNetwork"):
        assert largest_error(np.load(tmp_path / f"{engine}.npy"), expected) <= MAX_ENGINE_ERROR, engine


def test_scripts_that_need_more_packages_say_so(recordings, small, tmp_path):
    """In one process, because starting one takes longer than the rest."""
    code = (
        "import sys, predict_danger; from danger_safe.core import cli\n"
        "for more in (['--plot', 'x.png'], ['--model', 'x_model.skops'], ['--device', 'cuda']):\n"
        "    try: cli.run(predict_danger.main, [sys.argv[1], *more])\n"
        "    except SystemExit as end: assert end.code == 1, end.code\n"
    )
    (tmp_path / "x_model.skops").write_bytes(b"x")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([small["PYTHONPATH"], str(ROOT)])}
    command = [sys.executable, "-c", code, str(recordings[1])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3 and all("pip install -r requirements.txt" in line for line in errors), done.stderr
    assert "matplotlib" in errors[0] and "PyTorch" in errors[2]


@pytest.mark.skipif(os.name == "nt", reason="systemd is Linux's")
def test_service_notifies_systemd(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        heartbeat = Heartbeat()
        heartbeat.start()
        heartbeat.beat()  # too soon for another notification
        heartbeat.stop()
        assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_container_and_service_refer_to_existing_files():
    """The Dockerfile was linted and its commands were run by hand: docs/raspberry-pi.md."""
    docker = (ROOT / "Dockerfile").read_text("utf-8")
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", docker, re.M) for word in line.split()]
    assert len(copied) >= 10 and all(list(ROOT.glob(word.rstrip("/"))) for word in copied)
    unit = (ROOT / "deploy" / "danger-safe.service").read_text("utf-8")
    assert "/opt/danger-safe/listen.py --config " in unit and "WatchdogSec=" in unit and "Type=notify" in unit
