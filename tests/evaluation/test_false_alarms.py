"""False alarms per hour, thresholds for a limit of them, and Unknown: through the scripts, on the sample sounds."""

import contextlib
import io
import json
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import run

import measure_false_alarms
from danger_safe.evaluation import window_table
from danger_safe.evaluation.false_alarms import WindowedEvaluation
from danger_safe.evaluation.intervals import Estimate, fraction_with_interval, rate_with_interval
from danger_safe.evaluation.thresholds import threshold_for, too_little_sound
from danger_safe.evaluation.window_table import WindowTable


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """(folder of a Logistic Regression on some of the sample, output of the measurement, the model before it)."""
    folder = tmp_path_factory.mktemp("hour")
    for file in (*trained[0].glob("audio_embeddings*"), *trained[0].glob("logreg_*")):
        shutil.copy(file, folder)
    flags = ("--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder)
    before = joblib.load(folder / "logreg_model.joblib")
    assert "operating_points" not in before["metrics"] and not (folder / "audio_embeddings_windows.npz").exists()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        measure_false_alarms.main([str(flag) for flag in flags])  # in this process, because it takes a while
    return folder, printed.getvalue(), before


def test_false_alarms_per_hour_are_measured_and_kept_in_the_model(measured):
    folder, printed, before = measured
    assert printed.startswith("Measuring 1 model on at most 20 minutes of safe sound\n")
    assert all(words in printed for words in ("false alarms (", "rule of three", "left out of training"))
    metrics, saved = (
        json.loads((folder / "logreg_metrics.json").read_text()),
        joblib.load(folder / "logreg_model.joblib"),
    )
    assert metrics.pop("made_by") and metrics == saved["metrics"]
    hour, points = metrics["per_hour"], metrics["operating_points"]
    for estimate in (hour["danger_recall"], hour["false_alarms_per_hour"], hour["at_min_recall"]):
        value, low, high = estimate
        assert low <= value <= high
    assert 0 < hour["minutes"] <= 20
    recall = [point["danger_recall"] for point in points]
    assert recall == sorted(recall, reverse=True) and len(points) == 49
    assert (folder / "logreg_operating_point.png").read_bytes().startswith(b"\x89PNG")
    same = ("threshold", "checkpoint", "dimensions", "categories", "versions")
    assert (
        all(saved[key] == before[key] for key in same) and saved["metrics"]["ranking"] == before["metrics"]["ranking"]
    )
    assert saved["unknown"]["level"] == metrics["unknown"]["level"] != before["unknown"]["level"]
    assert (
        metrics["unknown"]["known_called_unknown"][0] < 0.15 and metrics["unknown"]["left_out"]["danger"]["clips"] > 0
    )


def test_windows_are_reused_for_unchanged_sounds(measured, tmp_path, monkeypatch):
    folder, _, _ = measured
    for file in folder.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("danger_safe.reports.operating_point_plot.draw_operating_points", lambda *_: None)
    kept = tmp_path / "audio_embeddings_windows.npz"
    before = kept.read_bytes()
    with np.load(kept) as arrays:
        windows = WindowTable(**{name: arrays[name] for name in arrays.files if name != "key"})
    listened = []

    def listen(*arguments):
        listened.append(arguments)
        return windows

    with monkeypatch.context() as patch:
        patch.setattr(window_table, "_embed", listen)
        measure_false_alarms.main([])
        assert not listened and kept.read_bytes() == before
        kept.write_bytes(before[:1000])  # damaged, or a user's file: neither used nor overwritten
        measure_false_alarms.main([])
        assert len(listened) == 1 and kept.read_bytes() == before[:1000]
    kept.unlink()
    monkeypatch.setattr(window_table, "MAX_DANGERS", 5)
    measure_false_alarms.main(["--minutes", "1"])
    assert kept.exists()
    assert json.loads((tmp_path / "logreg_metrics.json").read_text())["per_hour"]["minutes"] <= 1


def test_prediction_with_a_limit_reports_how_little_sound_was_measured(measured, sample):
    folder, _, _ = measured
    recording = next((sample / "Danger").iterdir())
    for most, threshold in (("1000000", 0.02), ("2", None)):
        model = ("--model", folder / "logreg_model.skops", "--max-false-alarms-per-hour", most)
        done = run("predict_danger.py", recording, *model)
        assert "false alarms per hour" in done.stderr and (threshold is None or "threshold 0.02" in done.stderr)
        assert ("cannot show at most 2 false alarms per hour" in done.stderr) == (most == "2")
    assert "1.5 hours without any would show it" in done.stderr
    assert "no length" in too_little_sound(0, 600) and not too_little_sound(3, 60) and too_little_sound(2.9, 60)


def test_measurement_needs_the_sounds_and_models_of_the_table(measured, tmp_path, refused):
    folder, _, _ = measured
    table = tmp_path / "audio_embeddings.csv"
    for name in ("audio_embeddings.csv", "logreg_model.skops"):
        shutil.copy(folder / name, tmp_path)
    refused("measure_false_alarms", words="trained on embeddings of checkpoint")  # the table no longer names them
    made_of = json.loads((folder / "audio_embeddings.json").read_text())
    made_of["made_of"]["dataset"] = "some"
    table.with_suffix(".json").write_text(json.dumps(made_of))
    refused("measure_false_alarms", words="give --dataset")
    first = tmp_path / "some" / pd.read_csv(table)["file"][0]
    first.parent.mkdir(parents=True)
    soundfile.write(first, np.zeros(16_000), 16_000)  # the other models are missing
    refused("measure_false_alarms", words="it could be read when the table was made")
    refused("measure_false_alarms", "--minutes", "0", status=2)
    refused("measure_false_alarms", "--output-dir", "empty", words="no *_model.skops")


def test_sounds_unlike_the_training_data_are_unknown_unless_danger(measured, tmp_path):
    folder, _, _ = measured
    time = np.arange(16_000) / 32_000
    notes = [np.sin(2 * np.pi * 262 * 2 ** (n / 10) * time) * np.exp(-time / 0.15) for n in range(10)]
    soundfile.write(tmp_path / "piano.wav", 0.5 * np.concatenate(notes), 32_000)
    model = ("--model", folder / "logreg_model.skops")
    done = run("predict_danger.py", tmp_path / "piano.wav", *model, "--threshold", "1", "--format", "json")
    assert json.loads(done.stdout)["verdict"] == "Unknown"
    done = run("predict_danger.py", tmp_path / "piano.wav", *model, "--threshold", "1e-9", "--format", "json")
    assert json.loads(done.stdout)["verdict"] == "Danger"


def test_events_are_counted_in_their_fold():
    """Two folds, each with joined safe clips (two windows per clip, one per second) and a separate danger."""
    clips = np.repeat([0, 1, 2, 3, 4], 20)
    start = np.concatenate([np.arange(40) / 2, np.arange(40) / 2, np.arange(20) / 2])
    stretch = np.repeat([0, 1, 2], [40, 40, 20])
    windows = WindowTable(np.zeros((100, 1)), start, start + 3, np.ones(100, bool), stretch, clips, np.ones(100, bool))
    scores = np.where(clips == 1, 0.5, np.where(clips == 4, 0.9, 0.0))
    result = WindowedEvaluation(windows, scores, np.array([0, 0, 0, 0, 1]), np.array([1, 1, 2, 2, 1]), np.arange(5))
    assert result.events(np.full(5, 0.4)).tolist() == [0, 1, 0, 0, 1]
    assert result.events(np.array([0.6, 0.6, 0.4, 0.4, 0.6])).tolist() == [0, 0, 0, 0, 1]
    point = threshold_for(result.points(), 0)
    assert point.threshold == pytest.approx(0.52) and point.danger_recall == 1
    assert result.estimate(np.full(5, 0.4)).false_alarms_per_hour.value == pytest.approx(1 / 40 * 3600)


def test_intervals_of_few_recordings_are_exact():
    """For one event and none: the intervals of Clopper and Pearson, and of Garwood."""
    alone = np.arange(30)
    assert fraction_with_interval(np.ones(30, bool), alone).as_list() == [1, pytest.approx(0.884, abs=1e-3), 1]
    assert fraction_with_interval(alone > 0, alone).as_list() == pytest.approx([29 / 30, 0.828, 1.0], abs=1e-3)
    hours = np.full(30, 1 / 60)
    assert rate_with_interval(np.zeros(30), hours, alone).as_list() == pytest.approx([0, 0, 3.689 / 0.5], abs=1e-2)
    assert rate_with_interval((alone == 3) * 1, hours, alone).as_list() == pytest.approx([2, 0, 5.572 / 0.5], abs=1e-2)


def test_clips_of_one_recording_count_once():
    """Twenty clips of two recordings are as informative as two clips."""
    twice = np.repeat([0, 1], 10)
    assert fraction_with_interval(twice == 1, twice) == Estimate(0.5, 0.0, 1.0)


def test_intervals_are_wider_if_folds_differ_by_more_than_chance():
    """Four equally good models, and four of which one has half the recall: a fifth model could be like that one."""
    rng = np.random.default_rng(0)
    folds, alone = np.repeat(np.arange(4), 100), np.arange(400)
    for shares, wider in (((0.8, 0.8, 0.8, 0.8), False), ((0.9, 0.9, 0.9, 0.45), True)):
        hits = rng.random(400) < np.repeat(shares, 100)
        (value, low, high), (same, lowest, highest) = (
            fraction_with_interval(hits, alone, f).as_list() for f in (None, folds)
        )
        assert value == same and lowest <= low and high <= highest <= 1
        assert (low - lowest > 0.1) == wider
        (_, low, high), (_, lowest, highest) = (
            rate_with_interval(hits * 1.0, np.full(400, 0.01), alone, f).as_list() for f in (None, folds)
        )
        assert (low - lowest > 10) == wider and (highest - high > 10) == wider
