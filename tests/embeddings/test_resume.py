"""Extraction that is killed, runs out of space or runs twice: finished clips are kept and not embedded again."""

import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import ROOT, run, write_noises

from danger_safe.core import atomic
from danger_safe.data.clips import Clip
from danger_safe.embeddings.extractor import group
from danger_safe.embeddings.journal import Journal
from danger_safe.embeddings.plan import Task

SCRIPT = "extractEmbeddingCnn14.py"
FILES = ("table.csv", "table.json", "table_failures.csv")


def command(folder, output, checkpoint="compact"):
    """Embed clips of a second in groups of five."""
    return ["--dataset", folder, "--checkpoint", checkpoint, "--output", output / "table.csv", "--batch-size", 1]


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """Twenty clips, with folds."""
    folder = write_noises(tmp_path_factory.mktemp("some"), clips=10)
    rows = [
        f"{label}/{n}.wav,{int(label == 'Danger')},{label},{n % 5 + 1},{n}"
        for label in ("Danger", "Safe")
        for n in range(10)
    ]
    (folder / "manifest.csv").write_text("\n".join(["file,label,category,fold,source", *rows, ""]))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(some, tmp_path_factory):
    """The folder and the files of an extraction that was not interrupted."""
    output = tmp_path_factory.mktemp("uninterrupted")
    run(SCRIPT, *command(some, output))
    return output, {name: (output / name).read_bytes() for name in FILES}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_extraction_is_resumed(some, tmp_path, uninterrupted):
    """Killed before and after the first group, and after two groups; finished by a process with another hash seed."""
    for additions in (1, 2, 2):
        run("tests/killed.py", additions, ROOT / SCRIPT, *command(some, tmp_path), status=-signal.SIGKILL)
        assert not (tmp_path / "table.csv").exists()
    left = f".table.csv.danger-safe-{atomic._host_id()}-99999.abcdef12.part"
    (tmp_path / left).write_text("file,la")  # the state after a kill while the table is written
    done = run(SCRIPT, *command(some, tmp_path), own_process=True)
    assert "10 clips to embed, 0.00 hours of sound; 0 unreadable; 10 done before" in done.stdout
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == uninterrupted[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "table.journal"])


def test_second_run_reports_nothing_new_and_restores_a_lost_table(some, uninterrupted):
    output, content = uninterrupted
    done = run(SCRIPT, *command(some, output))
    assert "Nothing new" in done.stdout
    (output / "table.csv").write_bytes(content["table.csv"][:2_000])
    done = run(SCRIPT, *command(some, output))
    assert "0 clips in" in done.stdout
    assert (output / "table.csv").read_bytes() == content["table.csv"]


def features_of(output):
    return pd.read_csv(output / "table.csv").set_index("file").filter(like="feat_")


def test_changed_new_removed_and_failed_clips_are_detected(tmp_path):
    sounds = write_noises(tmp_path / "sounds", clips=3)
    (sounds / "Safe" / "bad.wav").write_text("no sound")
    run(SCRIPT, *command(sounds, tmp_path, "mfcc"), status=3)
    done = run(SCRIPT, *command(sounds, tmp_path, "mfcc"), status=3)
    assert "Nothing new" in done.stdout
    assert "Safe/bad.wav" in done.stderr
    before = features_of(tmp_path)
    shutil.copy(sounds / "Safe" / "1.wav", sounds / "Safe" / "bad.wav")
    shutil.copy(sounds / "Danger" / "1.wav", sounds / "Danger" / "new.wav")
    soundfile.write(sounds / "Safe" / "0.wav", np.sin(np.arange(50_000)), 32_000)
    (sounds / "Safe" / "2.wav").unlink()
    assert "3 clips to embed" in run(SCRIPT, *command(sounds, tmp_path, "mfcc")).stdout
    after = features_of(tmp_path)
    assert list(after.index) == [f"Danger/{n}.wav" for n in (0, 1, 2, "new")] + [f"Safe/{n}.wav" for n in (0, 1, "bad")]
    assert (after.loc["Danger/0.wav"] == before.loc["Danger/0.wav"]).all()
    assert not np.allclose(after.loc["Safe/0.wav"], before.loc["Safe/0.wav"])


def test_damaged_journal_or_another_checkpoint_starts_over(tmp_path):
    sounds = write_noises(tmp_path / "sounds", clips=3)
    run(SCRIPT, *command(sounds, tmp_path, "mfcc"))
    journal = tmp_path / "table.journal"
    journal.write_bytes(journal.read_bytes()[:100] + b"not a database at all" * 99)
    done = run(SCRIPT, *command(sounds, tmp_path, "mfcc"))
    assert "damaged" in done.stderr
    assert "6 clips in" in done.stdout
    done = run(SCRIPT, *command(sounds, tmp_path, "compact"))
    assert "starting anew" in done.stderr
    assert features_of(tmp_path).shape == (6, 768)


def test_concurrent_run_with_the_same_output_is_refused(some, tmp_path):
    with Journal(tmp_path / "table.journal"):
        done = run(SCRIPT, *command(some, tmp_path), status=1)
    assert "another extraction is writing the same table" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX")
def test_full_disk_is_reported_and_the_next_run_continues(some, tmp_path, uninterrupted):
    """A limit on file sizes simulates the full disk: writing fails in the middle in the same way."""
    done = run("tests/limited.py", 120, ROOT / SCRIPT, *command(some, tmp_path), status=1)
    assert "what was finished is kept" in done.stderr
    assert not (tmp_path / "table.csv").exists()
    done = run(SCRIPT, *command(some, tmp_path))
    assert "done before" in done.stdout
    assert (tmp_path / "table.csv").read_bytes() == uninterrupted[1]["table.csv"]


def test_embedding_of_a_long_recording_is_the_mean_of_its_chunks(tmp_path):
    """40 seconds: a chunk of 30 s and a quiet one of 10 s; each chunk is also a clip of its own."""
    rng = np.random.default_rng(0)
    chunks = [level * rng.standard_normal(seconds * 32_000) for level, seconds in ((0.3, 30), (0.01, 10))]
    for name, sound in (("Danger/long", np.concatenate(chunks)), ("Safe/0", chunks[0]), ("Safe/1", chunks[1])):
        (tmp_path / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "sounds" / f"{name}.wav", sound, 32_000, subtype="FLOAT")
    run(SCRIPT, *command(tmp_path / "sounds", tmp_path))
    long, first, last = features_of(tmp_path).to_numpy()
    assert np.allclose(long, 0.75 * first + 0.25 * last, atol=1e-3)
    assert not np.allclose(first, last, atol=0.1)


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
