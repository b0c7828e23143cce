"""Hostile sound files in extraction and prediction: each is read, or reported with a one-line reason."""

import ctypes
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import ROOT, run, tree
from hostile_files import CONTENTS, encoded, noise, spoilt, wav_header

import extractEmbeddingCnn14
from danger_safe.core.cli import one_line

EXTRACT, PREDICT = "extractEmbeddingCnn14.py", "predict_danger.py"
POSIX = os.name == "posix"
CAPABILITIES_VERSION = 0x20080522  # of Linux's capset; two words each of effective, permitted, inheritable
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Make a folder of everything in CONTENTS and of names that are not files: (folder, reasons by name)."""
    folder = tmp_path_factory.mktemp("hostile") / "sounds"
    (folder / "Danger").mkdir(parents=True)
    safe = folder / "Safe"
    safe.mkdir()
    reasons = {name: reason for name, (_, reason) in CONTENTS.items()}
    for name, (content, _) in CONTENTS.items():
        (safe / name).write_bytes(content)
    (folder / "Danger" / "good.wav").write_bytes(encoded(noise(seed=99)))
    (safe / "spoilt.flac").write_bytes(spoilt(encoded(noise(3), container="FLAC")))
    (safe / "folder.wav").mkdir()
    (safe / "nowhere.wav").symlink_to("gone.wav")
    (safe / "circle.wav").symlink_to("circle.wav")
    (safe / "around").symlink_to(folder, target_is_directory=True)
    heard_up_to = "breaks off at" if shutil.which("ffmpeg") else "cannot be decoded"
    reasons |= {"spoilt.flac": heard_up_to, "nowhere.wav": "is a link", "circle.wav": "cannot be read"}
    if POSIX:
        os.mkfifo(safe / "pipe.wav")
        with socket.socket(socket.AF_UNIX) as unix:
            here = os.getcwd()
            os.chdir(safe)  # the path of a socket must be short
            unix.bind("socket.wav")
            os.chdir(here)
        for name in ("zero", "urandom", "null"):
            (safe / f"{name}.wav").symlink_to(f"/dev/{name}")
        reasons |= dict.fromkeys(
            ("pipe.wav", "socket.wav", "zero.wav", "urandom.wav", "null.wav"), "a pipe or a device"
        )
        name = os.fsdecode(b"bytes\xff.wav")
        (safe / name).write_bytes(encoded(noise(seed=98)))
        reasons["bytes\\xff.wav"] = None
    return folder, reasons


@pytest.fixture(scope="module")
def extracted(sounds, tmp_path_factory):
    folder, _ = sounds
    out = tmp_path_factory.mktemp("extracted")
    before = tree(folder)
    done = run(EXTRACT, "--dataset", folder, "--checkpoint", "mfcc", "--output", out / "t.csv", status=3)
    assert tree(folder).keys() == before.keys()
    assert sorted(p.name for p in out.iterdir()) == ["t.csv", "t.journal", "t.json", "t_failures.csv"]
    table, failures = (pd.read_csv(out / name, keep_default_na=False) for name in ("t.csv", "t_failures.csv"))
    return done, table, failures.set_index("file")["reason"]


@pytest.fixture(scope="module")
def predicted(sounds):
    folder, _ = sounds
    before = tree(folder)
    done = run(PREDICT, folder, "--format", "csv", status=3)
    assert tree(folder).keys() == before.keys()
    return done


@pytest.mark.parametrize("name", CONTENTS, ids=lambda name: one_line(name)[:40])
def test_each_sound_is_read_or_reported(sounds, extracted, predicted, name):
    check_sound(sounds, extracted, predicted, name)


def check_sound(sounds, extracted, predicted, name):
    reason = sounds[1][name]
    done, table, failures = extracted
    warnings = [line for line in done.stderr.splitlines() if line.startswith(f"warning: {one_line('Safe/' + name)} ")]
    reported = [line for line in predicted.stderr.splitlines() if f"{os.sep}Safe{os.sep}{one_line(name)} " in line]
    if reason is None:
        row = table[table["file"] == f"Safe/{name}"]
        assert len(row) == 1
        assert np.isfinite(row.filter(like="feat_").to_numpy(float)).all()
        assert not warnings
    else:
        assert reason in failures[f"Safe/{name}"]
        assert len(warnings) == 1
        assert reason in warnings[0]
        assert len([line for line in reported if "warning: " in line]) == 1
        assert reason in next(line for line in reported if "warning: " in line)


def test_names_that_are_not_files_are_reported(sounds, extracted, predicted):
    for name in sounds[1].keys() - CONTENTS.keys():
        if "bytes" not in name:
            check_sound(sounds, extracted, predicted, name)
    assert "folder.wav" not in predicted.stderr


def test_tables_contain_the_exact_names(sounds, extracted):
    good = {f"Safe/{name}" for name, reason in sounds[1].items() if reason is None}
    assert set(extracted[1]["file"]) == good | {"Danger/good.wav"}


def test_scores_are_finite_and_times_are_in_the_recording(predicted):
    rows = pd.read_csv(io.StringIO(predicted.stdout))
    assert rows["score"].between(0, 1).all()
    assert (rows["start"] >= 0).all()
    quiet = rows[rows["file"].str.contains("silence|minus_zero|denormal")]
    assert (quiet["score"] == 0).all()


def test_event_of_a_very_short_recording_is_inside_it(predict, tmp_path):
    (tmp_path / "short.wav").write_bytes(encoded(noise(0.1)))
    done = predict(tmp_path / "short.wav", "--threshold", "0.000001", "--format", "json")
    (event,) = json.loads(done.out)["events"]
    assert 0 <= event["start"] < event["end"] <= 0.2


def unprivileged(function, *arguments):
    """Call a function in a thread, and return its result. The thread lacks root's permission to read everything."""

    def call():
        if os.geteuid() == 0:
            libc, header = ctypes.CDLL(None, use_errno=True), struct.pack("<Ii", CAPABILITIES_VERSION, 0)
            libc.capget(header, held := ctypes.create_string_buffer(24))
            *low, a, b, c = struct.unpack("<6I", held)
            kept = struct.pack("<6I", *(word & ~(CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH) for word in low), a, b, c)
            assert libc.capset(header, kept) == 0, os.strerror(ctypes.get_errno())
        return function(*arguments)

    if os.geteuid() == 0 and sys.platform != "linux":
        pytest.skip("runs as root, whom no permission stops")
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@pytest.mark.skipif(not POSIX, reason="permissions of POSIX")
def test_unreadable_files_and_folders_are_reported_and_retried_when_readable(tmp_path, capsys):
    folder = tmp_path / "sounds"
    for name in ("Danger/a.wav", "Safe/b.wav", "Safe/closed/c.wav", "Safe/unreadable.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(noise(seed=len(name))))
    closed = [folder / "Safe" / "closed", folder / "Safe" / "unreadable.wav"]
    flags = ["--dataset", str(folder), "--checkpoint", "compact", "--output", str(tmp_path / "t.csv")]
    for path in closed:
        path.chmod(0)
    status = unprivileged(extractEmbeddingCnn14.main, flags)
    closed[0].chmod(0o755)
    closed[1].chmod(0o644)
    printed = capsys.readouterr().err
    assert status == 3, printed
    assert "warning: Safe/closed/ cannot be read: Permission denied" in printed
    assert "warning: Safe/unreadable.wav cannot be read: Permission denied" in printed
    assert unprivileged(extractEmbeddingCnn14.main, flags) == 0
    assert len(pd.read_csv(tmp_path / "t.csv")) == 4


STREAMS = {
    "empty": (b"", [], "it ended before a sound began"),
    "text": (b"hello " * 100, [], "not a WAV stream"),
    "header": (wav_header()[:44], [], "has no samples"),
    "no_channels": (wav_header(channels=0) + bytes(100), [], "not a WAV stream"),
    "64_bit": (wav_header(bits=64) + bytes(100), [], "not a WAV stream"),
    "slow": (wav_header(rate=3) + bytes(100), [], "sample rate of 3 Hz"),
    "65535_channels": (wav_header(channels=65_535, bits=8) + bytes(100_000), [], "not a WAV stream"),
    "half_a_sample": (b"x", ["--raw", "8000"], "has no samples"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_bad_streams_are_refused(predict, name):
    content, flags, words = STREAMS[name]
    assert words in predict("-", *flags, stdin=content, status=1).err


def test_channels_that_cancel_each_other_are_not_silence(predict, tmp_path):
    left = noise(4)
    soundfile.write(tmp_path / "crossed.wav", np.hstack([left, -left]), 16_000)
    soundfile.write(tmp_path / "left.wav", left, 16_000)
    lines = predict(tmp_path / "crossed.wav", tmp_path / "left.wav", "--format", "json").out.splitlines()
    crossed, alone = (json.loads(line)["score"] for line in lines)
    assert crossed == pytest.approx(alone, abs=1e-3) and crossed > 0


@pytest.mark.skipif(not POSIX, reason="a shell's way to close a stream")
@pytest.mark.parametrize("closed", ["<&- 2>&-", ">&- 2>/dev/full"])
def test_closed_and_full_streams(tmp_path, closed):
    (tmp_path / "a.wav").write_bytes(encoded(noise(1)))
    command = f"{sys.executable} {ROOT / PREDICT} {tmp_path / 'a.wav'} --jobs 1 --format json {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8")
    assert done.returncode == 0
    assert (">&-" in closed.split()) if not done.stdout else json.loads(done.stdout)


@pytest.mark.filterwarnings("ignore:Glyph")  # of the emoji, in fonts without it
def test_sound_before_a_truncation_is_scored_and_drawn(predict, tmp_path):
    """Even less than a batch of the network. The name looks like a formula, and is drawn as text."""
    path = tmp_path / ("$\\frac{$ 🔥.flac" if POSIX else "$_{$ 🔥.flac")
    path.write_bytes(spoilt(encoded(noise(20), container="FLAC"), start=0.7))
    done = predict(path, "--format", "json", "--threshold", "1e-9", "--plot", tmp_path / "p.png", status=3)
    line = json.loads(done.out)
    assert line["incomplete"] and line["events"] and 12 < line["seconds"] < 14.5
    assert "cannot be decoded" in done.err and (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
