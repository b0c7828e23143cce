"""Open a detector, the built-in one or a user's model, together with an engine of its network."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from danger_safe.core.errors import UserError
from danger_safe.detection.detector import Detector, load_builtin, user_detector
from danger_safe.detection.personal import load_learnt, personal_detector
from models.checkpoint_files import NAMES, CheckpointInfo, local_checkpoint_path
from models.engine import Engine, convert_for_next_time, function_engine, open_engine

CONVERT_AFTER_S = 60.0  # seconds into an endless recording, when the sound that waited for the network is processed


@contextmanager
def open_detector(
    model: Path | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    cores: int = 2,
    low_latency: bool = False,
    learnt: Path | None = None,
    is_endless: bool = False,
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[tuple[Engine, Detector]]:
    """Open an engine and the detector that scores its embeddings, for a ``with`` block.

    Args:
        model: A ``*_model.skops``, or a ``.joblib``, which can run code when it is opened; None for the built-in
            detector.
        checkpoint: Name or file of the network; None for the one that the model was trained with.
        device: auto, cpu or cuda.
        cores: Number of CPU cores for the network.
        low_latency: Start with an engine that loads fast, as the recording is short or live; the network is converted
            for a faster engine afterwards (``open_engine``).
        learnt: The learnt.npz of ``listen.py --learn``, which adapts the built-in detector; None for none.
        is_endless: The recording may never end: convert the network while it is running.
        embed: The network, as a function, if the model was trained on embeddings of one that is not in this project
            (``FunctionNetwork``).

    Raises:
        UserError: Model, checkpoint and detector do not belong to each other, or one of them cannot be opened.
    """
    if embed is not None:
        if model is None:
            raise UserError("the built-in detector listens through compact: give a model for your own network")
        yield _open_with_function(model, embed)
        return
    saved, name = None, "compact"
    if learnt is not None and model is not None:
        raise UserError("what was learnt is for the built-in detector, and not for a model of your own")
    if model is not None:
        from danger_safe.detection.model_file import open_model_file  # scikit-learn takes a second to load

        saved = open_model_file(model)
        name = checkpoint or saved["checkpoint"]["name"]
        if checkpoint is None and name not in NAMES:
            raise UserError(f"{model} listens through {name}: give --checkpoint with its path")
        if checkpoint is None:
            local_checkpoint_path(name)
    elif checkpoint not in (None, "compact"):
        raise UserError(f"the built-in detector listens through compact: for {checkpoint}, give --model")
    with open_engine(name, device, cores, low_latency) as engine:
        if engine.is_fallback and is_endless:
            timer = threading.Timer(CONVERT_AFTER_S, convert_for_next_time, (name,))
            timer.daemon = True
            timer.start()
        if model is not None and saved is not None:
            yield engine, user_detector(model, saved, engine.info, engine.head)
        else:
            yield engine, _builtin_detector(engine, learnt)
    if engine.is_fallback and not is_endless:
        convert_for_next_time(name)


def _open_with_function(model: Path, embed: Callable[[np.ndarray], np.ndarray]) -> tuple[Engine, Detector]:
    """Open a model whose network is the function ``embed``."""
    from danger_safe.detection.model_file import open_model_file  # scikit-learn takes a second to load

    saved = open_model_file(model)
    checkpoint = saved["checkpoint"]
    info = CheckpointInfo(checkpoint["name"], checkpoint["sha256"], {"dimensions": saved["dimensions"]})
    return function_engine(embed, info), user_detector(model, saved, info, None)


def _builtin_detector(engine: Engine, learnt: Path | None) -> Detector:
    """Load the built-in detector and what it has learnt. Raises UserError if one is for another network."""
    detector = load_builtin()
    if detector.checkpoint_sha256 != engine.info.sha256:
        raise UserError("models/detector.npz is of another models/compact.pth: run make detector")
    detector = replace(detector, head=engine.head)
    if learnt is None:
        return detector
    return personal_detector(detector, load_learnt(learnt))
