"""Draw an event as SVG: its spectrogram, if its sound was recorded, and its score over time.

It is written without matplotlib, which would need more memory than the whole service.
"""

import base64
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.core.errors import UserError
from danger_safe.live.verdicts import EventWindows
from models.logmel import HOP_LENGTH, LogMel, mel_bank

WIDTH, HEIGHT = 480, 210
TOP, MIDDLE, BOTTOM = 4, 124, 190  # the spectrogram is above MIDDLE, the score below
LEFT = 26  # left of it are the numbers of the score's axis
COLUMNS = 300  # of the spectrogram
DYNAMIC_RANGE_DB = 70.0  # of the spectrogram's colours
BLOCK_S = 5  # seconds of sound that are transformed at once
MAX_SOUND_S = 500  # seconds; longer than any recording
_MAGMA = np.array([(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], float)


def draw_event_svg(
    windows: EventWindows | None, sound: Path | None, sound_begins: float, seconds: float, threshold: float
) -> bytes:
    """Return an SVG of an event, in which time 0 is the event's start.

    Args:
        windows: The event's windows, if they were stored.
        sound: The file with its sound, if it was recorded.
        sound_begins: Start of the sound in seconds, not above 0.
        seconds: Length of the event.
        threshold: The threshold of its category.

    Raises:
        UserError: There is neither sound nor windows, or the sound cannot be read.
    """
    mel = _log_mel(sound) if sound else None
    scored = windows if windows is not None and len(windows.times) else None
    if mel is not None:
        begin, end = sound_begins, sound_begins + len(mel) * HOP_LENGTH / SAMPLE_RATE
    elif scored is not None:
        begin, end = float(scored.times[0]), float(scored.times[-1])
    else:
        raise UserError("neither sound nor scores of this event were kept")
    axes = _Axes(begin, max(end, begin + 0.1), TOP if mel is None else MIDDLE)
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#16181b"/>']
    if mel is not None:
        parts.append(_spectrogram(mel))
    left, right = axes.x(0), max(axes.x(seconds), axes.x(0) + 2)
    parts.append(f'<rect x="{left:.1f}" y="{axes.top}" width="{right - left:.1f}" height="4" fill="#ff9a5c"/>')
    line = f"M{LEFT} {axes.y(threshold):.1f}H{WIDTH}"
    parts.append(f'<path d="{line}" stroke="#fff" stroke-dasharray="5 4" opacity=".6"/>')
    if scored is not None:
        parts.append(_curve(axes, scored))
    parts += [_text(LEFT - 4, axes.y(score) + 4, str(score), "end") for score in (0, 1)]
    body = "".join([*parts, *_ticks(axes)])
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">{body}</svg>'.encode()


@dataclass(frozen=True)
class _Axes:
    """Positions in the picture: time in seconds from ``begin`` to ``end``, score from 0 to 1 below ``top``."""

    begin: float
    end: float
    top: int

    def x(self, second: float) -> float:
        """Return the position of a time; that of the nearer end if it is not shown."""
        shown = min(max(second, self.begin), self.end)
        return LEFT + (shown - self.begin) / (self.end - self.begin) * (WIDTH - LEFT)

    def y(self, score: float) -> float:
        """Return the position of a score."""
        return BOTTOM - min(max(score, 0.0), 1.0) * (BOTTOM - self.top - 8)


def _spectrogram(mel: np.ndarray) -> str:
    """Return the image of a log-mel spectrogram, (frames, 64) in dB."""
    image = base64.b64encode(_png(_levels(mel))).decode("ascii")
    return (
        f'<image x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT}" height="{MIDDLE - TOP}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{image}"/>'
    )


def _curve(axes: _Axes, scored: EventWindows) -> str:
    """Return the line of the scores."""
    is_shown = (scored.times >= axes.begin) & (scored.times <= axes.end)
    pairs = zip(scored.times[is_shown], scored.scores[is_shown], strict=True)
    points = " ".join(f"{axes.x(time):.1f},{axes.y(score):.1f}" for time, score in pairs)
    return f'<polyline points="{points}" fill="none" stroke="#fff" stroke-width="2"/>'


def _ticks(axes: _Axes) -> list[str]:
    """Return the marks and labels of at most nine whole seconds."""
    length = axes.end - axes.begin
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300) if length / s <= 8), int(length / 8) + 1)
    parts = []
    for second in range(int(np.ceil(axes.begin / step)) * step, int(axes.end) + 1, step):
        x = axes.x(second)
        parts.append(f'<path d="M{x:.1f} {BOTTOM}v4" stroke="#bbb"/>')
        parts.append(_text(min(max(x, LEFT), WIDTH - 12), HEIGHT - 4, f"{second} s".replace("-", "−"), "middle"))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    """Return a text; ``anchor``: start, middle or end."""
    style = f'font-family="sans-serif" font-size="13" fill="#ddd" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'


def _log_mel(sound: Path) -> np.ndarray:
    """Return a sound's log-mel spectrogram, (frames, 64) in dB, computed in blocks to save memory."""
    front_end = LogMel(mel_bank(50.0, 14_000.0), floor=1e-9, normalise=False)
    frames = []
    try:
        with soundfile.SoundFile(sound) as file:
            if file.samplerate != SAMPLE_RATE or file.channels != 1 or file.frames > MAX_SOUND_S * SAMPLE_RATE:
                raise UserError(f"{sound} is not a recording of this service")
            for block in file.blocks(BLOCK_S * SAMPLE_RATE, dtype="float32"):
                frames.append(front_end(block)[: max(1, len(block) // HOP_LENGTH)])
    except (OSError, RuntimeError) as error:  # libsndfile raises RuntimeError
        raise UserError(f"{sound} cannot be read") from error
    if not frames:
        raise UserError(f"{sound} is empty")
    return np.concatenate(frames)


def _levels(mel: np.ndarray) -> np.ndarray:
    """Return a spectrogram's levels: (frames, 64) in dB -> (64, columns) of 0 to 15, pitch upwards."""
    columns = min(COLUMNS, len(mel))
    edges = np.linspace(0, len(mel), columns + 1).astype(int)
    max_mel = np.maximum.reduceat(mel, edges[:-1], axis=0)
    top = max(float(max_mel.max()), -30.0)  # near silence stays dark
    return np.rint(np.clip((max_mel - top) / DYNAMIC_RANGE_DB + 1, 0, 1) * 15).astype(np.uint8).T[::-1]


def _png(levels: np.ndarray) -> bytes:
    """Return a PNG of 16 colours: (height, width) of 0 to 15 -> bytes."""
    height, width = levels.shape
    even = np.pad(levels, ((0, 0), (0, width % 2)))
    packed = np.pad(even[:, ::2] << 4 | even[:, 1::2], ((0, 0), (1, 0)))  # the first byte of each row: no filter
    positions = np.linspace(0, len(_MAGMA) - 1, 16)
    palette = np.stack([np.interp(positions, range(len(_MAGMA)), channel) for channel in _MAGMA.T], axis=1).round()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(packed.tobytes(), 9)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
