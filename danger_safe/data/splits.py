"""Which clips a training of the network holds out."""

import numpy as np

from danger_safe.core.errors import UserError
from danger_safe.data.clips import NO_FOLD, Clip

SHARE = 5  # one in so many recordings is held out where the data brings no folds


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
    if min(len(np.unique(sources[classes == name])) for name in np.unique(classes)) < SHARE:
        return clips, []
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds to load

    splitter = StratifiedGroupKFold(SHARE, shuffle=True, random_state=seed)
    learn, hold = next(splitter.split(classes, classes, sources))
    return [clips[i] for i in learn], [clips[i] for i in hold]
