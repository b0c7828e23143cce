"""Training examples: the student's input for a mixture, and the teacher's output.

A separate process makes mixtures, runs the teacher and writes into a ring buffer in shared files, where new examples
replace the oldest. The training samples from the ring, so that neither process waits for the other and each example is
used a few times.
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
RING_SIZE = 24_576  # examples; 1.2 GB of files, which stay in the page cache if there is enough memory
VALIDATION_SIZE = 1_024
BATCH_SIZE = 32  # examples that are made at once
CORRUPTION_P = 0.35  # probability that the student gets a corrupted version of the teacher's input
FRAMES = 1 + EXAMPLE_SAMPLES // 320
STEPS = 10  # in time, of both networks' feature maps; 32 frames each
MEL_BINS, FEATURES, TAGS = 64, 384, 527


@dataclass(frozen=True)
class Examples:
    """Float16 arrays in files: log-mels (n, frames, 64), the teacher's logits (n, 527) and features (n, steps, 384)."""

    logmel: np.memmap
    logits: np.memmap
    features: np.memmap
    written: np.memmap  # (1,) int64, number of examples written so far

    @classmethod
    def open(cls, folder: Path, name: str, size: int, mode: Literal["r", "r+", "w+"]) -> "Examples":
        """Open or create the files.

        Args:
            folder: Their folder.
            name: First part of their names.
            size: Number of examples, n.
            mode: NumPy's mode of a memmap.
        """
        shapes = {"logmel": (size, FRAMES, MEL_BINS), "logits": (size, TAGS), "features": (size, STEPS, FEATURES)}
        arrays = {
            key: np.memmap(folder / f"{name}.{key}", np.float16, mode, shape=shape) for key, shape in shapes.items()
        }
        return cls(**arrays, written=np.memmap(folder / f"{name}.written", np.int64, mode, shape=(1,)))

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return float32 log-mels (batch, 1, frames, 64), logits and features of the examples with these indices."""
        indices = np.sort(indices)
        arrays = (np.array(array[indices]) for array in (self.logmel, self.logits, self.features))
        logmel, logits, features = (torch.from_numpy(array).float() for array in arrays)
        return logmel[:, None], logits, features


class ExampleMaker:
    """Makes examples with the teacher and the student's front end."""

    def __init__(self):
        self.teacher, _ = load_model(TEACHER)
        self.front_end = CompactNet(TAGS, multilabel=True).front_end

    def write(self, into: Examples, start: int, mixtures: list[np.ndarray], rng: np.random.Generator, p: float) -> None:
        """Make examples of mixtures and write them.

        Args:
            into: Where to write them.
            start: Index of the first.
            mixtures: The mixtures, (samples,) each.
            rng: Random numbers of the corruptions.
            p: Probability that the student's input is corrupted.
        """
        with torch.inference_mode():
            logmel = torch.from_numpy(np.stack([self.teacher.front_end(mixture) for mixture in mixtures]))[:, None]
            maps = self.teacher.get_submodule("features")(logmel.transpose(2, 3))  # (batch, 384, bins, steps)
            logits = self.teacher.logits(maps.mean(dim=(2, 3)))
        rows = slice(start, start + len(mixtures))
        power = np.stack([self.front_end.power(mixture) for mixture in mixtures])
        into.logmel[rows] = self.front_end.from_power(corrupt(power, p, rng))
        into.logits[rows] = logits.numpy()
        into.features[rows] = maps.mean(dim=2).transpose(1, 2).numpy()
        into.written[0] += len(mixtures)


def make_validation(corpus: Corpus, held_out: list, folder: Path) -> Examples:
    """Make examples of unmixed segments of held-out collections."""
    examples = Examples.open(folder, "validation", VALIDATION_SIZE, "w+")
    rng = np.random.default_rng(99)
    mixtures, maker = MixtureMaker(corpus, held_out, rng), ExampleMaker()
    for start in range(0, VALIDATION_SIZE, BATCH_SIZE):
        maker.write(examples, start, [mixtures.unmixed() for _ in range(BATCH_SIZE)], rng, 0.0)
    return examples


def start_producer(work: Path, held_out: list[str], per_second: float, seed: int) -> BaseProcess:
    """Start the process that fills the ring.

    Args:
        work: The folder with the corpus and the ring.
        held_out: Collections that are not used.
        per_second: Maximum number of examples per second once the ring is a third full: the training needs the other
            core.
        seed: Seed of the mixtures.
    """
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
        batch = [mixtures.mixture() for _ in range(BATCH_SIZE)]
        maker.write(ring, int(ring.written[0]) % RING_SIZE, batch, rng, CORRUPTION_P)
        if ring.written[0] > RING_SIZE // 3:
            time.sleep(max(0.0, BATCH_SIZE / per_second - (time.monotonic() - started)))
