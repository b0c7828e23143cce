"""A local Dask cluster, addresses instead of paths, tables in parts."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, run, wait_for, write_noises

from danger_safe.core.errors import UserError
from danger_safe.embeddings import cluster as cluster_module
from danger_safe.embeddings.table import read_table

MODULE = "extractEmbeddingCnn14"
SCRIPT = f"{MODULE}.py"


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
    """Killed after the first of eleven groups. Every fourth clip of the sample is embedded."""
    address, workers = cluster
    sounds, table, log = tmp_path / "sounds", tmp_path / "table.csv", tmp_path / "table.journal-wal"
    header, *rows = (sample / "manifest.csv").read_text().splitlines()
    for label in ("Danger", "Safe"):
        (sounds / label).mkdir(parents=True)
    for row in rows[::4]:
        file = row.split(",")[0]
        shutil.copy(sample / file, sounds / file)
    (sounds / "manifest.csv").write_text("\n".join([header, *rows[::4], ""]))
    arguments = ["--dataset", sounds, "--checkpoint", "compact", "--output", table, "--scheduler", address]
    with ThreadPoolExecutor(1) as pool:
        extraction = pool.submit(run, SCRIPT, *arguments, "--batch-size", 4, "--jobs", 1)
        wait_for(lambda: extraction.done() or (log.exists() and log.stat().st_size > 40_000))
        workers[0].send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        assert "2 workers" in extraction.result().stdout
    here, there = pd.read_csv(embeddings).iloc[::4], pd.read_csv(table)
    assert here.iloc[:, :6].to_numpy().tolist() == there.iloc[:, :6].to_numpy().tolist()
    a, b = (frame.filter(like="feat_").to_numpy() for frame in (here, there))
    assert (np.abs(a - b).max(axis=1) <= 5e-4 * a.mean(axis=1)).all()


def test_unreachable_or_unresponsive_scheduler_is_explained(monkeypatch):
    pytest.importorskip("distributed", reason="the optional package distributed is not installed")
    monkeypatch.setattr(cluster_module, "TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (9, silent.getsockname()[1]):  # 9, "discard": no server
            with pytest.raises(UserError, match="no Dask scheduler answers there"):
                cluster_module.embed_on_cluster(f"tcp://127.0.0.1:{port}", [], None, "compact", "", 512, 1)


def test_sounds_at_an_address_are_embedded(tmp_path, refused):
    pytest.importorskip("fsspec")
    sounds = write_noises(tmp_path / "sounds", 1, "flac", 44_100)
    (sounds / "Safe" / "bad.wav").write_text("no sound")
    tables = []
    for name, dataset in (("path", sounds), ("address", sounds.as_uri()), ("address", sounds.as_uri())):
        output = tmp_path / name / "table.csv"
        done = run(SCRIPT, "--dataset", dataset, "--checkpoint", "mfcc", "--output", output, status=3)
        tables.append(output.read_text())
    assert tables[0] == tables[1]
    assert "Nothing new" in done.stdout
    refused(MODULE, "--dataset", "nowhere://bucket/sounds", "--output", output, words="nowhere")


def test_parquet_parts_are_the_same_table(tmp_path, refused):
    pytest.importorskip("pyarrow", reason="the optional package pyarrow is not installed")
    whole, one, parts = (tmp_path / name for name in ("whole.csv", "one.parquet", "parts.parquet"))
    arguments = ["--dataset", write_noises(tmp_path / "sounds", 4, "flac", 44_100), "--checkpoint", "mfcc", "--output"]
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
    refused(MODULE, *arguments, whole, "--rows-per-part", 3, status=2, words=".parquet")
