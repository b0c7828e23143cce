"""The saved state of a training, to resume it from, and the running average of a network's weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import MADE_BY


def save_state(path: Path, identity: dict, progress: dict) -> None:
    """Write a state atomically. ``identity``: what must be the same for a training to be resumed from it."""
    with atomic_path(path) as part:
        torch.save(MADE_BY | {"identity": identity, "progress": progress}, part)


def resume(path: Path, identity: dict, device: str, restore: Callable[[dict], None]) -> None:
    """Call ``restore`` with the progress of a saved state, if there is one.

    Raises UserError if the state is damaged, or belongs to a training with another ``identity``.

    Args:
        path: the file of ``save_state``.
        identity: of this training.
        device: where the tensors are loaded to.
        restore: takes the progress.
    """
    if not path.is_file():
        return
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        is_same = state["identity"] == identity
        if is_same:
            restore(state["progress"])
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path} is damaged: delete it to start anew") from error
    if not is_same:
        raise UserError(
            f"{path} belongs to a training with other settings or clips: "
            "delete it to start anew, or use the settings it was started with"
        )


def running_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a model's weights and buffers; ``update_parameters`` updates it.

    ``decay`` is the fraction of the average that a step keeps. It is smaller in the first steps, so that the initial
    weights are soon forgotten.
    """

    def update(mean: torch.Tensor, current: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
        if not mean.is_floating_point():  # batch norm's counter of batches
            return mean
        step = int(updates) - 1
        return mean.lerp(current, 1 - min(decay, (1 + step) / (10 + step)))

    average = AveragedModel(model, avg_fn=update, use_buffers=True)
    average.n_averaged.fill_(1)  # the initial weights are the first value of the average
    return average.eval()
