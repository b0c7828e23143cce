"""The training loop of finetune_cnn14.py.

The state of a training (settings, weights, their running average, optimiser, epoch) is saved beside its output as
``OUTPUT.training``: atomically, after the first epoch and then as often as costs little time. All randomness of an
epoch comes from (seed, epoch), so a resumed training ends with the same result, up to the rounding of parallel sums.
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

MAX_SAVING_FRACTION = 0.05  # of the training time may go into saving the state
CLIPPING_PER_CORRUPTION = 0.4  # probability of clipping, as a multiple of that of a corruption
MAX_GAIN_DB = 12.0  # attenuation of crops
MAX_GAIN_WITH_LEVEL_DB = 40.0  # the same for networks whose input is not normalised
MAX_GRAD_NORM = 5.0  # gradients are clipped to this norm


class Training:
    """A training, at the epoch of its saved state if there is one; ``run()`` does the remaining epochs."""

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
        """Prepare a training, or resume it from ``state_file``.

        Raises UserError if the saved state belongs to a training with other settings or clips.

        Args:
            model: the network, with one output per class.
            sounds: the training clips.
            targets: (clips,), the class of each clip.
            settings: all settings.
            state_file: where the state is saved.
            device: ``cpu`` or ``cuda``.
            val: held-out clips, by which the best epoch is chosen; without them the last epoch is the result.
            dangers: (classes,) bool, the dangerous classes; needed if ``settings.danger_weight`` is not 0.
        """
        self.front_end = sounds.front_end(model)  # runs on the CPU
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
        """Do the remaining epochs; return the averaged network of the best epoch or, without ``val``, of the last."""
        next_save = 0.0
        while self.epoch < self.settings.epochs and not self.stopped:
            started = time.monotonic()
            loss = self._train_epoch()
            self.epoch += 1
            self.history.append({"epoch": self.epoch, "loss": loss})
            if self.val:
                self._validate(self.val)
            self.history[-1]["seconds"] = round(time.monotonic() - started, 2)
            after_epoch(self)
            if time.monotonic() >= next_save or self.epoch == self.settings.epochs or self.stopped:
                started = time.monotonic()
                self._save()
                next_save = time.monotonic() + (time.monotonic() - started) / MAX_SAVING_FRACTION
        if self.val:
            self._averaged.load_state_dict(self.best)
        return self._averaged

    @property
    def stopped(self) -> bool:
        """Whether the validation score has not risen for ``patience`` epochs."""
        return bool(self.settings.patience) and self.epoch - self.best_epoch >= self.settings.patience

    def _validate(self, val: ValidationSet) -> None:
        """Score the averaged network; keep it if no epoch was better.

        Of epochs with equal accuracy the one with the lower loss is better: with few clips, accuracy is soon perfect.
        """
        score = val.score(self._averaged, self.device, self.settings.precision)
        self.history[-1] |= {"held_out_" + name: value for name, value in asdict(score).items()}
        ranks = [(h["held_out_balanced_accuracy"], -h["held_out_loss"]) for h in self.history]
        if ranks[-1] > max(ranks[:-1], default=(-1.0, 0.0)):
            self.best_epoch, self.best = self.epoch, copy.deepcopy(self._averaged.state_dict())

    def describe(self) -> dict:
        """Return what a checkpoint records about its training."""
        return {"settings": asdict(self.settings), "history": self.history, "best_epoch": self.best_epoch}

    def _train_epoch(self) -> float:
        """Train one epoch; return the mean loss."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        is_long = self.epoch >= settings.epochs * (1 - settings.long_fraction)
        samples = int((settings.long_crop_seconds if is_long else settings.crop_seconds) * self.sounds.sample_rate)
        order = self._sample_epoch(rng)
        size = settings.batch_size
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        batches = [batch for batch in batches if len(batch) > 1]  # batch norm needs two clips
        seeds = rng.integers(2**31, size=len(batches))
        losses = []
        self._prepare_epoch()
        with ThreadPoolExecutor(1) as pool:  # prepares the next batch meanwhile
            next_batch = pool.submit(self._batch, batches[0], samples, seeds[0])
            for step in range(len(batches)):
                logmel, target = next_batch.result()
                if step + 1 < len(batches):
                    next_batch = pool.submit(self._batch, batches[step + 1], samples, seeds[step + 1])
                self._set_learning_rate(self.epoch + step / len(batches))
                losses.append(self._train_step(logmel.to(self.device), target.to(self.device)))
                self.average.update_parameters(self.model)
        return float(np.mean(losses))

    def _batch(self, batch: np.ndarray, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented crops as log-mels, (batch, 1, frames, mel bins), and their targets, (batch, classes)."""
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

    def _train_step(self, logmel: torch.Tensor, target: torch.Tensor) -> float:
        """Update the weights from one batch; return the loss. Raises UserError if it is not finite."""
        settings = self.settings
        use_bfloat16 = settings.precision == "bfloat16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=use_bfloat16):
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
        """Return the cross-entropy of Danger, whose probability is the sum over the dangerous classes."""
        assert self.dangers is not None  # required with a danger_weight
        logit = logits[:, self.dangers].logsumexp(dim=1) - logits[:, ~self.dangers].logsumexp(dim=1)
        danger = target[:, self.dangers].sum(dim=1)
        smoothing = self.settings.smoothing
        return F.binary_cross_entropy_with_logits(logit, danger * (1 - smoothing) + smoothing / 2)

    def _crops(self, batch: np.ndarray, samples: int, rng: np.random.Generator) -> torch.Tensor:
        """Crop each clip at random, and change the speed of half of them: (batch, samples)."""
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
        """Return the clips of an epoch in random order: ``per_category`` of every category, or every clip once."""
        if self.settings.class_weights:
            return rng.permutation(len(self.targets))
        sampled = []
        for category in np.unique(self.targets):
            members = np.flatnonzero(self.targets == category)
            rounds = -(-self.settings.per_category // len(members))
            shuffled = np.concatenate([rng.permutation(members) for _ in range(rounds)])
            sampled.append(shuffled[: self.settings.per_category])
        return rng.permutation(np.concatenate(sampled))

    def _prepare_epoch(self) -> None:
        """Freeze the layers and batch-norm statistics that this epoch does not train."""
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
        """Return one weight per class, with a mean of 1 over the clips; None without ``class_weights``."""
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
        """Return what must be the same for a saved state to be resumed."""
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
