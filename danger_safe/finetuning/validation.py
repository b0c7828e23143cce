"""Validation of a network during fine-tuning."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score

from danger_safe.audio.decode import WINDOW_S
from danger_safe.finetuning.waveform_store import WaveformStore
from models.network import SoundNetwork


@dataclass(frozen=True)
class Score:
    """The metrics of a network on validation clips."""

    loss: float  # mean cross-entropy, without smoothing or class weights
    accuracy: float
    balanced_accuracy: float  # mean recall of the classes; the best epoch is chosen by it


class ValidationSet:
    """Clips that a network is not trained on."""

    def __init__(self, sounds: WaveformStore, targets: np.ndarray):
        """``targets``: (clips,), the class of each clip of ``sounds``."""
        self.sounds, self.targets = sounds, targets

    def score(self, model: SoundNetwork, device: str, precision: str) -> Score:
        """Evaluate the network on whole clips; the logits of a long recording are averaged over its windows."""
        front_end, clip_logits = self.sounds.front_end(model), []
        size = round(WINDOW_S * self.sounds.sample_rate)
        use_bfloat16 = precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=use_bfloat16):
            for samples in self.sounds:
                # The last window has half to one and a half times the usual length.
                windows = np.split(samples, range(size, len(samples) - size // 2, size))
                window_logits = []
                for window in windows:
                    logmel = torch.from_numpy(front_end(window.astype(np.float32) / 32_768.0))[None, None].to(device)
                    window_logits.append(model.logits(model.embed(logmel)).float().cpu())
                clip_logits.append(torch.stack(window_logits).mean(dim=0))
        logits, targets = torch.cat(clip_logits), torch.from_numpy(self.targets)
        predicted = logits.argmax(dim=1).numpy()
        return Score(
            F.cross_entropy(logits, targets).item(),
            float((predicted == self.targets).mean()),
            float(balanced_accuracy_score(self.targets, predicted)),
        )
