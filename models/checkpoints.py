"""Checkpoints loaded without running any code that they could hold, and saved.

    model, info = load_model("compact")              # the small network of this repository
    model, info = load_model("cnn14")                # the official one, downloaded when absent (327 MB, CC BY 4.0)
    model, info = load_model("mn04")                 # EfficientAT's, downloaded when absent (4 MB, MIT)
    model, info = load_model("my_network.pth")       # any file of these layouts; its hash is recorded

Three layouts are read. PANNs' own: a dict with ``model``, the state dict (``iteration`` and ``sampler`` beside it are
ignored). EfficientAT's: the state dict alone. Ours, written by ``save_checkpoint``: ``settings`` (the arguments of Cnn14, CompactNet or Mn04), ``model`` (the learnt tensors,
matrices in half precision), ``categories``, ``fingerprints`` (of the sounds it was fine-tuned on), ``licence`` and
``training``. Where there
is an entry ``scales``, matrices are whole numbers of one byte, a row of each to be multiplied with its scale.
"""

import math
import pickle
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError
from models.checkpoint_files import (
    CheckpointInfo,
    checkpoint_name,
    checkpoint_path,
    official_licence,
    verified_sha256,
)
from models.compact import CompactNet
from models.mn04 import Mn04
from models.models import Cnn14
from models.network import SoundNetwork

# Bytes of a number in PyTorch's old kinds of arrays; of others, at least one.
_BYTES = {"DoubleStorage": 8, "LongStorage": 8, "FloatStorage": 4, "IntStorage": 4, "HalfStorage": 2, "ShortStorage": 2}
CHANNELS_PER_WIDTH = {Cnn14: 32, CompactNet: 16}  # of the last block; mn04 has one width only
FORMAT = "danger-safe-cnn14/1"
# Computed from the settings, not learnt: the DFT and mel matrices.
COMPUTED = ("spectrogram_extractor.", "logmel_extractor.")
KINDS = {"cnn14": Cnn14, "compact": CompactNet, "mn04": Mn04}
MN04_LAYER = "features.0.0.weight"  # which no other layout has


def load_model(checkpoint: str) -> tuple[SoundNetwork, CheckpointInfo]:
    """A network in evaluation mode with a checkpoint's weights, and what is known of the file.

    Raises UserError for a file that is missing, is no checkpoint, holds code, or lacks tensors.
    """
    path = checkpoint_path(checkpoint)
    sha256 = verified_sha256(checkpoint, path)
    content = _read(path)
    state = content["model"]
    _check_tensors(path, state)
    if not isinstance(content.get("scales", {}), dict):
        raise UserError(f"{path} is damaged: its scales are none")
    _check_tensors(path, content.get("scales", {}))
    try:
        own = content.get("format") == FORMAT
        model = _own_network(content["settings"], state) if own else _official_network(state)
        if own:  # the computed matrices are not in the file
            computed = {k: v for k, v in model.state_dict().items() if k.startswith(COMPUTED)}
            state = computed | {name: tensor.float() for name, tensor in state.items()}
            for name, scale in content.get("scales", {}).items():
                state[name] *= scale.float().reshape(-1, *[1] * (state[name].ndim - 1))
        model.load_state_dict(state, strict=True)
        info = CheckpointInfo(
            name=checkpoint_name(checkpoint),
            sha256=sha256,
            settings=model.settings,
            categories=tuple(_texts(content, "categories")),
            fingerprints=frozenset(_texts(content, "fingerprints")),
            names_only=bool(_texts(content, "clips")) and "fingerprints" not in content,
            licence=str(content.get("licence", official_licence(sha256))),
        )
    except Exception as error:  # librosa and PyTorch raise many kinds for settings and tensors that do not fit
        raise UserError(
            f"{path} is not a checkpoint of Cnn14, mn04 or the compact network: {_first_line(error)}"
        ) from error
    return model.eval(), info


def save_checkpoint(
    path: Path,
    model: SoundNetwork,
    *,
    categories: list[str],
    fingerprints: Collection[str] = (),
    licence: str,
    training: dict,
    small: bool = False,
) -> None:
    """Write a checkpoint of our layout, whole or not at all: about 2 bytes a parameter, or 1 where it is ``small``."""
    state = {
        name: tensor.half() if tensor.ndim > 1 else tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(COMPUTED)
    }
    content = {
        "format": FORMAT, "settings": model.settings, "model": state, "categories": categories,
        "fingerprints": sorted(fingerprints), "licence": licence, "training": training,
    }  # fmt: skip
    if small:
        content["scales"] = scales = {}
        for name, values in model.state_dict().items():
            if name in state and values.ndim > 1:
                scales[name] = values.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
                state[name] = (values.flatten(1) / scales[name][:, None]).round().reshape(values.shape).to(torch.int8)
    with atomic_path(path) as part:
        torch.save(content, part)


def _check_tensors(path: Path, state: dict) -> None:
    """Raises UserError where a state dict holds anything but finite numbers, no more than its file can hold."""
    tensors = list(state.values())
    plain = (
        isinstance(t, torch.Tensor) and t.layout == torch.strided
        and not (t.is_complex() or t.is_quantized or t.is_nested) for t in tensors
    )  # fmt: skip
    if not all(plain):
        raise UserError(f"{path} is not a checkpoint of Cnn14, mn04 or the compact network: not all in it are tensors")
    if sum(tensor.numel() for tensor in tensors) > path.stat().st_size or any(
        tensor.nbytes > tensor.untyped_storage().nbytes() for tensor in tensors
    ):  # one number, said to be repeated for ever
        raise UserError(f"{path} is damaged: it claims more numbers than it has room for")
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise UserError(f"{path} holds weights that are NaN or infinite: its training went wrong, or it is damaged")


def _own_network(settings: dict, state: dict[str, torch.Tensor]) -> SoundNetwork:
    """The untrained network that a checkpoint of our layout describes. Raises ValueError for one that cannot be."""
    arguments = dict(settings)
    kind = KINDS[arguments.pop("network", "cnn14")]
    for name, value in arguments.items():
        number = isinstance(value, int | float) and math.isfinite(value)
        if not number or isinstance(value, bool) != (name in ("normalise", "multilabel")):
            raise ValueError(f"its setting {name} is {value!r}")
    # before anything is made in memory of the size that the settings claim
    shape = tuple(state[f"{kind.last_layer}.weight"].shape)
    if kind is Mn04:
        arguments.pop("dimensions")  # always the same
    widest = 0 if kind is Mn04 else state["fc1.weight"].shape[1]
    if shape[0] != arguments["classes"] or widest != arguments.get("width", 0) * CHANNELS_PER_WIDTH.get(kind, 0):
        raise ValueError(f"settings and weights do not fit: {settings}")
    if (
        not 0 <= arguments.get("fmin", 0) < arguments.get("fmax", 1) <= SAMPLE_RATE / 2
        or not 1e-30 < arguments.get("floor", 1) <= 1  # what float32 can hold, and the loudest sound
    ):
        raise ValueError("its settings describe no log-mel spectrogram")
    return kind(**arguments)


def _texts(content: dict, name: str) -> list[str]:
    """A list of text in a checkpoint, empty where it has none. Raises ValueError for another kind of list."""
    texts = content.get(name, [])
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is not a list of names")
    return list(texts)


def _official_network(state: dict[str, torch.Tensor]) -> SoundNetwork:
    """The network whose shapes a state dict of PANNs' or EfficientAT's layout has, with the official front end."""
    if MN04_LAYER in state:
        return Mn04(classes=len(state[f"{Mn04.last_layer}.weight"]))
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
    _check_size(path)
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not a checkpoint, or holds code and was not loaded (weights_only)") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything, with advice that is not for our users
        raise UserError(f"{path} is not a checkpoint, or is damaged") from error
    if isinstance(content, dict) and MN04_LAYER in content:
        return {"model": content}
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(
            f"{path} is not a checkpoint of Cnn14, mn04 or the compact network: it has no entry named model"
        )
    return content


def _check_size(path: Path) -> None:
    """Raises UserError for a checkpoint that claims more bytes than its file has, before memory is taken for them."""
    size = path.stat().st_size
    try:
        if zipfile.is_zipfile(path):  # what torch.save writes
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            claimed = sum(member.file_size for member in members) if stored else math.inf
        elif tarfile.is_tarfile(path):
            raise UserError(f"{path} is a tar archive, and no checkpoint")
        else:  # as PyTorch wrote until 2020: the official Cnn14 is one
            with open(path, "rb") as file:
                claimed = _Storages.claimed(file)
    except UserError:
        raise
    except Exception:  # whatever is wrong with it, loading says so
        return
    if claimed > size:
        raise UserError(f"{path} is damaged: it claims more than it has room for")


class _Storages(pickle.Unpickler):
    """Adds up the bytes of the arrays that an old checkpoint says it has. Nothing that it names is looked up or called."""

    @classmethod
    def claimed(cls, file: BinaryIO) -> int:
        """The bytes that follow the fourth pickle: magic number, version, system, and then what refers to the arrays."""
        for _ in range(3):
            cls(file).load()
        reader = cls(file)
        reader.load()
        return sum(reader.sizes.values())

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> object:
        return type(name, (_Nothing,), {})

    def persistent_load(self, pid: tuple) -> object:
        _, kind, key, _, numbers, *_ = pid
        self.sizes[str(key)] = int(numbers) * _BYTES.get(kind.__name__, 1)
        return _Nothing()


class _Nothing:
    """Stands for whatever a checkpoint is made of."""

    def __new__(cls, *_, **__):
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


def _first_line(error: Exception) -> str:
    """PyTorch's errors run over many lines, and some have none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
