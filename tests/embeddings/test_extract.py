"""Step 2 through its script: the table and its side files, bad clips, long and short ones."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import run

import extractEmbeddingCnn14
from danger_safe.data.fingerprint import fingerprint
from models import engine

MODULE = "extractEmbeddingCnn14"
SCRIPT = f"{MODULE}.py"
COLUMNS = ["file", "label", "category", "fold", "source", "seen"]


def noise(seconds, rate, channels=1, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((int(seconds * rate), channels))


def extracted(folder, tmp_path, *flags, status=0):
    table = tmp_path / "table.csv"
    done = run(SCRIPT, "--dataset", folder, "--checkpoint", "compact", "--output", table, *flags, status=status)
    return done, pd.read_csv(table)


def test_table_has_the_documented_columns(embeddings, sample):
    table = pd.read_csv(embeddings)
    assert list(table.columns) == COLUMNS + [f"feat_{n:04d}" for n in range(768)]
    assert table["file"].tolist() == pd.read_csv(sample / "manifest.csv")["file"].tolist()
    assert not table["seen"].any()
    assert np.isfinite(table.filter(like="feat_").to_numpy()).all()
    info = json.loads(embeddings.with_suffix(".json").read_text())
    assert info["counts"] == {"clips": 180, "failures": 0, "danger": 80, "safe": 100, "seen": 0}
    assert info["checkpoint"]["name"] == "compact"
    assert len(info["checkpoint"]["sha256"]) == 64
    assert info["sample_rate"] == 32_000
    assert embeddings.with_name("audio_embeddings_failures.csv").read_text() == "file,reason\n"


def test_clips_csv_sets_recordings_or_is_refused(tmp_path, refused):
    folder = tmp_path / "sounds"
    for number, name in enumerate(("Danger/a.wav", "Danger/b.wav", "Safe/c.wav")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, noise(1, 8_000, seed=number), 8_000)
    (folder / "clips.csv").write_text(
        "file,source\nDanger\\a.wav,one\nDanger/b.wav,one\ngone.wav,two\nSafe/c.wav,two\n"
    )
    assert extracted(folder, tmp_path, "--checkpoint", "mfcc")[1]["source"].tolist() == ["one", "one", "two"]
    (folder / "clips.csv").write_text("file,source\nDanger/a.wav,one\ndanger/B.wav,one\n")
    words = "names danger/B.wav, which is not there, and does not name Danger/b.wav"
    refused(MODULE, "--dataset", folder, "--checkpoint", "mfcc", "--output", tmp_path / "t.csv", words=words)


def test_unreadable_clips_are_listed_and_the_others_embedded(tmp_path):
    folder = tmp_path / "sounds"
    for name in ("Danger", "Safe"):
        (folder / name).mkdir(parents=True)
    soundfile.write(folder / "Danger" / "còi báo động, 1.flac", noise(1, 48_000, channels=2), 48_000)
    soundfile.write(folder / "Safe" / "short.wav", noise(0.01, 8_000), 8_000)
    soundfile.write(folder / "Safe" / "long.ogg", noise(35, 16_000), 16_000)
    (folder / "Safe" / "empty.wav").touch()
    (folder / "Safe" / "text.wav").write_text("not a sound at all")
    soundfile.write(folder / "Danger" / "no_samples.wav", noise(0, 8_000), 8_000)
    bad = noise(1, 32_000)
    bad[7] = np.nan
    soundfile.write(folder / "Danger" / "nan.wav", bad, 32_000, subtype="FLOAT")
    (folder / "Danger" / "nowhere.wav").symlink_to("missing.wav")

    done, table = extracted(folder, tmp_path, status=3)
    assert table["file"].tolist() == ["Danger/còi báo động, 1.flac", "Safe/long.ogg", "Safe/short.wav"]
    failures = pd.read_csv(tmp_path / "table_failures.csv").set_index("file")["reason"]
    assert "empty" in failures["Safe/empty.wav"]
    assert "decoded" in failures["Safe/text.wav"]
    assert "no samples" in failures["Danger/no_samples.wav"]
    assert "NaN" in failures["Danger/nan.wav"]
    assert "link" in failures["Danger/nowhere.wav"]
    assert "3 clips in" in done.stdout
    assert "5 failures" in done.stdout


def test_rows_do_not_depend_on_batches(sample, embeddings, tmp_path):
    folder = tmp_path / "sounds"
    for name in ("Danger", "Safe"):
        (folder / name).mkdir(parents=True)
        for path in sorted((sample / name).glob("*.wav"))[:3]:
            (folder / name / path.name).write_bytes(path.read_bytes())
    _, single = extracted(folder, tmp_path, "--batch-size", "1")
    batched = pd.read_csv(embeddings).set_index("file").loc[single["file"]]
    assert np.allclose(single.filter(like="feat_"), batched.filter(like="feat_"), atol=1e-4)


def test_training_clips_are_recognised_under_any_name(tmp_path, monkeypatch, capsys):
    """Renamed, in another folder, as FLAC with tags. A new sound with an old name is not recognised."""
    import torch

    from models.checkpoints import save_checkpoint
    from models.compact import CompactNet

    folder, trained = tmp_path / "sounds", tmp_path / "trained"
    trained.mkdir()
    for label in ("Danger", "Safe"):
        (folder / label / "elsewhere").mkdir(parents=True)
    for number in range(3):
        soundfile.write(trained / f"{number}.wav", noise(1, 44_100, channels=2, seed=number), 44_100)
    (folder / "Danger" / "elsewhere" / "renamed.wav").write_bytes((trained / "0.wav").read_bytes())
    samples, rate = soundfile.read(trained / "1.wav", dtype="int16")
    with soundfile.SoundFile(folder / "Safe" / "as FLAC.flac", "w", rate, 2, "PCM_16") as flac:
        flac.title = "a tag"
        flac.write(samples)
    soundfile.write(folder / "Safe" / "2.wav", noise(1, 44_100, channels=2, seed=9), 44_100)
    (folder / "Safe" / "broken.wav").write_bytes(b"RIFF")
    torch.manual_seed(0)
    network, heard = tmp_path / "net.pth", [fingerprint(path) for path in trained.iterdir()]
    save_checkpoint(network, CompactNet(2, 1), categories=["a", "b"], fingerprints=heard, licence="", training={})
    arguments = ["--dataset", folder, "--checkpoint", network, "--output", tmp_path / "table.csv"]
    with monkeypatch.context() as patch:  # without MNN, for which the network would be converted first
        patch.setattr(engine, "is_installed", lambda name: name == "torch")
        assert extractEmbeddingCnn14.main([str(argument) for argument in arguments]) == 3
    table = pd.read_csv(tmp_path / "table.csv")
    assert dict(zip(table["file"], table["seen"], strict=True)) == {
        "Danger/elsewhere/renamed.wav": True, "Safe/2.wav": False, "Safe/as FLAC.flac": True,
    }  # fmt: skip
    said = capsys.readouterr().err
    assert "2 of 4 clips were in the checkpoint's own training" in said and "older" not in said
    content = torch.load(network, weights_only=True)
    torch.save({k: v for k, v in content.items() if k != "fingerprints"} | {"clips": ["2.wav"]}, network)
    done, table = extracted(folder, tmp_path, "--checkpoint", network, status=3)
    assert not table["seen"].any() and "is of an older version, which knew its training sounds by name" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words", "status"),
    [
        (["--dataset", "nowhere"], "no such folder", 1),
        (["--checkpoint", "nothing.pth"], "no such checkpoint", 1),
        (["--output", "table.xlsx"], "must be named .csv or .parquet", 2),
        (["--batch-size", "0"], "must be 1 or more", 2),
        (["--device", "gpu"], "invalid choice", 2),
    ],
)
def test_wrong_usage_is_explained(sample, refused, flags, words, status):
    refused(MODULE, "--dataset", sample, "--checkpoint", "compact", *flags, status=status, words=words)
