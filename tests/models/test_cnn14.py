"""Cnn14's embeddings compared with the reference implementation's, and the loading of checkpoints."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers import REFERENCE, needs_shared, reference_module, run

from danger_safe.core.errors import UserError
from models.checkpoint_files import COMPACT
from models.checkpoints import load_model, save_checkpoint
from models.compact import CompactNet
from models.logmel import MIN_SAMPLES
from models.models import Cnn14
from models.parity import MAX_ENGINE_ERROR, largest_error


@needs_shared
def test_embeddings_equal_the_reference_implementation_s(standin):
    model, _ = load_model(str(standin))
    expected = np.load(REFERENCE / "expected_seed0.npz")
    for name, clip in reference_module().signals().items():
        want = expected[f"{name}/embedding"]
        with torch.inference_mode():
            output = model(torch.from_numpy(clip)[None])
        scores = output["clipwise_output"][0].numpy()
        assert set(output) == {"clipwise_output", "embedding"}
        assert np.abs(scores - expected[f"{name}/clipwise_output"]).max() < 1e-4, name
        assert np.abs(output["embedding"][0].numpy() - want).max() < 1e-4 * want.mean(), name


@needs_shared
def test_parameter_names_equal_the_official_state_dict_s():
    state = Cnn14().state_dict()
    for name, shape in reference_module().manifest():
        assert tuple(state.pop(name).shape) == shape
    assert not state


@needs_shared
def test_script_extracts_embeddings_with_the_official_layout(standin, tmp_path):
    """The fast engine's embeddings of every signal, as users get them. test_engine.py compares the other engines."""
    signals, expected = reference_module().signals(), np.load(REFERENCE / "expected_seed0.npz")
    for number, (name, clip) in enumerate(signals.items()):
        folder = tmp_path / "sounds" / ("Danger", "Safe")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}.wav", clip, 32_000, subtype="FLOAT")
    table = tmp_path / "table.csv"
    run("extractEmbeddingCnn14.py", "--dataset", tmp_path / "sounds", "--checkpoint", standin, "--output", table)
    assert json.loads(table.with_suffix(".json").read_text())["engine"].startswith("MNN")
    rows = pd.read_csv(table)
    assert {Path(file).stem for file in rows["file"]} == set(signals)
    for file, got in zip(rows["file"], rows.filter(like="feat_").to_numpy(), strict=True):
        want = expected[f"{Path(file).stem}/embedding"]
        assert (got * want).sum() / np.linalg.norm(got) / np.linalg.norm(want) >= 0.99999, file
        assert largest_error(got[None], want[None]) <= MAX_ENGINE_ERROR, file


@pytest.mark.parametrize("samples", [1, 5_000, MIN_SAMPLES, MIN_SAMPLES + 1, 100_000])
def test_clips_of_any_length_have_embeddings(samples):
    model = Cnn14(classes=3, width=2).eval()
    output = model(torch.ones(2, samples))
    assert output["embedding"].shape == (2, 64)
    assert output["clipwise_output"].shape == (2, 3)


def test_compact_checkpoint_is_small_and_has_metadata():
    assert COMPACT.stat().st_size <= 12 * 2**20
    model, info = load_model("compact")
    assert model.dimensions == 768
    assert "BY-NC" in info.licence
    assert len(info.categories) == model.settings["classes"]


def test_one_byte_weights_change_little(tmp_path):
    network = CompactNet(2, 2)
    save_checkpoint(tmp_path / "small.pth", network, categories=["a", "b"], licence="", training={}, int8=True)
    small = load_model(str(tmp_path / "small.pth"))[0].fc1.weight
    assert torch.allclose(small, network.fc1.weight, atol=0.01) and not torch.equal(small, network.fc1.weight)


def test_numpy_head_equals_the_network_s():
    model, _ = load_model("compact")
    embedding = torch.rand(3, model.dimensions)
    with torch.inference_mode():
        np.testing.assert_allclose(model.head(embedding.numpy()), model.logits(embedding).numpy(), atol=1e-4)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", ["text", "empty", "code", "other", "truncated"])
def test_files_that_are_not_checkpoints_are_refused(tmp_path, content, capsys):
    path = tmp_path / "bad.pth"
    if content == "text":
        path.write_text("no checkpoint")
    elif content == "empty":
        path.touch()
    elif content == "truncated":
        torch.save({"model": {"fc1.weight": torch.zeros(9, 9)}}, path)
        path.write_bytes(path.read_bytes()[:-300])
    else:
        torch.save({"model": Evil()} if content == "code" else {"model": {"x": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="checkpoint"):
        load_model(str(path))
    assert "code ran" not in capsys.readouterr().out
