"""Which clips a training holds out, and how well it does on them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from danger_safe.clips import NO_FOLD, Clip
from danger_safe.errors import UserError
from danger_safe.sound_store import SoundStore
from models.logmel import LogMel
from models.models import Cnn14

SHARE = 5  # one in so many recordings is held out where the data brings no folds


@dataclass(frozen=True)
class Score:
    """How a network does on held-out clips."""

    loss: float  # mean cross-entropy, without smoothing or class weights
    accuracy: float  # share of the clips that are right
    balanced_accuracy: float  # mean over the classes: what the best pass is chosen by


class HeldOut:
    """Clips that a training does not learn from."""

    def __init__(self, sounds: SoundStore, targets: np.ndarray):
        """``targets`` holds one class number a clip of ``sounds``."""
        self.sounds, self.targets = sounds, targets

    def score(self, model: Cnn14, device: str, precision: str) -> Score:
        """Each clip is heard whole, by the network as it is."""
        front_end, logits = LogMel.of(model), []
        lower = precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=lower):
            for samples in self.sounds:
                logmel = torch.from_numpy(front_end(samples.astype(np.float32) / 32_768.0))[None, None].to(device)
                logits.append(model.logits(model.embed(logmel)).float().cpu())
        answers, targets = torch.cat(logits), torch.from_numpy(self.targets)
        predicted = answers.argmax(dim=1).numpy()
        return Score(
            F.cross_entropy(answers, targets).item(),
            float((predicted == self.targets).mean()),
            float(balanced_accuracy_score(self.targets, predicted)),
        )


def split(clips: list[Clip], names: dict[Clip, str], fold: str, seed: int) -> tuple[list[Clip], list[Clip]]:
    """(clips to learn from, clips to hold out). No recording is on both sides.

    ``fold``: a number: that fold of the data; ``none``: hold nothing out; ``auto``: the data's last fold or, where it
    has none, one in five recordings of every class; nothing, where a class has fewer than five.
    Raises UserError for a fold that no clip has.
    """
    if fold == "none":
        return clips, []
    folds = sorted({clip.fold for clip in clips} - {NO_FOLD})
    if fold != "auto" and int(fold) not in folds:
        raise UserError(f"no clip has fold {fold}: nothing to hold out (folds: {', '.join(map(str, folds)) or 'none'})")
    if folds:
        number = folds[-1] if fold == "auto" else int(fold)
        sources = {clip.source for clip in clips if clip.fold == number}
        out = [clip for clip in clips if clip.fold == number]
        return [clip for clip in clips if clip.fold != number and clip.source not in sources], out
    classes = np.array([names[clip] for clip in clips])
    sources = np.array([clip.source for clip in clips])
    if min(len(np.unique(sources[classes == name])) for name in np.unique(classes)) < SHARE:
        return clips, []
    splitter = StratifiedGroupKFold(SHARE, shuffle=True, random_state=seed)
    learn, hold = next(splitter.split(classes, classes, sources))
    return [clips[i] for i in learn], [clips[i] for i in hold]
