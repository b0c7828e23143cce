"""Clips that the network was trained on, scored through its twins: networks of the same recipe that never heard them.

    table, warnings = with_twins(read_table(path), dataset=None, jobs=2)

A network's embeddings of the clips it was trained on are tidier than those of new ones, and whatever is measured on them
is too good. Where checkpoints named ``NETWORK_without_*.pth`` lie beside the table's own (models/README.md), each clip that
it knows is scored through one that does not know the clip's recording, by a classifier trained on that twin's embeddings.
The model that is saved is trained on the table's own. The twins' embeddings take as long as the table's did: they are
kept beside it (``audio_embeddings_twins.npz``), and used again while table and networks are the same.
"""

import sys
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from tqdm import tqdm

from danger_safe.core.cache import keep, read_kept
from danger_safe.core.errors import UserError
from danger_safe.core.paths import Place
from danger_safe.data.clips import NO_FOLD, Clip
from danger_safe.embeddings.extractor import Extractor, group
from danger_safe.embeddings.journal import digest
from danger_safe.embeddings.plan import survey
from danger_safe.embeddings.table import EmbeddingTable, Twin
from danger_safe.embeddings.table_sounds import check_network, checkpoint_of, find_sounds
from danger_safe.embeddings.table_writer import side_file
from models.checkpoint_files import checkpoint_here, twins_beside, verified_sha256
from models.engine import open_engine

KEPT = tuple(field.name for field in fields(Twin))


def with_twins(table: EmbeddingTable, dataset: Place | None, jobs: int) -> tuple[EmbeddingTable, list[str]]:
    """The table with as many twins as it needs and there are, and what kept it from having them, as warnings.

    Raises UserError where the sounds are not in the ``dataset`` that was given.
    """
    if not table.clips["seen"].any():
        return table, []
    try:
        checkpoint = checkpoint_of(table)
        if not (files := twins_beside(checkpoint_here(checkpoint))):
            return table, []
        check_network(table, checkpoint)
        return replace(table, twins=_twins(table, files, find_sounds(table, dataset), jobs)), []
    except UserError as error:
        if dataset is not None:
            raise
        return table, [f"THE NETWORK'S TWINS COULD NOT BE ASKED: {error}"]


def _twins(table: EmbeddingTable, files: list[Path], sounds: list[Place], jobs: int) -> tuple[Twin, ...]:
    as_embedded = sha256(np.ascontiguousarray(table.features)).hexdigest()
    networks = [verified_sha256(str(file), file) for file in files]
    key = digest([table.checkpoint["sha256"], networks, table.clips[["file", "source"]].values.tolist(), as_embedded])
    kept = side_file(table.path, "_twins.npz")
    if (content := read_kept(kept, key, KEPT)) is not None:
        rows = zip(*content.values(), strict=True)
        return tuple(Twin(str(network), *arrays) for network, *arrays in rows)
    clips = [Clip(str(row), sound, 0, "", NO_FOLD, "") for row, sound in enumerate(sounds)]
    wanted, twins = table.clips["seen"].to_numpy(bool), []
    for file in tqdm(files, desc="Asking the network's twins", unit="network", file=sys.stderr):
        if wanted.any() and (twin := _ask(str(file), table, clips, wanted, jobs)) is not None:
            twins.append(twin)
            wanted = wanted & ~twin.scores
    arrays = {name: np.array([getattr(twin, name) for twin in twins]) for name in KEPT}
    keep(kept, key, arrays, otherwise="ask the twins again")
    return tuple(twins)


def _ask(checkpoint: str, table: EmbeddingTable, clips: list[Clip], wanted: np.ndarray, jobs: int) -> Twin | None:
    """The twin with its embeddings of all clips, if of ``wanted`` ones (a mask) there are some that it never heard."""
    with (
        open_engine(checkpoint, "auto", jobs) as engine,
        Extractor(engine, jobs, batch := engine.network.batch_size) as extractor,
    ):
        if not engine.info.clips or engine.info.dimensions != table.features.shape[1]:
            raise UserError(f"{checkpoint} is no twin: it does not say what it was trained on, or is of another size")
        known = np.array([Path(file).name in engine.info.clips for file in table.clips["file"]])
        sources = table.clips["source"].to_numpy()
        scores = wanted & ~np.isin(sources, sources[known])
        if not scores.any():
            return None
        found = survey(clips, {}, jobs)
        results = [result for part in extractor.results(group(found.tasks, batch)) for result in part]
    features = np.empty_like(table.features)
    for result in [*found.unreadable, *results]:
        if result.embedding is None:
            name = table.clips["file"].iloc[int(result.file)]
            raise UserError(f"{name} {result.reason}: it could be read when the table was made")
        features[int(result.file)] = result.embedding
    return Twin(checkpoint, features, scores)
