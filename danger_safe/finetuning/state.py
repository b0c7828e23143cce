"""What every training of a network keeps: its state on the disk, to go on from, and the running average of its
weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import MADE_BY


def save_state(path: Path, identity: dict, progress: dict) -> None:
    """Write a state, whole or not at all. ``identity``: what must be the same for a training to go on from it."""
    with atomic_path(path) as part:
        torch.save(MADE_BY | {"identity": identity, "progress": progress}, part)


def resume(path: Path, identity: dict, device: str, restore: Callable[[dict], None]) -> None:
    """Call ``restore`` with the progress of a saved state, if there is one.

    Raises UserError where the state is damaged, or of a training with another ``identity``.
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
    """The exponential moving average of a model's weights and batch-norm statistics, after ``update_parameters``.

    ``decay`` is how much of the average each step keeps. In the first steps it is less, so that the initial weights are
    soon forgotten.
    """

    def update(mean: torch.Tensor, now: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
        if not mean.is_floating_point():  # batch norm counts its batches
            return mean
        step = int(updates) - 1
        return mean.lerp(now, 1 - min(decay, (1 + step) / (10 + step)))

    average = AveragedModel(model, avg_fn=update, use_buffers=True)
    average.n_averaged.fill_(1)  # the initial weights count as the first ones
    return average.eval()
