"""Untrusted files: no code of theirs is run, no path leads outside, and names are displayed safely."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from helpers import PATIENCE_S, ROOT, make_table, wait_for
from hostile_files import encoded, noise
from model_files import Evil, model
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

from danger_safe.core import cache_folder as cache
from danger_safe.core import cli
from danger_safe.core.atomic import csv_line, unescape_formula, write_csv
from danger_safe.core.child import run_code
from danger_safe.core.errors import UserError
from danger_safe.core.paths import list_files
from danger_safe.core.terminal import one_json_line
from danger_safe.data.clips import Clip, read_clips
from danger_safe.detection.model_file import open_model_file, save_model_files
from danger_safe.detection.personal import load_learnt
from danger_safe.embeddings.cluster import check_answer
from danger_safe.embeddings.journal import Result
from danger_safe.embeddings.plan import Task
from danger_safe.embeddings.table import read_table
from danger_safe.embeddings.table_sounds import find_sounds, table_checkpoint
from danger_safe.embeddings.table_writer import write_table
from danger_safe.live.config import read_config
from danger_safe.live.verdicts import read_verdicts
from models import checkpoint_files
from models.checkpoints import load_model

posix = pytest.mark.skipif(os.name == "nt", reason="signals and owners are POSIX")
COMPARE, PREDICT = "compare_models", "predict_danger"
FORMULAS = [
    "=1+1.wav",
    "+x",
    "-cmd|' /C calc'!A0",
    "@sum",
    "\ttab",
    "＝1",
    "'=quoted",
    "''=twice",
    "'plain",
    "a=b",
    "-1",
    "'-1",
]


# --- spreadsheets and terminals


def test_names_are_not_formulas_and_are_restored(tmp_path):
    for name in FORMULAS:
        cell = next(csv.reader(io.StringIO(csv_line([name, 1]))))[0]
        assert cell[0] not in "=+@\t＝" and (cell[0] != "-" or float(cell) < 0)
        assert unescape_formula(cell) == name
    assert csv_line([-0.5, "-0.1234"]) == "-0.5,-0.1234"
    rows = [(f"{name}.wav", n % 2, name, 1 + n % 5, name, False) for n, name in enumerate(FORMULAS)]
    rng = np.random.default_rng(0)
    write_table(tmp_path / "t.csv", rows, rng.standard_normal((len(rows), 4)).astype(np.float32), 4)
    table = read_table(tmp_path / "t.csv")
    assert table.clips["file"].tolist() == [row[0] for row in rows]
    assert table.clips["category"].tolist() == FORMULAS
    write_csv(tmp_path / "manifest.csv", ("file", "label", "category", "fold", "source"), [row[:5] for row in rows])
    assert [clip.category for clip in read_clips(tmp_path)] == FORMULAS


UTF8 = {"PYTHONUTF8": "1"}


def test_names_cannot_send_control_sequences_to_a_terminal(refused, tmp_path):
    orders = "a\x1b[31m\u202egnp.exe\u2066\x9b31m\u200b"
    shown = cli.one_line(orders)
    assert shown == r"a\x1b[31m\u202egnp.exe\u2066\x9b31m\u200b"
    assert cli.one_line("còi 🧑\u200d🚒 می\u200cروم") == "còi 🧑\u200d🚒 می\u200cروم"
    line = one_json_line({"file": orders + "ò"})
    assert json.loads(line) == {"file": orders + "ò"} and "ò" in line
    assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in line)
    refused(PREDICT, f"--{orders}", status=2, words=r"\x1b[31m")
    refused(PREDICT, "a.wav", "--format", orders, status=2)


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
def test_right_to_left_names_do_not_reorder_a_line_on_a_terminal():
    """Numbers after a Hebrew or Arabic name stay after it; in pipes and files, text is unchanged."""
    import pty

    code = """
from danger_safe.core import cli
cli.run(lambda _: print("0.98 שלום עולם 12.wav\\x1b[2J 0:07") or cli.warn("جرس.wav is missing"), [])
"""
    master, slave = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=slave, stderr=slave, env=os.environ | UTF8)
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    assert (
        "0.98 \u2068שלום עולם\u2069 12.wav\\x1b[2J 0:07" in shown and "warning: \u2068جرس\u2069.wav is missing" in shown
    )
    piped = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=os.environ | UTF8)
    assert piped.stdout.decode().startswith("0.98 שלום עולם 12.wav") and done.returncode == piped.returncode == 0


def test_lack_of_memory_is_reported_under_any_exception(capsys):
    def fails(error):
        def main(_):
            try:
                raise error
            except Exception as reason:
                raise UserError("x.pth is damaged") from reason

        return main

    errors = (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    for error in errors:
        with pytest.raises(SystemExit, match="1"):
            cli.run(fails(error), [])
        assert capsys.readouterr().err.startswith("error: not enough memory: ")


# --- only the command line can name other files


@pytest.mark.parametrize("place", ["webhdfs://evil/x", "http://evil/x", "\\\\evil\\share", "//evil/share"])
def test_addresses_in_a_table_are_not_opened(tmp_path, place):
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    info = {"settings": {"dimensions": 4}, "checkpoint": {"name": "x", "sha256": "y"}}
    info["made_of"] = {"dataset": place, "checkpoint": place}
    (tmp_path / "t.json").write_text(json.dumps(info))
    table = read_table(tmp_path / "t.csv")
    with pytest.raises(UserError, match="give --dataset"):
        find_sounds(table)
    with pytest.raises(UserError, match="extract it again"):
        table_checkpoint(table)


def test_a_file_that_names_the_official_network_downloads_nothing(monkeypatch, tmp_path):
    absent = replace(checkpoint_files.OFFICIAL["cnn14"], path=tmp_path / "absent.pth")
    monkeypatch.setitem(checkpoint_files.OFFICIAL, "cnn14", absent)
    with pytest.raises(UserError, match="give --checkpoint cnn14"):
        checkpoint_files.local_checkpoint_path("cnn14")
    assert checkpoint_files.local_checkpoint_path("compact") == checkpoint_files.COMPACT


# --- models


def forest(**other):
    features, labels = np.random.default_rng(0).standard_normal((40, 4)), np.arange(40) % 2
    return model(pipeline=make_pipeline(RandomForestClassifier(5, random_state=0)).fit(features, labels), **other)


def versions():
    import sklearn

    return {"scikit-learn": sklearn.__version__}


def test_both_formats_of_a_model_are_equal(tmp_path):
    paths = save_model_files(tmp_path / "x_model.joblib", forest(versions=versions()))
    rows = np.random.default_rng(1).standard_normal((9, 4))
    one, other = (open_model_file(path) for path in paths)
    assert np.array_equal(one["pipeline"].predict_proba(rows), other["pipeline"].predict_proba(rows))
    assert one["metrics"] == other["metrics"] and paths[1].suffix == ".skops"
    save_model_files(tmp_path / "x_model.joblib", forest(versions={"scikit-learn": "0.1"}))
    with pytest.raises(UserError, match=r"made with scikit-learn 0\.1"):
        open_model_file(paths[1])


def test_model_that_is_not_named_is_not_opened(refused, tmp_path):
    """A downloaded table with a model next to it: .joblib is opened only by name, .skops runs no code."""
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    joblib.dump(Evil(), tmp_path / "x_model.joblib")
    refused(COMPARE, "--embeddings", "t.csv", words="no *_model.skops in .")
    import skops.io

    skops.io.dump(forest(categories=Path("x"), versions=versions()), tmp_path / "x_model.skops")
    refused(COMPARE, "--embeddings", "t.csv", words="which is not part of a model of this project: it was not opened")
    assert not (tmp_path / "ran").exists()
    with zipfile.ZipFile(tmp_path / "x_model.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", bytes(100_000_000))
    refused(COMPARE, "--embeddings", "t.csv", words="it claims to hold 100,000,000 bytes")


def test_trees_with_invalid_children_are_refused(tmp_path):
    content = forest(versions=versions())
    tree = content["pipeline"][-1].estimators_[2].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"]["right_child"][0] = 10**6
    tree.__setstate__(state)
    for path in save_model_files(tmp_path / "x_model.joblib", content):
        with pytest.raises(UserError, match="its parts do not fit each other"):
            open_model_file(path)


@pytest.mark.parametrize("kind", ["compressed", "tar", "old"])
def test_oversized_checkpoints_are_refused_before_allocation(tmp_path, kind):
    import torch

    path = tmp_path / "x.pth"
    torch.save({"model": {"a": torch.zeros(1_000)}}, path, _use_new_zipfile_serialization=kind != "old")
    if kind == "compressed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data/0", bytes(100_000_000))
    elif kind == "tar":
        (tmp_path / "a").write_bytes(bytes(3_000))
        with tarfile.open(path, "w") as archive:
            archive.add(tmp_path / "a", "storages")
    else:
        path.write_bytes(path.read_bytes().replace(b"M\xe8\x03N", b"J\xff\xff\xff\x7fN"))
    with pytest.raises(UserError, match=r"claims more than|is a tar archive"):
        load_model(str(path))


# --- results of other computers


@pytest.mark.parametrize("change", ["nan", "short", "double", "other", "none", "text"])
def test_results_of_a_cluster_are_checked(change):
    task = Task(Clip("a.wav", Path("a.wav"), 0, "x", 1, "a"), "1 2", 5, 1)
    numbers = np.ones(4, np.float32)
    assert check_answer(("MNN", [Result("a.wav", "1 2", 5.0, numbers)]), [task], 4)[0] == "MNN"
    assert check_answer(("MNN", [Result("a.wav", "1 2", 5.0, None, "is empty")]), [task], 4)
    wrong = {
        "nan": Result("a.wav", "1 2", 5.0, numbers * np.nan), "short": Result("a.wav", "1 2", 5.0, numbers[:3]),
        "double": Result("a.wav", "1 2", 5.0, numbers.astype(float)), "other": Result("b.wav", "1 2", 5.0, numbers),
        "none": Result("a.wav", "1 2", 5.0, None), "text": "no result",
    }  # fmt: skip
    with pytest.raises(UserError, match=r"a worker's answer for a\.wav"):
        check_answer(("MNN", [wrong[change]]), [task], 4)


# --- folders


def test_endless_folders_and_macos_side_files(tmp_path):
    (tmp_path / "Danger").mkdir()
    (tmp_path / "Danger" / "a.wav").write_bytes(encoded())
    (tmp_path / "Danger" / "._a.wav").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    (tmp_path / "Danger" / "._mine.wav").write_bytes(encoded(noise(seed=1)))
    start = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1_200):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(start)
    names = [name for name, _ in list_files(tmp_path)]
    assert [name for name in names if name.startswith("Danger")] == ["Danger/._mine.wav", "Danger/a.wav"]
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=False)


# --- the cache and child processes


@posix
def test_only_a_private_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("DANGER_SAFE_CACHE", raising=False)
    monkeypatch.setattr(cache.platformdirs, "user_cache_dir", lambda *_, **__: "~/.cache/danger-safe")
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = cache.cache_folder()
    assert folder == tmp_path / f"danger-safe-{os.getuid()}" and cache.is_private(folder)
    for mode in (0o777, 0o770):
        folder.chmod(mode)
        assert not cache.is_private(folder)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not cache.is_private(tmp_path / "link") and not cache.is_private(tmp_path / "absent")


@posix
def test_child_processes_end_with_their_parent(tmp_path):
    step = (
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep({2 * PATIENCE_S})"
    )
    code = (
        f"from pathlib import Path; from danger_safe.core.child import run_code; run_code({step!r}, folder=Path('/'))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    child = int((tmp_path / "pid").read_text())

    def has_ended():
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{child}/stat").exists() and " Z " in Path(f"/proc/{child}/stat").read_text()

    wait_for(has_ended)
    done = run_code("import danger_safe.core.cache_folder, sys; print(sys.argv[1])", "x", folder=tmp_path)
    assert done.stdout == "x\n" and done.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="pipes with a name are POSIX")
def test_files_of_a_service_are_regular_and_of_limited_size(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    (deep := tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (long := tmp_path / "long.toml").write_bytes(b"#" * (2 << 20))
    bomb = tmp_path / "learnt.npz"
    np.savez_compressed(bomb, text=np.zeros(1 << 26, np.uint8), embeddings=np.zeros(1), owner=np.zeros(1))
    for reader, files in ((read_config, (pipe, deep, long)), (read_verdicts, (pipe,)), (load_learnt, (pipe, bomb))):
        for file in files:
            with pytest.raises(UserError, match=file.name):
                reader(file)
