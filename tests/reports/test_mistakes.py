"""What compare_models.py reports about mistakes: the list, its order, and a page that works offline in a browser."""

import csv
import html
import json
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import make_table, run, train

import train_logreg_model
from danger_safe.detection.model_file import save_model_files
from danger_safe.embeddings.table import read_table
from danger_safe.evaluation.compared_models import evaluate_all
from danger_safe.evaluation.cross_validation import Evaluation
from danger_safe.evaluation.thresholds import ThresholdRule
from danger_safe.reports import mistakes_page
from danger_safe.reports.embedding_map import SHADES, plan_map, write_map
from danger_safe.reports.mistakes import files_and_categories, find_mistakes, nearest_neighbours
from danger_safe.reports.page_media import GOOD, PLANS, SMALLEST, encode, encode_sounds
from danger_safe.training import load_models

# Linux and macOS allow this file name; the / becomes _
NASTY = 'a "q" <b> & </script><script>alert(1)</script> {{rows}} $x\'.wav'


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Run compare_models.py on 60 clips, some of which two models misclassify; one sound file is missing."""
    folder = tmp_path_factory.mktemp("mistakes")
    table = make_table(folder / "t.csv", apart=1.2, takes=1)
    table.loc[3, "category"] = "</script><script>alert(2)</script>&\"'"
    table.loc[4, "file"] = NASTY.replace("/", "_")
    table.to_csv(folder / "t.csv", index=False)
    (folder / "sounds").mkdir()
    for number, file in enumerate(table["file"][:-1]):
        noise = np.random.default_rng(number).standard_normal(16_000) * 0.1
        soundfile.write(folder / "sounds" / file, noise, 16_000, format="WAV")
    train(train_logreg_model, "--embeddings", folder / "t.csv", "--output-dir", folder, "--min-recall", 0.8)
    other = joblib.load(
        folder / "logreg_model.joblib"
    )  # the same model with a higher threshold, which saves a training
    other["metrics"] |= {"model": "Strict", "min_recall": 0.95}
    save_model_files(folder / "strict_model.joblib", other)
    flags = ["--embeddings", folder / "t.csv", "--output-dir", folder]
    done = run("compare_models.py", *flags, "--dataset", folder / "sounds", "--baseline", folder / "t.csv")
    return folder, table, done


def test_list_has_every_mistake_of_all_models_worst_first(compared):
    folder, table, done = compared
    assert "mistakes.html" in done.stdout and "Clips that cannot be played: 1, first 59.wav: is missing" in done.stderr
    rows = list(csv.DictReader((folder / "mistakes.csv").open(encoding="utf-8", newline="")))
    assert rows and [float(row["worst"]) for row in rows] == sorted((float(row["worst"]) for row in rows), reverse=True)
    own = ["Logistic Regression: wrong", "Strict: wrong"]
    assert all("1" in (row[own[0]], row[own[1]]) for row in rows)
    assert "Logistic Regression on unknown (baseline): score" in rows[0]
    labels = dict(zip(table["file"], table["label"].astype(str), strict=True))
    assert all(labels[row["file"]] == row["label"] for row in rows)
    assert all(row["mistake"] == ("missed danger" if row["label"] == "1" else "false alarm") for row in rows)
    assert all(row["neighbour_3"] in labels for row in rows)
    places = pd.read_csv(folder / "embedding_map.csv")
    assert list(places) == ["file", "x", "y", "label", "category", "mistake"] and len(places) == 60
    assert set(places["file"][places["mistake"] == 1]) == {row["file"] for row in rows}
    assert (folder / "embedding_map.png").read_bytes().startswith(b"\x89PNG")


def test_page_escapes_any_name(compared):
    folder, table, _ = compared
    page = (folder / "mistakes.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2 and "alert(1)</script>" not in page and "alert(2)</script>" not in page
    assert table["file"][4] not in page and table["file"][4] in html.unescape(page)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert len(json.loads(re.search(r'type="application/json">(.*?)</script>', page)[1])) == 59


def test_page_without_sounds_has_a_warning(compared, tmp_path, capsys):
    folder, _, _ = compared
    table = read_table(folder / "t.csv")
    (model,) = evaluate_all(load_models([folder / "logreg_model.joblib"], table), table, None, jobs=1)
    mistakes_page.write_mistakes(tmp_path, table, {model.title: model.result}, [model.title], None)
    warned = capsys.readouterr().err
    assert "no players" in warned and "give --dataset" in warned
    page = (tmp_path / "mistakes.html").read_text(encoding="utf-8")
    assert "sounds were not found" in page and "<button" not in page
    assert (tmp_path / "mistakes.csv").is_file()
    # the same table gives the same map
    assert (tmp_path / "embedding_map.csv").read_text().splitlines()[1].split(",")[:3] == (
        (folder / "embedding_map.csv").read_text().splitlines()[1].split(",")[:3]
    )


def test_order_is_by_relative_distance_from_the_threshold():
    labels, scores = np.array([1, 1, 0, 0, 0, 1]), np.array([0.1, 0.19, 0.6, 0.9, 0.1, 0.9])
    result = Evaluation(labels, scores, scores, labels, np.arange(6), ThresholdRule(), 0.2, "")
    worse = Evaluation(labels, 1 - scores, scores, labels, np.arange(6), ThresholdRule(), 0.2, "")
    mistakes = find_mistakes({"baseline": worse, "own": result}, ["own"])
    assert mistakes.titles == ["own", "baseline"] and mistakes.baselines == {"baseline"}
    assert mistakes.rows.tolist() == [3, 0, 2, 1]  # 0.875; 0.5, missed; 0.5, false alarm; 0.05
    missing = find_mistakes(
        {"own": Evaluation(labels, labels * 1.0, scores, labels, labels, ThresholdRule(), 0.5, "")}, ["own"]
    )
    assert not len(missing.rows)


def test_neighbours_are_from_other_recordings():
    features = np.array([[1.0, 0], [1, 0.01], [1, 0.1], [0, 1], [-1, 0]])
    near = nearest_neighbours(features, np.array(list("aabcd")), np.array([0, 4]))
    assert [row for row, _ in near[0]] == [2, 3, 4] and near[1][0][0] == 3
    assert nearest_neighbours(features[:2], np.array(["a", "a"]), np.array([0])) == [[]]


@pytest.mark.parametrize(("clips", "dimensions"), [(2, 3), (9, 1), (12, 4)])
def test_small_tables_have_a_map(tmp_path, clips, dimensions):
    features = np.random.default_rng(0).standard_normal((clips, dimensions)).astype(np.float32)
    plan = plan_map(features, np.arange(clips) % 2, ["a $ b"] * clips, np.array([0]), 0.5, 0)
    assert plan.method == ("t-SNE" if clips > 10 else "PCA")
    assert (plan.positions >= 0).all() and (plan.positions <= (1000, 700)).all()
    write_map(tmp_path / "m.png", tmp_path / "m.csv", [f"{n}.wav" for n in range(clips)], plan)


def test_sounds_stay_within_the_size_limit(tmp_path):
    sounds = {}
    for row, seconds in enumerate((5, 5, 5, 0.001, 60)):
        sounds[row] = tmp_path / f"{row}.wav"
        noise = np.random.default_rng(row).standard_normal(int(16_000 * seconds)) * 0.1
        soundfile.write(sounds[row], noise, 16_000)
    (tmp_path / "5.wav").write_bytes(b"none")
    sounds[5] = tmp_path / "5.wav"
    encoded, failed, left_out = encode_sounds(sounds, {0}, 10_000_000)
    assert list(encoded) == [0, 1, 2, 3, 4] and list(failed) == [5] and not left_out
    assert len(encode(sounds[0], SMALLEST)) < len(encode(sounds[0], GOOD)) / 3
    encoded, _, left_out = encode_sounds(sounds, {0}, 20_000)
    assert sum(map(len, encoded.values())) <= 20_000 and 0 in encoded and 4 in left_out
    # 2,000 clips of five seconds fit next to a list of five megabytes
    assert 2_000 * PLANS[-1][1].size(5.0) < mistakes_page.MAX_BYTES - 5_000_000


PLAYS = "() => { const p = document.querySelector('#player'); return p.duration > 0.5 && p.currentTime > 0; }"


def test_page_in_a_browser(compared, browser):
    """Players in the list and on the map, by mouse and keyboard; filters; no errors, no requests; also on a phone."""
    folder, _, _ = compared
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    problems, requests = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "mistakes.html").as_uri())
    now = page.locator("#now")

    def assert_plays():
        page.wait_for_function(PLAYS)
        page.wait_for_function("() => /^Play(ing|ed): /.test(document.querySelector('#now').textContent)")
        page.evaluate("() => { const p = document.querySelector('#player'); p.pause(); p.removeAttribute('src'); }")
        page.evaluate("() => { document.querySelector('#now').textContent = ''; }")

    page.locator("#list button").first.click()  # a mistake
    assert_plays()
    page.locator("#list li button").first.click()  # a neighbour
    assert_plays()
    page.locator("[data-point='7']").click()
    assert_plays()
    assert page.locator("[data-point][tabindex='0']").count() == 1
    assert page.evaluate("document.activeElement.dataset.point") == "7"
    assert page.locator("[data-point='7']").get_attribute("aria-selected") == "true"

    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home"):
        page.keyboard.press(key)
    for _ in range(5):
        before = page.evaluate("document.activeElement.dataset.point")
        page.keyboard.press("PageDown")
        assert page.evaluate("document.activeElement.dataset.point") != before
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert page.locator("#focused").text_content() == name  # visible, too
    page.keyboard.press("Enter")
    assert_plays()
    page.locator("[data-point='59']").dispatch_event("click", {"clientX": -99, "clientY": -99, "bubbles": True})
    assert "No player" in now.text_content()  # its sound is missing

    page.locator("#kind").select_option("1")
    shown = page.locator("#list tbody tr:visible")
    assert 0 < shown.count() < page.locator("#list tbody tr").count()
    assert set(shown.evaluate_all("rows => rows.map(row => row.dataset.kind)")) == {"1"}
    page.locator("#model").select_option("1")
    far = shown.evaluate_all("rows => rows.map(row => Number(row.dataset.severity.split(' ')[1]))")
    assert far == sorted(far, reverse=True) and str(len(far)) in page.locator("#count").text_content()

    page.locator("#list tr:visible img").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#list img')].some(image => image.naturalWidth === 200)"
    )
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    cut = "tables => tables.filter(t => t.scrollWidth > t.clientWidth + 1 || t.getBoundingClientRect().right > 360)"
    assert page.locator("table").evaluate_all(cut + ".length") == 0
    colour = "() => getComputedStyle(document.body).backgroundColor"
    bright = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(colour) != bright
    assert not problems
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


def test_clips_without_a_category_are_named_by_their_label(tmp_path):
    rows = [
        "file,label,category,fold,source,seen,feat_0000,feat_0001",
        "a,1,,1,a,False,0.5,1",
        "b,0,rain,2,b,False,2,3",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    assert files_and_categories(read_table(tmp_path / "t.csv")) == (["a", "b"], ["Danger", "rain"])


def test_page_without_mistakes_says_so(tmp_path):
    make_table(tmp_path / "t.csv", clips=12)
    table = read_table(tmp_path / "t.csv")
    labels, sources = table.labels, table.clips["source"].to_numpy()
    results = {"own": Evaluation(labels, labels * 1.0, labels * 1.0, labels, sources, ThresholdRule(), 0.5, "")}
    mistakes_page.write_mistakes(tmp_path, table, results, ["own"], None)
    page = (tmp_path / "mistakes.html").read_text(encoding="utf-8")
    assert page.count("No mistakes") == 2 and 'id="list"' not in page and 'id="filter"' not in page
    assert len((tmp_path / "mistakes.csv").read_text(encoding="utf-8").splitlines()) == 1


def test_page_uses_the_colours_of_the_map():
    """They are in its style sheet, which is fixed because the page's security policy has its hash."""
    style = mistakes_page.TEMPLATE.read_text(encoding="utf-8").partition("</style>")[0]
    assert "{{" not in style.partition("<style>")[2]
    bright, dark = style.split("prefers-color-scheme: dark")
    for side, shades in zip("sd", SHADES, strict=True):
        for number, (on_white, on_black) in enumerate(shades):
            assert f"--{side}{number}: {on_white};" in bright and f"--{side}{number}: {on_black};" in dark
            assert f".{side}{number} {{ fill: var(--{side}{number}); }}" in style
