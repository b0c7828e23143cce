"""finetune_cnn14.py through its script, and a training that is interrupted."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import run

from danger_safe import finetuning
from danger_safe.clips import read_clips
from danger_safe.finetuning import Settings, Training
from danger_safe.sound_store import SoundStore
from models.models import Cnn14


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Tones are Danger, noise is Safe: learnt in a few passes."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for label in ("Danger", "Safe"):
        (folder / label).mkdir()
        for n in range(8):
            tone = np.sin(2 * np.pi * rng.uniform(400, 3000) * np.arange(40_000) / 32_000)
            sound = tone if label == "Danger" else rng.standard_normal(40_000) / 4
            soundfile.write(folder / label / f"{label}{n}.wav", 0.5 * sound, 32_000)
    return folder


@pytest.mark.parametrize("start", [["--width", "2"], ["--checkpoint", "compact"]])
def test_network_is_trained_and_extraction_takes_it(sounds, tmp_path, start):
    output = tmp_path / "mine.pth"
    flags = ["--epochs", "2", "--target", "label", "--batch-size", "8", "--precision", "float32", *start]
    run("finetune_cnn14.py", "--dataset", sounds, "--output", output, "--licence", "mine", *flags)
    content = torch.load(output, weights_only=True)
    assert content["categories"] == ["Danger", "Safe"]
    assert content["licence"] == "mine"
    assert len(content["clips"]) == 16
    assert content["training"]["settings"]["epochs"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine.pth"]
    table = tmp_path / "t.csv"
    run("extractEmbeddingCnn14.py", "--dataset", sounds, "--checkpoint", output, "--output", table)
    rows = pd.read_csv(table)
    assert rows["seen"].all()
    assert len(rows.filter(like="feat_").columns) == (64 if "--width" in start else 512)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--holdout-fold", "3"], "no clip has fold 3"),
        (["--output", "mine.bin"], "must be named .pth"),
        (["--same", "nowhere.toml"], "expected lines like"),
    ],
)
def test_bad_settings_stop_before_the_first_pass(sounds, tmp_path, flags, words):
    done = run("finetune_cnn14.py", "--dataset", sounds, *flags, cwd=tmp_path, status=1)
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


def trained(sounds, state_file, after_epoch):
    torch.manual_seed(0)
    model = Cnn14(2, 2, fmax=7000.0, floor=10**-3.5, normalise=True, multilabel=False, dropout=(0.0, 0.2))
    store = SoundStore(read_clips(sounds))
    targets = np.array([clip.label for clip in store.clips])
    settings = Settings(epochs=4, batch_size=8, crop_seconds=0.5, long_crop_seconds=1.0)
    return Training(model, store, targets, settings, state_file).run(after_epoch)


def test_interrupted_training_goes_on_to_the_same_network(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "SAVE_EVERY", 0.0)
    whole = trained(sounds, tmp_path / "whole.training", lambda run: None)

    def stop(run):
        if run.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(sounds, tmp_path / "cut.training", stop)
    passes = []
    resumed = trained(sounds, tmp_path / "cut.training", lambda run: passes.append(run.epoch))
    assert passes == [3, 4]
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name
