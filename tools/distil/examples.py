"""Examples for the student: what it hears of a mixture, and what the teacher answers to it.

A process of its own mixes, asks the teacher and writes into a ring in shared files, where newer examples replace the
oldest; the training draws from the ring, so that neither waits for the other and each example is heard a few times.
"""

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from danger_safe.finetuning.augment import corrupt
from models.checkpoints import load_model
from models.compact import CompactNet
from tools.distil.corpus import Corpus
from tools.distil.mixtures import EXAMPLE_SAMPLES, MixtureMaker

TEACHER = "mn04"
RING_SIZE = 24_576  # examples: 1.2 GB of files, which the system keeps in memory where there is room
VALIDATION_SIZE = 1_024
CHUNK = 32  # examples that are made at once
CORRUPTION_P = 0.35  # the student hears a bad recording of what the teacher hears
FRAMES = 1 + EXAMPLE_SAMPLES // 320
STEPS = 10  # of the feature maps of both networks: 32 frames each
MEL_BINS, FEATURES, TAGS = 64, 384, 527


@dataclass(frozen=True)
class Examples:
    """Float16 arrays in files: log-mels (n, frames, 64), teacher's logits (n, 527) and features (n, steps, 384)."""

    logmel: np.memmap
    logits: np.memmap
    features: np.memmap
    written: np.memmap  # (1,) int64: how many examples were ever written

    @classmethod
    def open(cls, folder: Path, name: str, size: int, mode: Literal["r", "r+", "w+"]) -> "Examples":
        """``mode`` is NumPy's for a memmap."""
        shapes = {"logmel": (size, FRAMES, MEL_BINS), "logits": (size, TAGS), "features": (size, STEPS, FEATURES)}
        arrays = {
            key: np.memmap(folder / f"{name}.{key}", np.float16, mode, shape=shape) for key, shape in shapes.items()
        }
        return cls(**arrays, written=np.memmap(folder / f"{name}.written", np.int64, mode, shape=(1,)))

    def batch(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """float32 log-mels (batch, 1, frames, 64), logits and features of those examples."""
        numbers = np.sort(numbers)
        arrays = (np.array(array[numbers]) for array in (self.logmel, self.logits, self.features))
        logmel, logits, features = (torch.from_numpy(array).float() for array in arrays)
        return logmel[:, None], logits, features


class ExampleMaker:
    """The teacher and the student's front end."""

    def __init__(self):
        self.teacher, _ = load_model(TEACHER)
        self.front_end = CompactNet(TAGS, multilabel=True).front_end

    def write(self, into: Examples, start: int, mixtures: list[np.ndarray], rng: np.random.Generator, p: float) -> None:
        """Make examples of mixtures, ``p`` of them badly recorded for the student, and put them at ``start``."""
        with torch.inference_mode():
            logmel = torch.from_numpy(np.stack([self.teacher.front_end(mixture) for mixture in mixtures]))[:, None]
            maps = self.teacher.get_submodule("features")(logmel.transpose(2, 3))  # (batch, 384, bins, steps)
            logits = self.teacher.logits(maps.mean(dim=(2, 3)))
        place = slice(start, start + len(mixtures))
        power = np.stack([self.front_end.power(mixture) for mixture in mixtures])
        into.logmel[place] = self.front_end.from_power(corrupt(power, p, rng))
        into.logits[place] = logits.numpy()
        into.features[place] = maps.mean(dim=2).transpose(1, 2).numpy()
        into.written[0] += len(mixtures)


def make_validation(corpus: Corpus, held_out: list, folder: Path) -> Examples:
    """Plain pieces of collections that the student never hears."""
    examples = Examples.open(folder, "validation", VALIDATION_SIZE, "w+")
    rng = np.random.default_rng(99)
    pieces, maker = MixtureMaker(corpus, held_out, rng), ExampleMaker()
    for start in range(0, VALIDATION_SIZE, CHUNK):
        maker.write(examples, start, [pieces.plain() for _ in range(CHUNK)], rng, 0.0)
    return examples


def start_producer(work: Path, held_out: list[str], per_second: float, seed: int) -> BaseProcess:
    """Begin to fill the ring, at most so fast once it is a third full: the other core belongs to the training."""
    process = multiprocessing.get_context("spawn").Process(
        target=_produce, args=(work, held_out, per_second, seed), daemon=True
    )
    process.start()
    return process


def _produce(work: Path, held_out: list[str], per_second: float, seed: int) -> None:
    torch.set_num_threads(1)
    corpus, rng = Corpus(work), np.random.default_rng(seed)
    mixtures, maker = MixtureMaker(corpus, corpus.split(held_out)[0], rng), ExampleMaker()
    ring = Examples.open(work, "ring", RING_SIZE, "r+")
    while True:
        started = time.monotonic()
        maker.write(
            ring, int(ring.written[0]) % RING_SIZE, [mixtures.mixture() for _ in range(CHUNK)], rng, CORRUPTION_P
        )
        if ring.written[0] > RING_SIZE // 3:
            time.sleep(max(0.0, CHUNK / per_second - (time.monotonic() - started)))
