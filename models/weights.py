"""The weights in a checkpoint file as NumPy arrays, checked. Nothing here loads PyTorch, and no code of a file is run.

    weights = read_weights("compact")                # by name or path: checkpoint_files.py
    weights.tensors["stem.weight"]                   # float32
    weights.info, weights.architecture                       # what is known of the file; cnn14, compact or mn04

Three layouts are read. PANNs' own: a dict with ``model``, the state dict (``iteration`` and ``sampler`` beside it are
ignored). EfficientAT's: the state dict alone. Ours, written by ``save_checkpoint``: ``settings`` (the arguments of
Cnn14, CompactNet or Mn04), ``model`` (the learnt tensors, matrices in half precision), ``categories``, ``fingerprints``
(of the sounds it was fine-tuned on), ``licence`` and ``training``. Where there is an entry ``scales``, matrices are
whole numbers of one byte, a row of each to be multiplied with its scale.
"""

import math
from dataclasses import dataclass

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.core.errors import UserError
from models.architectures import (
    DEFAULTS,
    LAST_LAYER,
    MEL_BANK,
    NORM_EPS,
    Shapes,
    official_front_end,
    tensor_shapes,
)
from models.checkpoint_files import CheckpointInfo, checkpoint_name, checkpoint_path, official_licence, verified_sha256
from models.head import Head
from models.kaldimel import KaldiMel
from models.logmel import LogMel, mel_bank
from models.torch_file import read_torch_file

FORMAT = "danger-safe-cnn14/1"
MN04_LAYER = "features.0.0.weight"  # which no other layout has
COUNTER = "num_batches_tracked"  # of batch norm: only a training that never happens here would need it
ANY = "a checkpoint of Cnn14, mn04 or the compact network"


@dataclass(frozen=True)
class Weights:
    """A checkpoint's content."""

    architecture: str  # cnn14, compact or mn04
    info: CheckpointInfo
    tensors: dict[str, np.ndarray]  # float32, by the state dict's names

    @property
    def front_end(self) -> LogMel | KaldiMel:
        """What makes the network's input of sounds."""
        settings = self.info.settings
        if self.architecture == "mn04":
            return KaldiMel()
        bank = self.tensors.get(MEL_BANK)
        bank = mel_bank(settings["fmin"], settings["fmax"]) if bank is None else bank
        return LogMel(bank, settings["floor"], settings["normalise"])

    @property
    def head(self) -> Head:
        """What turns embeddings into the logits of the network's classes."""
        last = self._linear(LAST_LAYER[self.architecture])
        if self.architecture == "cnn14":
            return Head((last,))
        if self.architecture == "mn04":
            return Head((self._linear("classifier.2"), last))
        weight, bias = self._linear("fc1")  # of the sum of means and maxima, which follow each other in an embedding
        return Head(((np.hstack([weight, weight]), bias), last), "relu")

    def folded(self, convolution: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a convolution without a bias, with the batch norm that follows it in them."""
        scale, shift = self.norm(norm)
        return self.tensors[f"{convolution}.weight"] * scale[:, None, None, None], shift

    def norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift that a batch norm is when nothing is being learnt, (channels,) each."""
        weight, bias, mean, variance = (
            self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + np.float32(NORM_EPS[self.architecture]))
        return scale, bias - mean * scale

    def _linear(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]


def read_weights(checkpoint: str) -> Weights:
    """The weights of a checkpoint given by name or path.

    Raises UserError for a file that is missing, is no checkpoint, holds code, or lacks tensors.
    """
    path = checkpoint_path(checkpoint)
    sha256 = verified_sha256(checkpoint, path)
    content = read_torch_file(path)
    if isinstance(content, dict) and MN04_LAYER in content:
        content = {"model": content}
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f"{path} is not {ANY}: it has no entry named model")
    state, scales = content["model"], content.get("scales", {})
    if not isinstance(scales, dict):
        raise UserError(f"{path} is damaged: its scales are none")
    for arrays in (state, scales):
        if not all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in arrays.items()):
            raise UserError(f"{path} is not {ANY}: not all in it are tensors")
        if sum(array.size for array in arrays.values()) > path.stat().st_size:
            raise UserError(f"{path} is damaged: it claims more numbers than it has room for")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise UserError(f"{path} holds weights that are NaN or infinite: its training went wrong, or it is damaged")
    try:
        ours = content.get("format") == FORMAT
        kind, settings = _own_settings(content["settings"]) if ours else _official_settings(state)
        shapes = tensor_shapes(kind, settings)
        if kind == "cnn14" and not ours:
            shapes |= official_front_end()
        _check_shapes(state, shapes)
        tensors = {name: state[name].astype(np.float32, copy=False) for name in shapes}
        for name, scale in scales.items():
            if name in tensors:
                rows = scale.astype(np.float32).reshape(-1, *[1] * (tensors[name].ndim - 1))
                tensors[name] = tensors[name] * rows
        info = CheckpointInfo(
            name=checkpoint_name(checkpoint),
            sha256=sha256,
            settings=settings,
            categories=tuple(_texts(content, "categories")),
            fingerprints=frozenset(_texts(content, "fingerprints")),
            names_only=bool(_texts(content, "clips")) and "fingerprints" not in content,
            licence=str(content.get("licence", official_licence(sha256))),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not {ANY}: {error}") from error
    return Weights(kind, info, tensors)


def read_info(checkpoint: str) -> CheckpointInfo:
    """What is known of a checkpoint. Raises UserError for one that is none."""
    return read_weights(checkpoint).info


def _own_settings(given: object) -> tuple[str, dict]:
    """Kind and settings of the network that a checkpoint of our layout describes. Raises ValueError for none."""
    if not isinstance(given, dict):
        raise ValueError("its settings are none")
    kind = given.get("network", "cnn14")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise ValueError(f"it is of another network, {kind!r}")
    settings = DEFAULTS[kind] | given
    for name, value in settings.items():
        if name not in DEFAULTS[kind]:
            raise ValueError(f"it has an unknown setting {name!r}")
        number = isinstance(value, int | float) and math.isfinite(value)
        if name != "network" and (not number or isinstance(value, bool) != (name in ("normalise", "multilabel"))):
            raise ValueError(f"its setting {name} is {value!r}")
    for name in ("classes", "width", "dimensions"):
        if name in settings and not (isinstance(settings[name], int) and settings[name] > 0):
            raise ValueError(f"its setting {name} is {settings[name]!r}")
    if kind == "mn04" and settings["dimensions"] != DEFAULTS[kind]["dimensions"]:
        raise ValueError("mn04's embeddings have another length")
    if (
        not 0 <= settings.get("fmin", 0) < settings.get("fmax", 1) <= SAMPLE_RATE / 2
        or not 1e-30 < settings.get("floor", 1) <= 1  # what float32 can hold, and the loudest sound
    ):
        raise ValueError("its settings describe no log-mel spectrogram")
    return kind, settings


def _official_settings(state: dict[str, np.ndarray]) -> tuple[str, dict]:
    """The network whose shapes a state dict of PANNs' or EfficientAT's layout has."""
    if MN04_LAYER in state:
        return "mn04", DEFAULTS["mn04"] | {"classes": len(state[f"{LAST_LAYER['mn04']}.weight"])}
    classes, dimensions = state["fc_audioset.weight"].shape
    return "cnn14", DEFAULTS["cnn14"] | {"classes": classes, "width": dimensions // 32}


def _check_shapes(state: dict[str, np.ndarray], shapes: Shapes) -> None:
    """Raises ValueError where tensors are missing, have another shape, or are too many."""
    if missing := sorted(shapes.keys() - state.keys()):
        raise ValueError(f"it lacks {missing[0]}")
    learnt = {name for name in state if not name.endswith(f".{COUNTER}")}
    if unknown := sorted(learnt - shapes.keys()):
        raise ValueError(f"it has an unknown tensor {unknown[0]!r}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} has the shape {state[name].shape} in place of {shape}")


def _texts(content: dict, name: str) -> list[str]:
    """A list of text in a checkpoint, empty where it has none. Raises ValueError for another kind of list."""
    texts = content.get(name, [])
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is not a list of names")
    return list(texts)
