"""The training loop of the distillation and its recipe."""

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from danger_safe.core.errors import UserError
from danger_safe.finetuning.state import resume, running_average, save_state
from models.compact import CompactNet
from models.network import channels_last
from tools.detector_tags import DANGEROUS_TAGS, PRIMARY_TAGS
from tools.distil.examples import RING_SIZE, TAGS, VALIDATION_SIZE, Examples
from tools.distil.student import Student, Targets

SAVE_EVERY_S = 180
MAX_GRAD_NORM = 5.0
DANGER_P = 0.3  # the teacher's probability of a dangerous tag from which an example is sampled at the full rate
CANDIDATES = 8  # times the batch size; examples from which a batch is sampled


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters. In the second half of the training dangers count for more."""

    steps: int
    batch_size: int = 48
    learning_rates: tuple[float, float] = (2e-3, 1.2e-3)  # maximum of each half
    warm_up_steps: int = 80  # in each half
    final_fraction: float = 0.02  # of the maximum learning rate, at the end of its cosine
    danger_weight: float = 3.0  # of dangerous tags in the losses, in the second half; other tags have 1
    primary_danger_weight: float = 5.0  # of PRIMARY_TAGS
    danger_sampling: float = 4.0  # how much more often dangers are sampled than other examples, in the second half
    weight_decay: float = 0.02
    average_decay: float = 0.998  # of the running average of the weights
    clip_weight: float = 1.0  # of the loss on clip features
    step_weight: float = 0.6  # of the loss on step features
    logit_weight: float = 0.3
    tag_weight: float = 0.15
    mask_p: float = 0.5  # probability of masking a band; and of a level error
    max_level_error_db: float = 3.0
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate at a step: in each half a linear warm-up and a cosine decay."""
        half = self.steps / 2
        start = half if self.is_second_half(step) else 0
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - start) / half)))
        warm_up = min(1.0, (step - start + 1) / self.warm_up_steps)
        max_rate = self.learning_rates[self.is_second_half(step)]
        return max_rate * warm_up * (self.final_fraction + (1 - self.final_fraction) * cosine)

    def is_second_half(self, step: int) -> bool:
        """Return whether dangers count for more at this step."""
        return 2 * step >= self.steps


class Distillation:
    """A training that resumes from its saved state."""

    def __init__(self, recipe: Recipe, tag_names: list[str], ring: Examples, validation: Examples, state_file: Path):
        """Set up the training, and restore its state if there is one.

        Args:
            recipe: The hyperparameters.
            tag_names: Names of AudioSet's classes, in order.
            ring: Training examples, which another process keeps replacing.
            validation: Examples of held-out collections.
            state_file: Where the state is saved.
        """
        self.recipe, self.ring, self.validation, self.state_file = recipe, ring, validation, state_file
        self.dangerous_tags = [tag_names.index(name) for name in DANGEROUS_TAGS]
        self.tag_weights = torch.ones(TAGS)
        self.tag_weights[self.dangerous_tags] = recipe.danger_weight
        self.tag_weights[[tag_names.index(name) for name in PRIMARY_TAGS]] = recipe.primary_danger_weight
        torch.manual_seed(recipe.seed)
        self.targets = Targets(ring)
        self.student = channels_last(Student(self.targets.logit_mean))
        matrices = [p for p in self.student.parameters() if p.ndim > 1]
        vectors = [p for p in self.student.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rates[0], betas=(0.9, 0.98))
        self.average = running_average(self.student, recipe.average_decay)
        self.loss_weights = torch.tensor(
            [recipe.clip_weight, recipe.step_weight, recipe.logit_weight, recipe.tag_weight]
        )
        self.step = 0
        self.history: list[dict] = []
        resume(state_file, self._identity(), "cpu", self._restore)

    def run(self) -> None:
        """Train for the remaining steps, saving the state on the way."""
        self.student.train()
        saved_at, sums, count = time.monotonic(), torch.zeros(4), 0
        with tqdm(total=self.recipe.steps, initial=self.step, desc="Distilling", unit="step", file=sys.stderr) as bar:
            while self.step < self.recipe.steps:
                sums, count = sums + self._train_step(), count + 1
                bar.update()
                if time.monotonic() - saved_at > SAVE_EVERY_S or self.step == self.recipe.steps:
                    losses = {"step": self.step, "train": (sums / count).tolist(), "validation": self.validate()}
                    self.history.append(losses)
                    self._save()
                    bar.write(f"{losses}", file=sys.stderr)
                    saved_at, sums, count = time.monotonic(), torch.zeros(4), 0

    def validate(self) -> list[float]:
        """Return the averaged network's four losses on the held-out collections."""
        losses = []
        with torch.inference_mode():
            for start in range(0, VALIDATION_SIZE, 128):
                logmel, logits, features = self.validation.batch(np.arange(start, min(start + 128, VALIDATION_SIZE)))
                losses.append(self.targets.losses(self.average(logmel), logits, features, torch.ones(TAGS)))
        return torch.stack(losses).mean(dim=0).tolist()

    def network(self) -> CompactNet:
        """Return the averaged network without the projections."""
        return cast(Student, self.average.module).network

    def _train_step(self) -> torch.Tensor:
        """Do one step and return its four losses, (4,)."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(self.step)
        available = min(int(self.ring.written[0]), RING_SIZE)
        is_second = recipe.is_second_half(self.step)
        batch = self._sample(available, rng) if is_second else rng.integers(0, available, recipe.batch_size)
        logmel, logits, features = self.ring.batch(batch)
        tag_weights = self.tag_weights if is_second else torch.ones(TAGS)
        losses = self.targets.losses(self.student(self._augment(logmel, rng)), logits, features, tag_weights)
        loss = (losses * self.loss_weights).sum()
        if not torch.isfinite(loss):
            raise UserError(f"the loss is not a number any more at step {self.step}: lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), MAX_GRAD_NORM)
        self.optimiser.step()
        self.step += 1
        self.average.update_parameters(self.student)
        return losses.detach()

    def _sample(self, available: int, rng: np.random.Generator) -> np.ndarray:
        """Return indices of a batch, (batch,), in which examples with dangers are more frequent."""
        candidates = rng.integers(0, available, CANDIDATES * self.recipe.batch_size)
        max_logits = np.array(self.ring.logits[candidates], np.float32)[:, self.dangerous_tags].max(axis=1)
        danger = np.minimum(1 / (1 + np.exp(-max_logits)) / DANGER_P, 1.0)
        weights = 1 + (self.recipe.danger_sampling - 1) * danger
        return rng.choice(candidates, self.recipe.batch_size, replace=False, p=weights / weights.sum())

    def _augment(self, logmel: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Mask a band of some examples by their mean, and change the level of some: (batch, 1, frames, 64)."""
        for example in logmel:
            if rng.random() < self.recipe.mask_p:
                width = int(rng.integers(1, 8))
                start = int(rng.integers(0, example.shape[-1] - width))
                example[..., start : start + width] = example.mean()
            if rng.random() < self.recipe.mask_p:
                example += float(rng.uniform(-1, 1)) * self.recipe.max_level_error_db
        return logmel

    def _identity(self) -> dict:
        """Return what must be equal for a saved state to be resumed: the recipe but for the number of steps."""
        return {"recipe": asdict(self.recipe) | {"steps": 0}}

    def _save(self) -> None:
        progress = {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "history": self.history,
            "targets": vars(self.targets),
        }
        save_state(self.state_file, self._identity(), progress)

    def _restore(self, progress: dict) -> None:
        self.student.load_state_dict(progress["student"])
        self.average.load_state_dict(progress["average"])
        self.optimiser.load_state_dict(progress["optimiser"])
        self.step, self.history = progress["step"], progress["history"]
        vars(self.targets).update(progress["targets"])
