"""Checkpoints loaded without running any code that they could hold, and saved.

    model, info = load_model("compact")              # the small network of this repository
    model, info = load_model("cnn14")                # the official one, downloaded when absent (327 MB, CC BY 4.0)
    model, info = load_model("my_network.pth")       # any file of either layout; its hash is recorded

Two layouts are read. PANNs' own: a dict with ``model``, the state dict (``iteration`` and ``sampler`` beside it are
ignored). Ours, written by ``save_checkpoint``: ``settings`` (the arguments of Cnn14 or CompactNet), ``model`` (the learnt tensors,
matrices in half precision), ``categories``, ``clips`` (what it was trained on), ``licence`` and ``training``.
"""

import math
import pickle
from pathlib import Path

import numpy as np
import torch

from danger_safe.audio import SAMPLE_RATE
from danger_safe.errors import UserError
from danger_safe.files import whole_file
from models.checkpoint_files import CheckpointInfo, checkpoint_name, checkpoint_path, verified_sha256
from models.compact import CompactNet
from models.models import Cnn14
from models.network import SoundNetwork

FORMAT = "danger-safe-cnn14/1"
# Computed from the settings, not learnt: the DFT and mel matrices.
COMPUTED = ("spectrogram_extractor.", "logmel_extractor.")


def load_model(checkpoint: str) -> tuple[SoundNetwork, CheckpointInfo]:
    """A network in evaluation mode with a checkpoint's weights, and what is known of the file.

    Raises UserError for a file that is missing, is no checkpoint, holds code, or lacks tensors.
    """
    path = checkpoint_path(checkpoint)
    sha256 = verified_sha256(checkpoint, path)
    content = _read(path)
    try:
        _check_tensors(content["model"])
        own = content.get("format") == FORMAT
        model = _own_network(content) if own else _official_network(content["model"])
        state = content["model"]
        if own:  # the computed matrices are not in the file
            computed = {k: v for k, v in model.state_dict().items() if k.startswith(COMPUTED)}
            state = computed | {name: tensor.float() for name, tensor in state.items()}
        model.load_state_dict(state, strict=True)
        info = CheckpointInfo(
            name=checkpoint_name(checkpoint),
            sha256=sha256,
            settings=model.settings,
            categories=tuple(_texts(content, "categories")),
            clips=frozenset(_texts(content, "clips")),
            licence=str(content.get("licence", "CC BY 4.0" if checkpoint == "cnn14" else "")),
        )
    except Exception as error:  # librosa and PyTorch raise many kinds for settings and tensors that do not fit
        raise UserError(f"{path} is not a checkpoint of Cnn14 or the compact network: {_first_line(error)}") from error
    return model.eval(), info


def save_checkpoint(
    path: Path, model: SoundNetwork, *, categories: list[str], clips: list[str], licence: str, training: dict
) -> None:
    """Write a checkpoint of our layout, whole or not at all: about 2 bytes a parameter."""
    state = {
        name: tensor.half() if tensor.ndim > 1 else tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(COMPUTED)
    }
    content = {
        "format": FORMAT, "settings": model.settings, "model": state, "categories": categories,
        "clips": sorted(clips), "licence": licence, "training": training,
    }  # fmt: skip
    with whole_file(path) as part:
        torch.save(content, part)


def _own_network(content: dict) -> SoundNetwork:
    """The untrained network that a checkpoint of our layout describes. Raises ValueError where its settings cannot be."""
    arguments = dict(content["settings"])
    kind = {"cnn14": Cnn14, "compact": CompactNet}[arguments.pop("network", "cnn14")]
    for name, value in arguments.items():
        if isinstance(value, bool) != (name in ("normalise", "multilabel")) or not math.isfinite(value):
            raise ValueError(f"its setting {name} is {value!r}")
    if (
        not 0 <= arguments.get("fmin", 0) < arguments.get("fmax", 1) <= SAMPLE_RATE / 2
        or not 1e-30 < arguments.get("floor", 1) <= 1  # what float32 can hold, and the loudest sound
    ):
        raise ValueError("its settings fmin, fmax and floor are none that a network can have")
    shape = (arguments["classes"], 32 * arguments["width"])
    if tuple(content["model"]["fc_audioset.weight"].shape) != shape:  # before memory is asked for
        raise ValueError(f"its last layer is not of the shape {shape} that its settings say")
    return kind(**arguments)


def _check_tensors(state: dict) -> None:
    """Raises ValueError for what is no tensor of numbers, or is larger than what the file holds of it: a file of a
    kilobyte must not ask for a terabyte."""
    for name, tensor in state.items():
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not plain or tensor.is_complex() or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} is not a tensor of numbers, or not whole")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")


def _texts(content: dict, name: str) -> list[str]:
    """A list of text in a checkpoint, empty where it has none. Raises ValueError for another kind of list."""
    texts = content.get(name, [])
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is not a list of names")
    return list(texts)


def _official_network(state: dict[str, torch.Tensor]) -> Cnn14:
    """The network whose shapes a state dict of PANNs' layout has; the front end is the official one."""
    classes, dimensions = state["fc_audioset.weight"].shape
    return Cnn14(classes=classes, width=dimensions // 32)


def _read(path: Path) -> dict:
    """The dict in a checkpoint file. Only tensors, numbers and text are built: no code of the file is run.

    PANNs' file also holds NumPy index arrays, under their NumPy 1 names; the few functions that rebuild an array are
    allowed for it and nothing else is.
    """
    rebuild = np._core.multiarray._reconstruct  # private, and the only name that pickled arrays know it by
    allowed = [
        (rebuild, "numpy.core.multiarray._reconstruct"), (rebuild, "numpy._core.multiarray._reconstruct"),
        np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "bhilqBHILQfd?O"},
    ]  # fmt: skip
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not a checkpoint, or holds code and was not loaded (weights_only)") from error
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is not a checkpoint, or is damaged: {_first_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f"{path} is not a checkpoint of Cnn14 or the compact network: it has no entry named model")
    return content


def _first_line(error: Exception) -> str:
    """PyTorch's errors run over many lines, and some have none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
