"""A fast look at every clip before the first embedding: what is new, how much sound it is, what cannot be read.

Only headers are read here, and only those of clips that the journal does not know.
"""

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tqdm import tqdm

from danger_safe.audio.decode import AudioError, read_header
from danger_safe.core.paths import signature
from danger_safe.data.clips import Clip
from danger_safe.embeddings.journal import Result


@dataclass(frozen=True)
class Task:
    """A clip that is to be embedded, and what its header says."""

    clip: Clip
    signature: str
    frames: int  # 0 where the header does not say
    rate: int  # Hz

    @property
    def seconds(self) -> float:
        """Length of the sound, as far as the header can be trusted."""
        return self.frames / self.rate if self.rate else 0.0


@dataclass
class ExtractionPlan:
    """What is to be done, and what is known already."""

    tasks: list[Task] = field(default_factory=list)
    unreadable: list[Result] = field(default_factory=list)  # found just now
    known: int = 0  # clips that have a result already
    gone: int = 0  # clips with a result that are no longer in the dataset

    @property
    def seconds(self) -> float:
        """Sound that is to be embedded."""
        return sum(task.seconds for task in self.tasks)

    @property
    def nothing_new(self) -> bool:
        """Whether every clip has a result, and no other has."""
        return not (self.tasks or self.unreadable or self.gone)

    def describe(self) -> str:
        """One line for a person."""
        line = f"{len(self.tasks)} clips to embed, {self.seconds / 3600:.2f} hours of sound; "
        line += f"{len(self.unreadable)} unreadable"
        return line + (f"; {self.known} done before" if self.known else "")


def plan_extraction(clips: list[Clip], known: Mapping[str, Result], jobs: int) -> ExtractionPlan:
    """Look at every clip; ``known`` has the results that there are, by file."""
    found = ExtractionPlan(gone=len(known.keys() - {clip.file for clip in clips}))
    with ThreadPoolExecutor(jobs) as pool:
        looks = pool.map(lambda clip: _look(clip, known.get(clip.file)), clips)
        for look in tqdm(looks, "Looking at headers", len(clips), unit="clip", file=sys.stderr, leave=False):
            if look is None:
                found.known += 1
            elif isinstance(look, Result):
                found.unreadable.append(look)
            else:
                found.tasks.append(look)
    return found


def _look(clip: Clip, known: Result | None) -> Task | Result | None:
    """None for a clip that has a result already, a Result for one that cannot be read, else the task."""
    try:
        now = signature(clip.path)
    except (OSError, ValueError):
        now = "missing"
    if known is not None and known.signature == now:
        return None
    try:
        frames, rate = read_header(clip.path)
    except AudioError as error:
        return Result(clip.file, now, 0.0, None, str(error))
    return Task(clip, now, frames, rate)
