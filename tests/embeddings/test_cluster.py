"""A local Dask cluster, addresses instead of paths, tables in parts."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import PATIENCE_S, ROOT, run

from danger_safe.core.errors import UserError
from danger_safe.embeddings import cluster as cluster_module
from danger_safe.embeddings.table import read_table

SCRIPT = "extractEmbeddingCnn14.py"


def read_until(process, pattern):
    """Read a process's output until it matches."""
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"{process.args} ended")


@pytest.fixture
def cluster():
    """Start a scheduler and two workers as docs/cluster.md describes: (address, workers)."""
    pytest.importorskip("distributed", reason="the optional package distributed is not installed")
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    host, port = address.removeprefix("tcp://").split(":")
    start("distributed.cli.dask_scheduler", "--port", port, "--host", host, "--no-dashboard")
    workers = [
        start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in "12"
    ]
    for worker in workers:
        read_until(worker, "Registered to")
    yield address, workers
    for process in started:
        process.kill()
        process.wait()


def test_cluster_that_loses_a_worker_gives_the_same_table(cluster, sample, embeddings, tmp_path):
    address, workers = cluster
    table = tmp_path / "table.csv"
    arguments = ["--dataset", sample, "--checkpoint", "compact", "--output", table, "--scheduler", address]
    process = subprocess.Popen(
        [sys.executable, ROOT / SCRIPT, *map(str, arguments), "--batch-size", "4"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    read_until(process, "2 workers")
    time.sleep(2.0)  # both workers have started
    workers[0].send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    here, there = pd.read_csv(embeddings), pd.read_csv(table)
    assert (here.iloc[:, :6] == there.iloc[:, :6]).all().all()
    a, b = (frame.filter(like="feat_").to_numpy() for frame in (here, there))
    assert (np.abs(a - b).max(axis=1) <= 5e-4 * a.mean(axis=1)).all()


def test_unreachable_scheduler_is_explained(sample, tmp_path):
    pytest.importorskip("distributed", reason="the optional package distributed is not installed")
    arguments = ["--dataset", sample, "--checkpoint", "compact", "--output", tmp_path / "table.csv"]
    done = run(SCRIPT, *arguments, "--scheduler", "tcp://127.0.0.1:9", status=1)
    assert "no Dask scheduler answers" in done.stderr


def test_unresponsive_scheduler_times_out(monkeypatch):
    pytest.importorskip("distributed", reason="the optional package distributed is not installed")
    monkeypatch.setattr(cluster_module, "TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="no Dask scheduler answers there"):
            cluster_module.embed_on_cluster(address, [], None, "compact", "", 512, 1)


def test_sounds_at_an_address_are_embedded(tmp_path):
    pytest.importorskip("fsspec")
    for label, seed in (("Danger", 1), ("Safe", 2)):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(40_000)
        soundfile.write(tmp_path / "sounds" / label / "a.flac", noise, 44_100)
    (tmp_path / "sounds" / "Safe" / "bad.wav").write_text("no sound")
    tables = []
    for name, dataset in (("path", tmp_path / "sounds"), ("address", (tmp_path / "sounds").as_uri())):
        output = tmp_path / name / "table.csv"
        run(SCRIPT, "--dataset", dataset, "--checkpoint", "compact", "--output", output, status=3)
        tables.append(output.read_text())
    assert tables[0] == tables[1]
    done = run(
        SCRIPT, "--dataset", (tmp_path / "sounds").as_uri(), "--checkpoint", "compact", "--output", output, status=3
    )
    assert "Nothing new" in done.stdout
    done = run(SCRIPT, "--dataset", "nowhere://bucket/sounds", "--output", output, status=1)
    assert "nowhere" in done.stderr


def test_parquet_parts_are_the_same_table(tmp_path):
    pytest.importorskip("pyarrow", reason="the optional package pyarrow is not installed")
    for label in ("Danger", "Safe"):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for number in range(4):
            noise = 0.1 * np.random.default_rng([number, len(label)]).standard_normal(20_000)
            soundfile.write(tmp_path / "sounds" / label / f"{number}.wav", noise, 32_000)
    whole, one, parts = (tmp_path / name for name in ("whole.csv", "one.parquet", "parts.parquet"))
    arguments = ["--dataset", tmp_path / "sounds", "--checkpoint", "compact", "--output"]
    run(SCRIPT, *arguments, whole)
    run(SCRIPT, *arguments, one)
    run(SCRIPT, *arguments, parts, "--rows-per-part", 3)
    assert [path.name for path in sorted(parts.iterdir())] == [f"part-{n:05d}.parquet" for n in range(3)]
    expected = read_table(whole)
    for path in (one, parts):
        table = read_table(path)
        assert (table.features == expected.features).all()
        assert table.clips.astype(str).equals(expected.clips.astype(str))
    assert "Nothing new" in run(SCRIPT, *arguments, parts, "--rows-per-part", 3).stdout
    done = run(SCRIPT, *arguments, whole, "--rows-per-part", 3, status=2)
    assert ".parquet" in done.stderr
