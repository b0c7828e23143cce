"""Plan an extraction before the first embedding: which clips are new, how long they are, which cannot be read.

Only headers are read here, and only those of clips that have no result in the journal yet.
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
    """A clip that is to be embedded, with the length that its header states."""

    clip: Clip
    signature: str  # size and time of change of the file
    frames: int  # 0 if the header does not say
    rate: int  # Hz

    @property
    def seconds(self) -> float:
        """Length of the sound according to the header; 0 if unknown."""
        return self.frames / self.rate if self.rate else 0.0


@dataclass
class ExtractionPlan:
    """What an extraction has to do, and what earlier runs have done."""

    tasks: list[Task] = field(default_factory=list)
    unreadable: list[Result] = field(default_factory=list)  # newly found; each with its reason
    finished: int = 0  # clips that have a result already
    removed: int = 0  # clips with a result that are no longer in the dataset

    @property
    def seconds(self) -> float:
        """Total length of the sounds to embed."""
        return sum(task.seconds for task in self.tasks)

    @property
    def is_empty(self) -> bool:
        """Whether the results are those of exactly these clips already."""
        return not (self.tasks or self.unreadable or self.removed)

    def describe(self) -> str:
        """Return the plan as one line for the terminal."""
        line = f"{len(self.tasks)} clips to embed, {self.seconds / 3600:.2f} hours of sound; "
        line += f"{len(self.unreadable)} unreadable"
        return line + (f"; {self.finished} done before" if self.finished else "")


def plan_extraction(clips: list[Clip], finished: Mapping[str, Result], jobs: int) -> ExtractionPlan:
    """Compare every clip with ``finished``, the results of earlier runs by file, and read the headers of new ones."""
    plan = ExtractionPlan(removed=len(finished.keys() - {clip.file for clip in clips}))
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(lambda clip: _check_clip(clip, finished.get(clip.file)), clips)
        for outcome in tqdm(outcomes, "Looking at headers", len(clips), unit="clip", file=sys.stderr, leave=False):
            if outcome is None:
                plan.finished += 1
            elif isinstance(outcome, Result):
                plan.unreadable.append(outcome)
            else:
                plan.tasks.append(outcome)
    return plan


def _check_clip(clip: Clip, finished: Result | None) -> Task | Result | None:
    """Return None for a clip whose result is up to date, a Result for one that cannot be read, else its task."""
    try:
        current = signature(clip.path)
    except (OSError, ValueError):
        current = "missing"
    if finished is not None and finished.signature == current:
        return None
    try:
        frames, rate = read_header(clip.path)
    except AudioError as error:
        return Result(clip.file, current, 0.0, None, str(error))
    return Task(clip, current, frames, rate)
