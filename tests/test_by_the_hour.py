"""False alarms by the hour, the threshold that keeps to so many, and Unknown: through the scripts, on the sample sounds."""

import json
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import run

from danger_safe.evaluation.false_alarms import Trial
from danger_safe.evaluation.intervals import rate_with_interval, share_with_interval
from danger_safe.evaluation.thresholds import threshold_for
from danger_safe.evaluation.window_table import Heard

TRAIN = "train_logreg_model.py"
SHORT = ("--ordinary-minutes", "2")  # to listen to


@pytest.fixture(scope="module")
def trained(embeddings, tmp_path_factory):
    """(folder of a Logistic Regression on the sample, what its training said)."""
    folder = tmp_path_factory.mktemp("hour")
    return folder, train(embeddings, folder, *SHORT)


def train(embeddings, folder, *flags):
    """A Logistic Regression, on a copy of the table, in a folder; the finished process."""
    for file in embeddings.parent.glob("audio_embeddings*"):
        shutil.copy(file, folder)
    return run(TRAIN, *flags, "--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder)


def test_a_training_promises_recall_and_false_alarms_an_hour(trained):
    folder, done = trained
    assert "in an hour of ordinary sound" in done.stdout and "FALSE ALARMS" not in done.stderr
    metrics = json.loads((folder / "logreg_metrics.json").read_text())
    hour, points = metrics["by_the_hour"], metrics["operating_points"]
    for name in ("danger_recall", "false_alarms_an_hour"):
        value, low, high = hour[name]
        assert low <= value <= high
    assert 0 < hour["minutes"] <= 2
    recall = [point["danger_recall"] for point in points]
    assert recall == sorted(recall, reverse=True) and len(points) == 49
    assert (folder / "logreg_operating_point.png").read_bytes().startswith(b"\x89PNG")


def test_the_next_training_need_not_listen_again(trained):
    folder, _ = trained
    kept = folder / "audio_embeddings_windows.npz"
    before = kept.stat().st_mtime_ns
    done = run(TRAIN, *SHORT, "--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder / "again")
    assert kept.stat().st_mtime_ns == before and "Listening" not in done.stderr
    kept.write_bytes(kept.read_bytes()[:1000])  # damaged: made anew
    run(TRAIN, *SHORT, "--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder / "again")
    assert kept.stat().st_size > 1000
    table = pd.read_csv(folder / "audio_embeddings.csv")
    table["feat_0000"] = table["feat_0000"].astype(float) + 0.5 * (
        table.index == 0
    )  # another sound under the same name
    table.to_csv(folder / "audio_embeddings.csv", index=False)
    before = kept.stat().st_mtime_ns
    run(TRAIN, *SHORT, "--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder / "again")
    assert kept.stat().st_mtime_ns > before


def test_a_threshold_by_false_alarms_and_predicting_with_it(trained, tmp_path, sample):
    folder, _ = trained
    arguments = ("--embeddings", folder / "audio_embeddings.csv", "--output-dir", tmp_path)
    run(TRAIN, *SHORT, *arguments, "--max-false-alarms-per-hour", "0")
    strict = joblib.load(tmp_path / "logreg_model.joblib")
    points = {point["threshold"]: point for point in strict["metrics"]["operating_points"]}
    assert points[strict["threshold"]]["false_alarms_an_hour"] == 0
    recording = next((sample / "Danger").iterdir())
    model = ("--model", folder / "logreg_model.joblib", "--max-false-alarms-per-hour", "1000000")
    done = run("predict_danger.py", recording, *model)
    assert "false alarms an hour" in done.stderr and "threshold 0.02" in done.stderr


def test_without_its_sounds_a_training_says_what_it_does_not_know(trained, tmp_path):
    folder, _ = trained
    table = tmp_path / "audio_embeddings.csv"
    shutil.copy(folder / "audio_embeddings.csv", table)
    done = run(TRAIN, "--embeddings", table, "--output-dir", tmp_path)
    assert "FALSE ALARMS AN HOUR ARE NOT KNOWN" in done.stderr and "--dataset" in done.stderr
    first = tmp_path / "some" / pd.read_csv(table)["file"][0]
    first.parent.mkdir(parents=True)
    soundfile.write(first, np.zeros(16_000), 16_000)  # the others are not there
    made_of = json.loads((folder / "audio_embeddings.json").read_text())
    made_of["made_of"]["dataset"] = "some"
    table.with_suffix(".json").write_text(json.dumps(made_of))
    done = run(TRAIN, "--embeddings", table, "--output-dir", tmp_path)
    assert "ARE NOT KNOWN" in done.stderr and "is missing: it could be read" in done.stderr
    done = run(TRAIN, "--embeddings", table, "--output-dir", tmp_path, "--dataset", tmp_path / "nowhere", status=1)
    assert "nowhere" in done.stderr
    done = run(TRAIN, "--embeddings", table, "--max-false-alarms-per-hour", "5", "--output-dir", tmp_path, status=1)
    assert "needs the sounds" in done.stderr
    flags = ("--max-false-alarms-per-hour", "5", "--ordinary-minutes", "0")
    assert "needs --ordinary-minutes" in run(TRAIN, "--embeddings", table, *flags, status=2).stderr


def test_what_is_like_nothing_in_training_is_unknown_unless_it_is_danger(embeddings, tmp_path):
    train(embeddings, tmp_path)  # hears all safe sounds: two minutes of them hold too few to tell a share
    rng = np.random.default_rng(0)
    knocks = np.zeros(5 * 32_000)
    knocks[::16_000] = 1.0
    knocks = np.convolve(knocks, rng.standard_normal(800) * np.exp(-np.arange(800) / 100))[: 5 * 32_000]
    soundfile.write(tmp_path / "knocks.wav", 0.5 * knocks / np.abs(knocks).max(), 32_000)
    model = ("--model", tmp_path / "logreg_model.joblib")
    done = run("predict_danger.py", tmp_path / "knocks.wav", *model, "--threshold", "1", "--format", "json")
    assert json.loads(done.stdout)["verdict"] == "Unknown"
    done = run("predict_danger.py", tmp_path / "knocks.wav", *model, "--threshold", "1e-9", "--format", "json")
    assert json.loads(done.stdout)["verdict"] == "Danger"
    metrics = json.loads((tmp_path / "logreg_metrics.json").read_text())["unknown"]
    assert metrics["known_called_unknown"][0] < 0.15
    assert metrics["left_out"]["danger"]["clips"] > 0


def test_events_are_counted_where_they_are_heard():
    """Two folds, each a stretch of safe clips (two windows of a clip a second), and a danger by itself."""
    clips = np.repeat([0, 1, 2, 3, 4], 20)
    start = np.concatenate([np.arange(40) / 2, np.arange(40) / 2, np.arange(20) / 2])
    stretch = np.repeat([0, 1, 2], [40, 40, 20])
    heard = Heard(np.zeros((100, 1)), start, start + 3, np.ones(100, bool), stretch, clips, np.ones(100, bool))
    alone = np.where(clips == 1, 0.5, np.where(clips == 4, 0.9, 0.0))
    trial = Trial(heard, alone, np.array([0, 0, 0, 0, 1]), np.array([1, 1, 2, 2, 1]), np.arange(5))
    assert trial.events(np.full(5, 0.4)).tolist() == [0, 1, 0, 0, 1]
    assert trial.events(np.array([0.6, 0.6, 0.4, 0.4, 0.6])).tolist() == [0, 0, 0, 0, 1]
    point = threshold_for(trial.points(), 0)
    assert point["threshold"] == pytest.approx(0.52) and point["danger_recall"] == 1
    assert trial.promise(np.full(5, 0.4))["false_alarms_an_hour"][0] == pytest.approx(1 / 40 * 3600)


def test_intervals_do_not_claim_what_so_few_recordings_cannot_show():
    """The exact intervals for one event and none, as tables of Clopper and Pearson, and of Garwood, have them."""
    alone = np.arange(30)
    assert share_with_interval(np.ones(30, bool), alone) == [1, pytest.approx(0.884, abs=1e-3), 1]
    assert share_with_interval(alone > 0, alone) == pytest.approx([29 / 30, 0.828, 1.0], abs=1e-3)
    hours = np.full(30, 1 / 60)
    assert rate_with_interval(np.zeros(30), hours, alone) == pytest.approx([0, 0, 3.689 / 0.5], abs=1e-2)
    assert rate_with_interval((alone == 3) * 1, hours, alone) == pytest.approx([2, 0, 5.572 / 0.5], abs=1e-2)


def test_clips_of_one_recording_count_once():
    """Twenty clips of two recordings tell no more than two clips do."""
    twice = np.repeat([0, 1], 10)
    assert share_with_interval(twice == 1, twice) == [0.5, 0.0, 1.0]


def test_intervals_are_wider_where_folds_differ_by_more_than_luck():
    """Four models of equal skill, and four of which one finds half as much: the fifth could be like that one."""
    rng = np.random.default_rng(0)
    folds, alone = np.repeat(np.arange(4), 100), np.arange(400)
    for shares, wider in (((0.8, 0.8, 0.8, 0.8), False), ((0.9, 0.9, 0.9, 0.45), True)):
        hits = rng.random(400) < np.repeat(shares, 100)
        (value, low, high), (same, lowest, highest) = (share_with_interval(hits, alone, f) for f in (None, folds))
        assert value == same and lowest <= low and high <= highest <= 1
        assert (low - lowest > 0.1) == wider
        (_, low, high), (_, lowest, highest) = (
            rate_with_interval(hits * 1.0, np.full(400, 0.01), alone, f) for f in (None, folds)
        )
        assert (low - lowest > 10) == wider and (highest - high > 10) == wider
