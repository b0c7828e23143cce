"""Clips that the network was trained on are scored through twins that never heard them."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import run
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from danger_safe.embeddings.table import EmbeddingTable, Twin
from danger_safe.evaluation.cross_validation import Rule, evaluate
from models.checkpoint_files import COMPACT, twins_beside

TRAIN = "train_logreg_model.py"


def save_network(path, clips, seed, width=1, **how):
    """An untrained compact network that says it was trained on ``clips``."""
    import torch

    from models.checkpoints import save_checkpoint
    from models.compact import CompactNet

    torch.manual_seed(seed)
    save_checkpoint(path, CompactNet(2, width), categories=["a", "b"], clips=clips, licence="", training={}, **how)


@pytest.fixture(scope="module")
def seen(sample, tmp_path_factory):
    """(folder, its table): a network that knows all but three of the sample's clips, and two twins that halve them."""
    folder = tmp_path_factory.mktemp("twins")
    manifest = pd.read_csv(sample / "manifest.csv")
    names, folds = manifest["file"].str.rpartition("/")[2], manifest["fold"]
    new = manifest.index[:3]
    save_network(folder / "net.pth", names.drop(new).tolist(), 0)
    for number, kept in enumerate((folds <= 2, folds > 2)):
        save_network(folder / f"net_without_{number}.pth", names[kept & ~names.index.isin(new)].tolist(), number + 1)
    table = folder / "audio_embeddings.csv"
    run("extractEmbeddingCnn14.py", "--dataset", sample, "--checkpoint", folder / "net.pth", "--output", table)
    return folder, pd.read_csv(table)


def train(folder):
    flags = ("--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder, "--ordinary-minutes", "1")
    return run(TRAIN, *flags)


def copy(folder, to, *names):
    """Files of a network and its table, in a folder of their own."""
    for name in names:
        shutil.copy(folder / name, to)
    described = (folder / "audio_embeddings.json").read_text(encoding="utf-8")
    (to / "audio_embeddings.json").write_text(described.replace(str(folder), str(to)), encoding="utf-8")


def test_each_known_clip_is_scored_through_a_network_that_does_not_know_it(seen):
    folder, table = seen
    done = train(folder)
    assert "177 scored through twins that never heard them" in done.stdout
    assert "On new recordings like these: finds" in done.stdout and "in an hour of ordinary sound" in done.stdout
    assert "OPTIMISTIC" not in done.stderr and "SEEN" not in done.stdout
    with np.load(folder / "audio_embeddings_twins.npz") as kept:
        scores = kept["scores"]
        assert kept["features"].shape == (2, 180, 32)
    assert scores.sum(axis=0).tolist() == table["seen"].astype(int).tolist()  # each known clip once, new ones by none
    first_knows = table["fold"] <= 2
    assert not scores[0][first_knows].any() and not scores[1][~first_knows].any()
    again = train(folder)
    assert again.stdout == done.stdout and "twins" not in again.stderr  # they are not asked again
    flags = ("--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder)
    assert "OPTIMISTIC" not in run("compare_models.py", *flags).stderr


def test_without_a_twin_or_the_sounds_the_scores_are_called_too_good(seen, tmp_path):
    folder, table = seen
    copy(folder, tmp_path, "net.pth", "net_without_0.pth", "audio_embeddings.csv")
    (tmp_path / "audio_embeddings_twins.npz").write_bytes(b"damaged")
    known = int((table["seen"] & (table["fold"] <= 2)).sum())
    done = train(tmp_path)
    assert f"OPTIMISTIC: {known} of 180" in done.stderr
    assert "NO PROMISE" in done.stdout and f"{177 - known} scored through twins" in done.stdout
    away = tmp_path / "away"
    away.mkdir()
    shutil.copy(folder / "audio_embeddings.csv", away)
    done = train(away)
    assert "TWINS COULD NOT BE ASKED" in done.stderr and "OPTIMISTIC: 177 of 180" in done.stderr


def test_a_network_of_another_size_is_no_twin(seen, tmp_path):
    folder, _ = seen
    copy(folder, tmp_path, "net.pth", "audio_embeddings.csv")
    save_network(tmp_path / "net_without_all.pth", ["x.wav"], 5, width=2)
    done = train(tmp_path)
    assert "net_without_all.pth is no twin" in done.stderr and "OPTIMISTIC" in done.stderr


def test_what_the_network_knows_by_heart_counts_for_nothing():
    """Own embeddings that tell the label of every clip, since the network was trained on it; twins that cannot."""
    rng = np.random.default_rng(0)
    labels, noise = np.tile([0, 1], 100), rng.standard_normal((2, 200, 8)).astype(np.float32)
    clips = pd.DataFrame({"label": labels, "fold": np.arange(200) // 2 % 5 + 1, "source": np.arange(200), "seen": True})
    table = EmbeddingTable(clips, noise[0] + 3 * labels[:, None].astype(np.float32), {}, None)
    half = clips["fold"].to_numpy() > 2
    twins = (Twin("a", noise[0], half), Twin("b", noise[1], ~half))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    by_heart, honest = (evaluate(model, t, Rule(), 0) for t in (table, replace(table, twins=twins)))
    assert by_heart.rule.highest == 0.5 and honest.rule.highest == 1.0
    apart = [r.scores[labels == 1].mean() - r.scores[labels == 0].mean() for r in (by_heart, honest)]
    assert apart[0] > 0.8 and abs(apart[1]) < 0.15


def test_the_repositorys_twins_share_out_what_its_network_knows():
    from models.checkpoints import load_model

    _, own = load_model("compact")
    twins = [load_model(str(file))[1] for file in twins_beside(COMPACT)]
    assert len(twins) == 4
    assert all(twin.clips < own.clips and twin.categories == own.categories for twin in twins)
    lacking = [own.clips - twin.clips for twin in twins]
    esc50 = {clip for clip in own.clips if re.fullmatch(r"[1-5]-\d+-[A-Z]-\d+\.wav", clip)}
    assert len(esc50) == 1_600 and sum(len(clips & esc50) for clips in lacking) == 1_600
    assert frozenset.union(*lacking) >= esc50 and len(frozenset.union(*lacking)) > 0.95 * len(own.clips)


def test_a_byte_for_a_weight_is_enough(tmp_path):
    import torch

    from models.checkpoints import load_model

    for name, small in (("two", False), ("one", True)):
        save_network(tmp_path / f"{name}.pth", ["x.wav"], 3, width=8, small=small)
    two, one = (load_model(str(tmp_path / f"{name}.pth"))[0] for name in ("two", "one"))
    assert (tmp_path / "one.pth").stat().st_size < 0.6 * (tmp_path / "two.pth").stat().st_size
    sound = 0.1 * torch.randn(1, 64_000)
    with torch.no_grad():
        there, here = (model(sound)["embedding"] for model in (two, one))
    assert (there - here).norm() < 0.03 * there.norm()
