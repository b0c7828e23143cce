"""Files next to the input and files that this project did not make are never overwritten."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from helpers import make_table, run
from hostile_files import encoded, noise

from danger_safe.core import atomic
from danger_safe.core.atomic import atomic_path, atomic_write_text
from danger_safe.core.cache import load_cache, save_cache

posix = pytest.mark.skipif(os.name == "nt", reason="pipes with names, links and owners are POSIX")
EXTRACT, TRAIN, COMPARE, FINETUNE = "extractEmbeddingCnn14", "train_logreg_model", "compare_models", "finetune_cnn14"
PREDICT = "predict_danger"


def sounds(folder):
    for number, label in enumerate(("Danger", "Safe")):
        (folder / label).mkdir(parents=True)
        for n in range(3):
            (folder / label / f"{n}.wav").write_bytes(encoded(noise(seed=3 * number + n)))
    return folder


@pytest.mark.parametrize("name", ["notes.csv", "notes.json", "notes.journal", "notes_failures.csv"])
def test_files_next_to_a_table_are_not_overwritten(refused, tmp_path, name):
    (tmp_path / name).write_text("my own,notes\n1,2\n")
    sounds(tmp_path / "sounds")
    refused(EXTRACT, "--dataset", "sounds", "--checkpoint", "mfcc", "--output", "notes.csv", words=name)


@pytest.mark.parametrize("name", ["model.joblib", "metrics.json", "confusion_matrix.png", "category_recall.png"])
def test_training_results_do_not_overwrite_users_files(refused, tmp_path, name):
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    (tmp_path / f"logreg_{name}").write_text("my own")
    refused(TRAIN, "--embeddings", "t.csv", words=f"logreg_{name} is there and was not made by this project")


def test_other_results_do_not_overwrite_users_files(refused, tmp_path):
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    (tmp_path / "x_model.joblib").write_text("x")
    (tmp_path / "a.wav").write_bytes(encoded())
    sounds(tmp_path / "sounds")
    for name in ("mistakes.html", "embedding_map.csv", "model_comparison.png"):
        (tmp_path / name).write_text("my own")
        refused(COMPARE, "--embeddings", "t.csv", "--models", "x_model.joblib", words=name)
        (tmp_path / name).unlink()
    for name in ("my.pth", "my_learning.png", "my.pth.training"):
        (tmp_path / name).write_text("my own")
        refused(FINETUNE, "--dataset", "sounds", "--output", "my.pth", words=name)
        (tmp_path / name).unlink()
    (tmp_path / "holiday.png").write_text("my own")
    refused(PREDICT, "a.wav", "--plot", "holiday.png", words="holiday.png")


def test_own_results_are_overwritten(tmp_path):
    sounds(tmp_path / "sounds")
    flags = ("--dataset", tmp_path / "sounds", "--checkpoint", "mfcc", "--output", tmp_path / "t.csv")
    run(f"{EXTRACT}.py", *flags)
    (tmp_path / "sounds" / "Safe" / "0.wav").write_bytes(encoded(noise(seed=99)))
    (tmp_path / "sounds" / "Safe" / "1.wav").write_text("broken")
    run(f"{EXTRACT}.py", *flags, status=3)
    run(f"{EXTRACT}.py", *flags, status=3)


def journal(path, *statements):
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW clips AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
        "SELECT x AS file, '' AS signature, 0.0 AS seconds, NULL AS embedding, 'x' AS reason FROM n",
        "CREATE TABLE other (x)",
    ],
)
def test_journal_with_an_endless_view_is_replaced(tmp_path, statement):
    sounds(tmp_path / "sounds")
    journal(tmp_path / "t.journal", f"PRAGMA application_id = {0x44534A4C}", statement)
    flags = ("--dataset", tmp_path / "sounds", "--checkpoint", "mfcc", "--output", tmp_path / "t.csv")
    assert "was damaged: starting anew" in run(f"{EXTRACT}.py", *flags).stderr


def test_missing_file_locks_are_not_reported_as_another_extraction(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    from danger_safe.core.errors import UserError
    from danger_safe.embeddings.journal import Journal

    with Journal(tmp_path / "t.journal"):
        with pytest.raises(UserError, match="another extraction"):
            Journal(tmp_path / "t.journal")

        def no_locks(*_):
            raise OSError("no locks")

        monkeypatch.setattr(fcntl, "lockf", no_locks)
        with pytest.raises(UserError, match="has no locks"):
            Journal(tmp_path / "t.journal")


@posix
def test_pipes_next_to_the_input_are_not_opened(refused, tmp_path):
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    sounds(tmp_path / "sounds")
    os.mkfifo(tmp_path / "pipe")
    for name in ("t.json", "t.journal", "t_failures.csv"):
        os.rename(tmp_path / "pipe", tmp_path / name)
        refused(EXTRACT, "--dataset", "sounds", "--checkpoint", "mfcc", "--output", "t.csv", words=name)
        os.rename(tmp_path / name, tmp_path / "pipe")
    assert load_cache(tmp_path / "pipe", "key", ["a"]) is None


# --- cached arrays


def test_cached_arrays_take_no_more_memory_than_their_file(tmp_path):
    import tracemalloc

    file = tmp_path / "t_windows.npz"
    save_cache(file, "key", {"a": np.arange(5.0)})
    assert load_cache(file, "key", ["a"])["a"].tolist() == [0, 1, 2, 3, 4]
    assert load_cache(file, "other", ["a"]) is None
    np.savez_compressed(file, key=np.array("key"), a=np.zeros(3 * 10**6))
    tracemalloc.start()
    assert load_cache(file, "key", ["a"]) is None
    content = b"x" * 100
    save_cache(file, "key", {"a": np.frombuffer(content, np.uint8)})
    file.write_bytes(file.read_bytes().replace(b"(100,), ", b"(10**9,)").replace(b"(10**9,)", b"(9e9,), "))
    assert load_cache(file, "key", ["a"]) is None
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


# --- temporary names


def test_temporary_names_are_unpredictable_and_links_are_not_followed(tmp_path):
    names = []
    for _ in range(2):
        with atomic_path(tmp_path / "a.png") as part:
            names.append(part.name)
            assert part.read_bytes() == b"" and not part.is_symlink()
            part.write_text("x")
            if os.name != "nt":
                assert part.stat().st_mode & 0o777 == 0o666 & ~atomic._UMASK
        (tmp_path / "a.png").unlink()
    assert names[0] != names[1]


def leftover(folder, name, process, computer=None, suffix="part"):
    return folder / f".{name}.danger-safe-{computer or atomic._host_id()}-{process}.abcdef12.{suffix}"


def test_leftovers_of_ended_processes_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        gone = [leftover(tmp_path, "a.png", ended.pid), leftover(tmp_path, "b", ended.pid, suffix="old")]
        gone += [leftover(tmp_path, "mine", os.getpid()), leftover(tmp_path, "far", 1, "00000000")]
        stays = [leftover(tmp_path, "a.png", living.pid), leftover(tmp_path, "new", ended.pid, "00000000")]
        stays += [tmp_path / f".a.png.{ended.pid}.part", tmp_path / ".a.part", tmp_path / "a.png.part"]  # a user's file
        for path in gone + stays:
            path.write_text("half")
        folder = leftover(tmp_path, "t.parquet", ended.pid)
        folder.mkdir()
        (folder / "part-00000.parquet").write_text("half")
        two_days_ago = time.time() - 2 * 86_400
        os.utime(gone[3], (two_days_ago, two_days_ago))
        atomic._cleaned.clear()
        atomic_write_text(tmp_path / "a.csv", "whole")
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == sorted(["a.csv", *(path.name for path in stays)])
        atomic.remove_leftovers(tmp_path / "a.png")  # its caller knows that no process writes
        assert not stays[0].exists() and stays[2].exists()
        living.communicate(b"\n")
