"""The training loop behind finetune_cnn14.py: clips in, the weights of a network out.

Files and rules. The state of a training lives beside its output, in ``OUTPUT.training``, written whole at the end of
the first epoch and then as often as costs little time; it holds the settings, the weights, their running average, the
optimiser and the epoch. All randomness of an epoch comes from (seed, epoch), so a training that was killed goes on from
its state to the same result, up to the rounding of parallel sums.
"""

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.core.errors import UserError
from danger_safe.finetuning import augment
from danger_safe.finetuning.config import Settings
from danger_safe.finetuning.state import resume, running_average, save_state
from danger_safe.finetuning.validation import ValidationSet
from danger_safe.finetuning.waveform_store import WaveformStore
from models.architectures import COMPUTED
from models.network import SoundNetwork, channels_last

SAVING_FRACTION = 0.05  # of the time may go into saving the state
CLIPPING_PER_CORRUPTION = 0.4  # peaks are cut off with this times the probability of a corruption
MAX_GAIN_DB = 12.0  # that a crop may be softer than full scale
MAX_GAIN_WITH_LEVEL_DB = 40.0  # for networks that hear how loud a recording is
MAX_GRAD_NORM = 5.0  # longer gradients are shortened to this


class Training:
    """One training, at the epoch where its saved state left it: ``run()`` does the epochs that are left."""

    def __init__(
        self,
        model: SoundNetwork,
        sounds: WaveformStore,
        targets: np.ndarray,
        settings: Settings,
        state_file: Path,
        device: str = "cpu",
        val: ValidationSet | None = None,
        dangers: np.ndarray | None = None,
    ):
        """``targets`` holds one class number a clip of ``sounds``; ``model`` has that many classes, of which
        ``dangers`` (a mask) are dangerous.

        With ``val`` clips the network of the best epoch is the result, else that of the last.
        Raises UserError when the saved state is of a training with other settings or clips.
        """
        self.front_end = sounds.front_end(model)  # on the CPU, whatever learns from it
        self.model = channels_last(model.to(device))
        self.average = running_average(self.model, settings.average)
        self.sounds, self.targets, self.settings = sounds, targets, settings
        self.state_file, self.device = state_file, device
        self.dangers = None if dangers is None else torch.from_numpy(dangers).to(device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.val = val
        self.epoch, self.best_epoch = 0, 0
        self.best = copy.deepcopy(self._averaged.state_dict()) if val else {}
        self.history: list[dict[str, float]] = []
        self.weights = self._class_weights()
        resume(state_file, self._identity(), device, self._restore)

    def run(self, after_epoch: Callable[["Training"], None]) -> SoundNetwork:
        """Do the epochs that are left; returns the averaged network, of the best epoch where there are ``val``
        clips."""
        next_saving = 0.0
        while self.epoch < self.settings.epochs and not self.stopped:
            started = time.monotonic()
            loss = self._train_epoch()
            self.epoch += 1
            self.history.append({"epoch": self.epoch, "loss": loss})
            if self.val:
                self._validate(self.val)
            self.history[-1]["seconds"] = round(time.monotonic() - started, 2)
            after_epoch(self)
            if time.monotonic() >= next_saving or self.epoch == self.settings.epochs or self.stopped:
                begun = time.monotonic()
                self._save()
                next_saving = time.monotonic() + (time.monotonic() - begun) / SAVING_FRACTION
        if self.val:
            self._averaged.load_state_dict(self.best)
        return self._averaged

    @property
    def stopped(self) -> bool:
        """Whether the validation score has not risen for ``patience`` epochs."""
        return bool(self.settings.patience) and self.epoch - self.best_epoch >= self.settings.patience

    def _validate(self, val: ValidationSet) -> None:
        """Score the averaged network; keep it if no epoch was better.

        Of epochs with the same answers, the surer is better: few clips are soon all right.
        """
        score = val.score(self._averaged, self.device, self.settings.precision)
        self.history[-1] |= {"held_out_" + name: value for name, value in asdict(score).items()}
        goodness = [(h["held_out_balanced_accuracy"], -h["held_out_loss"]) for h in self.history]
        if goodness[-1] > max(goodness[:-1], default=(-1.0, 0.0)):
            self.best_epoch, self.best = self.epoch, copy.deepcopy(self._averaged.state_dict())

    def describe(self) -> dict:
        """What a checkpoint tells of its training."""
        return {"settings": asdict(self.settings), "history": self.history, "best_epoch": self.best_epoch}

    def _train_epoch(self) -> float:
        """Every category once, at most ``per_category`` clips of each; returns the mean loss."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        long = self.epoch >= settings.epochs * (1 - settings.long_fraction)
        samples = int((settings.long_crop_seconds if long else settings.crop_seconds) * self.sounds.sample_rate)
        order = self._sample_epoch(rng)
        size = settings.batch_size
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        batches = [batch for batch in batches if len(batch) > 1]  # batch norm cannot do with one clip
        seeds = rng.integers(2**31, size=len(batches))
        losses = []
        self._prepare_epoch()
        with ThreadPoolExecutor(1) as ahead:  # makes the next batch while the network learns from this one
            waiting = ahead.submit(self._batch, batches[0], samples, seeds[0])
            for step in range(len(batches)):
                logmel, target = waiting.result()
                if step + 1 < len(batches):
                    waiting = ahead.submit(self._batch, batches[step + 1], samples, seeds[step + 1])
                self._set_learning_rate(self.epoch + step / len(batches))
                losses.append(self._one_step(logmel.to(self.device), target.to(self.device)))
                self.average.update_parameters(self.model)
        return float(np.mean(losses))

    def _batch(self, batch: np.ndarray, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops of clips, mixed, many corrupted, as log-mels (batch, 1, frames, 64); targets (batch, classes)."""
        settings, rng = self.settings, np.random.default_rng(seed)
        target = torch.from_numpy(np.eye(self.model.settings["classes"], dtype=np.float32)[self.targets[batch]])
        waveform, target = augment.mix(self._crops(batch, samples, rng), target, settings.mixup, rng)
        waveform = augment.change_depth(waveform, 0.3, rng)
        oversample = SAMPLE_RATE // self.sounds.sample_rate
        waveform = augment.clip_peaks(waveform, CLIPPING_PER_CORRUPTION * settings.corruption_p, rng, oversample)
        gain = MAX_GAIN_DB if self.front_end.normalise else MAX_GAIN_WITH_LEVEL_DB
        waveform = augment.change_gain(waveform, gain, rng)
        power = augment.corrupt(self.front_end.power(waveform.numpy()), settings.corruption_p, rng)
        logmel = torch.from_numpy(self.front_end.from_power(power))[:, None]
        return augment.mask(logmel, rng), target

    def _one_step(self, logmel: torch.Tensor, target: torch.Tensor) -> float:
        settings = self.settings
        lower = settings.precision == "bfloat16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=lower):
            logits = self.model.logits(self.model.embed(logmel)).float()
        loss = F.cross_entropy(logits, target, weight=self.weights, label_smoothing=settings.smoothing)
        if settings.danger_weight:
            loss = loss + settings.danger_weight * self._danger_loss(logits, target)
        if not torch.isfinite(loss):
            raise UserError("the loss is not a number any more: lower --learning-rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        self.optimiser.step()
        return loss.item()

    def _danger_loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of danger, whose probability is the sum of the dangerous classes'."""
        assert self.dangers is not None  # a weight of danger comes with the mask
        logit = logits[:, self.dangers].logsumexp(dim=1) - logits[:, ~self.dangers].logsumexp(dim=1)
        danger = target[:, self.dangers].sum(dim=1)
        smoothing = self.settings.smoothing
        return F.binary_cross_entropy_with_logits(logit, danger * (1 - smoothing) + smoothing / 2)

    def _crops(self, batch: np.ndarray, samples: int, rng: np.random.Generator) -> torch.Tensor:
        """One crop of each clip, half of them at another speed: (batch, samples)."""
        crops = []
        for index in batch:
            if rng.random() < 0.5:
                speed = 2 ** rng.uniform(-0.35, 0.35)
                crop = augment.random_crop(self.sounds[index], int(samples * speed), rng)
                crops.append(augment.change_speed(crop, samples))
            else:
                crops.append(augment.random_crop(self.sounds[index], samples, rng))
        return torch.from_numpy(np.stack(crops))

    def _sample_epoch(self, rng: np.random.Generator) -> np.ndarray:
        """``per_category`` clips of every category, or every clip once, in random order."""
        if self.settings.class_weights:
            return rng.permutation(len(self.targets))
        chosen = []
        for category in np.unique(self.targets):
            members = np.flatnonzero(self.targets == category)
            rounds = -(-self.settings.per_category // len(members))
            shuffled = np.concatenate([rng.permutation(members) for _ in range(rounds)])
            chosen.append(shuffled[: self.settings.per_category])
        return rng.permutation(np.concatenate(chosen))

    def _prepare_epoch(self) -> None:
        """Which layers learn in this epoch, and which statistics move."""
        head_only = self.epoch < self.settings.head_epochs
        self.model.train()
        for name, parameter in self.model.named_parameters():
            if not name.startswith(COMPUTED):
                parameter.requires_grad_(not head_only or name.startswith(f"{self.model.last_layer}."))
        if head_only or self.settings.frozen_norms:
            for layer in self.model.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.eval()

    def _set_learning_rate(self, epoch: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate_at(epoch)

    def _class_weights(self) -> torch.Tensor | None:
        """One weight a class, their mean 1 over the clips of an epoch."""
        if not self.settings.class_weights:
            return None
        counts = np.bincount(self.targets, minlength=self.model.settings["classes"]).clip(1)
        weights = len(self.targets) / (len(counts) * counts)
        return torch.tensor(weights, dtype=torch.float32, device=self.device)

    @property
    def _averaged(self) -> SoundNetwork:
        """The network with the running average of the weights."""
        return cast(SoundNetwork, self.average.module)

    def _identity(self) -> dict:
        """What must be the same for a saved state to go on."""
        return {
            "settings": asdict(self.settings),
            "network": self.model.settings,
            "clips": list(self.sounds.names),
            "dangers": None if self.dangers is None else self.dangers.tolist(),
        }

    def _save(self) -> None:
        progress = {
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "epoch": self.epoch, "history": self.history,
            "best": self.best, "best_epoch": self.best_epoch,
        }  # fmt: skip
        save_state(self.state_file, self._identity(), progress)

    def _restore(self, progress: dict) -> None:
        self.model.load_state_dict(progress["model"])
        self.average.load_state_dict(progress["average"])
        self.optimiser.load_state_dict(progress["optimiser"])
        self.epoch, self.history = progress["epoch"], progress["history"]
        self.best, self.best_epoch = progress["best"], progress["best_epoch"]
