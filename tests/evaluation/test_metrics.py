"""F1, recall by category, thresholds in unusual cases, tables that are too small."""

import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from helpers import make_table, train
from sklearn.metrics import f1_score, roc_auc_score

import train_logreg_model
from danger_safe.core.errors import UserError
from danger_safe.data.clips import NO_FOLD, Clip
from danger_safe.data.splits import assign_folds, with_folds
from danger_safe.embeddings.table import read_table
from danger_safe.evaluation.calibration import calibrated, fit_sigmoid
from danger_safe.evaluation.cross_validation import Evaluation, evaluate
from danger_safe.evaluation.intervals import auc
from danger_safe.evaluation.metrics import CategoryRecall, category_recall, false_alarms_at_recall, scores_at
from danger_safe.evaluation.report import collect_warnings, summarise
from danger_safe.evaluation.thresholds import ThresholdRule, most_balanced_threshold


def test_f1_and_the_recall_of_each_category():
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    categories = np.array(["siren", "siren", "dog", "dog", "rain", "rain", "wind", "wind"])
    scores = np.array([0.9, 0.8, 0.7, 0.1, 0.6, 0.2, 0.1, 0.1])
    assert scores_at(labels, scores, 0.5)["f1"] == pytest.approx(f1_score(labels, scores >= 0.5))
    found = category_recall(labels, categories, scores, 0.05)
    assert list(found) == ["dog", "siren", "rain", "wind"]  # dangers first
    assert found["dog"] == CategoryRecall(label=1, clips=2, at_half=0.5, at_threshold=1.0)
    assert found["rain"].at_half == 0.5 and found["wind"].at_threshold == 0.0
    assert false_alarms_at_recall(labels, scores, 0.75) == 0.0
    assert false_alarms_at_recall(labels, scores, 1.0) == 1.0


def test_area_under_the_curve_counts_ties_half():
    rng = np.random.default_rng(0)
    for clips in (2, 7, 100):
        labels = rng.permutation(np.arange(clips) % 2)
        for scores in (rng.random(clips), np.round(rng.random(clips), 1), np.zeros(clips)):
            assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def evaluation(labels, scores, rule, threshold=None):
    """Return an Evaluation of clips of different recordings, in five folds."""
    alone = np.arange(len(labels))
    if threshold is None:
        threshold = rule.choose(labels, scores)
    return Evaluation(labels, scores, scores, alone % 5, alone, rule, threshold, "test")


def test_threshold_is_above_one_half_only_on_request():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    scores = np.concatenate(
        [rng.uniform(0.0, 0.6, 100), rng.uniform(0.6, 1.0, 100)]
    )  # the gap between the scores is above one half
    assert evaluation(labels, scores, ThresholdRule()).threshold == 0.5
    asked = evaluation(labels, scores, ThresholdRule.for_recall(0.5))
    assert asked.threshold > 0.5
    (_, alarms), (missed, _) = summarise(asked).at_threshold.confusion
    assert f"misses {missed} dangers, not 0 as at 0.5, and raises {alarms} false alarms" in asked.rule_description
    assert ThresholdRule.for_recall(0.99).max_threshold == 0.5


def test_undetectable_dangers_do_not_make_everything_danger():
    """Two of twenty dangers score below every safe clip: 95 % recall is only possible by calling all clips Danger."""
    labels = np.repeat([0, 1], [37, 20])
    scores = np.concatenate([np.linspace(0.1, 0.4, 37), np.linspace(0.5, 0.9, 18), [0.01, 0.02]])
    result = evaluation(labels, scores, ThresholdRule())
    assert 0.4 < result.threshold <= 0.5
    report = summarise(result)
    warned = "\n".join(collect_warnings(report, seen=0))
    assert "learnt nothing" not in warned and "finds 90% of the dangers" in warned
    assert "recall and specificity together are highest" in report.threshold_rule
    everything = summarise(evaluation(labels, scores, ThresholdRule(), threshold=0.0))
    assert "learnt nothing" not in "\n".join(collect_warnings(everything, seen=0))
    assert most_balanced_threshold(np.array([0, 1, 1]), np.array([0.2, 0.2, 0.2])) <= 0.2


def test_too_few_recordings_are_explained(tmp_path):
    for recordings, folds in ((2, 0), (2, 2), (3, 3), (3, 0)):
        table = tmp_path / f"{recordings}_{folds}.csv"
        make_table(table, clips=2 * recordings, takes=1, folds=folds, apart=9.0)
        arguments = ["--embeddings", str(table), "--output-dir", str(tmp_path)]
        if recordings == 2:
            with pytest.raises(UserError, match="at least 3 each"):
                train_logreg_model.main(arguments)
        elif folds:
            result = evaluate(train_logreg_model.build(0), read_table(table), ThresholdRule(), seed=0)
            assert np.isfinite(result.scores).all() and summarise(result)
        else:
            assert train_logreg_model.main(arguments) == 0
    labels, alone = np.tile([0, 1], 2), np.arange(4)
    assert fit_sigmoid(np.array([-1.0, 1.0, -2.0, 2.0]), labels).predict(np.array([3.0]))[0] > 0.5
    with pytest.raises(UserError, match="at least 3 each"):
        assign_folds(labels, alone, alone // 2 + 1, seed=0)  # folds of the user's


def test_training_prints_the_usual_metrics(tmp_path, capsys):
    table = make_table(tmp_path / "t.csv", apart=3.0)
    table.loc[0:3, "category"] = ["wind", "wind", "dog", "dog"]
    table.to_csv(tmp_path / "t.csv", index=False)
    train(train_logreg_model, "--embeddings", tmp_path / "t.csv", "--output-dir", tmp_path)
    printed = capsys.readouterr().out
    for words in (
        "f1-score",
        "macro avg",
        "Recall of each category",
        "dog",
        "wind",
        "MISSED (FN)",
        "On new recordings like these: finds",
    ):
        assert words in printed
    metrics = json.loads((tmp_path / "logreg_metrics.json").read_text())
    assert metrics["at_threshold"]["f1"]["all"] == pytest.approx(metrics["classification_report"]["Danger"]["f1-score"])
    assert metrics["categories"]["dog"]["clips"] == 2 and set(metrics["categories"]) == {"dog", "siren", "rain", "wind"}
    saved = joblib.load(tmp_path / "logreg_model.joblib")
    assert metrics.pop("made_by") and saved["metrics"] == metrics
    table, pipeline = read_table(tmp_path / "t.csv"), train_logreg_model.build(0)
    result = evaluate(pipeline, table, ThresholdRule(), seed=0, fit_full=True)
    model = calibrated(pipeline, fit_sigmoid(result.values, table.labels), table.features, table.labels)
    assert np.array_equal(saved["pipeline"].predict_proba(table.features), model.predict_proba(table.features))


def test_training_that_does_not_converge_warns(tmp_path):
    make_table(tmp_path / "t.csv")
    pipeline = train_logreg_model.build(0).set_params(logisticregression__max_iter=1)
    result = evaluate(pipeline, read_table(tmp_path / "t.csv"), ThresholdRule(), seed=0, fit_full=True)
    warned = "\n".join(collect_warnings(summarise(result), seen=0))
    assert "NOT CONVERGED: scikit-learn ended 6 trainings" in warned


def test_duplicate_sounds_are_reported_in_pairs(tmp_path):
    table = make_table(tmp_path / "t.csv")
    numbers = [name for name in table if name.startswith("feat_")]
    for copy, of in ((5, 4), (9, 8), (20, 8)):
        table.loc[copy, numbers] = table.loc[of, numbers]
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"4\.wav = 5\.wav; 8\.wav = 9\.wav = 20\.wav"):
        read_table(tmp_path / "t.csv")


def test_step_2_writes_a_fold_for_every_clip():
    def clips(recordings, fold):
        return [Clip(f"{n}.wav", Path(f"{n}.wav"), n % 2, "", fold, str(n // 4)) for n in range(recordings * 4)]

    made = with_folds(clips(10, NO_FOLD))
    assert {clip.fold for clip in made} == {1, 2, 3, 4, 5}
    assert len({(clip.source, clip.fold) for clip in made}) == 10  # each recording is in one fold
    assert made == with_folds(clips(10, NO_FOLD))
    for kept in (clips(10, 3), clips(2, NO_FOLD)):  # the data's own folds; too few recordings for folds
        assert with_folds(kept) == kept
