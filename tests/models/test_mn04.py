"""mn04 compared with the reference implementation, and in every script that takes a checkpoint."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers import SHARED, needs_shared, reference_module, run

from models.checkpoints import load_model
from models.engine import open_engine
from models.kaldimel import KaldiMel
from models.mn04 import Mn04
from models.parity import MAX_ENGINE_ERROR, largest_error
from models.torch_network import TorchNetwork

OFFICIAL = SHARED / "mn04" / "mn04_as_mAP_432.pt"


@pytest.fixture(scope="module")
def expected():
    """The reference's outputs: (signal, its samples, logits, features)."""
    with np.load(SHARED / "mn04" / "expected.npz") as file:
        answers = dict(file)
    signals = reference_module().signals()
    return [(name, clip, answers[f"{name}/logits"], answers[f"{name}/features"]) for name, clip in signals.items()]


@needs_shared
def test_layers_match_the_official_file():
    with open(SHARED / "mn04" / "state_dict.tsv", newline="") as file:
        named = {row["name"]: row["shape"] for row in csv.DictReader(file, delimiter="\t")}
    own = {name: "x".join(map(str, tensor.shape)) for name, tensor in Mn04().state_dict().items()}
    assert own == named and list(own) == list(named)


@needs_shared
def test_outputs_equal_the_reference_implementation_s(expected):
    model, info = load_model(str(OFFICIAL))
    assert info.licence.startswith("MIT")
    with np.load(SHARED / "mn04" / "expected.npz") as file:
        for name in ("noise_1s", "shortest_9920"):
            assert np.abs(KaldiMel()(reference_module().signals()[name]).T - file[f"{name}/mel"]).max() < 1e-3
    for name, clip, logits, features in expected:
        with torch.inference_mode():
            embedding = model.embed(model.logmel(torch.from_numpy(clip)[None]))
            got = model.logits(embedding)[0].numpy()
        embedding = embedding.numpy()
        assert np.abs(embedding[0] - features).max() < 1e-4 * abs(features.mean()), name
        assert np.abs(got - logits).max() < 1e-4, name
        assert np.abs(model.head(embedding)[0] - logits).max() < 1e-4, name


@needs_shared
def test_every_engine_gives_the_reference_s_outputs(expected):
    model, _ = load_model(str(OFFICIAL))
    pytorch = TorchNetwork(model)
    with open_engine(str(OFFICIAL), "cpu", 1) as mnn:
        assert mnn.name.startswith("MNN")
        for name, clip, logits, features in expected:
            logmel = mnn.front_end(clip)[None]
            for embedding in (mnn.embed(logmel), pytorch.embed(logmel)):
                assert largest_error(embedding, features[None]) <= MAX_ENGINE_ERROR / 2, name
            assert np.abs(mnn.head(mnn.embed(logmel))[0] - logits).max() < 1e-3, name


def test_augmentation_of_the_power_spectrum():
    """Without a change it equals the front end; scaling the power equals scaling the sound."""
    clip = 0.1 * np.random.default_rng(0).standard_normal((2, 20_000)).astype(np.float32)
    front_end = KaldiMel()
    power = front_end.power(clip)
    assert np.abs(front_end.from_power(power) - front_end(clip)).max() < 1e-4
    assert np.abs(front_end.from_power(4 * power) - front_end(2 * clip)).max() < 1e-4
    assert power[..., 10:40].mean() == pytest.approx(power[..., 300:400].mean(), rel=0.2)  # white noise stays white


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network with random weights in the official file's layout, a plain state dict."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mn04") / "random.pt"
    torch.save(Mn04().state_dict(), path)
    return path


def test_mn04_works_in_every_script(network, tmp_path):
    """Extraction, training, prediction with a plot, fine-tuning."""
    folder, rng = tmp_path / "sounds", np.random.default_rng(0)
    for label in ("Danger", "Safe"):
        for number in range(12):
            (folder / label / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            tone = np.sin(2 * np.pi * rng.uniform(500, 3_000) * np.arange(32_000) / 32_000)
            wave = 0.4 * (tone if label == "Danger" else 0.3 * rng.standard_normal(32_000))
            soundfile.write(folder / label / "ab"[number % 2] / f"{number}.wav", wave, 32_000, subtype="FLOAT")
    table, mine, recording = tmp_path / "t.csv", tmp_path / "mine.pth", folder / "Danger" / "a" / "0.wav"
    run("extractEmbeddingCnn14.py", "--dataset", folder, "--checkpoint", network, "--output", table)
    rows = pd.read_csv(table)
    model, _ = load_model(str(network))
    samples, _ = soundfile.read(folder / rows["file"][0], dtype="float32")
    with torch.inference_mode():
        want = model(torch.from_numpy(samples)[None])["embedding"].numpy()
    assert rows.filter(like="feat_").shape == (24, 384)
    assert largest_error(rows.filter(like="feat_").to_numpy()[:1], want) < MAX_ENGINE_ERROR
    run("train_logreg_model.py", "--embeddings", table, "--output-dir", tmp_path)
    flags = ("--model", tmp_path / "logreg_model.joblib", "--checkpoint", network, "--plot", tmp_path / "p.png")
    done = run("predict_danger.py", recording, *flags, "--format", "json", "--threshold", "1e-9")
    assert json.loads(done.stdout)["verdict"] == "Danger"
    flags = ("--epochs", "1", "--target", "label", "--per-category", "4", "--batch-size", "4", "--holdout-fold", "none")
    run("finetune_cnn14.py", "--dataset", folder, "--checkpoint", network, "--output", mine, *flags)
    assert torch.load(mine, weights_only=True)["training"]["settings"]["learning_rate"] == 6e-5
    tuned, info = load_model(str(mine))
    assert isinstance(tuned, Mn04) and tuned.settings["classes"] == 2 and len(info.fingerprints) == 24
