"""Steps 3 and 4 through their scripts: reports, saved models, the original failure, invalid tables."""

import json

import joblib
import numpy as np
import pandas as pd
import pytest
from helpers import make_table, train

import train_logreg_model
import train_mlp_model
import train_rf_model
from danger_safe.data.splits import assign_folds
from danger_safe.embeddings.table import read_table
from danger_safe.evaluation.calibration import Calibration, calibrated, calibration, fit_sigmoid
from danger_safe.evaluation.cross_validation import Evaluation, evaluate
from danger_safe.evaluation.report import collect_warnings, summarise
from danger_safe.evaluation.thresholds import ThresholdRule, estimate_on_clips, threshold_at_recall

KEYS = ("rf", "logreg", "mlp")


@pytest.mark.parametrize("key", KEYS)
def test_training_writes_model_metrics_and_plots(trained, key):
    folder, _ = trained
    saved = joblib.load(folder / f"{key}_model.joblib")
    contract = {"pipeline", "threshold", "checkpoint", "dimensions", "categories", "metrics", "versions"}
    assert set(saved) == contract | {"unknown", "out_of_fold", "made_by"}
    assert saved["checkpoint"]["name"] == "compact"
    assert not hasattr(saved["pipeline"][-1].estimator, "classes_")  # the fitted classifier is in the file only once
    metrics = json.loads((folder / f"{key}_metrics.json").read_text())
    assert metrics["threshold"] == saved["threshold"]
    assert np.sum(metrics["at_0.5"]["confusion"]) == 45  # every clip once
    assert metrics["at_threshold"]["danger_recall"]["all"] >= 0.95
    assert metrics["ranking"]["roc_auc"]["all"] > 0.9  # synthetic sounds are easy to classify
    assert (folder / f"{key}_confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    for name in ("reliability", "category_recall"):
        assert (folder / f"{key}_{name}.png").read_bytes().startswith(b"\x89PNG")
    value, low, high = metrics["estimate"]["danger_recall"]
    assert 0.5 < low <= value <= high <= 1
    table = read_table(folder / "audio_embeddings.csv")
    assert (saved["pipeline"].predict(table.features) == table.labels).mean() > 0.95


def test_comparison_uses_the_saved_scores(trained):
    folder, printed = trained
    rows = pd.read_csv(folder / "model_comparison.csv").set_index("file")
    assert len(rows) == 3
    for key in KEYS:
        metrics = json.loads((folder / f"{key}_metrics.json").read_text())
        assert rows.loc[f"{key}_model.skops", "roc_auc"] == pytest.approx(metrics["ranking"]["roc_auc"]["all"], 1e-4)
        assert f"{key}_confusion_matrix.png" in printed
        assert rows.loc[f"{key}_model.skops", "FN@threshold"] == metrics["at_threshold"]["confusion"][1][0]
        assert rows.loc[f"{key}_model.skops", "recall of siren"] == metrics["categories"]["siren"]["at_threshold"]
    assert (folder / "model_comparison.png").read_bytes().startswith(b"\x89PNG")
    assert printed.count("(95 % interval over recordings)") == 2 and "\nUse " in printed
    assert printed.count("true Danger") == 2  # all matrices side by side, at 0.5 and at the chosen thresholds


def test_model_of_another_checkpoint_is_refused(trained, tmp_path, refused):
    make_table(tmp_path / "t.csv", dimensions=512)
    model = trained[0] / "rf_model.joblib"
    refused("compare_models", "--embeddings", "t.csv", "--models", model, words="checkpoint")


@pytest.mark.parametrize("script", [train_rf_model, train_logreg_model, train_mlp_model])
def test_classifier_that_always_answers_safe_gets_a_warning(tmp_path, script, capsys):
    """The original failure of this project: embeddings without information, few dangers."""
    table = make_table(tmp_path / "t.csv", clips=80)
    noise = np.random.default_rng(0).standard_normal((80, 16))  # one such table in ten seems informative to a model
    table[features(table)] = 1.0 + 1e-6 * noise
    table.to_csv(tmp_path / "t.csv", index=False)
    if script is train_logreg_model:
        train(script, "--embeddings", tmp_path / "t.csv", "--output-dir", tmp_path)
        warned = capsys.readouterr().err
    else:
        result = evaluate(script.build(0), read_table(tmp_path / "t.csv"), ThresholdRule(), seed=0)
        warned = "\n".join(collect_warnings(summarise(result), seen=0))
    assert "NO BETTER THAN GUESSING" in warned or "TO EVERYTHING" in warned


def test_always_safe_has_its_own_warning():
    labels = np.array([0, 0, 0, 1] * 5)
    folds = np.repeat(np.arange(5), 4)
    scores = np.full(20, 0.1)
    result = Evaluation(labels, scores, scores, folds, np.arange(20), ThresholdRule(), 0.5, "test")
    assert any("ANSWERS SAFE TO EVERYTHING" in warning for warning in collect_warnings(summarise(result), seen=0))


def test_scores_on_seen_clips_get_a_warning(tmp_path, capsys):
    table = make_table(tmp_path / "t.csv")
    rule = ThresholdRule.for_recall(0.5)
    assert evaluate(train_logreg_model.build(0), read_table(tmp_path / "t.csv"), rule, seed=0).threshold > 0.5
    table["seen"] = True
    table.to_csv(tmp_path / "t.csv", index=False)
    train(train_logreg_model, "--embeddings", tmp_path / "t.csv", "--output-dir", tmp_path, "--min-recall", 0.5)
    printed, warned = capsys.readouterr()
    assert "OPTIMISTIC: 60 of 60" in warned
    assert "NO ESTIMATE" in printed and "On new recordings" not in printed
    assert joblib.load(tmp_path / "logreg_model.joblib")["threshold"] == 0.5
    metrics = json.loads((tmp_path / "logreg_metrics.json").read_text())
    assert metrics["estimate"]["danger_recall"][0] == metrics["at_0.5"]["danger_recall"]["all"]  # of this threshold


def features(table):
    return [name for name in table if name.startswith("feat_")]


def as_text(table):
    """Write what the first version wrote: str(array), shortened by NumPy."""
    arrays = [str(np.random.default_rng(n).standard_normal(2048)) for n in range(len(table))]
    return table.drop(columns=features(table)).assign(embedding=arrays)


def as_text_in_feature(table):
    return table.assign(feat_0000=[str(np.zeros(2048) + n) for n in range(len(table))])


def with_nan(table):
    return table.assign(feat_0003=[np.nan] + [1.0] * (len(table) - 1))


def constant(table):
    return table.assign(**dict.fromkeys(features(table), 0.5))


def one_constant(table):
    table.loc[3, features(table)] = 0.0
    return table


def duplicated(table):
    table.loc[5, features(table)] = table.loc[4, features(table)]
    return table


def test_table_of_the_first_version_is_refused_by_every_script(tmp_path, refused):
    path = tmp_path / "t.csv"
    as_text(make_table(path)).to_csv(path, index=False)
    for key in KEYS:
        words = "whole arrays as text, shortened with '...'"
        refused(f"train_{key}_model", "--embeddings", path, "--output-dir", tmp_path, words=words)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (as_text_in_feature, "whole arrays as text"),
        (with_nan, "NaN"),
        (constant, "constant"),
        (one_constant, "constant"),
        (duplicated, "duplicated"),
        (lambda t: t.assign(label=0), "both Danger and Safe"),
        (lambda t: t.assign(label="danger"), "0 (Safe) or 1 (Danger)"),
        (lambda t: t.drop(columns="source"), "column source is missing"),
        (lambda t: t[t.index < 0], "no rows"),
        (lambda t: pd.concat([t, t]), "more than one row"),
        (lambda t: t.assign(source=1), "too few recordings"),
    ],
)
def test_invalid_tables_are_refused(tmp_path, refused, spoil, words):
    path = tmp_path / "t.csv"
    table = make_table(path)
    if words == "too few recordings":
        table["fold"] = 0
    spoil(table).to_csv(path, index=False)
    refused("train_logreg_model", "--embeddings", path, "--output-dir", tmp_path, words=words)


@pytest.mark.parametrize("folds", [0, 5])
def test_clips_of_one_recording_stay_in_one_fold(tmp_path, folds):
    make_table(tmp_path / "t.csv", folds=folds, takes=3)
    table = read_table(tmp_path / "t.csv")
    clips = table.clips
    assigned, _ = assign_folds(table.labels, clips["source"].to_numpy(), clips["fold"].to_numpy(), seed=0)
    assert pd.Series(assigned).groupby(table.clips["source"]).nunique().max() == 1
    assert len(np.unique(assigned)) == 5


def test_threshold_has_the_highest_specificity_that_the_recall_allows():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.integers(0, 2, 40)
        scores = np.round(rng.random(40), 1)  # with ties
        chosen = threshold_at_recall(labels, scores, min_recall=0.9)
        assert (scores[labels == 1] >= chosen).mean() >= 0.9
        specificity = (scores[labels == 0] < chosen).mean()
        for other in np.linspace(0, 1, 101):
            if (scores[labels == 1] >= other).mean() >= 0.9:
                assert (scores[labels == 0] < other).mean() <= specificity


@pytest.mark.parametrize("script", [train_logreg_model, train_mlp_model])
def test_scores_are_probabilities(tmp_path, script):
    """One clip in five is danger, so balanced class weights alone would give scores that are far too high."""
    table = make_table(tmp_path / "t.csv", clips=500, apart=1.5, takes=1)
    table[(table["label"] == 0) | (table.index % 8 == 1)].to_csv(tmp_path / "t.csv", index=False)
    table, pipeline = read_table(tmp_path / "t.csv"), script.build(0)
    result = evaluate(pipeline, table, ThresholdRule(), seed=0, fit_full=True)
    report = summarise(result)
    before, after = report.calibration_before, report.calibration_after
    assert after.calibration_error < 0.1
    assert after.brier <= before.brier + 0.002
    model = calibrated(pipeline, fit_sigmoid(result.values, table.labels), table.features, table.labels)
    fresh = make_table(tmp_path / "fresh.csv", clips=2_000, apart=1.5, takes=1, seed=1)
    fresh = fresh[(fresh["label"] == 0) | (fresh.index % 8 == 1)]
    scores = model.predict_proba(fresh[features(fresh)].to_numpy())[:, 1]
    assert calibration(fresh["label"].to_numpy(), scores).calibration_error < 0.12


def test_calibration_measures_are_correct():
    labels = np.repeat([0, 1], 50)
    assert calibration(labels, labels.astype(float)) == Calibration(brier=0.0, calibration_error=0.0)
    assert calibration(labels, 1.0 - labels).calibration_error == 1.0
    half = calibration(labels, np.full(100, 0.5) + np.tile([1e-9, -1e-9], 50))
    assert half.brier == pytest.approx(0.25)


def test_interval_is_wider_if_clips_share_recordings():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 200)
    alone = np.arange(400)
    scores = np.where(np.repeat(rng.random(40) < 0.2, 10), 0.5, labels)  # all ten clips of a recording fail together
    widths = {}
    for name, sources in (("alone", alone), ("shared", alone // 10)):
        estimate = estimate_on_clips(labels, scores, sources, alone % 5, np.full(400, 0.7))
        value, low, high = estimate.danger_recall.as_list()
        assert value == (scores[labels == 1] >= 0.7).mean()
        assert low < value < high
        widths[name] = high - low
    assert widths["shared"] > 1.5 * widths["alone"]
