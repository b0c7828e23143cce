"""models.py against the reference implementation's embeddings, and the checkpoints' loading."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import REFERENCE, needs_shared, reference_module, run

from danger_safe.core.errors import UserError
from models.checkpoint_files import COMPACT
from models.checkpoints import load_model, save_checkpoint
from models.compact import CompactNet
from models.logmel import MIN_SAMPLES
from models.models import Cnn14
from tools import average


@needs_shared
def test_embeddings_are_the_reference_implementation_s(standin):
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
def test_parameter_names_are_the_official_state_dict_s():
    state = Cnn14().state_dict()
    for name, shape in reference_module().manifest():
        assert tuple(state.pop(name).shape) == shape
    assert not state


@needs_shared
def test_official_layout_is_extracted_by_the_script(standin, tmp_path):
    clip = reference_module().signals()["sweep_5s"]
    for label in ("Danger", "Safe"):
        (tmp_path / "d" / label).mkdir(parents=True)
        soundfile.write(tmp_path / "d" / label / f"{label}.wav", clip, 32_000, subtype="FLOAT")
    table = tmp_path / "table.csv"
    run("extractEmbeddingCnn14.py", "--dataset", tmp_path / "d", "--checkpoint", standin, "--output", table)
    got = pd.read_csv(table).filter(like="feat_").to_numpy()
    want = np.load(REFERENCE / "expected_seed0.npz")["sweep_5s/embedding"]
    assert got.shape == (2, 2048)
    assert np.abs(got - want).max() < 1e-4 * want.mean()


@pytest.mark.parametrize("samples", [1, 5_000, MIN_SAMPLES, MIN_SAMPLES + 1, 100_000])
def test_clips_of_any_length(samples):
    model = Cnn14(classes=3, width=2).eval()
    output = model(torch.ones(2, samples))
    assert output["embedding"].shape == (2, 64)
    assert output["clipwise_output"].shape == (2, 3)


def test_compact_checkpoint_is_small_and_says_what_it_is():
    assert COMPACT.stat().st_size <= 12 * 2**20
    model, info = load_model("compact")
    assert model.dimensions == 512
    assert "BY-NC" in info.licence
    assert len(info.categories) == model.settings["classes"]


def test_mean_of_checkpoints(tmp_path):
    networks = [CompactNet(2, 2), CompactNet(2, 2), CompactNet(2, 2)]
    for number, network in enumerate(networks):
        save_checkpoint(
            tmp_path / f"{number}.pth",
            network,
            categories=["a", "b"],
            fingerprints=[f"{number}"],
            licence="x",
            training={},
        )
    save_checkpoint(tmp_path / "other.pth", CompactNet(3, 2), categories=["a", "b", "c"], licence="", training={})
    average.main([str(tmp_path / name) for name in ("0.pth", "1.pth", "2.pth", "mean.pth")])
    mean, info = load_model(str(tmp_path / "mean.pth"))
    weights = [load_model(str(tmp_path / f"{number}.pth"))[0].fc1.weight for number in range(3)]
    assert torch.allclose(mean.fc1.weight, torch.stack(weights).mean(dim=0), atol=1e-3)
    assert info.fingerprints == {"0", "1", "2"}
    average.main(["--small", *(str(tmp_path / name) for name in ("0.pth", "small.pth"))])
    small = load_model(str(tmp_path / "small.pth"))[0].fc1.weight
    assert torch.allclose(small, weights[0], atol=0.01) and not torch.equal(small, weights[0])
    with pytest.raises(UserError, match="other layers or classes"):
        average.main([str(tmp_path / name) for name in ("0.pth", "other.pth", "x.pth")])


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", ["text", "empty", "code", "other", "truncated"])
def test_files_that_are_no_checkpoints_are_refused(tmp_path, content, capsys):
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
