"""What decides the result of a training, besides its clips and the network that it starts from."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

HEAD_LEARNING_RATE = 2e-3  # of the last layer, while it alone learns
WARM_UP = 0.04  # fraction of the epochs


@dataclass(frozen=True)
class Settings:
    """The settings of one training; a saved state goes on only with the same."""

    epochs: int
    seed: int = 0
    batch_size: int = 32
    crop_seconds: float = 2.0
    long_crop_seconds: float = 4.5  # the last epochs hear nearly whole clips, as extraction will
    long_fraction: float = 0.1  # of the epochs
    per_category: int = 32  # clips of one category in an epoch; fewer clips are heard more often, cut differently
    learning_rate: float = 2e-3  # of AdamW at its highest, after a warm-up; falls to nothing along a cosine
    head_epochs: int = 0  # first epochs that train the last layer alone, at HEAD_LEARNING_RATE
    frozen_norms: bool = False  # batch norm keeps the statistics that the checkpoint brings
    class_weights: bool = (
        False  # every clip once an epoch, clips of small classes weigh more; else classes drawn evenly
    )
    patience: int = 0  # epochs without a better validation score before it stops; 0: never
    weight_decay: float = 0.05
    smoothing: float = 0.1  # of the targets
    mixup: float = 0.6  # fraction of clips that get another one on top
    corruption_p: float = 0.5  # how many clips are corrupted (augment.corrupt)
    danger_weight: float = 0.0  # of taking a danger for a safe sound, beside taking one class for another
    average: float = 0.998  # memory of the running average of the weights, in steps
    precision: str = "float32"  # or bfloat16: half the time on processors that have it

    def learning_rate_at(self, epoch: float) -> float:
        """HEAD_LEARNING_RATE while the last layer learns alone; then a warm-up, and down along a cosine."""
        if epoch < self.head_epochs:
            return HEAD_LEARNING_RATE
        epochs, epoch = self.epochs - self.head_epochs, epoch - self.head_epochs
        warm_up = max(1.0, WARM_UP * epochs)
        return self.learning_rate * min(1.0, (epoch + 0.05) / warm_up) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def best_precision(device: str) -> str:
    """bfloat16 where the processor computes with it, else float32."""
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = "amx_bf16" in (flags := _cpu_flags()) or "avx512_bf16" in flags
    return "bfloat16" if fast else "float32"


def _cpu_flags() -> str:
    """The processor's features, where the system tells (Linux); elsewhere float32 is the safe choice."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
