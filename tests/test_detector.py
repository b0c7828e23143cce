"""The ready detector: how it is made, and that its file holds no code."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, write_esc50

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.audio.room_tone import quiet_room
from danger_safe.core.errors import UserError
from danger_safe.data.clips import read_clips
from danger_safe.data.fingerprint import fingerprint
from danger_safe.detection import detector
from models.checkpoints import load_model, save_checkpoint
from models.compact import CompactNet
from models.engine import open_engine
from tools.build_detector import heard_and_new
from tools.detector_training import sigmoid_of


def build(*arguments):
    command = [sys.executable, "-m", "tools.build_detector", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_threshold_comes_from_recordings_that_nothing_has_heard(tmp_path, monkeypatch):
    sounds = [(name, 1, f"{name}{n}") for name in ("siren", "dog", "rain", "wind") for n in range(6)]
    clips = read_clips(write_esc50(tmp_path / "ESC-50", sounds, seconds=1.0))
    known = [fingerprint(clip.path) for clip in clips if int(clip.source[-1]) < 3]
    torch.manual_seed(0)
    model = CompactNet(4, 2)
    taught = ["dog", "rain", "siren", "wind"]
    save_checkpoint(tmp_path / "twin.pth", model, categories=taught, fingerprints=known, licence="", training={})
    everything = [fingerprint(clip.path) for clip in clips]
    save_checkpoint(tmp_path / "all.pth", model, categories=[], fingerprints=everything, licence="", training={})
    save_checkpoint(tmp_path / "nothing.pth", model, categories=[], licence="", training={})
    flags = ["--dataset", tmp_path / "ESC-50", "--hours", 0.02, "--rooms", 4, "--output", tmp_path / "d.npz", "--twins"]

    truth = np.array([clip.category in ("siren", "dog") for clip in clips]).astype(int)
    for twin, words in (("all.pth", "has not heard are not"), ("nothing.pth", "was trained on are not")):
        with pytest.raises(UserError, match=words):
            heard_and_new(str(tmp_path / twin), clips, truth)
    done = build(*flags, tmp_path / "twin.pth")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(detector, "READY", tmp_path / "d.npz")
    ready = detector.load_ready()
    held_out = ready.about["held_out"]
    assert held_out["clips"] == len(clips) - len(known)
    assert held_out["danger_recall"][0] >= ready.about["min_recall"]
    assert set(ready.categories) == {clip.category for clip in clips}
    points = ready.about["operating_points"]
    for key in ("danger_recall", "false_alarms"):
        assert points[0][key] >= points[-1][key] >= 0
    assert all(point["false_alarms_per_hour"] >= 0 for point in points)
    twin = detector.load_ready(tmp_path / "twin_detector.npz")
    assert (twin.threshold, twin.slope, twin.offset) == (ready.threshold, ready.slope, ready.offset)
    assert twin.danger == (True, False, True, False)
    embedding = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    network = load_model("compact")[0]
    shares = torch.softmax(network.logits(torch.from_numpy(embedding[None])), dim=1)[0].detach().numpy()
    danger = shares[list(ready.danger)].sum()
    expected = 1 / (1 + np.exp(-(ready.slope * np.log(danger / (1 - danger)) + ready.offset)))
    quiet = 1 / (1 + np.exp(-((embedding - ready.mean) / ready.scale @ ready.room + ready.room_bias)))
    assert ready.scores(embedding[None])[0] == pytest.approx(expected * (1 - quiet), abs=1e-4)
    heard = ready.heard(embedding)
    assert [similarity for _, similarity in heard] == sorted((s for _, s in heard), reverse=True)


def test_sigmoid_makes_probabilities():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 5_000)
    truth = rng.random(5_000) < 1 / (1 + np.exp(-odds))
    squeezed = 1 / (1 + np.exp(-(0.5 * odds + 1)))
    slope, offset = sigmoid_of(squeezed, truth)
    assert slope == pytest.approx(2.0, abs=0.2)
    assert offset == pytest.approx(-2.0, abs=0.25)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_damaged_file_is_said(tmp_path, monkeypatch, content):
    (tmp_path / "d.npz").write_bytes(content)
    monkeypatch.setattr(detector, "READY", tmp_path / "d.npz")
    with pytest.raises(UserError, match="is damaged"):
        detector.load_ready()


def test_pickled_objects_are_refused(tmp_path, monkeypatch):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "d.npz", text=np.array([Code()], dtype=object))
    monkeypatch.setattr(detector, "READY", tmp_path / "d.npz")
    with pytest.raises(UserError, match="is damaged"):
        detector.load_ready()
    assert not (tmp_path / "ran").exists()


def test_a_microphone_s_own_noise_is_no_danger():
    ready = detector.load_ready()
    with open_engine("compact", "cpu", 1) as engine:
        for number in range(1000, 1012):  # rooms that it did not learn from
            embedding = engine.embed(engine.front_end(quiet_room(number)[: 3 * SAMPLE_RATE])[None])
            assert ready.scores(embedding)[0] < ready.threshold, number


def test_shipped_detector_is_of_the_shipped_network():
    from models.checkpoint_files import COMPACT, verified_sha256

    ready = detector.load_ready()
    assert ready.checkpoint_sha256 == verified_sha256("compact", COMPACT)
    assert 0 < ready.threshold < 1
    assert {"siren", "glass_breaking", "gun_shot", "speech", "music", "singing"} <= set(ready.categories)
