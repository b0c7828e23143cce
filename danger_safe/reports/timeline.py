"""The figure of a recording of any length: waveform, log-mel spectrogram, danger score and events."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, MultipleLocator

from danger_safe.audio.pcm import SAMPLE_RATE, to_mono
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.cli import one_line
from danger_safe.detection.events import Event
from danger_safe.detection.writers import Summary, format_time
from danger_safe.reports.canvas import BLUE, VERMILION, frame, new_figure, save, styled, text_width
from models.logmel import HOP_LENGTH, LogMel, mel_bank

MAX_COLUMNS = 4_000  # of the figure; if there are more, neighbours are merged
CONTEXT_SAMPLES = 5 * HOP_LENGTH  # on each side of a chunk, for the STFT frames at its ends
FMIN, FMAX = 50.0, 14_000.0  # Hz; range of the spectrogram
FREQUENCY_TICKS = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)  # Hz
NAME_PT, NAME_GAP_IN = 10.5, 0.06  # font size of events' names, and the gap between two
NAME_ROWS, NAME_ROW_HEIGHT = 2, 0.17  # rows of names above a score of 1; height on the axis of scores
TIME_STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400)  # seconds between ticks


class Overview:
    """Waveform and log-mel of a recording in at most a few thousand columns, however long it is."""

    def __init__(self):
        self._front_end = LogMel(mel_bank(FMIN, FMAX), floor=1e-9, normalise=False)
        self._previous = self._pending = np.empty(0, np.float32)  # end of the processed sound; sound to be processed
        self.frames_per_column = 1
        self._columns: list[np.ndarray] = []  # blocks of (columns, 64 mel powers + lowest and highest sample)
        self.scores: list[tuple[float, float]] = []  # (middle of the window, score)
        self.window_s = 0.0  # length of the longest window in seconds

    def watch(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass chunks of a recording through, and add them to the overview."""
        for chunk in chunks:
            self._add(to_mono(chunk))
            yield chunk

    def _add(self, chunk: np.ndarray) -> None:
        samples = np.concatenate([self._pending, chunk])
        step = HOP_LENGTH * self.frames_per_column
        ready = (len(samples) - CONTEXT_SAMPLES) // step * step  # the rest lacks the context after it
        if ready < SAMPLE_RATE:
            self._pending = samples
            return
        self._add_columns(samples[:ready], samples[ready : ready + CONTEXT_SAMPLES])
        self._pending = samples[ready:]
        if sum(map(len, self._columns)) > MAX_COLUMNS:
            columns = np.concatenate(self._columns)
            pairs = columns[: len(columns) // 2 * 2].reshape(-1, 2, columns.shape[1])
            self._columns = [
                np.concatenate([pairs[..., :64].mean(1), pairs[..., 64:65].min(1), pairs[..., 65:].max(1)], axis=1)
            ]
            self.frames_per_column *= 2

    def _add_columns(self, samples: np.ndarray, after: np.ndarray) -> None:
        """Add the columns of ``samples``, whole columns long, transformed with the sound before and ``after`` them."""
        with_context = np.concatenate([self._previous, samples, after])
        first, frames = len(self._previous) // HOP_LENGTH, len(samples) // HOP_LENGTH
        mel = 10 ** (self._front_end(with_context)[first : first + frames] / 10)
        mel = mel.reshape(-1, self.frames_per_column, 64).mean(axis=1)
        wave = samples.reshape(len(mel), -1)
        self._columns.append(np.concatenate([mel, wave.min(axis=1)[:, None], wave.max(axis=1)[:, None]], axis=1))
        self._previous = samples[-CONTEXT_SAMPLES:]

    def add_score(self, window: ScoredWindow) -> None:
        """Add the score of a window."""
        self.scores.append(((window.start + window.end) / 2, window.smoothed_score))
        self.window_s = max(self.window_s, window.end - window.start)

    def band_centres(self) -> np.ndarray:
        """Return the centre frequency of each mel band, in Hz: (bands,)."""
        bank = self._front_end.mel_bank
        return np.fft.rfftfreq(2 * (len(bank) - 1), 1 / SAMPLE_RATE) @ bank / bank.sum(axis=0)

    def finish(self) -> np.ndarray:
        """Process the pending sound; return all columns, (columns, 64 mel powers + lowest and highest sample)."""
        step = HOP_LENGTH * self.frames_per_column
        if len(self._pending) or not self._columns:
            padding = -len(self._pending) % step if len(self._pending) else step  # to whole columns, at least one
            self._add_columns(np.pad(self._pending, (0, padding)), np.empty(0, np.float32))
        self._pending = np.empty(0, np.float32)
        return np.concatenate(self._columns)


@styled
def draw_timeline(path: Path, overview: Overview, summary: Summary) -> None:
    """Draw a recording's waveform, spectrogram, scores and events as a PNG."""
    columns = overview.finish()
    seconds = max(summary.seconds, 0.1)
    middles = (np.arange(len(columns)) + 0.5) * overview.frames_per_column * HOP_LENGTH / SAMPLE_RATE
    figure = new_figure(6.6)
    frame(figure, *headline(summary, overview.window_s))
    wave, mel, score = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1.7, 1.5))
    wave.fill_between(middles, columns[:, -2], columns[:, -1], color="#444444", linewidth=0.5)
    wave.set(ylabel="waveform", ylim=(-1.05, 1.05), yticks=(-1, 0, 1))
    bands = columns.shape[1] - 2
    decibels = 10 * np.log10(columns[:, :bands].T + 1e-9)
    top = decibels.max()
    mel.imshow(
        decibels, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top,
        extent=(0, len(columns) * overview.frames_per_column * HOP_LENGTH / SAMPLE_RATE, 0, bands),
    )  # fmt: skip
    centres = overview.band_centres()
    ticks = [hertz for hertz in FREQUENCY_TICKS if centres[0] <= hertz <= centres[-1]]
    tick_labels = [f"{hertz // 1000} kHz" if hertz >= 1000 else f"{hertz} Hz" for hertz in ticks]
    mel.set_yticks(np.interp(ticks, centres, np.arange(bands) + 0.5), tick_labels)
    mel.set(ylabel="frequency (mel)", ylim=(0, bands))
    times, scores = np.array(overview.scores).T
    markers = {"marker": "."} if len(times) < 60 else {}
    # The first and last windows reach the ends of the recording, so their scores are extended to there.
    score.plot([0, *times, seconds], [scores[0], *scores, scores[-1]], color=BLUE, linewidth=1.5,
               markevery=slice(1, -1), **markers)  # fmt: skip
    score.axhline(summary.threshold, color="black", linestyle="--", linewidth=1)
    score.set(ylabel="danger score", ylim=(0, 1.02 + NAME_ROWS * NAME_ROW_HEIGHT), yticks=(0, 0.25, 0.5, 0.75, 1))
    score.set_xlabel("time")
    min_width = seconds / 400  # shorter events would be invisible
    for event in summary.events:
        middle, half = (event.start + event.end) / 2, max(event.end - event.start, min_width) / 2
        for axis in (wave, score):
            axis.axvspan(middle - half, middle + half, color=VERMILION, alpha=0.3, linewidth=0, zorder=0)
        mel.plot(
            (middle - half, middle + half), (bands - 1, bands - 1), color=VERMILION, linewidth=6, solid_capstyle="butt"
        )
    score.set_xlim(0, seconds)
    score.xaxis.set_major_locator(MultipleLocator(next((s for s in TIME_STEPS if seconds / s <= 9), TIME_STEPS[-1])))
    score.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_time(value).removesuffix(".0")))
    figure.draw_without_rendering()  # lays the axes out, so that their width is known
    for time, row, text in place_event_names(summary.events, seconds, score.bbox.width / figure.dpi):
        height = 1.03 + NAME_ROW_HEIGHT * row
        score.text(time, height, text, ha="center", va="bottom", fontsize=NAME_PT, color="#A84300", weight="bold")
    save(figure, path)


def headline(summary: Summary, window_s: float) -> tuple[str, list[str], list[str]]:
    """Return title, lines and notes for ``frame``: the verdict, the highest score, how to read the figure."""
    count = f"{len(summary.events)} event" + ("s" if len(summary.events) > 1 else "")
    verdict = {
        "Danger": f"DANGER, {count}",
        "Safe": "Safe: no danger detected",
        "Unknown": "Unknown: like nothing in training",
    }[summary.verdict]
    if summary.failure and not summary.events:
        verdict = f"no danger detected until it breaks off at {format_time(summary.seconds)}"
    elif summary.silent_fraction == 1:
        verdict = "silence: there is nothing to be judged"
    side = "at or above" if summary.score >= summary.threshold else "below"
    lines = [f"Highest score {summary.score:.2f}, {side} the threshold {summary.threshold:.2f} (dashed line)."]
    if summary.failure:
        lines.append(f"INCOMPLETE: the recording {summary.failure}.")
    covered = f"Each score covers a window of {window_s:.3g} s"
    notes = [f"{covered} and is drawn at its centre, so peaks are wider than short sounds."]
    if summary.events:
        notes.insert(0, "Shaded and marked: danger. The events with the highest scores are named, where there is room.")
    return f"{one_line(Path(summary.file).name)}: {verdict}", lines, notes


def place_event_names(events: list[Event], seconds: float, inches: float) -> list[tuple[float, int, str]]:
    """Return (time, row, name) for as many event names as fit without overlap, those with the highest scores first.

    The axis is ``seconds`` long and ``inches`` wide.
    """
    per_inch = seconds / inches
    taken: list[tuple[float, float, int]] = []  # (start, end, row) of the names placed so far
    placed = []
    for event in sorted(events, key=lambda e: -e.score):
        if not event.heard:
            continue
        text = event.heard[0][0].replace("_", " ")
        half = (text_width(text, NAME_PT, "bold") / 2 + NAME_GAP_IN) * per_inch
        if 2 * half > seconds:
            continue
        time = min(max((event.start + event.end) / 2, half), seconds - half)
        for row in range(NAME_ROWS):
            if all(other != row or time + half <= start or end <= time - half for start, end, other in taken):
                taken.append((time - half, time + half, row))
                placed.append((time, row, text))
                break
    return placed
