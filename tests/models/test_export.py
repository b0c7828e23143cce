"""export_onnx.py: exported files give the same results in other programs and describe their inputs."""

import json

import numpy as np
import onnx
import pytest
import torch
from helpers import SHARED, needs_shared

import export_onnx
from danger_safe.core.errors import UserError
from models import onnx_network
from models.checkpoints import load_model
from models.parity import MAX_ENGINE_ERROR, largest_error

MN04 = SHARED / "mn04" / "mn04_as_mAP_432.pt"


def exported(path, *arguments):
    """Return the file's session and metadata, after ONNX's own checks."""
    assert export_onnx.main([*map(str, arguments), "--output", str(path)]) == 0
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return onnx_network.open_session(str(path), 1), {item.key: item.value for item in model.metadata_props}


def agree(session, checkpoint, sounds):
    model, _ = load_model(str(checkpoint))
    with torch.inference_mode():
        expected = model(torch.from_numpy(sounds))
    embedding, tags = session.run(["embedding", "tags"], {"waveform": sounds})
    assert largest_error(embedding, expected["embedding"].numpy()) <= MAX_ENGINE_ERROR
    assert np.abs(tags - expected["clipwise_output"].numpy()).max() < 1e-3


def noise(*shape):
    return 0.3 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_exported_network_takes_any_length_and_batch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    session, about = exported("compact.onnx")
    for shape in ((3, 70_001), (1, 1), (2, 9_919)):
        agree(session, "compact", noise(*shape))
    assert (about["sample_rate"], about["samples"], about["batch"]) == ("32000", "any", "any")
    assert len(json.loads(about["tag_names"])) == 527 and "Siren" in about["tag_names"]
    assert "PyTorch" in capsys.readouterr().out
    with monkeypatch.context() as worse, pytest.raises(UserError, match="nothing was written"):
        worse.setattr(export_onnx, "MAX_ENGINE_ERROR", 0.0)
        export_onnx.main(["--output", "other.onnx"])
    (tmp_path / "somebody_s.onnx").write_bytes(b"\x08\x09\x12\x07pytorch")
    with pytest.raises(UserError, match="not made by this project"):
        export_onnx.main(["--output", "somebody_s.onnx"])
    with monkeypatch.context() as without, pytest.raises(UserError, match=r"requirements/export\.txt"):
        without.setattr(export_onnx, "is_installed", lambda name: name != "onnxruntime")
        export_onnx.main(["--output", "other.onnx"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compact.onnx", "somebody_s.onnx"]


def test_without_pytorch_the_export_is_compared_with_numpy(tmp_path, monkeypatch, capsys, other_checkpoint):
    """A network with peak normalisation and softmax, exported with a fixed length."""
    monkeypatch.setattr(export_onnx, "is_installed", lambda name: name != "torch")
    session, about = exported(tmp_path / "x.onnx", "--checkpoint", other_checkpoint, "--seconds", "1.5")
    agree(session, other_checkpoint, noise(1, 48_000))
    assert (about["samples"], about["batch"], about["seconds"], about["tag_names"]) == (
        "48000",
        "1",
        "1.5",
        '["a", "b", "c"]',
    )
    captured = capsys.readouterr()
    assert "PyTorch is not installed" in captured.err and "NumPy's" in captured.out


@needs_shared
def test_mn04_is_exported(tmp_path):
    session, about = exported(tmp_path / "mn04.onnx", "--checkpoint", MN04)
    agree(session, MN04, noise(2, 50_000))
    assert len(json.loads(about["tag_names"])) == 527 and about["licence"].startswith("MIT")
