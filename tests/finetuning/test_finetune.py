"""finetune_cnn14.py through its script, and interrupted trainings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers import ROOT, run

from danger_safe.core.errors import UserError
from danger_safe.data.clips import Clip, read_clips
from danger_safe.data.splits import split
from danger_safe.finetuning import trainer
from danger_safe.finetuning.config import Settings
from danger_safe.finetuning.trainer import Training
from danger_safe.finetuning.validation import Score, ValidationSet
from danger_safe.finetuning.waveform_store import WaveformStore
from models.compact import CompactNet
from models.models import Cnn14


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Tones are Danger, noise is Safe: learnt in a few epochs."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for label in ("Danger", "Safe"):
        (folder / label).mkdir()
        for n in range(8):
            tone = np.sin(2 * np.pi * rng.uniform(400, 3000) * np.arange(40_000) / 32_000)
            sound = tone if label == "Danger" else rng.standard_normal(40_000) / 4
            soundfile.write(folder / label / f"{label}{n}.wav", 0.5 * sound, 32_000)
    return folder


@pytest.mark.parametrize("start", [["--checkpoint", "none", "--width", "2"], ["--checkpoint", "compact"]])
def test_trained_network_works_in_extraction(sounds, tmp_path, start):
    output = tmp_path / "mine.pth"
    flags = ["--epochs", "2", "--target", "label", "--batch-size", "4", "--per-category", "4", *start]
    done = run("finetune_cnn14.py", "--dataset", sounds, "--output", output, "--licence", "mine", *flags)
    assert "balanced accuracy on 3 clips of other recordings" in done.stdout
    content = torch.load(output, weights_only=True)
    assert content["categories"] == ["Danger", "Safe"]
    assert content["licence"] == "mine"
    assert len(content["fingerprints"]) == 13
    assert content["training"]["settings"]["epochs"] == 2
    assert len(content["training"]["history"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.pth", "mine_learning.png"]
    if "none" in start:
        again, mapping = tmp_path / "again.pth", tmp_path.parent / "mapping.toml"
        mapping.write_text('Danger = ["Danger"]\nSafe = ["Safe"]\n')
        flags = ["--epochs", "1", "--target", "label", "--learning-rate", "1e-9", "--per-category", "4"]
        flags += ["--checkpoint", output, "--output", again, "--dangers", mapping]
        run("finetune_cnn14.py", "--dataset", sounds, *flags)
        before, after = (torch.load(file, weights_only=True)["model"]["fc_audioset.weight"] for file in (output, again))
        assert torch.allclose(before.float(), after.float(), atol=1e-3)  # the last layer already had these classes
        table = tmp_path / "t.csv"
        run("extractEmbeddingCnn14.py", "--dataset", sounds, "--checkpoint", output, "--output", table)
        rows = pd.read_csv(table)
        assert rows["seen"].sum() == 13
        assert len(rows.filter(like="feat_").columns) == 64


@pytest.mark.parametrize(
    ("flags", "words", "status"),
    [
        (["--holdout-fold", "3"], "no clip has fold 3", 1),
        (["--output", "mine.bin"], "must be named .pth", 2),
        (["--same", "nowhere.toml"], "No such file", 1),
        (["--checkpoint", "nowhere.pth"], "no such checkpoint", 1),
        (["--output", "nowhere/mine.pth"], "make the folder first", 2),
        (["--output", ROOT / "models" / "compact.pth"], "where the training starts from", 2),
        (["--dangers", "nowhere.toml"], "No such file", 1),
        (["--dangers", ROOT / "dataset" / "categories.toml"], "neither Danger nor Safe in", 1),
    ],
)
def test_bad_settings_are_refused_before_the_first_epoch(sounds, refused, flags, words, status):
    refused("finetune_cnn14", "--dataset", sounds, *flags, words=words, status=status)


def prepared(sounds, state_file, **settings):
    torch.manual_seed(0)
    model = Cnn14(2, 2, fmax=7000.0, floor=10**-3.5, normalise=True, multilabel=False, dropout=(0.0, 0.2))
    clips = read_clips(sounds)
    learn, hold = split(clips, {clip: str(clip.label) for clip in clips}, "auto", 0)
    stores = [WaveformStore(learn), WaveformStore(hold)]
    targets = [np.array([clip.label for clip in store.clips]) for store in stores]
    quick = {"epochs": 3, "batch_size": 4, "per_category": 4, "crop_seconds": 0.5, "long_crop_seconds": 1.0}
    settings = Settings(**quick | settings)
    return Training(model, stores[0], targets[0], settings, state_file, val=ValidationSet(stores[1], targets[1]))


def trained(sounds, state_file, after_epoch):
    return prepared(sounds, state_file).run(after_epoch)


def test_last_layer_is_trained_alone_first(sounds, tmp_path):
    run = prepared(sounds, tmp_path / "s", epochs=2, head_epochs=1, frozen_norms=True)
    weights = []

    def keep(run):
        weights.append({name: tensor.clone() for name, tensor in run.model.state_dict().items()})

    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.run(keep)
    for name, start in before.items():
        in_head = name.startswith("fc_audioset.")
        assert torch.equal(weights[0][name], start) != in_head, name
        learnt = name.startswith(("conv", "fc", "bn")) and "running" not in name and "num_batches" not in name
        assert torch.equal(weights[1][name], weights[0][name]) != learnt, name


def test_missed_danger_costs_more_than_other_mistakes(sounds, tmp_path):
    run = prepared(sounds, tmp_path / "s", danger_weight=1.0)
    run.dangers = torch.tensor([True, True, False])
    target = torch.eye(3)
    among_dangers = torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    called_safe = torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.0, 5.0], [0.0, 0.0, 5.0]])
    assert run._danger_loss(among_dangers, target) < 0.5 < 2 < run._danger_loss(called_safe, target)


def test_training_stops_early_and_keeps_the_best_epoch(sounds, tmp_path, monkeypatch):
    scores = iter([(1.0, 0.5), (0.9, 0.9), (0.8, 0.9), (0.8, 0.9), (0.7, 0.8), (0.1, 0.6)])  # loss, accuracy
    monkeypatch.setattr(ValidationSet, "score", lambda *_: Score(*(pair := next(scores)), pair[1]))
    run = prepared(sounds, tmp_path / "s", epochs=9, patience=2)
    seen = []
    network = run.run(lambda run: seen.append({k: v.clone() for k, v in run.average.module.state_dict().items()}))
    assert (run.epoch, run.best_epoch) == (5, 3)
    assert all(torch.equal(tensor, seen[2][name]) for name, tensor in network.state_dict().items())


def test_class_weights_use_every_clip_once(sounds, tmp_path):
    run = prepared(sounds, tmp_path / "s", class_weights=True)
    run.targets = np.array([0] * 10 + [1] * 3)
    weights = run._class_weights()
    assert weights[1] / weights[0] == pytest.approx(10 / 3)
    assert sorted(run._sample_epoch(np.random.default_rng(0))) == list(range(13))


def test_no_recording_is_in_training_and_validation():
    clips = [Clip(f"{n}.wav", Path(f"{n}.wav"), n % 2, "ab"[n % 2], 0, f"recording {n // 4}") for n in range(80)]
    names = {clip: clip.category for clip in clips}
    learn, hold = split(clips, names, "auto", 0)
    assert len(learn) + len(hold) == 80
    assert 10 <= len(hold) <= 22
    assert not {clip.source for clip in learn} & {clip.source for clip in hold}
    assert split(clips[:8], names, "auto", 0)[1] == []
    with_folds = [replace(clip, fold=n % 3 + 1) for n, clip in enumerate(clips)]
    learn, hold = split(with_folds, {clip: clip.category for clip in with_folds}, "2", 0)
    assert {clip.fold for clip in hold} == {2}
    assert not {clip.source for clip in learn} & {clip.source for clip in hold}


def test_resumed_training_gives_the_same_network(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "MAX_SAVING_FRACTION", 1e9)  # after every epoch
    complete = trained(sounds, tmp_path / "whole.training", lambda run: None)

    def stop(run):
        if run.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(sounds, tmp_path / "cut.training", stop)
    passes = []
    resumed = trained(sounds, tmp_path / "cut.training", lambda run: passes.append(run.epoch))
    assert passes == [2, 3]
    state = (tmp_path / "cut.training").read_bytes()
    for damaged in (state[: len(state) // 2], b"", b"no state"):
        (tmp_path / "cut.training").write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged: delete it"):
            prepared(sounds, tmp_path / "cut.training")
    for (name, one), other in zip(complete.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name


def test_long_recordings_are_stored_and_scored_in_chunks(tmp_path):
    """Complete to the last sample, as a short one; files that cannot be read completely leave nothing behind."""
    times = np.arange(130 * 16_000) / 16_000
    soundfile.write(tmp_path / "long.flac", 0.1 * np.sin(2 * np.pi * 440 * times), 16_000)
    soundfile.write(tmp_path / "short.wav", 0.1 * np.sin(2 * np.pi * 440 * times[:48_000]), 16_000)
    complete = (tmp_path / "long.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(
        complete[: len(complete) // 2] + bytes(2_000) + complete[len(complete) // 2 + 2_000 :]
    )
    clips = [Clip(name, tmp_path / name, 1, "a", 0, name) for name in ("short.wav", "cut.flac", "long.flac")]
    store = WaveformStore(clips, 16_000)
    assert [len(sound) for sound in store] == [48_000, 130 * 16_000] and [name for name, _ in store.failures] == [
        "cut.flac"
    ]
    tone = np.sin(2 * np.pi * 440 * times[8_000:40_000])
    for sound in store:
        assert np.abs(sound).max() == pytest.approx(32_767, abs=700)
        assert np.corrcoef(sound[8_000:40_000], tone)[0, 1] > 0.999
    score = ValidationSet(store, np.array([0, 1])).score(CompactNet(2, 1).eval(), "cpu", "float32")
    assert 0 <= score.accuracy <= 1 and np.isfinite(score.loss)
