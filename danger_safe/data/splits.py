"""Which clips are held out: by a training of the network, and in the folds of a cross-validation."""

from dataclasses import replace

import numpy as np

from danger_safe.core.errors import UserError
from danger_safe.data.clips import DANGER, MAX_FOLDS, NO_FOLD, SAFE, Clip

FOLDS = 5  # of a cross-validation, where the data brings none of its own
MIN_RECORDINGS = 3  # of each label, to train, calibrate and judge on different ones
HOLDOUT_PARTS = 5  # one in so many recordings is held out where the data brings no folds


def split(clips: list[Clip], names: dict[Clip, str], fold: str, seed: int) -> tuple[list[Clip], list[Clip]]:
    """(clips to learn from, clips to hold out). No recording is on both sides.

    ``fold``: a number: that fold of the data; ``none``: hold nothing out; ``auto``: the data's last fold or, where it
    has none, one in five recordings of every class; nothing, where a class has fewer than five.
    Raises UserError for a fold that no clip has.
    """
    if fold == "none":
        return clips, []
    folds = sorted({clip.fold for clip in clips} - {NO_FOLD})
    if fold != "auto" and int(fold) not in folds:
        raise UserError(f"no clip has fold {fold}: nothing to hold out (folds: {', '.join(map(str, folds)) or 'none'})")
    if folds:
        number = folds[-1] if fold == "auto" else int(fold)
        sources = {clip.source for clip in clips if clip.fold == number}
        out = [clip for clip in clips if clip.fold == number]
        return [clip for clip in clips if clip.fold != number and clip.source not in sources], out
    classes = np.array([names[clip] for clip in clips])
    sources = np.array([clip.source for clip in clips])
    if min(len(np.unique(sources[classes == name])) for name in np.unique(classes)) < HOLDOUT_PARTS:
        return clips, []
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds to load

    splitter = StratifiedGroupKFold(HOLDOUT_PARTS, shuffle=True, random_state=seed)
    learn, hold = next(splitter.split(classes, classes, sources))
    return [clips[i] for i in learn], [clips[i] for i in hold]


def assign_folds(labels: np.ndarray, sources: np.ndarray, own: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """The fold in which each clip is held out, and how that was decided. Arrays have one entry a clip.

    The data's ``own`` folds, with recordings that span two of them put whole into the first; where there are no folds
    (0), or one of them would leave a side without Danger or Safe, StratifiedGroupKFold by source.
    Raises UserError where there are too few recordings to split.
    """
    recordings = min(len(np.unique(sources[labels == label])) for label in (0, 1))
    if recordings < MIN_RECORDINGS:
        raise UserError(
            f"too few recordings to evaluate: Danger and Safe need at least {MIN_RECORDINGS} each (column source), "
            f"better twenty; here one of them has {recordings}"
        )
    _, recording = np.unique(sources.astype(str), return_inverse=True)
    lowest = np.full(recording.max() + 1, MAX_FOLDS)
    np.minimum.at(lowest, recording, own)
    own = lowest[recording]
    if (own > 0).all() and len(np.unique(own)) > 1:
        trainable = all(len(np.unique(labels[own != fold])) == 2 for fold in np.unique(own))
        if trainable:
            return own, f"the data's own {len(np.unique(own))} folds"
    count = min(FOLDS, recordings)
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds to load

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    folds = np.zeros(len(labels), int)
    for number, (train, test) in enumerate(splitter.split(labels, labels, sources), start=1):
        folds[test] = number
        if len(np.unique(labels[train])) < 2:
            raise UserError("the recordings (column source) cannot be split so that both labels are on both sides")
    return folds, f"{count} folds by source (StratifiedGroupKFold)"


def with_folds(clips: list[Clip]) -> list[Clip]:
    """The clips, labelled, each with the fold in which a cross-validation will hold it out.

    As they are, where the data brings folds, or where there are too few recordings for any.
    """
    if all(clip.fold != NO_FOLD for clip in clips):
        return clips
    labels, sources = np.array([clip.label for clip in clips]), np.array([clip.source for clip in clips])
    if min(len(np.unique(sources[labels == label])) for label in (SAFE, DANGER)) < MIN_RECORDINGS:
        return clips
    folds, _ = assign_folds(labels, sources, np.array([clip.fold for clip in clips]), seed=0)
    return [replace(clip, fold=int(fold)) for clip, fold in zip(clips, folds, strict=True)]
