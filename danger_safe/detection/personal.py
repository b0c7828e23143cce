"""The ready detector, updated from a household's verdicts: what was called a false alarm three times is quiet.

Each verdict keeps its event's surest windows as the network hears them; the network stays as it is. A window that
resembles them more than it resembles any danger loses log-odds: up to a third of what would make it quiet for each
false alarm that it resembles, the whole from three on. So a single wrong verdict deafens nobody, and nothing ever
scores higher than before. What is surer than the false alarms ever were keeps its score, as a siren while the kettle
whistles. A shipped danger protects only what it resembles more, or not much less, than the false alarms do; an event
that was confirmed here protects more widely.

How alike is alike enough, the household's own takes tell: windows count as the same sound that are about as similar to
those of a verdict as the verdicts on that sound are to each other. The numbers were chosen with
benchmarks/household_week.py.
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from danger_safe.core.atomic import atomic_path
from danger_safe.core.cache import open_arrays, read_array
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite, mark_zip
from danger_safe.detection.detector import BuiltinDetector
from danger_safe.detection.reference import Reference

ENOUGH = 3  # false alarms that a sound must resemble until it is quiet
QUIET_SCORE = 0.3  # of the surest window of a false alarm, once that is so: well below every threshold
LEAST_LOSS = 1.5  # log-odds that it loses then, also where it was barely an alarm: thresholds may be set low
MAX_WINDOWS = 16  # of an event, the surest
AS_SURE = 0.5  # windows with this fraction of an event's surest score made the alarm; others hold the room
SAME = 0.6  # similarity from which on two verdicts can be of the same sound
SELF_SLACK = 0.03  # below the verdicts' similarity to each other, a window is still wholly the same sound
FADE = 0.07  # and below that, it is less and less
WIDEST, NARROWEST = 0.6, 0.95  # limits of the similarity that is wholly the same sound
SINGLE = 0.9  # that similarity for a verdict that no other resembles
MARGIN = (0.0, 0.1)  # more similar to a false alarm than to the nearest danger by so much: not at all quiet, wholly
CONFIRMED = 0.1  # events that were confirmed here protect as if they were so much more similar than they are
SURER = (0.3, 1.0)  # log-odds above the false alarm's surest window: not at all something else besides, wholly
MAX_LOSS = 0.02  # of the dangers that the shipped evaluation finds: more is never given up


@dataclass(frozen=True)
class LearntVerdict:
    """What was said of an event."""

    event: str
    source: str
    time: str  # when it was said, ISO 8601
    is_right: bool  # else a false alarm
    category: str  # what the detector had heard


@dataclass(frozen=True)
class Learnt:
    """What verdicts have taught: arrays and text, without code."""

    checkpoint_sha256: str  # of the network that the embeddings are of
    verdicts: tuple[LearntVerdict, ...]
    embeddings: np.ndarray  # (windows, dimensions) float16
    owner: np.ndarray  # (windows,) int32, the number of the verdict that each window is of
    strength: float = 1.0  # of all of it: less where the shipped evaluation would lose too many dangers

    @property
    def words(self) -> str:
        """For the line that says which detector is used."""
        count = len(self.verdicts)
        return f"learnt from {count} verdict{'s' if count != 1 else ''} of this household"

    def save(self, path: Path) -> None:
        """Write it as .npz without pickle, whole or not at all. Raises UserError where the file is somebody else's."""
        check_overwrite(path)
        text = {"checkpoint_sha256": self.checkpoint_sha256, "strength": self.strength}
        text["verdicts"] = [asdict(verdict) for verdict in self.verdicts]
        with atomic_path(path) as part:
            with open(part, "wb") as file:
                np.savez(file, text=np.array(json.dumps(text)), embeddings=self.embeddings, owner=self.owner)
            mark_zip(part)


def load_learnt(path: Path) -> Learnt:
    """What ``Learnt.save`` wrote. Raises UserError where it is absent or damaged."""
    makes = ": listen.py --learn makes it"
    with open_arrays(path, f"{makes} from verdicts", f"{makes} anew") as archive:
        text = json.loads(str(read_array(archive, "text")))
        embeddings, owner = read_array(archive, "embeddings"), read_array(archive, "owner")
        verdicts = tuple(LearntVerdict(**verdict) for verdict in text["verdicts"])
        learnt = Learnt(str(text["checkpoint_sha256"]), verdicts, embeddings, owner, float(text["strength"]))
        kinds = {"event": str, "source": str, "time": str, "is_right": bool, "category": str}
        if not all(isinstance(getattr(v, f.name), kinds[f.name]) for v in verdicts for f in fields(v)):
            raise TypeError("verdicts")
        if embeddings.ndim != 2 or embeddings.dtype != np.float16 or not np.isfinite(embeddings).all():
            raise ValueError("embeddings")
        if owner.shape != embeddings.shape[:1] or owner.dtype != np.int32 or not 0 <= learnt.strength <= 1:
            raise ValueError("owner")
        if set(owner.tolist()) != set(range(len(verdicts))):
            raise ValueError("owner")
        return learnt


@dataclass(frozen=True)
class Change:
    """What verdicts change on the shipped evaluation, at one threshold."""

    threshold: float
    dangers: int
    found_before: int
    found: int
    safe: int
    false_alarms_before: int
    false_alarms: int

    @property
    def words(self) -> str:
        """In a line."""
        return (
            f"on the shipped evaluation it finds {self.found / self.dangers:.1%} of {self.dangers} dangers instead of "
            f"{self.found_before / self.dangers:.1%}, with {self.false_alarms / self.safe:.1%} false alarms instead of "
            f"{self.false_alarms_before / self.safe:.1%}"
        )


@dataclass(frozen=True)
class PersonalDetector(BuiltinDetector):
    """The ready detector, and what verdicts have taught it."""

    reference: Reference = field(kw_only=True)
    learnt: Learnt = field(kw_only=True)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        before, directions = super().scores(embeddings), self._project(embeddings)
        return self._lowered(before, directions, self._nearest_danger(directions))

    def resembled(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> how many false alarms each window is quiet for; 0 where it is not, (windows,)."""
        before, least = super().scores(embeddings), self.threshold_of("high")
        directions = self._project(embeddings)
        nearest = self._nearest_danger(directions)
        is_quiet = (before >= least) & (self._lowered(before, directions, nearest) < least)
        return np.where(is_quiet, (self._same(directions, nearest) >= 0.5).sum(axis=1), 0)

    @cached_property
    def change(self) -> Change:
        """What the verdicts do to the clips of the shipped evaluation, at the detector's own threshold."""
        reference, threshold = self.reference, self.threshold
        directions, before = reference.clip_directions(), reference.scores.astype(np.float64)
        nearest = self._nearest_danger(directions, reference.collection)
        after, danger = self._lowered(before, directions, nearest), reference.danger
        found_before, found, alarms_before, alarms = (
            int((scores[side] >= threshold).sum()) for side in (danger, ~danger) for scores in (before, after)
        )
        safe = max(int((~danger).sum()), 1)
        return Change(threshold, int(danger.sum()), found_before, found, safe, alarms_before, alarms)

    def within_bounds(self) -> "PersonalDetector":
        """With so much of its strength that it gives up no more than MAX_LOSS of the dangers that were found."""
        for strength in (1.0, 0.75, 0.5, 0.25, 0.0):
            detector = replace(self, learnt=replace(self.learnt, strength=strength))
            change = detector.change
            if change.found_before - change.found <= MAX_LOSS * change.found_before:
                break
        return detector

    def _project(self, embeddings: np.ndarray) -> np.ndarray:
        return self.reference.project(self.standardised(embeddings))

    def _lowered(self, scores: np.ndarray, directions: np.ndarray, nearest_danger: np.ndarray) -> np.ndarray:
        """(windows,) scores as the verdicts lower them."""
        same = self._same(directions, nearest_danger)
        count = same.sum(axis=1)
        if not count.any():
            return scores
        kind = same / np.maximum(count, 1e-9)[:, None]  # which of the false alarms it is
        odds = _log_odds(np.clip(scores, 1e-9, 1 - 1e-9))
        least, enough = SURER
        is_surer = np.clip((odds - kind @ self._surest - least) / (enough - least), 0, 1)
        loss = self.learnt.strength * (1 - is_surer) * np.minimum(1, count / ENOUGH) * (kind @ self._amounts)
        return np.where(count > 0, 1 / (1 + np.exp(loss - odds)), scores)

    def _same(self, directions: np.ndarray, nearest_danger: np.ndarray) -> np.ndarray:
        """(windows, directions) -> how much each is the same sound as each false alarm, in [0, 1], (windows,
        alarms)."""
        similarity = np.zeros((len(directions), len(self._false_alarms)))
        for number, anchor in enumerate(self._false_alarms):
            similarity[:, number] = self._nearest(directions, anchor)
        is_same = np.clip((similarity - self._reach + FADE) / FADE, 0, 1)
        least, enough = MARGIN
        return is_same * np.clip((similarity - nearest_danger[:, None] - least) / (enough - least), 0, 1)

    def _nearest_danger(self, directions: np.ndarray, collection: np.ndarray | None = None) -> np.ndarray:
        """Similarity to the nearest shipped danger that is found, or event that was confirmed (by CONFIRMED more),
        (windows,).

        ``collection``: of each of the windows, whose own dangers do not count.
        """
        dangers, their_collection = self._dangers
        similarity = directions @ dangers.T
        if collection is not None:
            similarity[collection[:, None] == their_collection] = -1
        nearest = similarity.max(axis=1, initial=-1)
        for anchor in self._confirmed:
            nearest = np.maximum(nearest, self._nearest(directions, anchor) + CONFIRMED)
        return nearest

    @staticmethod
    def _nearest(directions: np.ndarray, anchor: np.ndarray) -> np.ndarray:
        return (directions @ anchor.T).max(axis=1)

    @cached_property
    def _dangers(self) -> tuple[np.ndarray, np.ndarray]:
        """Directions and collections of the shipped dangers that are found."""
        found = self.reference.danger & (self.reference.scores >= self.threshold_of("high"))
        return self.reference.clip_directions()[found], self.reference.collection[found]

    @cached_property
    def _anchors(self) -> list[np.ndarray]:
        directions = self._project(self.learnt.embeddings.astype(np.float32))
        return [directions[self.learnt.owner == number] for number in range(len(self.learnt.verdicts))]

    @cached_property
    def _false_alarms(self) -> list[np.ndarray]:
        return [a for a, verdict in zip(self._anchors, self.learnt.verdicts, strict=True) if not verdict.is_right]

    @cached_property
    def _confirmed(self) -> list[np.ndarray]:
        return [a for a, verdict in zip(self._anchors, self.learnt.verdicts, strict=True) if verdict.is_right]

    @cached_property
    def _surest(self) -> np.ndarray:
        """Log-odds of each false alarm's surest window, as shipped, (false alarms,)."""
        scores = super().scores(self.learnt.embeddings.astype(np.float32))
        numbers = [n for n, verdict in enumerate(self.learnt.verdicts) if not verdict.is_right]
        return _log_odds(np.clip([scores[self.learnt.owner == number].max() for number in numbers], 1e-3, 1 - 1e-3))

    @cached_property
    def _amounts(self) -> np.ndarray:
        """Log-odds that make each false alarm quiet, (false alarms,)."""
        return np.maximum(self._surest - _log_odds(np.asarray(QUIET_SCORE)), LEAST_LOSS)

    @cached_property
    def _reach(self) -> np.ndarray:
        """The similarity from which on a window is wholly the same sound as each false alarm, (false alarms,)."""
        reach = np.full(len(self._false_alarms), SINGLE)
        for number, anchor in enumerate(self._false_alarms):
            others = [np.median(self._nearest(anchor, a)) for n, a in enumerate(self._false_alarms) if n != number]
            same = sorted(similarity for similarity in others if similarity >= SAME)[-ENOUGH + 1 :]
            if same:
                reach[number] = np.clip(np.mean(same) - SELF_SLACK, WIDEST, NARROWEST)
        return reach


def _log_odds(score: np.ndarray) -> np.ndarray:
    return np.log(score / (1 - score))


def surest_windows(detector: BuiltinDetector, embeddings: np.ndarray) -> np.ndarray:
    """Of an event's windows, (windows, dimensions), those that made the alarm, at most MAX_WINDOWS, float16."""
    scores = detector.scores(embeddings)
    order = np.argsort(-scores, kind="stable")[:MAX_WINDOWS]
    return embeddings[order[scores[order] >= AS_SURE * scores[order[0]]]].astype(np.float16)


def personal_detector(ready: BuiltinDetector, learnt: Learnt) -> PersonalDetector:
    """The ready detector as the verdicts have changed it. Raises UserError where they are of another network."""
    if learnt.checkpoint_sha256 != ready.checkpoint_sha256 or learnt.embeddings.shape[1:] != ready.centres.shape[1:]:
        raise UserError("what was learnt is of another network: listen.py --learn learns it anew")
    if ready.reference is None:
        raise UserError("models/detector.npz holds no clips to judge by what is learnt: run make detector")
    own: dict[str, Any] = {part.name: getattr(ready, part.name) for part in fields(ready)}
    own["name"] = f"{ready.name}, {learnt.words}"
    return PersonalDetector(**own, learnt=learnt)
