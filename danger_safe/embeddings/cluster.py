"""Extraction on a Dask cluster: every worker loads the network once and gets groups of clips by name.

Start a scheduler and workers in copies of this project's folder (the README has the commands). The sounds lie in a
folder that every worker sees at the same path, or at a URL such as s3://bucket/dataset. If a worker dies, Dask gives
its groups to another one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from danger_safe.core.errors import UserError
from danger_safe.core.paths import is_url
from danger_safe.embeddings.extractor import Extractor, group, record
from danger_safe.embeddings.journal import Journal, Result
from danger_safe.embeddings.plan import Task
from models.checkpoint_files import NAMES

GROUPS_PER_THREAD = 3  # sent ahead, so that no worker has to wait
TIMEOUT_S = 5  # for the scheduler's answer
RETRIES = 3  # of a group whose worker failed
_lock = threading.Lock()
_extractors: dict[str, Extractor] = {}  # on a worker: one per checkpoint, for the worker's lifetime


def embed_on_cluster(
    scheduler: str, tasks: list[Task], journal: Journal, checkpoint: str, sha256: str, dimensions: int, batch_size: int
) -> str:
    """Embed clips on a cluster; every group is in the journal as soon as it is done. Return the names of the engines.

    Raises UserError if there is no cluster, a worker fails, or it answers with anything but such embeddings.

    Args:
        scheduler: address of the Dask scheduler.
        tasks: the clips.
        journal: where the results go.
        checkpoint: name or path of the network.
        sha256: hash of the checkpoint; workers must have the same.
        dimensions: length of an embedding.
        batch_size: clips of five seconds in one batch.
    """
    try:
        from distributed import Client, as_completed
        from distributed.comm.core import connect
    except ImportError as error:
        raise UserError("--scheduler needs the optional package distributed: pip install distributed") from error
    try:
        asyncio.run(_check_reachable(scheduler, connect))
        client: Any = Client(scheduler, timeout=f"{TIMEOUT_S}s")
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f"{scheduler}: no Dask scheduler answers there ({error})") from error
    checkpoint = checkpoint if checkpoint in NAMES else str(Path(checkpoint).absolute())
    engines: set[str] = set()
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise UserError(f"{scheduler}: the cluster has no workers; start some as the README shows")
        print(f"{len(client.nthreads())} workers, {threads} threads", flush=True)
        groups = group([_with_absolute_path(task) for task in tasks], batch_size)

        sent: dict[str, list[Task]] = {}  # groups by Dask's key

        def submit(members: list[Task]):
            future = client.submit(embed_group, members, checkpoint, sha256, batch_size, pure=False, retries=RETRIES)
            sent[future.key] = members
            return future

        def results() -> Iterator[list[Result]]:
            running = as_completed([submit(members) for members in islice(groups, GROUPS_PER_THREAD * threads)])
            for future in running:
                engine, done = check_answer(_result(future), sent.pop(future.key), dimensions)
                engines.add(engine)
                for members in islice(groups, 1):
                    running.add(submit(members))
                yield done

        record(results(), len(tasks), journal)
    return ", ".join(sorted(engines)) + f" on the cluster {scheduler}"


async def _check_reachable(scheduler: str, connect: Callable) -> None:
    """Raise OSError or TimeoutError if nobody answers: Dask's client would wait for a silent server for ever."""
    connection = await asyncio.wait_for(connect(scheduler, timeout=TIMEOUT_S), 2 * TIMEOUT_S)
    connection.abort()


def embed_group(members: list[Task], checkpoint: str, sha256: str, batch_size: int) -> tuple[str, list[Result]]:
    """Embed a group of clips on a worker; return the engine's name and the results."""
    for task in members:
        if not is_url(task.clip.path) and not Path(task.clip.path).exists() and task.signature != "missing":
            raise UserError(
                f"a worker does not see {task.clip.path}: workers need the sounds at the same path, or an address"
            )
    with _lock:
        cached = _extractors.get(checkpoint)
        if cached is not None and (cached.engine.info.sha256, cached.batch_size) != (sha256, batch_size):
            _extractors.pop(checkpoint).engine.close()  # the file has been replaced since
        if checkpoint not in _extractors:
            from distributed import get_worker

            from models.engine import open_engine  # only workers need the network's libraries

            cores = get_worker().state.nthreads
            engine = open_engine(checkpoint, "auto", cores)
            if engine.info.sha256 != sha256:
                raise UserError(f"a worker's checkpoint {checkpoint} is another file than here")
            _extractors[checkpoint] = Extractor(engine, cores, batch_size)
    extractor = _extractors[checkpoint]
    return extractor.engine.backend, next(extractor.results([members]))


def check_answer(answer: Any, members: list[Task], dimensions: int) -> tuple[str, list[Result]]:
    """Return a worker's answer for a group. Raises UserError unless it is what ``embed_group`` returns for it."""
    try:
        engine, results = answer
        expected = [(task.clip.file, task.signature) for task in members]
        is_valid = isinstance(engine, str) and [(result.file, result.signature) for result in results] == expected
        for result in results:
            is_valid = is_valid and isinstance(result.reason, str) and np.isfinite(float(result.seconds))
            if not result.reason:
                embedding = result.embedding
                is_valid = is_valid and embedding.shape == (dimensions,) and embedding.dtype == np.float32
                is_valid = is_valid and np.isfinite(embedding).all()
    except (TypeError, ValueError, AttributeError):
        is_valid = False
    if not is_valid:
        raise UserError(
            f"a worker's answer for {members[0].clip.file} holds no embeddings of {dimensions} finite numbers: does it "
            "run this copy of the project? What was finished is kept"
        )
    return engine, results


def _with_absolute_path(task: Task) -> Task:
    if is_url(task.clip.path):
        return task
    return replace(task, clip=replace(task.clip, path=Path(task.clip.path).absolute()))


def _result(future) -> tuple[str, list[Result]]:
    """Return a future's result. Raises UserError if the worker failed."""
    try:
        return future.result()
    except UserError:
        raise
    except Exception as error:  # a worker can raise anything
        raise UserError(
            f"a worker failed: {type(error).__name__}: {error}; what was finished is kept, run the same command again"
        ) from error
