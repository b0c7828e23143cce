"""The picture of a recording: waveform, log-mel, danger score and events, readable for five seconds and three hours."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.cli import one_line
from danger_safe.detection.writers import Summary, clock
from models.logmel import HOP_LENGTH, LogMel, mel_bank

MOST_COLUMNS = 4_000  # of the picture: beyond, neighbours are merged
CONTEXT = 5 * HOP_LENGTH  # samples around a stretch that its outer frames reach into
FMIN, FMAX = 50.0, 14_000.0  # Hz that are drawn
MOST_NAMES = 12  # events that are named
TICKS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400)  # seconds between two times


class Overview:
    """Waveform and log-mel of a recording in a few thousand columns, however long it is."""

    def __init__(self):
        self._front_end = LogMel(mel_bank(FMIN, FMAX), floor=1e-9, normalise=False)
        self._before = self._left = np.empty(0, np.float32)  # sound that was looked at last, and that waits
        self.frames_per_column = 1
        self._columns: list[np.ndarray] = []  # blocks of (columns, 64 mel powers, lowest and highest sample)
        self.scores: list[tuple[float, float]] = []  # (middle of the window, score)

    def watch(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass pieces through, looking at them."""
        for piece in pieces:
            self._add(piece)
            yield piece

    def _add(self, piece: np.ndarray) -> None:
        samples = np.concatenate([self._left, piece])
        step = HOP_LENGTH * self.frames_per_column
        ready = (len(samples) - CONTEXT) // step * step  # the rest waits for the sound after it
        if ready < SAMPLE_RATE:
            self._left = samples
            return
        self._look(samples[:ready], samples[ready : ready + CONTEXT])
        self._left = samples[ready:]
        if sum(map(len, self._columns)) > MOST_COLUMNS:
            columns = np.concatenate(self._columns)
            pairs = columns[: len(columns) // 2 * 2].reshape(-1, 2, columns.shape[1])
            self._columns = [
                np.concatenate([pairs[..., :64].mean(1), pairs[..., 64:65].min(1), pairs[..., 65:].max(1)], axis=1)
            ]
            self.frames_per_column *= 2

    def _look(self, samples: np.ndarray, after: np.ndarray) -> None:
        """Columns of whole steps of sound, transformed with what is before and after: no seams."""
        around = np.concatenate([self._before, samples, after])
        first, frames = len(self._before) // HOP_LENGTH, len(samples) // HOP_LENGTH
        mel = 10 ** (self._front_end(around)[first : first + frames] / 10)
        mel = mel.reshape(-1, self.frames_per_column, 64).mean(axis=1)
        wave = samples.reshape(len(mel), -1)
        self._columns.append(np.concatenate([mel, wave.min(axis=1)[:, None], wave.max(axis=1)[:, None]], axis=1))
        self._before = samples[-CONTEXT:]

    def add_score(self, window: ScoredWindow) -> None:
        """Remember a window's score."""
        self.scores.append(((window.start + window.end) / 2, window.smoothed_score))

    def finish(self) -> np.ndarray:
        """All columns: (columns, 64 mel powers, lowest and highest sample)."""
        step = HOP_LENGTH * self.frames_per_column
        missing = -len(self._left) % step
        if len(self._left) or not self._columns:
            self._look(np.pad(self._left, (0, missing or (0 if len(self._left) else step))), np.empty(0, np.float32))
        self._left = np.empty(0, np.float32)
        return np.concatenate(self._columns)


def draw_timeline(path: Path, overview: Overview, summary: Summary) -> None:
    """Write the picture as PNG."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    from danger_safe.reports.plots import COLOURS, save  # matplotlib takes a second to load

    columns = overview.finish()
    seconds = max(summary.seconds, 0.1)
    middles = (np.arange(len(columns)) + 0.5) * overview.frames_per_column * HOP_LENGTH / SAMPLE_RATE
    figure, (wave, mel, score) = plt.subplots(
        3, 1, figsize=(14, 7.5), layout="constrained", sharex=True, height_ratios=(1, 1.6, 1.4)
    )
    count = f"{len(summary.events)} event" + ("s" if len(summary.events) > 1 else "")
    verdict = {
        "Danger": f"DANGER: {count}",
        "Safe": "Safe: no danger heard",
        "Unknown": "Unknown: like nothing in training",
    }
    figure.suptitle(f"{one_line(Path(summary.file).name)} – {verdict[summary.verdict]}", fontsize=15)
    wave.fill_between(middles, columns[:, 64], columns[:, 65], color="#444444", linewidth=0.5)
    wave.set(ylabel="waveform", ylim=(-1.05, 1.05))
    decibels = 10 * np.log10(columns[:, :64].T + 1e-9)
    top = decibels.max()
    mel.imshow(
        decibels, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top,
        extent=(0, len(columns) * overview.frames_per_column * HOP_LENGTH / SAMPLE_RATE, 0, 64),
    )  # fmt: skip
    mel.set(ylabel="log-mel bin", ylim=(0, 64))
    times, scores = np.array(overview.scores).T
    times[0], times[-1] = (0, seconds) if len(times) > 1 else (times[0], times[0])  # the outer windows reach the ends
    score.plot(times, scores, color=COLOURS[0], linewidth=1.2, marker="." if len(times) < 60 else "")
    score.axhline(summary.threshold, color="black", linestyle="--", linewidth=1)
    score.text(seconds, summary.threshold, f" threshold {summary.threshold:.2f}", va="bottom", ha="right", fontsize=10)
    score.set(ylabel="danger score", ylim=(0, 1.28), yticks=(0, 0.25, 0.5, 0.75, 1), xlabel="time")
    least = seconds / 400  # narrower would not be seen
    for event in summary.events:
        middle, half = (event.start + event.end) / 2, max(event.end - event.start, least) / 2
        for axis in (wave, score):
            axis.axvspan(middle - half, middle + half, color=COLOURS[1], alpha=0.3, linewidth=0, zorder=0)
        mel.plot((middle - half, middle + half), (63, 63), color=COLOURS[1], linewidth=5, solid_capstyle="butt")
    _name_events(score, summary, seconds, COLOURS[1])
    score.set_xlim(0, seconds)
    score.xaxis.set_major_locator(MultipleLocator(next((t for t in TICKS if seconds / t <= 12), TICKS[-1])))
    score.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value).removesuffix(".0")))
    save(figure, path)


def _name_events(axis, summary: Summary, seconds: float, colour: str) -> None:
    """Names above the surest events, as many as fit beside each other in two rows."""
    taken: list[tuple[float, int]] = []
    for event in sorted(summary.events, key=lambda e: -e.score)[:MOST_NAMES]:
        if not event.heard:
            continue
        at = min(max(event.peak, 0.05 * seconds), 0.95 * seconds)
        row = next((r for r in (0, 1) if all(r != row or abs(at - t) > 0.1 * seconds for t, row in taken)), None)
        if row is not None:
            taken.append((at, row))
            text = event.heard[0][0].replace("_", " ")
            axis.text(at, 1.05 + 0.11 * row, text, ha="center", va="bottom", fontsize=10, color=colour, weight="bold")
