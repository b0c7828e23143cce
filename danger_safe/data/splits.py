"""Splits by recording: clips held out of fine-tuning, and the folds of a cross-validation."""

from dataclasses import replace

import numpy as np

from danger_safe.core.errors import UserError
from danger_safe.data.clips import DANGER, MAX_FOLDS, NO_FOLD, SAFE, Clip

N_FOLDS = 5  # folds of a cross-validation, if the data has none
MIN_RECORDINGS = 3  # of each label, so that training, calibration and evaluation use different ones
HOLDOUT_PARTS = 5  # a fifth of the recordings is held out of fine-tuning, if the data has no folds


def split(clips: list[Clip], names: dict[Clip, str], fold: str, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Return (training clips, held-out clips). No recording is on both sides.

    Raises UserError for a fold that no clip has.

    Args:
        clips: all clips.
        names: the class of each clip.
        fold: number of the fold to hold out; ``none``; or ``auto``: the data's last fold or, if it has none, a fifth of
            the recordings of every class (nothing if a class has fewer than five).
        seed: of the split without folds.
    """
    if fold == "none":
        return clips, []
    folds = sorted({clip.fold for clip in clips} - {NO_FOLD})
    if fold != "auto" and int(fold) not in folds:
        raise UserError(f"no clip has fold {fold}: nothing to hold out (folds: {', '.join(map(str, folds)) or 'none'})")
    if folds:
        number = folds[-1] if fold == "auto" else int(fold)
        sources = {clip.source for clip in clips if clip.fold == number}
        held_out = [clip for clip in clips if clip.fold == number]
        return [clip for clip in clips if clip.fold != number and clip.source not in sources], held_out
    classes = np.array([names[clip] for clip in clips])
    sources = np.array([clip.source for clip in clips])
    if min(len(np.unique(sources[classes == name])) for name in np.unique(classes)) < HOLDOUT_PARTS:
        return clips, []
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds to load

    splitter = StratifiedGroupKFold(HOLDOUT_PARTS, shuffle=True, random_state=seed)
    train, held_out = next(splitter.split(classes, classes, sources))
    return [clips[i] for i in train], [clips[i] for i in held_out]


def assign_folds(labels: np.ndarray, sources: np.ndarray, given: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Return the fold in which each clip is held out, and a description. Arrays have one entry a clip.

    The data's folds are used, a recording that spans several being put whole into the first. If there are none, or
    training without one of them would lack a label, StratifiedGroupKFold by source makes new ones.
    Raises UserError if there are too few recordings to split.

    Args:
        labels: 0 Safe, 1 Danger.
        sources: the recording of each clip.
        given: the data's folds; 0 for none.
        seed: of StratifiedGroupKFold.
    """
    recordings = min(len(np.unique(sources[labels == label])) for label in (0, 1))
    if recordings < MIN_RECORDINGS:
        raise UserError(
            f"too few recordings to evaluate: Danger and Safe need at least {MIN_RECORDINGS} each (column source), "
            f"better twenty; here one of them has {recordings}"
        )
    _, recording = np.unique(sources.astype(str), return_inverse=True)
    lowest = np.full(recording.max() + 1, MAX_FOLDS)
    np.minimum.at(lowest, recording, given)
    folds = lowest[recording]
    numbers = np.unique(folds)
    if (folds > 0).all() and len(numbers) > 1 and all(len(np.unique(labels[folds != n])) == 2 for n in numbers):
        return folds, f"the data's own {len(numbers)} folds"
    count = min(N_FOLDS, recordings)
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds to load

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    folds = np.zeros(len(labels), int)
    for number, (train, test) in enumerate(splitter.split(labels, labels, sources), start=1):
        folds[test] = number
        if len(np.unique(labels[train])) < 2:
            raise UserError("the recordings (column source) cannot be split so that both labels are on both sides")
    return folds, f"{count} folds by source (StratifiedGroupKFold)"


def with_folds(clips: list[Clip]) -> list[Clip]:
    """Give each labelled clip the fold in which a cross-validation will hold it out.

    The clips are returned unchanged if all have folds, or if there are too few recordings to make any.
    """
    if all(clip.fold != NO_FOLD for clip in clips):
        return clips
    labels, sources = np.array([clip.label for clip in clips]), np.array([clip.source for clip in clips])
    if min(len(np.unique(sources[labels == label])) for label in (SAFE, DANGER)) < MIN_RECORDINGS:
        return clips
    folds, _ = assign_folds(labels, sources, np.array([clip.fold for clip in clips]), seed=0)
    return [replace(clip, fold=int(fold)) for clip, fold in zip(clips, folds, strict=True)]
