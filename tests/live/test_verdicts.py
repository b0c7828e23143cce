"""verdicts.jsonl: verdicts on events are stored completely, and the last one counts."""

import os
from dataclasses import replace

import numpy as np
import pytest

from danger_safe.core.errors import UserError
from danger_safe.live.verdicts import EventWindows, Verdict, append_verdict, load_windows, read_verdicts, relative_path

ONE = Verdict("1", "cửa trước", "2026-11-26T07:00:00.000+07:00", "false_alarm", "siren", None, "windows/1.npz")
TWO = replace(ONE, event="2", verdict="right", sound="recordings/2.flac")


def test_last_verdict_counts_and_partial_lines_are_ignored(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "verdicts.jsonl"
    assert read_verdicts(path) == {}
    for verdict in (ONE, TWO, replace(ONE, verdict="none"), TWO, replace(ONE, verdict="right")):
        append_verdict(path, verdict)
    assert list(read_verdicts(path).values()) == [TWO, replace(ONE, verdict="right")]
    append_verdict(path, replace(TWO, verdict="none"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert list(read_verdicts(path)) == ["1"]

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError):
            append_verdict(path, TWO)
    assert path.read_bytes() == whole
    append_verdict(path, TWO)
    assert list(read_verdicts(path)) == ["1", "2"]
    for damage in (b"[]\n", b"{\n", b'{"event": 1}\n', whole.splitlines()[0].replace(b"false_alarm", b"yes") + b"\n"):
        path.write_bytes(whole + damage)
        with pytest.raises(UserError, match=f"line {len(whole.splitlines()) + 1}: this is not a verdict"):
            read_verdicts(path)


def test_windows_are_stored_without_pickle(tmp_path):
    windows = EventWindows(np.ones((2, 768)), "ab" * 32, np.array([-1, 0.5, 1]), np.array([0.1, 0.9, 0.8]))
    path = tmp_path / "windows" / "1.npz"
    windows.save(path)
    kept = load_windows(path)
    assert kept.embeddings.shape == (2, 768) and kept.embeddings.dtype == np.float32
    assert kept.checkpoint_sha256 == "ab" * 32 and kept.scores.tolist() == pytest.approx([0.1, 0.9, 0.8])
    assert relative_path(path, tmp_path) == "windows/1.npz"
    with pytest.raises(UserError, match="is not there"):
        load_windows(tmp_path / "absent.npz")
    for damage in (path.read_bytes()[:-30], b""):
        path.write_bytes(damage)
        with pytest.raises(UserError, match="is damaged"):
            load_windows(path)
    few, whole = np.zeros(2, np.float32), {"embeddings": np.zeros((999, 768), np.float32), "checkpoint_sha256": "a"}
    bomb = {**whole, "times": few, "scores": few}  # 5 KB unpack to 3 MB; it could be gigabytes
    pickle, uneven = {**bomb, "embeddings": np.array([{}])}, {**bomb, "scores": few[:1]}
    for save, arrays in ((np.savez, pickle), (np.savez, uneven), (np.savez_compressed, bomb)):
        save(path, **arrays)
        with pytest.raises(UserError, match="is damaged"):
            load_windows(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
        with pytest.raises(UserError, match="is damaged"):
            load_windows(tmp_path / "pipe.npz")
