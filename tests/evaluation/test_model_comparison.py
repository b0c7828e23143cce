"""Which model is recommended, and which models can be compared."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from helpers import make_table, run
from sklearn.metrics import roc_auc_score

import compare_models
import train_logreg_model
from danger_safe.core.errors import UserError
from danger_safe.embeddings.table import read_baseline, read_table
from danger_safe.embeddings.table_sounds import manifest_warnings
from danger_safe.evaluation import compared_models
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.intervals import Estimate
from danger_safe.evaluation.model_comparison import HourlyRates, difference, recommend, resampled_metrics
from danger_safe.evaluation.thresholds import HourlyEstimate, ThresholdRule
from danger_safe.reports import comparison
from danger_safe.training import load_models


def results_of(noises, clips=200):
    """Return evaluations of models that share some difficult clips and each have others of their own."""
    rng = np.random.default_rng(0)
    labels, alone, hard = np.tile([0, 1], clips // 2), np.arange(clips), rng.normal(size=clips)
    results = {}
    for number, (title, noise) in enumerate(noises.items()):
        scores = 4 * labels + hard + noise * np.random.default_rng(number).normal(size=clips)
        results[title] = Evaluation(labels, scores, scores, alone % 5, alone, ThresholdRule(), 0.5, "")
    return results


def rates(value, low, high, at_threshold=(14.0, 0.4, 64.0)):
    """Return the rates of a model with these false alarms per hour at the recall that was asked for."""
    return HourlyRates(12.5, Estimate(value, low, high), Estimate(*at_threshold))


def test_paired_difference_is_more_sensitive_than_separate_intervals():
    results = results_of({"good": 0.0, "worse": 1.5})
    _, areas = resampled_metrics(results)
    value, low, high = difference(areas["good"], areas["worse"]).as_list()
    one, other = (roc_auc_score(results[title].labels, results[title].scores) for title in results)
    assert value == pytest.approx(one - other)
    assert 0 < low < value < high


def test_model_with_fewest_false_alarms_is_recommended_at_any_speed():
    noises = {"worst": 3.0, "good": 0.0, "middling": 1.0}
    chosen = recommend(results_of(noises), list(noises), {})
    assert chosen.title == "good" and chosen.sentence.startswith("Use good: an alarm on ")
    assert len(chosen.differences) == 2 and "where 95% of the dangers are found" in chosen.differences[0]
    assert recommend(results_of(dict(reversed(noises.items()))), list(noises), {}).title == "good"
    hourly = {title: rates(rate, rate / 2, 2 * rate) for title, rate in zip(noises, (99.0, 72.0, 24.0), strict=True)}
    by_the_hour = recommend(results_of(dict.fromkeys(noises, 0.0)), list(noises), hourly)
    assert by_the_hour.title == "middling" and "about 24 false alarms (12–48) per hour" in by_the_hour.sentence
    assert (
        "about 99 false alarms (50–198) (worst)" in by_the_hour.sentence
        and "its lead over good may be due to chance" in by_the_hour.sentence
    )
    part = {"worst": hourly["worst"]}  # only one was measured, so rates are not comparable
    assert recommend(results_of(noises), list(noises), part).title == "good"
    assert "it is the only one" in recommend(results_of({"good": 0.0}), ["good"], {}).sentence


def test_sentence_has_intervals_and_agrees_with_measure_false_alarms():
    results = results_of({"good": 0.0, "other": 0.0})
    hourly = {"good": rates(0.0, 0.0, 17.7), "other": rates(4.8, 0.1, 27.0)}
    sentence = recommend(results, list(results), hourly).sentence
    assert sentence.startswith(
        "Use good: at the highest threshold that finds 95% of the dangers, no false alarm in 12.5 minutes, so at most "
        "18 per hour, against about 5 false alarms (0–27) (other); its lead over other may be due to chance."
    )
    measured = HourlyEstimate(12.5, Estimate(1.0, 0.9, 1.0), hourly["good"].at_threshold).describe()
    assert "about 14 false alarms (0–64)" in measured
    assert "chosen threshold, 0.500, measure_false_alarms.py estimates about 14 false alarms (0–64) per" in sentence
    unmeasured = recommend(results, list(results), {}).sentence
    assert "threshold" not in unmeasured and "hour" not in unmeasured


def test_significantly_better_auc_outweighs_insignificantly_fewer_false_alarms():
    labels, alone = np.repeat([0, 1], 100), np.arange(200)
    few = np.concatenate([np.linspace(0.0, 0.8, 100), np.linspace(0.4, 1.0, 100)])
    sharp = np.where(labels == 1, 0.9, 0.1) + 1e-3 * alone / 200
    sharp[[3, 7, 150, 151, 152, 153, 154, 155]] = [
        0.95,
        0.96,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
    ]  # 94 % of the dangers are easy
    results = {
        title: Evaluation(labels, scores, scores, alone % 5, alone, ThresholdRule(0.9), 0.5, "")
        for title, scores in (("few", few), ("sharp", sharp))
    }
    hourly = {"few": rates(20.0, 5.0, 60.0), "sharp": rates(24.0, 8.0, 70.0)}
    chosen = recommend(results, ["few", "sharp"], hourly)
    assert chosen.title == "sharp" and "few has fewer, which may be due to chance" in chosen.sentence


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """Return a folder with a table and two models trained on it, the working directory of the scripts."""
    for pattern in ("audio_embeddings.csv", "audio_embeddings.json", "logreg_*", "mlp_*"):
        for file in trained[0].glob(pattern):
            shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch):
    """Compare without pictures and the page of mistakes."""
    for name in ("draw_comparison", "draw_confusions", "write_mistakes"):
        monkeypatch.setattr(comparison, name, lambda *_: [])


def test_timings_do_not_change_the_recommendation(here, undrawn, capsys):
    table = read_table(here / "audio_embeddings.csv")
    files = [here / "logreg_model.skops", here / "mlp_model.skops"]
    models = compared_models.evaluate_all(load_models(files, table), table, None, 1)
    answers = set()
    for timings in ((0.1, 10.0), (10.0, 0.1)):  # whichever of the two is faster
        timed = [replace(model, seconds_per_thousand=seconds) for model, seconds in zip(models, timings, strict=True)]
        comparison.write_comparison(here, table, timed, None)
        answers.add(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Use ")))
    assert len(answers) == 1


def test_network_is_compared_with_a_baseline_without_one(trained, tmp_path, undrawn, capsys):
    folder, file = trained[0], tmp_path / "mfcc.csv"
    run("extractEmbeddingCnn14.py", "--dataset", folder / "dataset", "--checkpoint", "mfcc", "--output", file)
    table = read_table(folder / "audio_embeddings.csv")
    files, baseline = [folder / "logreg_model.joblib"], read_baseline(file, table)
    models = compared_models.evaluate_all(load_models(files, table), table, baseline, 1)
    comparison.write_comparison(tmp_path, table, models, None)
    rows = pd.read_csv(tmp_path / "model_comparison.csv").set_index("model")
    assert set(rows.index) == {"Logistic Regression", "Logistic Regression on mfcc"}
    assert rows.loc["Logistic Regression on mfcc", "roc_auc"] > 0.6
    printed = capsys.readouterr().out
    assert "minus Logistic Regression on mfcc" in printed and "it is the only one" in printed
    content = pd.read_csv(file)
    assert len(content.filter(like="feat_").columns) == 160
    content.iloc[::-1].to_csv(file, index=False)
    with pytest.raises(UserError, match="not of the same clips"):
        read_baseline(file, table)


def test_scores_that_a_model_file_keeps_are_those_of_a_cross_validation(trained):
    table = read_table(trained[0] / "audio_embeddings.csv")
    file = trained[0] / "logreg_model.joblib"
    saved = joblib.load(file)
    older = {key: value for key, value in saved.items() if key != "out_of_fold"}
    kept, again = (compared_models.evaluate_all([(file, model)], table, None, 1)[0] for model in (saved, older))
    assert np.array_equal(kept.result.scores, again.result.scores)
    assert kept.report.as_json() == again.report.as_json()
    saved["out_of_fold"]["scores"] = saved["out_of_fold"]["scores"][1:]
    with pytest.raises(UserError, match="not of the clips of"):
        compared_models.evaluate_all([(file, saved)], table, None, 1)


def test_models_of_another_mapping_or_an_older_table_are_not_compared(here):
    table = pd.read_csv("audio_embeddings.csv")
    table.assign(category=np.where(table["label"], "dog", "rain")).to_csv("audio_embeddings.csv", index=False)
    with pytest.raises(UserError, match=r"logreg_model.skops, mlp_model.skops were trained on other categories \("):
        compare_models.main([])
    table.iloc[2:].to_csv("audio_embeddings.csv", index=False)
    with pytest.raises(UserError, match=r"trained on another state of audio_embeddings.csv"):
        compare_models.main([])
    saved = joblib.load("logreg_model.joblib")
    del saved["metrics"]["table_sha256"]  # as written by older versions
    joblib.dump(saved, "logreg_model.joblib")
    table.to_csv("audio_embeddings.csv", index=False)
    with pytest.raises(UserError, match=r"^logreg_model.joblib: trained on another state"):
        compare_models.main(["--models", "logreg_model.joblib"])


def test_table_older_than_its_manifest_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = make_table(tmp_path / "audio_embeddings.csv")
    (tmp_path / "dataset").mkdir()
    checkpoint = {"name": "x", "sha256": "x"}
    info = {"checkpoint": checkpoint, "settings": {"dimensions": 16}, "made_of": {"dataset": "dataset"}}
    (tmp_path / "audio_embeddings.json").write_text(json.dumps(info))

    def warned(manifest):
        manifest.to_csv("dataset/manifest.csv", index=False)
        return "\n".join(manifest_warnings(read_table(Path("audio_embeddings.csv"))))

    manifest = table[["file", "label", "category", "fold", "source"]]
    assert not warned(manifest)
    with pytest.raises(UserError, match=r"4 of its clips have another label .* and 2 are gone"):
        outdated = manifest.assign(label=manifest["label"].where(manifest.index >= 4, 1 - manifest["label"])).iloc[:-2]
        outdated.to_csv("dataset/manifest.csv", index=False)
        train_logreg_model.main([])
    more = pd.concat([manifest, manifest.iloc[:3].assign(file=["x.wav", "y.wav", "z.wav"])])
    assert "has 3 clips that audio_embeddings.csv has not" in warned(more)
    pd.DataFrame({"file": ["x.wav", "y.wav", "z.wav"], "reason": "?"}).to_csv(
        "audio_embeddings_failures.csv", index=False
    )
    assert not warned(more)
