"""Extraction that is killed, runs out of space or runs twice: finished clips are kept and not embedded again."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import ROOT, run, wait_for

from danger_safe.core import atomic
from danger_safe.data.clips import Clip
from danger_safe.embeddings.extractor import group
from danger_safe.embeddings.plan import Task

SCRIPT = "extractEmbeddingCnn14.py"
FILES = ("table.csv", "table.json", "table_failures.csv")


def command(folder, output, *flags):
    return ["--dataset", folder, "--checkpoint", "compact", "--output", output / "table.csv", *flags]


@pytest.fixture(scope="module")
def some(sample, tmp_path_factory):
    """Every third sample sound: 60 clips."""
    folder = tmp_path_factory.mktemp("some")
    for label in ("Danger", "Safe"):
        (folder / label).mkdir()
        for path in sorted((sample / label).iterdir())[::3]:
            shutil.copy(path, folder / label)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(some, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    run(SCRIPT, *command(some, output))
    return {name: (output / name).read_bytes() for name in FILES}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_extraction_is_resumed(some, tmp_path, uninterrupted):
    arguments = [sys.executable, ROOT / SCRIPT, *map(str, command(some, tmp_path))]
    finished, journal = 0, tmp_path / "table.journal"

    def has_written(process, size):
        return process.poll() is not None or (journal.exists() and journal.stat().st_size > size)

    for moment in (
        0.4,
        0.8,
        1.2,
        1.6,
        0,
        10_000,
    ):  # a time in seconds, then a size of the journal: the first clips are finished
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if moment in (0, 10_000):
            wait_for(lambda size=moment, process=process: has_written(process, size))
        else:
            time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        finished += process.wait() == 0
    left = f".table.csv.danger-safe-{atomic._host_id()}-99999.abcdef12.part"
    (tmp_path / left).write_text("file,la")  # the state after a kill while the table is written
    (tmp_path / "table.csv").unlink(missing_ok=True)
    done = run(SCRIPT, *command(some, tmp_path))
    assert finished or "done before" in done.stdout, done.stdout
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == uninterrupted
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "table.journal"])


def test_second_run_reports_nothing_new_and_restores_a_lost_table(some, tmp_path, uninterrupted):
    run(SCRIPT, *command(some, tmp_path))
    done = run(SCRIPT, *command(some, tmp_path))
    assert "Nothing new" in done.stdout
    (tmp_path / "table.csv").write_bytes(uninterrupted["table.csv"][:2_000])
    done = run(SCRIPT, *command(some, tmp_path))
    assert "0 clips in" in done.stdout
    assert (tmp_path / "table.csv").read_bytes() == uninterrupted["table.csv"]


def folders(tmp_path, clips=3):
    for label in ("Danger", "Safe"):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for number in range(clips):
            sound = 0.1 * np.random.default_rng([number, len(label)]).standard_normal(32_000)
            soundfile.write(tmp_path / "sounds" / label / f"{number}.wav", sound, 32_000)
    return tmp_path / "sounds"


def test_changed_new_and_removed_clips_are_detected(tmp_path):
    sounds = folders(tmp_path)
    run(SCRIPT, *command(sounds, tmp_path))
    before = features_of(tmp_path)
    shutil.copy(sounds / "Danger" / "1.wav", sounds / "Danger" / "new.wav")
    soundfile.write(sounds / "Safe" / "0.wav", np.sin(np.arange(50_000)), 32_000)
    (sounds / "Safe" / "2.wav").unlink()
    assert "2 clips to embed" in run(SCRIPT, *command(sounds, tmp_path)).stdout
    after = features_of(tmp_path)
    assert list(after.index) == [f"Danger/{n}.wav" for n in (0, 1, 2, "new")] + [f"Safe/{n}.wav" for n in (0, 1)]
    assert (after.loc["Danger/0.wav"] == before.loc["Danger/0.wav"]).all()
    assert not np.allclose(after.loc["Safe/0.wav"], before.loc["Safe/0.wav"])


def features_of(output):
    return pd.read_csv(output / "table.csv").set_index("file").filter(like="feat_")


def test_another_checkpoint_starts_over(tmp_path, other_checkpoint):
    sounds = folders(tmp_path)
    run(SCRIPT, *command(sounds, tmp_path))
    done = run(SCRIPT, *command(sounds, tmp_path), "--checkpoint", other_checkpoint)
    assert "starting anew" in done.stderr
    assert pd.read_csv(tmp_path / "table.csv").filter(like="feat_").shape == (6, 256)


def test_failures_are_kept_and_retried_when_the_file_changes(tmp_path):
    sounds = folders(tmp_path)
    (sounds / "Safe" / "bad.wav").write_text("no sound")
    run(SCRIPT, *command(sounds, tmp_path), status=3)
    done = run(SCRIPT, *command(sounds, tmp_path), status=3)
    assert "Nothing new" in done.stdout
    assert "Safe/bad.wav" in done.stderr
    shutil.copy(sounds / "Safe" / "0.wav", sounds / "Safe" / "bad.wav")
    assert "1 clips to embed" in run(SCRIPT, *command(sounds, tmp_path)).stdout


def test_damaged_journal_is_reported_and_replaced(tmp_path):
    sounds = folders(tmp_path)
    run(SCRIPT, *command(sounds, tmp_path))
    journal = tmp_path / "table.journal"
    journal.write_bytes(journal.read_bytes()[:100] + b"not a database at all" * 99)
    done = run(SCRIPT, *command(sounds, tmp_path))
    assert "damaged" in done.stderr
    assert "6 clips in" in done.stdout


def test_concurrent_run_with_the_same_output_is_refused(sample, tmp_path):
    first = subprocess.Popen(
        [sys.executable, ROOT / SCRIPT, *map(str, command(sample, tmp_path))],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for line in first.stdout:
        if re.search("clips to embed", line):
            break
    done = run(SCRIPT, *command(sample, tmp_path), status=1)
    assert "another extraction is writing the same table" in done.stderr
    first.communicate()
    assert first.returncode == 0
    assert len(pd.read_csv(tmp_path / "table.csv")) == 180


@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX")
def test_full_disk_is_reported_and_the_next_run_continues(sample, embeddings, tmp_path):
    """A limit on file sizes simulates the full disk: writing fails in the middle in the same way."""
    done = run("tests/limited.py", 200, ROOT / SCRIPT, *command(sample, tmp_path), status=1)
    assert "what was finished is kept" in done.stderr
    assert not (tmp_path / "table.csv").exists()
    done = run(SCRIPT, *command(sample, tmp_path))
    assert "done before" in done.stdout
    assert (tmp_path / "table.csv").read_bytes() == embeddings.read_bytes()


def test_embedding_of_a_long_recording_is_the_mean_of_its_chunks(tmp_path):
    """90 seconds: three chunks of 30 s, only the last one quiet; each chunk is also a clip in another folder."""
    rng = np.random.default_rng(0)
    windows = [level * rng.standard_normal(30 * 32_000).astype(np.float32) for level in (0.3, 0.1, 0.01)]
    for name, sounds in (("long", [np.concatenate(windows)]), ("windows", windows)):
        for number, sound in enumerate(sounds):
            label = tmp_path / name / ("Danger" if number % 2 else "Safe")
            label.mkdir(parents=True, exist_ok=True)
            soundfile.write(label / f"{number}.wav", sound, 32_000, subtype="FLOAT")
    features = {}
    for name in ("long", "windows"):
        (tmp_path / f"{name}.out").mkdir()
        run(SCRIPT, *command(tmp_path / name, tmp_path / f"{name}.out"))
        features[name] = pd.read_csv(tmp_path / f"{name}.out" / "table.csv").filter(like="feat_").to_numpy()
    assert np.allclose(features["long"][0], features["windows"].mean(axis=0), atol=1e-3)


def test_groups_of_remaining_clips_are_those_of_all_clips():
    """Tables are byte-identical after a kill because finished groups do not change the remaining ones."""
    rng = np.random.default_rng(0)
    tasks = [
        Task(Clip(str(n), str(n), 1, "a", 0, "a"), "1", int(seconds * 44_100), 44_100)
        for n, seconds in enumerate(rng.choice([0.5, 5, 5, 5, 12, 31, 31, 0], 300))
    ]
    whole = list(group(tasks, 16))
    assert sorted(task.clip.file for members in whole for task in members) == sorted(task.clip.file for task in tasks)
    assert all(len({task.frames for task in members}) == 1 for members in whole)
    done = {id(members) for members in whole if rng.random() < 0.5}
    finished = {task.clip.file for members in whole if id(members) in done for task in members}
    left = list(group([task for task in tasks if task.clip.file not in finished], 16))
    assert sorted(left, key=str) == sorted((members for members in whole if id(members) not in done), key=str)
