"""The settings of a fine-tuning."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

HEAD_LEARNING_RATE = 2e-3  # while the last layer is trained alone
WARM_UP = 0.04  # fraction of the epochs


@dataclass(frozen=True)
class Settings:
    """The settings of one training; a saved state can only be resumed with the same."""

    epochs: int
    seed: int = 0
    batch_size: int = 32
    crop_seconds: float = 2.0
    long_crop_seconds: float = 4.5  # in the last epochs: nearly whole clips, as in extraction
    long_fraction: float = 0.1  # fraction of the epochs with long crops
    per_category: int = 32  # clips per category and epoch; of smaller categories, clips are used several times
    learning_rate: float = 2e-3  # peak value for AdamW, after a warm-up and before a cosine decay
    head_epochs: int = 0  # first epochs, which train the last layer alone at HEAD_LEARNING_RATE
    frozen_norms: bool = False  # whether batch norm keeps the checkpoint's statistics
    # True: every clip once per epoch, with larger weights for small classes; False: as many clips of every class
    class_weights: bool = False
    patience: int = 0  # epochs without a better validation score before training stops; 0: never
    weight_decay: float = 0.05
    smoothing: float = 0.1  # label smoothing
    mixup: float = 0.6  # probability that a clip is mixed with another
    corruption_p: float = 0.5  # probability that a clip is corrupted (augment.corrupt)
    danger_weight: float = 0.0  # weight of the loss of Danger against Safe, besides that of the classes
    average: float = 0.998  # decay of the running average of the weights, per step
    precision: str = "float32"  # or bfloat16, twice as fast on processors that support it

    def learning_rate_at(self, epoch: float) -> float:
        """Return the learning rate: HEAD_LEARNING_RATE in head epochs, then a warm-up and a cosine decay."""
        if epoch < self.head_epochs:
            return HEAD_LEARNING_RATE
        epochs, epoch = self.epochs - self.head_epochs, epoch - self.head_epochs
        warm_up = max(1.0, WARM_UP * epochs)
        return self.learning_rate * min(1.0, (epoch + 0.05) / warm_up) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def best_precision(device: str) -> str:
    """Return bfloat16 if the processor has instructions for it, else float32."""
    if device == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported()
    else:
        has_bfloat16 = "amx_bf16" in (flags := _cpu_flags()) or "avx512_bf16" in flags
    return "bfloat16" if has_bfloat16 else "float32"


def _cpu_flags() -> str:
    """Return the processor's features as Linux lists them; on other systems nothing, so that float32 is used."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
