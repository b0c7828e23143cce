"""Bad manifests, embedding tables and flags: a one-line error, the exit status, and no unexpected files.

The scripts' ``main`` runs in this process (``refused``), because hundreds of process starts would take minutes.
"""

import json
import os
import sqlite3
from contextlib import closing

import pytest
from helpers import make_table, run_in_process
from hostile_files import encoded

from danger_safe.embeddings.table import read_table

EXTRACT, PREDICT = "extractEmbeddingCnn14", "predict_danger"
TRAIN, COMPARE, FINETUNE = "train_logreg_model", "compare_models", "finetune_cnn14"


# --- manifests

MANIFEST = "file,label,category,fold,source\nDanger/a.wav,1,dog,1,1\nSafe/b.wav,0,rain,1,2\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(MANIFEST.replace("1,dog", "2,dog"), "label '2'", id="label_2"),
        pytest.param(MANIFEST.replace("1,dog", ",dog"), "label ''", id="no_label"),
        pytest.param(MANIFEST.replace("1,dog", "nan,dog"), "label 'nan'", id="label_nan"),
        pytest.param(MANIFEST + "Danger/a.wav,0,dog,1,1\n", "twice", id="two_labels"),
        pytest.param(MANIFEST.replace("Danger/a", "../a"), "would leave", id="parent"),
        pytest.param(MANIFEST.replace("source", "from"), "column source is missing", id="missing_column"),
    ],
)
def test_bad_manifests_are_explained(refused, tmp_path, content, words):
    (tmp_path / "manifest.csv").write_text(content)
    refused(EXTRACT, "--dataset", tmp_path, "--checkpoint", "mfcc", "--output", "t.csv", words=words)


@pytest.mark.parametrize(
    ("output", "status", "words"),
    [
        ("manifest.csv", 1, "manifest.csv"),
        ("x.wav", 2, "must be named .csv"),
        ("file/t.csv", 1, "file"),
        ("b.csv", 2, "b.parquet is there"),
    ],
)
def test_impossible_outputs_are_explained(refused, tmp_path, output, status, words):
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "b.parquet").write_text("another table, with files of the same names beside it")
    refused(EXTRACT, "--dataset", tmp_path, "--checkpoint", "mfcc", "--output", output, status=status, words=words)


# --- embedding tables


def changed(path, change):
    """Write a valid table after ``change`` has modified the list of its rows, each a list of cells."""
    make_table(path, clips=12, dimensions=4)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines = change(lines) or lines
    path.write_text("\n".join(",".join(cells) for cells in lines) + "\n")


def cell(row, column, text):
    def change(lines):
        lines[row][column] = text

    return change


def column(number, text):
    def change(lines):
        for cells in lines[1:]:
            cells[number] = text

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(cell(3, 7, "nan"), "NaN or infinite", id="nan"),
        pytest.param(cell(3, 7, "inf"), "NaN or infinite", id="inf"),
        pytest.param(cell(3, 7, "1e308"), "NaN or infinite", id="1e308"),
        pytest.param(cell(3, 7, ""), "NaN or infinite", id="hole"),
        pytest.param(cell(3, 7, "loud"), "is text ('loud')", id="text"),
        pytest.param(cell(3, 7, "[1 2 ... 3]"), "whole arrays as text", id="array"),
        pytest.param(cell(3, 1, "2"), "column label", id="label_2"),
        pytest.param(cell(3, 5, "maybe"), "column seen: 'maybe' is neither", id="seen_maybe"),
        pytest.param(column(1, "1"), "both Danger and Safe", id="one_class"),
        pytest.param(cell(3, 3, "-1"), "fold", id="negative_fold"),
        pytest.param(cell(3, 3, "1.5"), "fold", id="half_a_fold"),
        pytest.param(cell(3, 3, "1e300"), "fold", id="huge_fold"),
        pytest.param(cell(0, 7, "feat_0000"), "repeated", id="repeated_column"),
        pytest.param(cell(0, 7, "feat_0009"), "missing", id="gap"),
        pytest.param(cell(0, 2, "label"), "category is missing", id="missing_column"),
        pytest.param(cell(3, 0, "0.wav"), "more than one row", id="repeated_row"),
        pytest.param(lambda lines: lines[:1], "no rows", id="header_only"),
        pytest.param(lambda lines: lines[:2], "both Danger and Safe", id="one_row"),
        pytest.param(lambda lines: [[*c, "1"] if n else c for n, c in enumerate(lines)], "more values", id="long_rows"),
        pytest.param(lambda lines: [*lines[:3], [*lines[3], "1"], *lines[4:]], "cannot be read", id="long_row"),
        pytest.param(lambda lines: [c[:3] + c for c in lines], "twice", id="columns_twice"),
    ],
)
def test_bad_embeddings_are_explained(refused, tmp_path, change, words):
    changed(tmp_path / "t.csv", change)
    refused(TRAIN, "--embeddings", "t.csv", words=words)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("t.csv", b"", id="empty"),
        pytest.param("t.csv", bytes(3_000), id="zeros"),
        pytest.param("t.csv", b"file;label;feat_0000\na;1;0.5\n", id="semicolons"),
        pytest.param("t.csv", "file,label\n".encode("utf-16"), id="utf16"),
        pytest.param("t.csv", encoded(), id="sound"),
        pytest.param("t.parquet", b"no parquet", id="parquet"),
        pytest.param("t.csv", None, id="folder"),
    ],
)
def test_files_that_are_not_tables_are_explained(refused, tmp_path, name, content):
    (tmp_path / name).mkdir() if content is None else (tmp_path / name).write_bytes(content)
    refused(TRAIN, "--embeddings", name)
    refused(COMPARE, "--embeddings", name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"{", "cannot be read", id="no_json"),
        pytest.param(b"\xff\xfe\x00", "cannot be read", id="binary"),
        pytest.param(b"[" * 100_000, "cannot be read", id="nested"),
        pytest.param(b"[]", "does not say", id="list"),
        pytest.param(b"{}", "does not say", id="no_keys"),
        pytest.param(b'{"settings": {"dimensions": 4}, "checkpoint": "compact"}', "does not say", id="text"),
        pytest.param(
            b'{"settings": {"dimensions": 512}, "checkpoint": {"name": "x", "sha256": "y"}}',
            "512 dimensions",
            id="other",
        ),
    ],
)
def test_bad_side_files_are_explained(refused, tmp_path, content, words):
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    (tmp_path / "t.json").write_bytes(content)
    refused(TRAIN, "--embeddings", "t.csv", words=words)


def test_missing_rows_are_reported(tmp_path, capsys):
    make_table(tmp_path / "t.csv", clips=60, dimensions=4)
    beside = {"settings": {"dimensions": 4}, "checkpoint": {"name": "x", "sha256": "y"}, "counts": {"clips": 90}}
    (tmp_path / "t.json").write_text(json.dumps(beside))
    read_table(tmp_path / "t.csv")
    assert "has 60 rows, and had 90" in capsys.readouterr().err


# --- flags


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        *[(PREDICT, f"--{flag}") for flag in (
            "threshold=nan", "threshold=-1", "threshold=2", "threshold=", "window=nan", "window=inf", "window=0",
            "hop=1e-9",
            "hop=inf", "min-duration=nan", "min-duration=-1", "max-false-alarms-per-hour=nan",
            "max-false-alarms-per-hour=-1",
            "jobs=0", "jobs=nan", "plot=x.txt", "format=xml",
        )],
        *[(EXTRACT, f"--{flag}") for flag in ("jobs=0", "jobs=x", "batch-size=0", f"batch-size={10**12}",
        "rows-per-part=-1")],
        *[(TRAIN, f"--{flag}") for flag in ("min-recall=nan", "min-recall=0", "seed=-1", f"seed={10**12}", "jobs=0")],
        *[(FINETUNE, f"--{flag}") for flag in (
            "epochs=0", "epochs=nan", "rate=nan", "rate=-1", "without=5/4", "without=0/3", "without=1", "width=0",
            f"width={10**9}",
            f"per-category={10**9}", "patience=-1", "bad-recordings=nan", "holdout-fold=1.5", "batch-size=1",
        )],
    ],
)  # fmt: skip
def test_bad_flags_are_explained(refused, script, flag):
    refused(script, *(["a.wav"] if script == PREDICT else []), flag, status=2)


@pytest.mark.parametrize("rate", ["0", "1", "nan", "99999999999"])
def test_impossible_sample_rate_of_a_stream_is_refused(refused, rate):
    refused(PREDICT, "-", "--raw", rate, status=2)


def test_output_folder_inside_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in ("file", "file/results"):
        refused(TRAIN, "--output-dir", folder, status=2, words="file is a file, not a folder")


def test_inputs_are_not_overwritten(refused, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    (tmp_path / "x.pth").write_bytes(b"x")
    refused(PREDICT, "a.png", "--plot", tmp_path / "a.png", status=2)
    make_table(tmp_path / "mistakes.csv", clips=12, dimensions=4)
    (tmp_path / "x_model.joblib").write_bytes(b"x")
    models = ("--models", "x_model.joblib")
    refused(COMPARE, "--embeddings", os.path.join(".", "mistakes.csv"), *models, words="would be written over")
    refused(FINETUNE, "--checkpoint", "x.pth", "--output", "x.pth", status=2, words="where the training starts from")


@pytest.mark.parametrize(
    "damage", ["CREATE TABLE clips (x); CREATE TABLE notes (y)", "INSERT INTO notes VALUES ('made with', 'no JSON')"]
)
def test_foreign_databases_are_not_used_as_journals(tmp_path, damage):
    """Another program's database, and one with malformed notes."""
    with closing(sqlite3.connect(tmp_path / "t.journal")) as database, database:
        if "INSERT" in damage:
            database.execute("CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT)")
        database.executescript(damage)
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    command = ["--dataset", tmp_path, "--checkpoint", "mfcc", "--output", tmp_path / "t.csv"]
    done = run_in_process(EXTRACT, *command, status=1)
    assert "t.journal is there and was not made by this project" in done.stderr
    assert not (tmp_path / "t.csv").exists()
