"""The same extraction on a Dask cluster: every worker loads the network once, groups of clips travel by name.

Start a scheduler and workers in copies of this project's folder (the README has the commands); the sounds lie in a
folder that every worker sees at the same path, or at an address such as s3://bucket/dataset. A worker that dies in
the middle loses nothing: Dask gives its groups to another.
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

GROUPS_PER_THREAD = 3  # sent ahead, so that no worker waits for the next
ANSWER_SECONDS = 5  # in which a scheduler must answer
RETRIES = 3  # of a group whose worker failed
_lock = threading.Lock()
_extractors: dict[str, Extractor] = {}  # on a worker: one for each checkpoint, for as long as the worker lives


def embed_on_cluster(
    scheduler: str, tasks: list[Task], journal: Journal, checkpoint: str, sha256: str, dimensions: int, batch_size: int
) -> str:
    """Embed clips on the cluster of a scheduler; every group is in the journal as soon as it is done.

    Returns the engines that ran, by name. Raises UserError when there is no cluster, or a worker cannot do its part, or
    answers with anything but embeddings of so many ``dimensions``.
    """
    try:
        from distributed import Client, as_completed
        from distributed.comm.core import connect
    except ImportError as error:
        raise UserError("--scheduler needs the optional package distributed: pip install distributed") from error
    try:
        asyncio.run(_ask(scheduler, connect))
        client: Any = Client(scheduler, timeout=f"{ANSWER_SECONDS}s")
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f"{scheduler}: no Dask scheduler answers there ({error})") from error
    checkpoint = checkpoint if checkpoint in NAMES else str(Path(checkpoint).absolute())
    engines: set[str] = set()
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise UserError(f"{scheduler}: the cluster has no workers; start some as the README shows")
        print(f"{len(client.nthreads())} workers, {threads} threads", flush=True)
        groups = group([_everywhere(task) for task in tasks], batch_size)

        sent: dict[str, list[Task]] = {}  # by Dask's key of a group

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


async def _ask(scheduler: str, connect: Callable) -> None:
    """Raises OSError or TimeoutError where nobody answers: Dask's client would wait for ever for one who is silent."""
    connection = await asyncio.wait_for(connect(scheduler, timeout=ANSWER_SECONDS), 2 * ANSWER_SECONDS)
    connection.abort()


def embed_group(members: list[Task], checkpoint: str, sha256: str, batch_size: int) -> tuple[str, list[Result]]:
    """On a worker: the engine's name, and the results of a group of clips."""
    for task in members:
        if not is_url(task.clip.path) and not Path(task.clip.path).exists() and task.signature != "missing":
            raise UserError(
                f"a worker does not see {task.clip.path}: workers need the sounds at the same path, or an address"
            )
    with _lock:
        old = _extractors.get(checkpoint)
        if old is not None and (old.engine.info.sha256, old.batch_size) != (sha256, batch_size):
            _extractors.pop(checkpoint).engine.close()  # the file was written anew while this worker lived
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
    """A worker's answer for a group of clips. Raises UserError where it is not what ``embed_group`` returns for
    them."""
    try:
        engine, results = answer
        asked = [(task.clip.file, task.signature) for task in members]
        whole = isinstance(engine, str) and [(result.file, result.signature) for result in results] == asked
        for result in results:
            whole = whole and isinstance(result.reason, str) and np.isfinite(float(result.seconds))
            if not result.reason:
                numbers = result.embedding
                whole = whole and numbers.shape == (dimensions,) and numbers.dtype == np.float32
                whole = whole and np.isfinite(numbers).all()
    except (TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise UserError(
            f"a worker's answer for {members[0].clip.file} holds no embeddings of {dimensions} finite numbers: does it "
            f"run "
            "this copy of the project? What was finished is kept"
        )
    return engine, results


def _everywhere(task: Task) -> Task:
    """The task with a path that means the same in any working folder."""
    if is_url(task.clip.path):
        return task
    return replace(task, clip=replace(task.clip, path=Path(task.clip.path).absolute()))


def _result(future) -> tuple[str, list[Result]]:
    try:
        return future.result()
    except UserError:
        raise
    except Exception as error:  # whatever went wrong on a worker, several times
        raise UserError(
            f"a worker failed: {type(error).__name__}: {error}; what was finished is kept, run the same command again"
        ) from error
