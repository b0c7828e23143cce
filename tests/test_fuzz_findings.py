"""Findings of make fuzz: malformed files that were not refused with a clear error. One test for each kind."""

import contextlib
import importlib
import json
import sqlite3
import struct
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch
from helpers import ROOT, run, write_esc50

from danger_safe.audio.decode import AudioError, read_blocks, read_header
from danger_safe.audio.stream import stream_wav
from danger_safe.core.errors import UserError
from danger_safe.data.categories import read_categories, read_same
from danger_safe.detection.detector import load_builtin
from danger_safe.embeddings.journal import Journal, Result
from danger_safe.embeddings.table import read_table
from danger_safe.embeddings.table_sounds import find_sounds
from models.checkpoints import load_model, save_checkpoint
from models.compact import CompactNet

TABLE = "file,label,category,fold,source,seen,feat_0000,feat_0001\na,1,dog,1,a,False,0.5,1\nb,0,rain,2,b,True,2,3\n"


def wav(rate=8_000, bits=16, frames=100):
    """Return a WAV file with any header."""
    width = -(-bits // 8)
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * width & 0xFFFFFFFF, width, bits)
    body = (
        b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", frames * width) + bytes(frames * width)
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data", [wav(rate=0), wav(rate=1), wav(rate=2**31 - 1), wav(bits=40), wav()[:16] + b"\xff" * 9]
)
def test_wav_streams_with_impossible_headers_are_refused(data):
    with pytest.raises(AudioError):
        list(stream_wav(BytesIO(data)))


def test_impossible_sample_rates_are_refused(tmp_path):
    for rate in (1, 999, 100_000_000):
        soundfile.write(tmp_path / "a.wav", np.zeros(99), rate)
        with pytest.raises(AudioError, match="sample rate"):
            list(read_blocks(tmp_path / "a.wav", 30))


def test_impossible_file_name_is_a_missing_clip(tmp_path):
    esc50 = write_esc50(tmp_path / "esc50", [("dog", 1, 1), ("rain", 2, 2)])
    with open(esc50 / "meta" / "esc50.csv", "a") as table:
        table.write(f"{'x' * 5_000}.wav,1,0,dog,False,3,A\n")
    (tmp_path / "mapping.toml").write_text('Danger = ["dog"]\nSafe = ["rain"]\n')
    flags = ["--categories", tmp_path / "mapping.toml", "--output", tmp_path / "out"]
    assert "2 clips placed" in run("filterAudioToDangerousAndSafe.py", "--esc50", esc50, *flags, status=3).stdout
    with pytest.raises(AudioError, match=r"is missing|too long"):
        read_header(tmp_path / ("x" * 5_000))


def test_deeply_nested_brackets_are_refused(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_text("Danger = " + "[" * 5_000)
    for read in (lambda: read_categories(path, None), lambda: read_same(path)):
        with pytest.raises(UserError):
            read()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "null", '{"checkpoint": "compact"}', '{"checkpoint": {"name": 1, "sha256": 2}}',
             '{"checkpoint": {}}', '{"made_of": ["here"]}', '{"made_of": {"dataset": 1}}'],
)  # fmt: skip
def test_json_that_does_not_describe_its_table_is_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(TABLE)
    read_table(tmp_path / "t.csv")
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match="again"):
        read_table(tmp_path / "t.csv")


def spoilt_detector(tmp_path, **changes):
    replace(load_builtin(), **changes).save(tmp_path / "detector.npz")
    return tmp_path / "detector.npz"


def test_detectors_with_inconsistent_arrays_are_refused(tmp_path):
    good = load_builtin()
    load_builtin(spoilt_detector(tmp_path))
    for changes in (
        {"centres": good.centres[:-1]}, {"centres": np.float32(1)}, {"mean": good.mean * np.nan},
        {"scale": good.scale * 0},
        {"weights": good.weights[1:]}, {"threshold": "high"}, {"tag_groups": ((527,),)}, {"about": []},
        {"categories": good.categories[1:]}, {"name": 3}, {"slope": float("nan")},
    ):  # fmt: skip
        with pytest.raises(UserError, match="damaged"):
            load_builtin(spoilt_detector(tmp_path, **changes))


@pytest.fixture(scope="module")
def valid_checkpoint(tmp_path_factory):
    """The content of a small checkpoint."""
    path = tmp_path_factory.mktemp("valid") / "c.pth"
    save_checkpoint(path, CompactNet(2, 1), categories=["a", "b"], fingerprints=["00" * 8], licence="", training={})
    load_model(str(path))
    return torch.load(path, weights_only=True)


def save_changed(content, path, **changes):
    """Write a checkpoint with some of its entries or settings replaced."""
    content = content | {name: dict(content[name]) for name in ("settings", "model")}
    for name, value in changes.items():
        place = next(p for p in (content["settings"], content["model"], content) if name in p)
        place[name] = value
    torch.save(content, path)
    return str(path)


def test_inconsistent_checkpoints_are_refused(tmp_path, valid_checkpoint):
    path = tmp_path / "c.pth"
    load_model(save_changed(valid_checkpoint, path))
    for changes in (
        {"width": 10**6}, {"width": 4_000}, {"classes": -1}, {"fmin": "low"}, {"fmin": 9_000.0}, {"fmax": float("nan")},
        {"floor": 0.0}, {"floor": 2**63}, {"floor": 1e-320}, {"floor": torch.ones(())}, {"normalise": 3},
        {"network": []}, {"settings": 7}, {"categories": None}, {"fingerprints": [[]]},
        {"fingerprints": [1]}, {"fc1.bias": torch.full((512,), float("nan"))}, {"fc1.bias": 4},
        {"fc_audioset.weight": torch.zeros(1).expand(2, 512)}, {"fc1.bias": torch.zeros(512).to_sparse()},
    ):  # fmt: skip
        with pytest.raises(UserError, match=r"not a checkpoint|is damaged|NaN"):
            load_model(save_changed(valid_checkpoint, path, **changes))


def test_small_file_cannot_allocate_terabytes(tmp_path):
    torch.save({"model": {"fc_audioset.weight": torch.zeros(1).expand(527, 32 * 4_000)}}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"not a checkpoint|is damaged|NaN"):
        load_model(str(tmp_path / "c.pth"))


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE clips SET embedding = x'00' WHERE file = 'a'", "UPDATE clips SET embedding = NULL",
        "UPDATE clips SET embedding = x'00000000' WHERE file = 'a'", "UPDATE clips SET reason = NULL",
        "UPDATE clips SET seconds = 'long'", "INSERT INTO clips VALUES (NULL, '', 0.0, NULL, 'x')",
        "UPDATE notes SET value = '[]'", "UPDATE notes SET value = '{'", "UPDATE notes SET value = NULL",
        "DROP TABLE clips; CREATE TABLE clips (other)",
    ],
)  # fmt: skip
def test_malformed_journals_are_replaced(tmp_path, spoil):
    path = tmp_path / "t.journal"
    with Journal(path) as journal:
        journal.begin({"checkpoint": "ab"})
        journal.add([Result(file, "1 2", 5.0, np.zeros(4, np.float32)) for file in "ab"])
    with Journal(path) as journal:
        assert not journal.damaged and len(journal.results()) == 2
    database = sqlite3.connect(path)
    database.executescript(spoil)
    database.close()
    with Journal(path) as journal:
        assert journal.damaged
        assert journal.results() == {} and journal.made_with == {}


def test_journal_that_is_damaged_in_the_middle_is_reported(tmp_path):
    path = tmp_path / "t.journal"
    with Journal(path) as journal:
        journal.begin({"checkpoint": "ab"})
        journal.add([Result(f"{n}", json.dumps("x" * 50), 5.0, np.ones(512, np.float32)) for n in range(400)])
    content = bytearray(path.read_bytes())
    content[100_000:500_000] = bytes(400_000)
    path.write_bytes(content)
    try:
        with Journal(path) as journal:
            known = [] if journal.damaged else journal.results()
            list(journal.embeddings(known, 512))
    except UserError as error:
        assert "delete it" in str(error)


def test_impossible_paths_do_not_exist(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(TABLE.replace("\na,", f"\n{'x' * 5_000},"))
    side_json = {
        "checkpoint": {"name": "compact", "sha256": "ab"},
        "settings": {"dimensions": 2},
        "made_of": {"dataset": "d"},
    }
    table.with_suffix(".json").write_text(json.dumps(side_json))
    with pytest.raises(UserError, match="not there"):
        find_sounds(read_table(table))


def test_missing_categories_and_sources_are_text(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE.replace("dog,1,a", ",1,"))
    clips = read_table(tmp_path / "t.csv").clips
    assert clips["category"].tolist() == ["", "rain"]
    assert clips["source"].tolist() == ["a", "b"]  # a clip without a source is its own recording


@pytest.mark.parametrize("fold", ["inf", "-1", "1e30"])
def test_invalid_folds_are_refused(tmp_path, fold):
    (tmp_path / "t.csv").write_text(TABLE.replace("dog,1,a", f"dog,{fold},a"))
    with pytest.raises(UserError, match="column fold"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["audio", "manifest", "table", "checkpoint", "detector", "journal"])
def test_fuzz_targets_accept_their_valid_seeds(name, monkeypatch):
    """A target that refuses its own valid files finds nothing."""
    monkeypatch.syspath_prepend(str(ROOT / "fuzz"))
    target = importlib.import_module("targets").TARGETS[name]
    used = 0
    for seed in target.seeds():
        target.check(seed)
        with contextlib.suppress(UserError, AudioError):
            target.use(seed)
            used += 1
    assert used
