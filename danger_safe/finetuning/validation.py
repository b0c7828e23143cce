"""How well a training does on its validation clips."""

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
    """How a network does on validation clips."""

    loss: float  # mean cross-entropy, without smoothing or class weights
    accuracy: float  # fraction of the clips that are right
    balanced_accuracy: float  # mean over the classes: what the best epoch is chosen by


class ValidationSet:
    """Clips that a training does not learn from."""

    def __init__(self, sounds: WaveformStore, targets: np.ndarray):
        """``targets`` holds one class number a clip of ``sounds``."""
        self.sounds, self.targets = sounds, targets

    def score(self, model: SoundNetwork, device: str, precision: str) -> Score:
        """Each clip is heard whole, by the network as it is; a long recording in pieces, whose answers are averaged."""
        front_end, logits = self.sounds.front_end(model), []
        size = round(WINDOW_S * self.sounds.sample_rate)
        lower = precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=lower):
            for samples in self.sounds:
                # The last piece is of half a window to one and a half.
                pieces = np.split(samples, range(size, len(samples) - size // 2, size))
                answers = []
                for piece in pieces:
                    logmel = torch.from_numpy(front_end(piece.astype(np.float32) / 32_768.0))[None, None].to(device)
                    answers.append(model.logits(model.embed(logmel)).float().cpu())
                logits.append(torch.stack(answers).mean(dim=0))
        answers, targets = torch.cat(logits), torch.from_numpy(self.targets)
        predicted = answers.argmax(dim=1).numpy()
        return Score(
            F.cross_entropy(answers, targets).item(),
            float((predicted == self.targets).mean()),
            float(balanced_accuracy_score(self.targets, predicted)),
        )
