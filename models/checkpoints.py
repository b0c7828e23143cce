"""Loading checkpoints as PyTorch networks, without running code that a file might contain; saving them.

model, info = load_model("compact")              # the small network of this repository
model, info = load_model("cnn14")                # the official one, downloaded when absent (327 MB, CC BY 4.0)
model, info = load_model("mn04")                 # EfficientAT's, downloaded when absent (4 MB, MIT)
model, info = load_model("my_network.pth")       # any file in one of the layouts of weights.py
"""

from collections.abc import Collection
from pathlib import Path

import torch

from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError
from models.architectures import COMPUTED
from models.checkpoint_files import CheckpointInfo
from models.compact import CompactNet
from models.mn04 import Mn04
from models.models import Cnn14
from models.network import SoundNetwork
from models.weights import FORMAT, Weights, read_weights

NETWORKS = {"cnn14": Cnn14, "compact": CompactNet, "mn04": Mn04}


def load_model(checkpoint: str) -> tuple[SoundNetwork, CheckpointInfo]:
    """Load the network of a checkpoint given by name or path.

    Returns:
        The network in evaluation mode, and the checkpoint's metadata.

    Raises:
        UserError: the file does not exist, is not a checkpoint, contains code, or lacks tensors.
    """
    weights = read_weights(checkpoint)
    return network_of(weights), weights.info


def network_of(weights: Weights) -> SoundNetwork:
    """Return the network of weights that have been read, in evaluation mode. Raises UserError as ``load_model``."""
    arguments = {k: v for k, v in weights.info.settings.items() if k not in ("network", "dimensions")}
    try:
        with torch.device("meta"):  # without random weights, which take a second and are replaced
            model = NETWORKS[weights.architecture](**arguments)
        learnt = {name: torch.from_numpy(array) for name, array in weights.tensors.items()}
        # The file may lack the matrices of Cnn14's front end, which are computed from its settings.
        computed = {k: v for k, v in model.state_dict().items() if k.startswith(COMPUTED)}
        model.load_state_dict(computed | learnt, strict=True, assign=True)
    except Exception as error:  # librosa raises various exceptions for invalid settings of the mel bank
        raise UserError(
            f"{weights.info.name} is not a checkpoint of Cnn14, mn04 or the compact network: {_first_line(error)}"
        ) from error
    return model.eval()


def save_checkpoint(
    path: Path,
    model: SoundNetwork,
    *,
    categories: list[str],
    fingerprints: Collection[str] = (),
    licence: str,
    training: dict,
    int8: bool = False,
) -> None:
    """Write a checkpoint in this project's layout (weights.py), atomically.

    Args:
        path: the file to write.
        model: the network.
        categories: names of its outputs.
        fingerprints: of the clips that it was fine-tuned on.
        licence: licence of the weights.
        training: how it was trained; recorded in the file.
        int8: store matrices as 8-bit integers with a scale per row, instead of half precision.
    """
    state = {
        name: tensor.half() if tensor.ndim > 1 else tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(COMPUTED)
    }
    content = {
        "format": FORMAT, "settings": model.settings, "model": state, "categories": categories,
        "fingerprints": sorted(fingerprints), "licence": licence, "training": training,
    }  # fmt: skip
    if int8:
        content["scales"] = scales = {}
        for name, values in model.state_dict().items():
            if name in state and values.ndim > 1:
                scales[name] = values.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
                state[name] = (values.flatten(1) / scales[name][:, None]).round().reshape(values.shape).to(torch.int8)
    with atomic_path(path) as part:
        torch.save(content, part)


def _first_line(error: Exception) -> str:
    """Return the first line of an error message; PyTorch's have many, and some errors have none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
