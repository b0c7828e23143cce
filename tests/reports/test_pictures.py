"""All plots: readable at the width of a README, no overlapping text, the same axes for all models, no display."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import ROOT
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.events import Event
from danger_safe.detection.writers import Summary
from danger_safe.evaluation.calibration import calibration
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.metrics import confusion
from danger_safe.evaluation.thresholds import ThresholdRule
from danger_safe.reports.canvas import MIN_PT, WIDTH, text_width, wrap
from danger_safe.reports.category_plot import draw_category_recall
from danger_safe.reports.comparison_plots import draw_comparison, draw_confusions
from danger_safe.reports.embedding_map import COOL, WARM, plan_map, write_map
from danger_safe.reports.learning_curve import draw_learning
from danger_safe.reports.operating_point_plot import draw_operating_points
from danger_safe.reports.plots import draw_confusion, draw_reliability, group_by_score
from danger_safe.reports.timeline import Overview, draw_timeline, place_event_names

DATA = "24 clips (12 Danger, 12 Safe), compact, 21 scored through networks that never heard them"


@pytest.fixture
def drawn(monkeypatch):
    """Collect the figures that are saved instead of writing files."""
    figures = []

    def keep(figure, *_, **__):
        figure.draw_without_rendering()
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    monkeypatch.setattr("danger_safe.core.atomic.os.replace", lambda *_: None)
    return figures


def evaluation(clips=24, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % 2
    raw = 1 / (1 + np.exp(-apart * (2 * labels - 1) - rng.normal(size=clips) * 2))
    return Evaluation(labels, raw, raw**0.5, np.arange(clips) % 4, np.arange(clips), ThresholdRule(), 0.4, "4 folds")


def metrics_of(result, warnings=()):
    points = [
        {"threshold": t, "danger_recall": (result.scores[result.labels == 1] >= t).mean(),
         "false_alarms_per_hour": 720 * (result.scores[result.labels == 0] >= t).mean()}
        for t in np.round(np.arange(0.02, 1.0, 0.02), 2)
    ]  # fmt: skip
    metrics = {
        "threshold": result.threshold, "threshold_rule": "finds at least 95% of dangers", "splitting": "4 folds",
        "majority_baseline": 0.5, "warnings": list(warnings), "operating_points": points,
        "ranking": {"roc_auc": {"all": 0.9}, "average_precision": {"all": 0.9}},
        "per_hour": {"minutes": 20, "danger_recall": [0.9, 0.8, 0.97], "false_alarms_per_hour": [50, 30, 90]},
    }  # fmt: skip
    for name, threshold in (("at_0.5", 0.5), ("at_threshold", result.threshold)):
        metrics[name] = {"confusion": confusion(result.labels, (result.scores >= threshold).astype(int)).tolist()}
    return metrics


def texts_of(figure):
    """Return the texts that are drawn, without ticks beyond the ends of their axis."""
    beyond = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        margin = 1e-9 * (high - low)
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if not axis.axes.axison or not low - margin <= tick.get_loc() <= high + margin:
                beyond.add(tick.label1)
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in shown if text not in beyond]


def assert_readable(figure):
    """Assert that every text is large enough, inside the figure, and does not overlap another."""
    boxes = []
    for text in texts_of(figure):
        assert text.get_fontsize() >= MIN_PT * figure.get_figwidth() / WIDTH, text
        boxes.append((text, text.get_window_extent()))
    for text, box in boxes:
        assert box.x0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y0 > -1 and box.y1 < figure.bbox.y1 + 1, text
    for number, (text, box) in enumerate(boxes):
        for other, another in boxes[number + 1 :]:
            across = min(box.x1, another.x1) - max(box.x0, another.x0)
            along = min(box.y1, another.y1) - max(box.y0, another.y0)
            assert across < 2 or along < 4 or text.get_text() == other.get_text(), (
                text,
                other,
            )  # twinned axes repeat it


def words_of(figure):
    return "\n".join(text.get_text() for text in texts_of(figure)).replace("\u00a0", " ")


@pytest.mark.parametrize("clips", [24, 500])
def test_confusion_matrices_name_their_axes_and_colour_mistakes(drawn, tmp_path, clips):
    results = {
        "Logistic Regression": evaluation(clips),
        "MLP": evaluation(clips, 0.5),
        "Random Forest": evaluation(clips),
    }
    draw_confusion(
        tmp_path / "a.png", "MLP", DATA, metrics_of(results["MLP"], ["NO BETTER THAN GUESSING: " + "x " * 99])
    )
    draw_confusions(tmp_path / "b.png", DATA, results | {"MLP on mfcc (results/mlp_model.joblib)": evaluation(clips)})
    for figure, count in zip(drawn, (2, 4), strict=True):
        assert_readable(figure)
        words = words_of(figure)
        assert words.count("predicted") == words.count("true: ") == count
        assert words.count("MISSED") == words.count("false negative") == count and "F1" in words
        for axis in figure.axes:
            cells = axis.images[0].get_array()
            assert all(cells[true, true, 0] < cells[true, true, 2] for true in (0, 1))  # blue
            assert all(cells[true, 1 - true, 0] > cells[true, 1 - true, 2] for true in (0, 1))  # vermilion
    assert "NO BETTER" in words_of(drawn[0])


@pytest.mark.parametrize("counts", [[[1092, 156], [17, 335]], [[1247, 1], [1, 351]], [[1, 5], [3, 1]]])
def test_mistakes_are_darker_than_correct_cells(drawn, tmp_path, counts):
    """The worst mistake is not the palest cell, even if it is rare."""
    metrics = metrics_of(evaluation())
    metrics["at_0.5"]["confusion"] = metrics["at_threshold"]["confusion"] = counts
    draw_confusion(tmp_path / "a.png", "MLP", DATA, metrics)
    for axis in drawn[0].axes:
        luminance = np.array(axis.images[0].get_array()) ** 2.2 @ (0.2126, 0.7152, 0.0722)
        assert max(luminance[0, 1], luminance[1, 0]) < min(luminance[0, 0], luminance[1, 1])


def test_rare_mistakes_are_not_coloured_as_correct(drawn, tmp_path):
    draw_confusions(tmp_path / "a.png", DATA, {"perfect": evaluation(apart=99), "hopeless": evaluation(apart=-99)})
    perfect, hopeless = (axis.images[0].get_array() for axis in drawn[0].axes)
    assert perfect[1, 0, 0] > perfect[1, 0, 2] and hopeless[1, 1, 0] < hopeless[1, 1, 2]


@pytest.mark.parametrize(("clips", "categories"), [(24, 4), (500, 100)])
def test_category_recall_shows_the_most_missed_dangers_first(drawn, tmp_path, clips, categories):
    names = np.array([f"wash$ing_machine_{n}" for n in range(categories - 1)] + ["x" * 200])
    number = np.arange(clips) % categories
    scores = np.where(np.arange(clips) % 2 == 1, 0.9, 0.1)
    scores[number == 1] = 0.2  # a danger that is always missed
    scores[number == 2] = 0.8  # a safe sound that always raises an alarm
    result = replace(evaluation(clips), scores=scores, categories=names[number])
    draw_category_recall(tmp_path / "a.png", "MLP", DATA, result)
    assert_readable(drawn[0])
    each, words = clips // categories, words_of(drawn[0])
    assert f"Missed most often: wash$ing machine 1 ({each} of {each})." in words
    assert f"False alarms come most often from: wash$ing machine 2 ({each} of {each})." in words
    for axis, worst in zip(drawn[0].axes, ("wash$ing machine 1", "wash$ing machine 2"), strict=True):
        labels = [label.get_text() for label in axis.get_yticklabels()]
        assert labels[0] == worst and len(labels) == min(categories // 2, 30)
        assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first is at the top
    assert ("the 30 of 50 missed most" in words) == (categories == 100)


@pytest.mark.parametrize("clips", [24, 500])
def test_reliability_diagram_has_intervals_and_a_verdict(drawn, tmp_path, clips):
    result = evaluation(clips, apart=1.0)
    before, after = (calibration(result.labels, scores) for scores in (result.labels * 1.0, result.scores))
    draw_reliability(tmp_path / "a.png", "MLP", DATA, result, before, after)
    assert_readable(drawn[0])
    words = words_of(drawn[0])
    assert ("Yes, as far as" in words or "Not quite" in words) and "made them worse here" in words
    assert all(len(group) >= 5 for group in group_by_score(result.scores))
    assert sorted(np.concatenate(group_by_score(result.scores)).tolist()) == list(range(clips))


def test_operating_point_plots_have_equal_axes_and_a_dot_on_the_curve(drawn, tmp_path):
    for clips, apart in ((24, 0.0), (500, 0.0), (500, 2.0), (24, 99.0)):
        draw_operating_points(tmp_path / "a.png", "MLP", DATA, metrics_of(evaluation(clips, apart)))
    for figure in drawn:
        assert_readable(figure)
        axis = figure.axes[0]
        assert axis.get_xscale() == "symlog" and "recall" in axis.get_ylabel()
        curve, dot = (
            next(line for line in axis.lines if line.get_label().startswith(name)) for name in ("every", "chosen")
        )
        points = np.column_stack(curve.get_data())
        x, y = (float(value[0]) for value in dot.get_data())
        (x0, y0), (x1, y1) = min(
            pairwise(points),
            key=lambda ends: np.hypot(*(ends[0] - (x, y))) + np.hypot(*(ends[1] - (x,
            y))) - np.hypot(*(ends[0] - ends[1])),
        )  # fmt: skip
        assert abs((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) < 1e-6
    assert len({figure.axes[0].get_ylim() for figure in drawn}) == 1
    assert len({figure.axes[0].get_xlim() for figure in drawn}) == 1


@pytest.mark.parametrize("apart", [0.3, 1.8, 99.0])
def test_comparison_has_numbers_and_dots_on_the_curves(drawn, tmp_path, apart):
    results = {name: evaluation(400, apart, seed) for seed, name in enumerate(("Logistic Regression", "MLP"))}
    draw_comparison(tmp_path / "a.png", DATA, results)
    assert_readable(drawn[0])
    words = words_of(drawn[0])
    assert words.count("ROC-AUC") == words.count("(AP)") == 2
    for axis, recall_at in zip(drawn[0].axes[:2], (1, 0), strict=True):
        for line, result in zip(axis.lines[1:], results.values(), strict=False):  # the first model is random
            marked = [value[line.get_markevery()[0]] for value in line.get_data()]
            alarms = result.scores >= result.threshold
            assert marked[recall_at] == pytest.approx(alarms[result.labels == 1].mean())


@pytest.mark.parametrize(("clips", "categories"), [(24, 6), (150, 50)])
def test_map_separates_the_labels_and_names(drawn, tmp_path, clips, categories):
    rng = np.random.default_rng(0)
    number = np.arange(clips) % categories
    features = (rng.normal(size=(categories, 30)) * 2)[number] + rng.normal(size=(clips, 30))
    plan = plan_map(features, number % 2, [f"washing_machine_{n}" for n in number], np.arange(5), 0.9, clips)
    write_map(tmp_path / "m.png", tmp_path / "m.csv", [f"{n}.wav" for n in range(clips)], plan)
    assert_readable(drawn[0])
    assert sum(group.name is not None for group in plan.groups) >= 0.8 * categories
    assert f"trained on {clips:,} of the {clips:,}" in words_of(drawn[0]).replace("\n", " ")
    looks = [(group.colour, group.shape) for group in plan.groups]
    assert all(looks.count(look) <= 1 + (categories > 30) for look in looks)
    assert all((group.colour in {light for light, _ in WARM}) == (group.label == 1) for group in plan.groups)
    assert not {light for light, _ in WARM} & {light for light, _ in COOL}
    if clips == 24:
        for group in plan.groups:
            away = np.abs(plan.positions - group.name.at)
            assert not ((away[:, 0] < 4 * len(group.name.text)) & (away[:, 1] < 8)).any()  # names next to the points


@pytest.mark.parametrize("seconds", [0.4, 40.0, 10_000.0])
def test_prediction_plot_has_units_and_reports_incomplete_recordings(drawn, tmp_path, seconds):
    overview = Overview()
    list(
        overview.watch([np.random.default_rng(0).normal(size=int(32_000 * min(seconds, 40))).astype(np.float32) * 0.1])
    )
    summary = Summary("x" * 120 + "$.wav", 0.4, seconds, 0.9)
    for at in np.linspace(0, seconds, 40):
        overview.add_score(ScoredWindow(at, at, 0.5, 0.5, np.zeros(1)))
    summary.events = [
        Event(at, at, at, 0.5 + at / 2 / seconds, np.zeros(1), ((f"glass_breaking_{n}", 0.9),))
        for n, at in enumerate(np.linspace(0, seconds, 40))
    ]
    draw_timeline(tmp_path / "a.png", overview, summary)
    summary.events, summary.failure = [], "breaks off after 40.0 s"
    draw_timeline(tmp_path / "b.png", overview, summary)
    for figure in drawn:
        assert_readable(figure)
        assert "500 Hz" in words_of(figure) and "8 kHz" in words_of(figure) and "threshold 0.40" in words_of(figure)
    assert "DANGER, 40 events" in words_of(drawn[0]).replace("\n", " ")
    assert "INCOMPLETE" in words_of(drawn[1]) and "Safe" not in words_of(drawn[1])
    names = place_event_names([Event(1, 2, 1.5, 0.9, np.zeros(1), (("siren", 1.0),))], 40.0, 8.0)
    assert [name for _, _, name in names] == ["siren"]


@pytest.mark.parametrize("epochs", [1, 3, 300])
def test_learning_curve_has_whole_epochs(drawn, tmp_path, epochs):
    history = [
        {"epoch": n + 1, "loss": 1 / (n + 1), "held_out_loss": 1, "held_out_balanced_accuracy": 0.5}
        for n in range(epochs)
    ]
    draw_learning(tmp_path / "a.png", history, epochs, 9)
    draw_learning(tmp_path / "b.png", history, 0, 9)
    for figure in drawn:
        assert_readable(figure)
        low, high = figure.axes[-1].get_xlim()
        ticks = [tick for tick in figure.axes[-1].get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) for tick in ticks)
    assert f"epoch {epochs} of {epochs}" in words_of(drawn[0]) and "not known" in words_of(drawn[1])


def test_long_names_are_wrapped():
    lines = wrap("two words and " + "x" * 300, 12, 4.0)
    assert lines[0].startswith("two words and") and "".join(lines).count("x") == 300
    assert all(text_width(line, 12) <= 4.0 for line in lines)


def test_a_configured_backend_is_ignored(tmp_path):
    """Notebooks set one for their child processes. Tested for every module that draws, as any may be imported first."""
    modules = ["plots", "comparison_plots", "embedding_map", "learning_curve", "timeline", "page_media"]
    code = f"""
import importlib, os, sys
for name in {modules}: importlib.import_module("danger_safe.reports." + name)
from danger_safe.reports.learning_curve import draw_learning
from danger_safe.reports.canvas import palette
draw_learning("a.png", [dict(epoch=1, loss=1.0)], 0, 2)
palette("magma", 16)
assert "matplotlib.pyplot" not in sys.modules and "MPLBACKEND" not in os.environ
"""
    env = os.environ | {"MPLBACKEND": "nonsense", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
