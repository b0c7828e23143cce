"""Draw an event as SVG: its spectrogram, if its sound was recorded, and its score over time.

It is written without matplotlib, which would need more memory than the whole service.
"""

import base64
import struct
import zlib
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


def draw(
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
        raise UserError("nothing was kept of this event")
    end = max(end, begin + 0.1)
    x_of = lambda second: LEFT + (min(max(second, begin), end) - begin) / (end - begin) * (WIDTH - LEFT)  # noqa: E731
    top = TOP if mel is None else MIDDLE
    y_of = lambda score: BOTTOM - min(max(score, 0.0), 1.0) * (BOTTOM - top - 8)  # noqa: E731
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#16181b"/>']
    if mel is not None:
        image = base64.b64encode(_png(_levels(mel))).decode("ascii")
        parts.append(
            f'<image x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT}" height="{MIDDLE - TOP}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{image}"/>'
        )
    left, right = x_of(0), max(x_of(seconds), x_of(0) + 2)
    parts.append(f'<rect x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="4" fill="#ff9a5c"/>')
    parts.append(f'<path d="M{LEFT} {y_of(threshold):.1f}H{WIDTH}" stroke="#fff" stroke-dasharray="5 4" opacity=".6"/>')
    if scored is not None:
        is_shown = (scored.times >= begin) & (scored.times <= end)
        points = " ".join(
            f"{x_of(t):.1f},{y_of(s):.1f}" for t, s in zip(scored.times[is_shown], scored.scores[is_shown], strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="#fff" stroke-width="2"/>')
    parts += [_text(LEFT - 4, y_of(score) + 4, str(score), "end") for score in (0, 1)]
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300) if (end - begin) / s <= 8), int((end - begin) / 8) + 1)
    for second in range(int(np.ceil(begin / step)) * step, int(end) + 1, step):
        x = x_of(second)
        parts.append(f'<path d="M{x:.1f} {BOTTOM}v4" stroke="#bbb"/>')
        parts.append(_text(min(max(x, LEFT), WIDTH - 12), HEIGHT - 4, f"{second} s".replace("-", "−"), "middle"))
    body = "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">{body}</svg>'.encode()


def _text(x: float, y: float, text: str, anchor: str) -> str:
    style = f'font-family="sans-serif" font-size="13" fill="#ddd" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'


def _log_mel(sound: Path) -> np.ndarray:
    """Return a sound's log-mel spectrogram, (frames, 64) in dB, computed in blocks to save memory."""
    front_end = LogMel(mel_bank(50.0, 14_000.0), floor=1e-9, normalise=False)
    frames = []
    try:
        with soundfile.SoundFile(sound) as file:
            if file.samplerate != SAMPLE_RATE or file.channels != 1 or file.frames > MAX_SOUND_S * SAMPLE_RATE:
                raise UserError(f"{sound} is no sound that was kept here")
            for block in file.blocks(BLOCK_S * SAMPLE_RATE, dtype="float32"):
                frames.append(front_end(block)[: max(1, len(block) // HOP_LENGTH)])
    except (OSError, RuntimeError) as error:  # libsndfile raises RuntimeError
        raise UserError(f"{sound} cannot be read") from error
    if not frames:
        raise UserError(f"{sound} is empty")
    return np.concatenate(frames)


def _levels(mel: np.ndarray) -> np.ndarray:
    """(frames, 64) in dB -> (64, columns) of 0 to 15, pitch upwards."""
    columns = min(COLUMNS, len(mel))
    edges = np.linspace(0, len(mel), columns + 1).astype(int)
    max_mel = np.maximum.reduceat(mel, edges[:-1], axis=0)
    top = max(float(max_mel.max()), -30.0)  # near silence stays dark
    return np.rint(np.clip((max_mel - top) / DYNAMIC_RANGE_DB + 1, 0, 1) * 15).astype(np.uint8).T[::-1]


def _png(levels: np.ndarray) -> bytes:
    """(height, width) of 0 to 15 -> a PNG of 16 colours."""
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
