"""The weights of a checkpoint file as NumPy arrays. Does not import PyTorch, and runs no code from the file.

    weights = read_weights("compact")                # a name or path (checkpoint_files.py)
    weights.tensors["stem.weight"]                   # float32
    weights.architecture                             # cnn14, compact or mn04
    weights.info                                     # metadata

Three layouts are supported:

- PANNs': a dict with the state dict as ``model``; ``iteration`` and ``sampler`` are ignored.
- EfficientAT's: the state dict itself.
- This project's, written by ``save_checkpoint``: a dict with ``settings`` (the arguments of Cnn14, CompactNet or Mn04),
  ``model`` (the learnt tensors, matrices in half precision), ``categories``, ``fingerprints`` (of the clips that it was
  fine-tuned on), ``licence`` and ``training``. With ``scales``, the matrices are 8-bit integers, and each row is to be
  multiplied by its scale.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.core.errors import UserError
from models.architectures import DEFAULTS, LAST_LAYER, MEL_BANK, NORM_EPS, Shapes, official_front_end, tensor_shapes
from models.checkpoint_files import CheckpointInfo, checkpoint_name, checkpoint_path, official_licence, verified_sha256
from models.head import Head
from models.kaldimel import KaldiMel
from models.logmel import LogMel, mel_bank
from models.torch_file import read_torch_file

FORMAT = "danger-safe-cnn14/1"
MN04_TENSOR = "features.0.0.weight"  # exists only in checkpoints of mn04
BATCH_COUNTER = "num_batches_tracked"  # of batch norm; not needed
SUPPORTED = "a checkpoint of Cnn14, mn04 or the compact network"  # for messages


@dataclass(frozen=True)
class Weights:
    """The content of a checkpoint."""

    architecture: str  # cnn14, compact or mn04
    info: CheckpointInfo
    tensors: dict[str, np.ndarray]  # float32, by the names of the state dict

    @property
    def front_end(self) -> LogMel | KaldiMel:
        """The front end: samples -> log-mels."""
        settings = self.info.settings
        if self.architecture == "mn04":
            return KaldiMel()
        bank = self.tensors.get(MEL_BANK)
        bank = mel_bank(settings["fmin"], settings["fmax"]) if bank is None else bank
        return LogMel(bank, settings["floor"], settings["normalise"])

    @property
    def head(self) -> Head:
        """The layers after the embedding: embeddings -> logits of the network's classes."""
        last = self._linear(LAST_LAYER[self.architecture])
        if self.architecture == "cnn14":
            return Head((last,))
        if self.architecture == "mn04":
            return Head((self._linear("classifier.2"), last))
        weight, bias = self._linear("fc1")  # applied to means plus maxima, which an embedding has one after the other
        return Head(((np.hstack([weight, weight]), bias), last), "relu")

    def folded(self, convolution: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        """Fold a batch norm into the convolution before it, which has no bias. Returns (weight, bias)."""
        scale, shift = self.norm(norm)
        return self.tensors[f"{convolution}.weight"] * scale[:, None, None, None], shift

    def norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the scale and shift of a batch norm in inference, (channels,) each."""
        weight, bias, mean, variance = (
            self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + np.float32(NORM_EPS[self.architecture]))
        return scale, bias - mean * scale

    def _linear(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]


def read_weights(checkpoint: str) -> Weights:
    """Read a checkpoint given by name or path.

    Raises UserError if the file does not exist, is not a checkpoint, contains code, or lacks tensors.
    """
    path = checkpoint_path(checkpoint)
    sha256 = verified_sha256(checkpoint, path)
    content = read_torch_file(path)
    if isinstance(content, dict) and MN04_TENSOR in content:
        content = {"model": content}
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f"{path} is not {SUPPORTED}: it has no entry named model")
    state, scales = content["model"], content.get("scales", {})
    if not isinstance(scales, dict):
        raise UserError(f"{path} is damaged: its scales are none")
    for arrays in (state, scales):
        _check_arrays(arrays, path)
    try:
        has_settings = content.get("format") == FORMAT
        architecture, settings = _check_settings(content["settings"]) if has_settings else _settings_from_shapes(state)
        shapes = tensor_shapes(architecture, settings)
        if architecture == "cnn14" and not has_settings:
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
        raise UserError(f"{path} is not {SUPPORTED}: {error}") from error
    return Weights(architecture, info, tensors)


def read_info(checkpoint: str) -> CheckpointInfo:
    """Read the metadata of a checkpoint. Raises UserError as ``read_weights``."""
    return read_weights(checkpoint).info


def _check_arrays(arrays: dict, path: Path) -> None:
    """Raise UserError if the entries of a dict from ``path`` are not finite tensors that fit in the file."""
    if not all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in arrays.items()):
        raise UserError(f"{path} is not {SUPPORTED}: not all in it are tensors")
    if sum(array.size for array in arrays.values()) > path.stat().st_size:
        raise UserError(f"{path} is damaged: it claims more numbers than it has room for")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"{path} holds weights that are NaN or infinite: its training went wrong, or it is damaged")


def _check_settings(stored: object) -> tuple[str, dict]:
    """Return (architecture, settings) from the settings in a checkpoint. Raises ValueError if they are invalid."""
    if not isinstance(stored, dict):
        raise ValueError("its settings are none")
    architecture = stored.get("network", "cnn14")
    if not isinstance(architecture, str) or architecture not in DEFAULTS:
        raise ValueError(f"it is of another network, {architecture!r}")
    settings = DEFAULTS[architecture] | stored
    for name, value in settings.items():
        if name not in DEFAULTS[architecture]:
            raise ValueError(f"it has an unknown setting {name!r}")
        is_number = isinstance(value, int | float) and math.isfinite(value)
        is_flag = name in ("normalise", "multilabel")
        if name != "network" and (not is_number or isinstance(value, bool) != is_flag):
            raise ValueError(f"its setting {name} is {value!r}")
    for name in ("classes", "width", "dimensions"):
        if name in settings and not (isinstance(settings[name], int) and settings[name] > 0):
            raise ValueError(f"its setting {name} is {settings[name]!r}")
    if architecture == "mn04" and settings["dimensions"] != DEFAULTS[architecture]["dimensions"]:
        raise ValueError("mn04's embeddings have another length")
    has_valid_range = 0 <= settings.get("fmin", 0) < settings.get("fmax", 1) <= SAMPLE_RATE / 2
    has_valid_floor = 1e-30 < settings.get("floor", 1) <= 1  # from what float32 can hold up to full scale
    if not has_valid_range or not has_valid_floor:
        raise ValueError("its settings describe no log-mel spectrogram")
    return architecture, settings


def _settings_from_shapes(state: dict[str, np.ndarray]) -> tuple[str, dict]:
    """Return (architecture, settings) for a state dict of PANNs or EfficientAT, which has no settings."""
    if MN04_TENSOR in state:
        return "mn04", DEFAULTS["mn04"] | {"classes": len(state[f"{LAST_LAYER['mn04']}.weight"])}
    classes, dimensions = state["fc_audioset.weight"].shape
    return "cnn14", DEFAULTS["cnn14"] | {"classes": classes, "width": dimensions // 32}


def _check_shapes(state: dict[str, np.ndarray], shapes: Shapes) -> None:
    """Raise ValueError if a tensor is missing, is unknown or has another shape."""
    if missing := sorted(shapes.keys() - state.keys()):
        raise ValueError(f"it lacks {missing[0]}")
    learnt = {name for name in state if not name.endswith(f".{BATCH_COUNTER}")}
    if unknown := sorted(learnt - shapes.keys()):
        raise ValueError(f"it has an unknown tensor {unknown[0]!r}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} has the shape {state[name].shape} in place of {shape}")


def _texts(content: dict, name: str) -> list[str]:
    """Return the list of texts ``name`` in a checkpoint; empty if absent. Raises ValueError for anything else."""
    texts = content.get(name, [])
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is not a list of names")
    return list(texts)
