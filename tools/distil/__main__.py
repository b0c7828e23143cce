"""Trains the compact network as a student of mn04: from nothing, without labels, on two cores in about three hours.

    python -m tools.distil --sounds SOUNDS UNLABELLED --without-esc50 dataset/ESC-50-master --output models/compact.pth

Teacher and student hear the same three seconds, mixed of several recordings; the student often hears them as a bad
recording would hold them. It learns the direction of the teacher's features (standardised, as a whole and in each of
ten steps of time, through two linear projections that are thrown away) and its 527 AudioSet logits. In the second half
the learning rate rises once more, and dangers count for more. S-SONDO, CED and EfficientAT are where the ideas come
from; benchmarks/compact.md has the trials.

Whoever stops it, however, goes on with the same command: the state lies in --work and is written every three minutes.
No clip of ESC-50 takes part, nor a recording that one was cut from: names that hold their Freesound numbers are left
out.
"""

import csv
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from danger_safe.core import cli
from danger_safe.core.errors import UserError
from danger_safe.finetuning.state import resume, running_average, save_state
from models.checkpoints import save_checkpoint
from models.compact import CompactNet
from models.network import channels_last
from tools.detector_tags import DANGEROUS_TAGS, SUREST_TAGS
from tools.distil.corpus import collect, freesound_numbers
from tools.distil.examples import FEATURES, RING_SIZE, TAGS, VALIDATION_SIZE, Examples, make_validation, start_producer

SAVE_EVERY_S = 180
MIN_EXAMPLES = 9_000  # in the ring before the training begins
MAX_GRAD_NORM = 5.0
DANGER_P = 0.3  # the teacher's probability of a dangerous tag from which on an example counts as one
DRAWN_FROM = 8  # times as many examples as a batch has are looked at for it
DROPOUT = 0.1  # before the hidden layer
LICENCE = "CC BY-NC 3.0 (trained on sounds of which several forbid commercial use)"


@dataclass(frozen=True)
class Recipe:
    """What decides the result, besides the sounds."""

    steps: int
    batch_size: int = 48
    learning_rates: tuple[float, float] = (2e-3, 1.2e-3)  # at the beginning of either half
    warm_up_steps: int = 80  # of either half
    final_fraction: float = 0.02  # of the learning rate, at the end of its cosine
    danger_weight: float = 3.0  # of the answers for dangerous tags, in the second half; 1 of others
    surest_danger_weight: float = 5.0  # of those for which the detector looks first
    danger_draws: float = 4.0  # times as often as other examples, in the second half
    weight_decay: float = 0.02
    average_decay: float = 0.998
    clip_weight: float = 1.0  # of the loss on the features' mean
    step_weight: float = 0.6  # on the features of each step of time
    logit_weight: float = 0.3
    tag_weight: float = 0.15
    mask_p: float = 0.5
    max_level_error_db: float = 3.0
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """The learning rate at a step: in either half up in a line, down along a cosine."""
        half = self.steps / 2
        begun = half if self.is_second_half(step) else 0
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - begun) / half)))
        warm = min(1.0, (step - begun + 1) / self.warm_up_steps)
        highest = self.learning_rates[self.is_second_half(step)]
        return highest * warm * (self.final_fraction + (1 - self.final_fraction) * cosine)

    def is_second_half(self, step: int) -> bool:
        """Whether dangers count for more at that step."""
        return 2 * step >= self.steps


class Student(nn.Module):
    """The network with the projections to the teacher's features, which only the training needs."""

    def __init__(self, mean_logits: torch.Tensor):
        super().__init__()
        self.network = CompactNet(TAGS, multilabel=True)
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.network.fc_audioset.weight, std=0.01)
        self.network.fc_audioset.bias.data.copy_(mean_logits)  # so that it begins with what is usual
        self.clip_projection = nn.Linear(self.network.fc1.out_features, FEATURES)
        self.step_projection = nn.Linear(self.network.fc1.in_features, FEATURES)

    def forward(self, logmel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(batch, 1, frames, 64) -> logits (batch, 527), features (batch, 384), features in time (batch, steps,
        384)."""
        steps = self.network.framewise_features(logmel)
        pooled = F.dropout(steps.mean(dim=2) + steps.amax(dim=2), DROPOUT, self.training)
        hidden = F.relu(self.network.fc1(pooled))
        logits = self.network.fc_audioset(hidden)
        return logits, self.clip_projection(hidden), self.step_projection(steps.transpose(1, 2))


class Targets:
    """The teacher's answers, standardised over the first examples."""

    def __init__(self, examples: Examples, count: int = 4_096):
        _, logits, features = examples.batch(np.arange(count))
        clip = features.mean(dim=1)
        self.logit_mean, self.logit_std = logits.mean(dim=0), logits.std(dim=0) + 1e-2
        self.clip_mean, self.clip_std = clip.mean(dim=0), clip.std(dim=0) + 1e-3
        self.step_mean, self.step_std = features.mean(dim=(0, 1)), features.std(dim=(0, 1)) + 1e-3

    def losses(
        self, answer: tuple[torch.Tensor, ...], logits: torch.Tensor, features: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Of features, features in time, logits and tags: (4,), each 0 where the student answers as the teacher.

        ``weights``: of the tags in the last two, (527,).
        """
        own_logits, clip, steps = answer
        clip_loss = 1 - F.cosine_similarity(clip, (features.mean(dim=1) - self.clip_mean) / self.clip_std).mean()
        step_loss = 1 - F.cosine_similarity(steps, (features - self.step_mean) / self.step_std, dim=2).mean()
        logit_loss = (((own_logits - logits) / self.logit_std).square() * weights).mean() / weights.mean()
        tags = torch.sigmoid(logits)
        entropies = (F.binary_cross_entropy_with_logits(x, tags, reduction="none") for x in (own_logits, logits))
        own, least = ((entropy * weights).sum(dim=1).mean() for entropy in entropies)
        return torch.stack([clip_loss, step_loss, logit_loss, own - least])


class Distillation:
    """One training, at the step where its saved state left it."""

    def __init__(self, recipe: Recipe, tag_names: list[str], ring: Examples, validation: Examples, state_file: Path):
        self.recipe, self.ring, self.validation, self.state_file = recipe, ring, validation, state_file
        self.dangerous_tags = [tag_names.index(name) for name in DANGEROUS_TAGS]
        self.tag_weights = torch.ones(TAGS)
        self.tag_weights[self.dangerous_tags] = recipe.danger_weight
        self.tag_weights[[tag_names.index(name) for name in SUREST_TAGS]] = recipe.surest_danger_weight
        torch.manual_seed(recipe.seed)
        self.targets = Targets(ring)
        self.student = channels_last(Student(self.targets.logit_mean))
        matrices = [p for p in self.student.parameters() if p.ndim > 1]
        others = [p for p in self.student.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rates[0], betas=(0.9, 0.98))
        self.average = running_average(self.student, recipe.average_decay)
        self.weights = torch.tensor([recipe.clip_weight, recipe.step_weight, recipe.logit_weight, recipe.tag_weight])
        self.step = 0
        self.history: list[dict] = []
        resume(state_file, self._identity(), "cpu", self._restore)

    def run(self) -> None:
        """Do the steps that are left."""
        self.student.train()
        saved, sums, counted = time.monotonic(), torch.zeros(4), 0
        with tqdm(total=self.recipe.steps, initial=self.step, desc="Distilling", unit="step", file=sys.stderr) as bar:
            while self.step < self.recipe.steps:
                sums, counted = sums + self._one_step(), counted + 1
                bar.update()
                if time.monotonic() - saved > SAVE_EVERY_S or self.step == self.recipe.steps:
                    losses = {"step": self.step, "train": (sums / counted).tolist(), "validation": self.validate()}
                    self.history.append(losses)
                    self._save()
                    bar.write(f"{losses}", file=sys.stderr)
                    saved, sums, counted = time.monotonic(), torch.zeros(4), 0

    def validate(self) -> list[float]:
        """The averaged network's four losses on the held-out collections."""
        losses = []
        with torch.inference_mode():
            for start in range(0, VALIDATION_SIZE, 128):
                logmel, logits, features = self.validation.batch(np.arange(start, start + 128))
                losses.append(self.targets.losses(self.average(logmel), logits, features, torch.ones(TAGS)))
        return torch.stack(losses).mean(dim=0).tolist()

    def network(self) -> CompactNet:
        """The averaged network, without the projections."""
        return cast(Student, self.average.module).network

    def _one_step(self) -> torch.Tensor:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(self.step)
        there = min(int(self.ring.written[0]), RING_SIZE)
        second = recipe.is_second_half(self.step)
        drawn = self._draw(there, rng) if second else rng.integers(0, there, recipe.batch_size)
        logmel, logits, features = self.ring.batch(drawn)
        weights = self.tag_weights if second else torch.ones(TAGS)
        losses = self.targets.losses(self.student(self._augment(logmel, rng)), logits, features, weights)
        loss = (losses * self.weights).sum()
        if not torch.isfinite(loss):
            raise UserError(f"the loss is not a number any more at step {self.step}: lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), MAX_GRAD_NORM)
        self.optimiser.step()
        self.step += 1
        self.average.update_parameters(self.student)
        return losses.detach()

    def _draw(self, there: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of examples for a batch, (batch,): those in which the teacher hears a danger are drawn more often."""
        candidates = rng.integers(0, there, DRAWN_FROM * self.recipe.batch_size)
        surest = np.array(self.ring.logits[candidates], np.float32)[:, self.dangerous_tags].max(axis=1)
        likely = np.minimum(1 / (1 + np.exp(-surest)) / DANGER_P, 1.0)
        weights = 1 + (self.recipe.danger_draws - 1) * likely
        return rng.choice(candidates, self.recipe.batch_size, replace=False, p=weights / weights.sum())

    def _augment(self, logmel: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """One band of some examples becomes their mean, and some are a little louder or softer than the teacher
        heard."""
        for example in logmel:
            if rng.random() < self.recipe.mask_p:
                width = int(rng.integers(1, 8))
                start = int(rng.integers(0, example.shape[-1] - width))
                example[..., start : start + width] = example.mean()
            if rng.random() < self.recipe.mask_p:
                example += float(rng.uniform(-1, 1)) * self.recipe.max_level_error_db
        return logmel

    def _identity(self) -> dict:
        """What must be the same for a saved state to go on: all but how long it goes on."""
        return {"recipe": asdict(self.recipe) | {"steps": 0}}

    def _save(self) -> None:
        progress = {
            "student": self.student.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "step": self.step, "history": self.history,
            "targets": vars(self.targets),
        }  # fmt: skip
        save_state(self.state_file, self._identity(), progress)

    def _restore(self, progress: dict) -> None:
        self.student.load_state_dict(progress["student"])
        self.average.load_state_dict(progress["average"])
        self.optimiser.load_state_dict(progress["optimiser"])
        self.step, self.history = progress["step"], progress["history"]
        vars(self.targets).update(progress["targets"])


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    tag_names = read_tag_names(args.tag_names)
    without = freesound_numbers(args.without_esc50) if args.without_esc50 else set()
    corpus = collect(args.sounds, args.work, without)
    _, held_out = corpus.split(args.hold_out)
    validation = make_validation(corpus, held_out, args.work)
    ring = Examples.open(args.work, "ring", RING_SIZE, "w+")
    producer = start_producer(args.work, args.hold_out, args.examples_per_second, seed=time.time_ns())
    with tqdm(total=MIN_EXAMPLES, desc="First mixtures", unit="example", file=sys.stderr) as bar:
        while ring.written[0] < MIN_EXAMPLES:
            if not producer.is_alive():
                raise UserError("the process that mixes examples ended: its own message is above")
            bar.update(int(ring.written[0]) - bar.n)
            time.sleep(1)
    training = Distillation(Recipe(args.steps), tag_names, ring, validation, args.work / "state.pth")
    training.run()
    producer.kill()
    save_checkpoint(
        args.output, training.network(), categories=tag_names, fingerprints=[], licence=LICENCE,
        training={"recipe": asdict(training.recipe), "history": training.history,
        "collections": list(corpus.collections)},
        int8=True,
    )  # fmt: skip
    print(f"Wrote {args.output}; python -m tools.build_detector makes the detector that belongs to it")
    return cli.DONE


def read_tag_names(file: Path) -> list[str]:
    """AudioSet's 527 class names in their order, from its class_labels_indices.csv. Raises UserError for another
    table."""
    with open(file, newline="", encoding="utf-8-sig") as table:
        names = [row.get("display_name", "") for row in csv.DictReader(table)]
    if len(names) != TAGS or not all(names):
        raise UserError(f"{file}: not AudioSet's table of {TAGS} classes (index, mid, display_name)")
    return names


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--sounds", type=Path, nargs="+", required=True, metavar="DIR",
    help="folders of sounds; names of files and labels do not matter")  # fmt: skip
    add("--without-esc50", type=Path, metavar="DIR", help="a copy of ESC-50, of whose recordings nothing may be heard")
    add("--hold-out", nargs="+", required=True, metavar="COLLECTION", help="collections for validation: never heard")
    add("--tag-names", type=Path, required=True, metavar="FILE", help="AudioSet's class_labels_indices.csv")
    add("--steps", type=cli.whole_number(1), default=11_400, metavar="N", help="of 48 examples each")
    add("--examples-per-second", type=cli.number(0.1), default=20.0, metavar="N", help="new ones, beside the training")
    add("--threads", type=cli.whole_number(1), default=max(1, (os.cpu_count() or 2) - 1), metavar="N",
    help="of the training")  # fmt: skip
    add("--work", type=Path, default=Path("models/distil"), metavar="DIR",
    help="for decoded sounds, examples and the state")  # fmt: skip
    add("--output", type=Path, default=Path("models/compact.pth"), metavar="FILE", help="checkpoint to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
