"""The built-in detector, adapted to a household's verdicts: a sound that was called a false alarm three times is quiet.

Each verdict stores the embeddings of its event's highest-scoring windows; the network is not changed. A window that is
more similar to a false alarm than to any danger loses log-odds: a third of what makes it quiet for each false alarm
that it is similar to, all of it from three on. So a single wrong verdict silences nothing, and no score ever rises. A
window that scores clearly higher than the false alarms did keeps its score, as a siren does while the kettle whistles.
A shipped danger protects only windows that are more similar to it than to the false alarms, or nearly as similar; an
event that the household confirmed protects more widely.

How similar is similar enough depends on the household's own recordings: a window counts as the same sound if it is
about as similar to a verdict's windows as the verdicts on that sound are to each other. The constants were chosen with
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

FULL_COUNT = 3  # false alarms that a window must match to lose the full amount
QUIET_SCORE = 0.3  # target for a false alarm's highest-scoring window: well below every threshold
MIN_LOG_ODDS_LOSS = 1.5  # full loss of a sound that barely raised an alarm: thresholds may be set low
MAX_WINDOWS = 16  # windows that are stored of an event, the highest-scoring ones
MIN_SCORE_RATIO = 0.5  # of the event's highest score; windows below it contain the room rather than the sound
MIN_VERDICT_SIMILARITY = 0.6  # cosine similarity; verdicts below it are not about the same sound
SIMILARITY_SLACK = 0.03  # a window may be that much less similar than the verdicts are to each other
SIMILARITY_FADE = 0.07  # below that, the match falls linearly from 1 to 0 over this range
SIMILARITY_LIMITS = (0.6, 0.95)  # lowest and highest similarity that may count as a full match
SINGLE_SIMILARITY = 0.9  # the similarity of a full match where no other verdict is about the same sound
DANGER_MARGIN = (0.0, 0.1)  # similarity to the false alarm minus that to the nearest danger: no match, full match
CONFIRMED_BONUS = 0.1  # added to the similarity to events that the household confirmed
SCORE_MARGIN = (0.3, 1.0)  # log-odds above the false alarm's highest-scoring window: full loss, no loss
MAX_RECALL_LOSS = 0.02  # fraction of the shipped evaluation's detected dangers that verdicts may cost
CLIPS_AT_ONCE = 500  # of the shipped evaluation: all of them with 300 verdicts would take 100 MB
STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)  # tried in this order until the recall loss is small enough


@dataclass(frozen=True)
class LearntVerdict:
    """A verdict that the detector has learnt from."""

    event: str
    source: str
    time: str  # when it was given, ISO 8601
    is_right: bool  # otherwise it is a false alarm
    category: str  # the event's category according to the detector


@dataclass(frozen=True)
class LearntState:
    """What the detector has learnt from verdicts: arrays and text, without code."""

    checkpoint_sha256: str  # the network that made the embeddings
    verdicts: tuple[LearntVerdict, ...]
    embeddings: np.ndarray  # (windows, dimensions) float16
    owner: np.ndarray  # (windows,) int32, index into ``verdicts``
    strength: float = 1.0  # factor on every loss; below 1 if the full loss would cost too many dangers

    @property
    def summary(self) -> str:
        """The part of the detector's name that says how much it has learnt."""
        count = len(self.verdicts)
        return f"learnt from {count} verdict{'s' if count != 1 else ''} of this household"

    def save(self, path: Path) -> None:
        """Write an .npz without pickle, atomically. Raises UserError if the file there is not ours."""
        check_overwrite(path)
        text = {"checkpoint_sha256": self.checkpoint_sha256, "strength": self.strength}
        text["verdicts"] = [asdict(verdict) for verdict in self.verdicts]
        with atomic_path(path) as part:
            with open(part, "wb") as file:
                np.savez(file, text=np.array(json.dumps(text)), embeddings=self.embeddings, owner=self.owner)
            mark_zip(part)


def load_learnt(path: Path) -> LearntState:
    """Read what ``LearntState.save`` wrote. Raises UserError if it is missing or damaged."""
    makes = ": listen.py --learn makes it"
    with open_arrays(path, f"{makes} from verdicts", f"{makes} anew") as archive:
        text = json.loads(str(read_array(archive, "text")))
        embeddings, owner = read_array(archive, "embeddings"), read_array(archive, "owner")
        verdicts = tuple(LearntVerdict(**verdict) for verdict in text["verdicts"])
        learnt = LearntState(str(text["checkpoint_sha256"]), verdicts, embeddings, owner, float(text["strength"]))
        types = {"event": str, "source": str, "time": str, "is_right": bool, "category": str}
        if not all(isinstance(getattr(v, f.name), types[f.name]) for v in verdicts for f in fields(v)):
            raise TypeError("verdicts")
        if embeddings.ndim != 2 or embeddings.dtype != np.float16 or not np.isfinite(embeddings).all():
            raise ValueError("embeddings")
        if owner.shape != embeddings.shape[:1] or owner.dtype != np.int32 or not 0 <= learnt.strength <= 1:
            raise ValueError("owner")
        if set(owner.tolist()) != set(range(len(verdicts))):
            raise ValueError("owner")
        return learnt


@dataclass(frozen=True)
class EvaluationChange:
    """How verdicts change the results on the shipped evaluation, at one threshold. All but it are counts of clips."""

    threshold: float
    dangers: int
    found_before: int
    found: int
    safe: int
    false_alarms_before: int
    false_alarms: int

    @property
    def summary(self) -> str:
        """Recall and false alarms before and after, in one line."""
        return (
            f"on the shipped evaluation it finds {self.found / self.dangers:.1%} of {self.dangers} dangers instead of "
            f"{self.found_before / self.dangers:.1%}, with {self.false_alarms / self.safe:.1%} false alarms instead of "
            f"{self.false_alarms_before / self.safe:.1%}"
        )


@dataclass(frozen=True)
class PersonalDetector(BuiltinDetector):
    """The built-in detector with what it has learnt from a household's verdicts."""

    reference: Reference = field(kw_only=True)
    learnt: LearntState = field(kw_only=True)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> danger in [0, 1], (windows,)."""
        before, directions = super().scores(embeddings), self._project(embeddings)
        return self._lower_scores(before, directions, self._nearest_danger(directions))

    def count_matches(self, embeddings: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> the number of false alarms that silence each window, (windows,) int.

        It is 0 for windows that were no danger before or still are one, at the sensitivity ``high``.
        """
        before, threshold = super().scores(embeddings), self.threshold_of("high")
        directions = self._project(embeddings)
        nearest_danger = self._nearest_danger(directions)
        is_quiet = (before >= threshold) & (self._lower_scores(before, directions, nearest_danger) < threshold)
        return np.where(is_quiet, (self._match_false_alarms(directions, nearest_danger) >= 0.5).sum(axis=1), 0)

    @cached_property
    def change(self) -> EvaluationChange:
        """How the verdicts change the results on the shipped evaluation's clips, at the detector's own threshold."""
        reference, threshold = self.reference, self.threshold
        directions, before = reference.clip_directions(), reference.scores.astype(np.float64)
        parts = [slice(start, start + CLIPS_AT_ONCE) for start in range(0, len(before), CLIPS_AT_ONCE)]
        nearest_danger = [self._nearest_danger(directions[part], reference.collection[part]) for part in parts]
        lowered = [self._lower_scores(before[p], directions[p], n) for p, n in zip(parts, nearest_danger, strict=True)]
        after, danger = np.concatenate(lowered), reference.danger
        found_before, found, alarms_before, alarms = (
            int((scores[mask] >= threshold).sum()) for mask in (danger, ~danger) for scores in (before, after)
        )
        safe = max(int((~danger).sum()), 1)
        return EvaluationChange(threshold, int(danger.sum()), found_before, found, safe, alarms_before, alarms)

    def limit_recall_loss(self) -> "PersonalDetector":
        """Return the detector at the highest of STRENGTHS that costs at most MAX_RECALL_LOSS of the dangers found."""
        for strength in STRENGTHS:
            detector = replace(self, learnt=replace(self.learnt, strength=strength))
            change = detector.change
            if change.found_before - change.found <= MAX_RECALL_LOSS * change.found_before:
                break
        return detector

    def _project(self, embeddings: np.ndarray) -> np.ndarray:
        return self.reference.project(self.standardise(embeddings))

    def _lower_scores(self, scores: np.ndarray, directions: np.ndarray, nearest_danger: np.ndarray) -> np.ndarray:
        """Return the (windows,) scores after the losses that the verdicts cause."""
        match = self._match_false_alarms(directions, nearest_danger)
        count = match.sum(axis=1)
        if not count.any():
            return scores
        weights = match / np.maximum(count, 1e-9)[:, None]  # (windows, false alarms)
        log_odds = _log_odds(np.clip(scores, 1e-9, 1 - 1e-9))
        lower, upper = SCORE_MARGIN
        excess = np.clip((log_odds - weights @ self._max_log_odds - lower) / (upper - lower), 0, 1)
        loss = self.learnt.strength * (1 - excess) * np.minimum(1, count / FULL_COUNT) * (weights @ self._full_loss)
        return np.where(count > 0, 1 / (1 + np.exp(loss - log_odds)), scores)

    def _match_false_alarms(self, directions: np.ndarray, nearest_danger: np.ndarray) -> np.ndarray:
        """(windows, directions) -> match with each false alarm in [0, 1], (windows, false alarms)."""
        similarity = np.zeros((len(directions), len(self._false_alarms)))
        for number, exemplars in enumerate(self._false_alarms):
            similarity[:, number] = _max_similarity(directions, exemplars)
        match = np.clip((similarity - self._min_similarity + SIMILARITY_FADE) / SIMILARITY_FADE, 0, 1)
        lower, upper = DANGER_MARGIN
        return match * np.clip((similarity - nearest_danger[:, None] - lower) / (upper - lower), 0, 1)

    def _nearest_danger(self, directions: np.ndarray, collection: np.ndarray | None = None) -> np.ndarray:
        """Return each window's similarity to the nearest detected shipped danger or confirmed event, (windows,).

        Confirmed events get CONFIRMED_BONUS. Dangers of a window's own ``collection``, (windows,), do not count.
        """
        dangers, danger_collection = self._dangers
        similarity = directions @ dangers.T
        if collection is not None:
            similarity[collection[:, None] == danger_collection] = -1
        nearest = similarity.max(axis=1, initial=-1)
        for exemplars in self._confirmed:
            nearest = np.maximum(nearest, _max_similarity(directions, exemplars) + CONFIRMED_BONUS)
        return nearest

    @cached_property
    def _dangers(self) -> tuple[np.ndarray, np.ndarray]:
        """Directions and collections of the shipped dangers that the detector finds."""
        found = self.reference.danger & (self.reference.scores >= self.threshold_of("high"))
        return self.reference.clip_directions()[found], self.reference.collection[found]

    @cached_property
    def _exemplars(self) -> list[np.ndarray]:
        """Directions of each verdict's windows, (windows, directions) each."""
        directions = self._project(self.learnt.embeddings.astype(np.float32))
        return [directions[self.learnt.owner == number] for number in range(len(self.learnt.verdicts))]

    @cached_property
    def _false_alarms(self) -> list[np.ndarray]:
        return [e for e, verdict in zip(self._exemplars, self.learnt.verdicts, strict=True) if not verdict.is_right]

    @cached_property
    def _confirmed(self) -> list[np.ndarray]:
        return [e for e, verdict in zip(self._exemplars, self.learnt.verdicts, strict=True) if verdict.is_right]

    @cached_property
    def _max_log_odds(self) -> np.ndarray:
        """Log-odds of each false alarm's highest-scoring window before anything was learnt, (false alarms,)."""
        scores = super().scores(self.learnt.embeddings.astype(np.float32))
        numbers = [n for n, verdict in enumerate(self.learnt.verdicts) if not verdict.is_right]
        return _log_odds(np.clip([scores[self.learnt.owner == number].max() for number in numbers], 1e-3, 1 - 1e-3))

    @cached_property
    def _full_loss(self) -> np.ndarray:
        """Log-odds that bring each false alarm down to QUIET_SCORE, (false alarms,)."""
        return np.maximum(self._max_log_odds - _log_odds(np.asarray(QUIET_SCORE)), MIN_LOG_ODDS_LOSS)

    @cached_property
    def _min_similarity(self) -> np.ndarray:
        """The similarity from which a window matches each false alarm fully, (false alarms,)."""
        min_similarity = np.full(len(self._false_alarms), SINGLE_SIMILARITY)
        starts = np.cumsum([0, *map(len, self._false_alarms)])[:-1]
        for number, exemplars in enumerate(self._false_alarms):
            nearest = np.maximum.reduceat(exemplars @ np.concatenate(self._false_alarms).T, starts, axis=1)
            similarities = np.sort(np.delete(np.median(nearest, axis=0), number))
            same_sound = similarities[similarities >= MIN_VERDICT_SIMILARITY][-FULL_COUNT + 1 :]
            if len(same_sound):
                min_similarity[number] = np.clip(np.mean(same_sound) - SIMILARITY_SLACK, *SIMILARITY_LIMITS)
        return min_similarity


def _log_odds(score: np.ndarray) -> np.ndarray:
    return np.log(score / (1 - score))


def _max_similarity(directions: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
    """Return each window's cosine similarity to the nearest of the exemplars, (windows,)."""
    return (directions @ exemplars.T).max(axis=1)


def top_windows(detector: BuiltinDetector, embeddings: np.ndarray) -> np.ndarray:
    """Select the windows that raised an event's alarm: (windows, dimensions) -> (≤ MAX_WINDOWS, dimensions) float16."""
    scores = detector.scores(embeddings)
    order = np.argsort(-scores, kind="stable")[:MAX_WINDOWS]
    return embeddings[order[scores[order] >= MIN_SCORE_RATIO * scores[order[0]]]].astype(np.float16)


def personal_detector(builtin: BuiltinDetector, learnt: LearntState) -> PersonalDetector:
    """Combine the built-in detector with what it has learnt. Raises UserError if that came from another network."""
    if learnt.checkpoint_sha256 != builtin.checkpoint_sha256 or learnt.embeddings.shape[1] != builtin.centres.shape[1]:
        raise UserError("what was learnt is of another network: listen.py --learn learns it anew")
    if builtin.reference is None:
        raise UserError("models/detector.npz holds no clips to judge by what is learnt: run make detector")
    inherited: dict[str, Any] = {field.name: getattr(builtin, field.name) for field in fields(builtin)}
    inherited["name"] = f"{builtin.name}, {learnt.summary}"
    return PersonalDetector(**inherited, learnt=learnt)
