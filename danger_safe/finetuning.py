"""The training loop behind finetune_cnn14.py: clips in, the weights of a Cnn14 out.

Files and rules. The state of a training lives beside its output, in ``OUTPUT.training``, written whole at the end of
the first pass and then as often as costs little time; it holds the settings, the weights, their running average, the
optimiser and the pass. All randomness of a pass is drawn from (seed, pass), so a training that was killed goes on from
its state to the same result, up to the rounding of parallel sums.
"""

import copy
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from danger_safe import augment
from danger_safe.audio import SAMPLE_RATE
from danger_safe.errors import UserError
from danger_safe.files import whole_file
from danger_safe.sound_store import SoundStore
from danger_safe.validation import HeldOut
from models.checkpoints import COMPUTED
from models.logmel import LogMel
from models.models import Cnn14

SAVING_SHARE = 0.05  # of the time may go into saving the state
HEAD_RATE = 2e-3  # of the last layer, while it alone learns


@dataclass(frozen=True)
class Settings:
    """What decides the result of a training, besides the clips and the network it starts from."""

    epochs: int
    seed: int = 0
    batch_size: int = 32
    crop_seconds: float = 2.0
    long_crop_seconds: float = 4.5  # the last passes hear nearly whole clips, as extraction will
    long_share: float = 0.1  # of the passes
    per_category: int = 32  # clips of one category in one pass; fewer clips are heard more often, cut differently
    rate: float = 2e-3  # of AdamW at its highest, after a warm-up; falls to nothing along a cosine
    head_epochs: int = 0  # first passes that train the last layer alone, at HEAD_RATE
    frozen_norms: bool = False  # batch norm keeps the statistics that the checkpoint brings
    class_weights: bool = False  # every clip once a pass, clips of small classes weigh more; else classes drawn evenly
    patience: int = 0  # passes without a better score on the held-out clips before it stops; 0: all passes
    weight_decay: float = 0.05
    smoothing: float = 0.1  # of the targets
    mixup: float = 0.6  # share of clips that get another one on top
    bad_share: float = 0.12  # of the clips, for each way of recording badly (augment.record_badly)
    consistency: float = 0.0  # weight of the pull towards the first network's embedding of the sound recorded well
    average: float = 0.998  # memory of the running average of the weights, in steps
    precision: str = "float32"  # or bfloat16: half the time on processors that have it


class Training:
    """One training, at the pass where its saved state left it: ``run()`` does the passes that are left."""

    def __init__(
        self,
        model: Cnn14,
        sounds: SoundStore,
        targets: np.ndarray,
        settings: Settings,
        state_file: Path,
        device: str = "cpu",
        held_out: HeldOut | None = None,
    ):
        """``targets`` holds one class number a clip of ``sounds``; ``model`` has that many classes.

        With ``held_out`` clips the network of the best pass is the result, else that of the last.
        Raises UserError when the saved state is of a training with other settings or clips.
        """
        self.front_end = LogMel.of(model)  # sounds are changed and transformed on the CPU, whatever learns from them
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        self.teacher = copy.deepcopy(self.average) if settings.consistency else None
        self.sounds, self.targets, self.settings = sounds, targets, settings
        self.state_file, self.device = state_file, device
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=settings.weight_decay)
        self.held_out = held_out
        self.epoch, self.best_epoch = 0, 0
        self.best = copy.deepcopy(self.average.state_dict()) if held_out else {}
        self.history: list[dict[str, float]] = []
        self.weights = self._class_weights()
        self._resume()

    def run(self, after_epoch: Callable[["Training"], None]) -> Cnn14:
        """Do the passes that are left; returns the averaged network, of the best pass where clips are held out."""
        next_saving = 0.0
        while self.epoch < self.settings.epochs and not self.stopped:
            started = time.monotonic()
            loss = self._one_pass()
            self.epoch += 1
            self.history.append({"epoch": self.epoch, "loss": loss})
            if self.held_out:
                self._validate()
            self.history[-1]["seconds"] = round(time.monotonic() - started, 2)
            after_epoch(self)
            if time.monotonic() >= next_saving or self.epoch == self.settings.epochs or self.stopped:
                begun = time.monotonic()
                self._save()
                next_saving = time.monotonic() + (time.monotonic() - begun) / SAVING_SHARE
        if self.held_out:
            self.average.load_state_dict(self.best)
        return self.average

    @property
    def stopped(self) -> bool:
        """Whether the held-out score has not risen for ``patience`` passes."""
        return bool(self.settings.patience) and self.epoch - self.best_epoch >= self.settings.patience

    def _validate(self) -> None:
        """Score the averaged network; keep it if no pass was better.

        Of passes with the same answers, the surer is better: few held-out clips are soon all right.
        """
        score = self.held_out.score(self.average, self.device, self.settings.precision)
        self.history[-1] |= {"held_out_" + name: value for name, value in asdict(score).items()}
        goodness = [(h["held_out_balanced_accuracy"], -h["held_out_loss"]) for h in self.history]
        if goodness[-1] > max(goodness[:-1], default=(-1.0, 0.0)):
            self.best_epoch, self.best = self.epoch, copy.deepcopy(self.average.state_dict())

    def describe(self) -> dict:
        """What a checkpoint tells of its training."""
        return {"settings": asdict(self.settings), "history": self.history, "best_epoch": self.best_epoch}

    def _one_pass(self) -> float:
        """Every category once, at most ``per_category`` clips of each; returns the mean loss."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        long = self.epoch >= settings.epochs * (1 - settings.long_share)
        samples = int((settings.long_crop_seconds if long else settings.crop_seconds) * SAMPLE_RATE)
        order = self._draw(rng)
        batches = [order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size)]
        batches = [batch for batch in batches if len(batch) > 1]  # batch norm cannot do with one clip
        seeds = rng.integers(2**31, size=len(batches))
        losses = []
        self._prepare_pass()
        with ThreadPoolExecutor(1) as ahead:  # decodes the next batch while the network learns from this one
            waiting = ahead.submit(self._crops, batches[0], samples, seeds[0])
            for step, batch in enumerate(batches):
                waveform = waiting.result()
                if step + 1 < len(batches):
                    waiting = ahead.submit(self._crops, batches[step + 1], samples, seeds[step + 1])
                self._set_rate(self.epoch + step / len(batches))
                losses.append(self._one_step(waveform, self.targets[batch], np.random.default_rng(seeds[step] + 1)))
                self._update_average(self.epoch * len(batches) + step)
        return float(np.mean(losses))

    def _one_step(self, waveform: torch.Tensor, classes: np.ndarray, rng: np.random.Generator) -> float:
        settings = self.settings
        count = self.model.settings["classes"]
        target = torch.from_numpy(np.eye(count, dtype=np.float32)[classes])
        waveform, target = augment.mix(waveform, target, settings.mixup, rng)
        front_end = self.front_end
        lower = torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=settings.precision == "bfloat16")
        with torch.no_grad():
            if self.teacher:
                clean = torch.from_numpy(front_end(augment.clip_peaks(waveform, 0.0, rng).numpy()))[:, None]
                with lower:
                    taught = self.teacher.embed(clean.to(self.device)).float()
            waveform = augment.change_depth(waveform, 0.3, rng)
            waveform = augment.change_gain(augment.clip_peaks(waveform, settings.bad_share, rng), 12.0, rng)
            power = augment.record_badly(torch.from_numpy(front_end.power(waveform.numpy())), settings.bad_share, rng)
            logmel = augment.mask(torch.from_numpy(front_end.from_power(power.numpy()))[:, None], rng)
        logmel, target = logmel.to(self.device), target.to(self.device)
        with lower:
            embedding = self.model.embed(logmel)
            logits = self.model.logits(embedding).float()
        loss = F.cross_entropy(logits, target, weight=self.weights, label_smoothing=settings.smoothing)
        if self.teacher:
            loss = loss + settings.consistency * F.mse_loss(embedding.float(), taught) / taught.square().mean()
        if not torch.isfinite(loss):
            raise UserError("the loss is not a number any more: lower --rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def _crops(self, batch: np.ndarray, samples: int, seed: int) -> torch.Tensor:
        """One crop of each clip, half of them at another speed: (batch, samples)."""
        rng = np.random.default_rng(seed)
        crops = []
        for index in batch:
            if rng.random() < 0.5:
                speed = 2 ** rng.uniform(-0.35, 0.35)
                crop = augment.random_crop(self.sounds[index], int(samples * speed), rng)
                crops.append(augment.change_speed(crop, samples))
            else:
                crops.append(augment.random_crop(self.sounds[index], samples, rng))
        return torch.from_numpy(np.stack(crops))

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """``per_category`` clips of every category, or every clip once, in random order."""
        if self.settings.class_weights:
            return rng.permutation(len(self.targets))
        drawn = []
        for category in np.unique(self.targets):
            members = np.flatnonzero(self.targets == category)
            rounds = -(-self.settings.per_category // len(members))
            shuffled = np.concatenate([rng.permutation(members) for _ in range(rounds)])
            drawn.append(shuffled[: self.settings.per_category])
        return rng.permutation(np.concatenate(drawn))

    def _prepare_pass(self) -> None:
        """Which layers learn in this pass, and which statistics move."""
        head_only = self.epoch < self.settings.head_epochs
        self.model.train()
        for name, parameter in self.model.named_parameters():
            if not name.startswith(COMPUTED):
                parameter.requires_grad_(not head_only or name.startswith("fc_audioset."))
        if head_only or self.settings.frozen_norms:
            for layer in self.model.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.eval()

    def _set_rate(self, epoch: float) -> None:
        """The last layer alone learns at HEAD_RATE; everything then along a cosine, after a warm-up."""
        if epoch < self.settings.head_epochs:
            rate = HEAD_RATE
        else:
            epochs = self.settings.epochs - self.settings.head_epochs
            epoch -= self.settings.head_epochs
            warm_up = max(1.0, 0.04 * epochs)
            rate = (
                self.settings.rate * min(1.0, (epoch + 0.05) / warm_up) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            )
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _class_weights(self) -> torch.Tensor | None:
        """One weight a class, their mean 1 over the clips of a pass."""
        if not self.settings.class_weights:
            return None
        counts = np.bincount(self.targets, minlength=self.model.settings["classes"]).clip(1)
        weights = len(self.targets) / (len(counts) * counts)
        return torch.tensor(weights, dtype=torch.float32, device=self.device)

    def _update_average(self, step: int) -> None:
        """Exponential moving average of weights and batch-norm statistics; short memory at first."""
        memory = min(self.settings.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - memory)

    def _save(self) -> None:
        state = {
            "settings": asdict(self.settings), "network": self.model.settings, "clips": list(self.sounds.names),
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "epoch": self.epoch, "history": self.history,
            "best": self.best, "best_epoch": self.best_epoch,
        }  # fmt: skip
        with whole_file(self.state_file) as part:
            torch.save(state, part)

    def _resume(self) -> None:
        if not self.state_file.is_file():
            return
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        same = (
            state["settings"] == asdict(self.settings)
            and state["network"] == self.model.settings
            and state["clips"] == list(self.sounds.names)
        )
        if not same:
            raise UserError(
                f"{self.state_file} belongs to a training with other settings or clips: "
                "delete it to start anew, or use the settings it was started with"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]


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
