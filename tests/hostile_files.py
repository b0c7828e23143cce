"""Malformed and unusual sound files, and what extraction reports about them.

``CONTENTS`` has the name, the bytes, and a part of the reason why a file cannot be read (None: it can be).
"""

import io
import struct
import zipfile

import numpy as np
import soundfile

RATE = 16_000


def noise(seconds=0.5, channels=1, rate=RATE, seed=0):
    """Return quiet noise, (samples, channels), float64."""
    return 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))


def encoded(samples=None, rate=RATE, container="WAV", subtype="PCM_16"):
    """Return the bytes of a complete sound file."""
    content = io.BytesIO()
    soundfile.write(content, noise(rate=rate) if samples is None else samples, rate, format=container, subtype=subtype)
    return content.getvalue()


def wav_header(data=16_000, channels=1, rate=RATE, bits=16, tag=1, riff=None):
    """Return the 44 bytes before a WAV's samples, with any values."""
    frame = max(1, channels * bits // 8)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", data + 36 if riff is None else riff, b"WAVE", b"fmt ", 16, tag,
    channels,
                       rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)  # fmt: skip
    return head + struct.pack("<4sI", b"data", data)


def floats(*values):
    """Return a float WAV with a second of noise and some unusual samples."""
    samples = noise(1.0).astype(np.float32)
    samples[100 : 100 + len(values), 0] = values
    return encoded(samples, subtype="FLOAT")


def cut(content, share):
    """Return the first part of a file."""
    return content[: int(len(content) * share)]


def spoilt(content, start=0.4, length=600):
    """Return a file whose middle is overwritten with noise."""
    at = int(len(content) * start)
    return content[:at] + np.random.default_rng(1).bytes(length) + content[at + length :]


def zipped():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.wav", encoded())
    return content.getvalue()


PCM = noise().astype("<f4").tobytes()
ONES = np.ones((8_000, 1))
EMPTY, UNDECODABLE, NO_SAMPLES, CUT = "is an empty file", "cannot be decoded", "has no samples", "breaks off at"
NOT_FINITE, TOO_LOUD = "holds NaN or infinite samples", "holds samples beyond"

# name: (bytes, reason)
CONTENTS = {
    # without sound
    "empty.wav": (b"", EMPTY),
    "one_byte.wav": (b"R", UNDECODABLE),
    "text.wav": (b"not a sound at all", UNDECODABLE),
    "page.mp3": (b"<!DOCTYPE html><html><body>404</body></html>" * 50, UNDECODABLE),
    "archive.flac": (zipped(), UNDECODABLE),
    "zeros.wav": (bytes(4_096), UNDECODABLE),
    "zeros.mp3": (bytes(4_096), UNDECODABLE),
    "random.ogg": (np.random.default_rng(0).bytes(4_096), UNDECODABLE),
    "tag_only.mp3": (b"ID3\x03\0\0\0\0\x07\x76" + bytes(1_014), UNDECODABLE),
    # truncated
    "cut_in_header.wav": (encoded()[:30], UNDECODABLE),
    "header_only.wav": (encoded()[:44], NO_SAMPLES),
    "cut.wav": (cut(encoded(), 0.5), CUT),
    "cut_in_sample.wav": (encoded()[:-1], None),
    "cut.ogg": (cut(encoded(noise(3), container="OGG", subtype="VORBIS"), 0.6), CUT),
    "cut.mp3": (cut(encoded(noise(3), container="MP3", subtype="MPEG_LAYER_III"), 0.6), CUT),
    # wrong headers
    "no_channels.wav": (wav_header(channels=0) + bytes(16_000), UNDECODABLE),
    "no_rate.wav": (wav_header(rate=0) + bytes(16_000), UNDECODABLE),
    "fast_rate.wav": (wav_header(rate=2**31) + bytes(16_000), UNDECODABLE),
    "no_bits.wav": (wav_header(bits=0) + bytes(16_000), UNDECODABLE),
    "unknown_codec.wav": (wav_header(tag=0x7777) + bytes(16_000), UNDECODABLE),
    "claims_4_GB.wav": (wav_header(data=0xFFFFFFF0, riff=0xFFFFFFFF) + PCM[:16_000], None),
    "claims_nothing.wav": (wav_header(data=0) + bytes(16_000), None),
    # invalid samples
    "nan.wav": (floats(np.nan), NOT_FINITE),
    "infinite.wav": (floats(np.inf, -np.inf), NOT_FINITE),
    "nan.f64.wav": (encoded(np.full((8_000, 1), np.nan), subtype="DOUBLE"), NOT_FINITE),
    "huge_double.wav": (encoded(ONES * 1e300, subtype="DOUBLE"), NOT_FINITE),
    "1e30.wav": (floats(1e30, -1e30), TOO_LOUD),
    "loudest_float.wav": (encoded((ONES * 3e38).astype(np.float32) * np.sign(noise()), subtype="FLOAT"), TOO_LOUD),
    "denormal.wav": (encoded((ONES * 1e-42).astype(np.float32), subtype="FLOAT"), None),
    "minus_zero.wav": (encoded((ONES * -0.0).astype(np.float32), subtype="FLOAT"), None),
    "one_sample.wav": (encoded(noise()[:1]), None),
    "three_samples.wav": (encoded(noise()[:3], 44_100), None),
    "silence.wav": (encoded(0 * ONES), None),
    "constant.wav": (encoded(0.5 * ONES), None),
    "clipped.wav": (encoded(np.sign(noise())), None),
    # sample rates, bit depths, numbers of channels, containers
    "1_kHz.wav": (encoded(noise(), 1_000), None),
    "8_kHz.wav": (encoded(noise(), 8_000), None),
    "192_kHz.wav": (encoded(noise(), 192_000), None),
    "384_kHz.flac": (encoded(noise(), 384_000, "FLAC"), None),
    "8_bit.wav": (encoded(subtype="PCM_U8"), None),
    "24_bit.wav": (encoded(subtype="PCM_24"), None),
    "32_bit.wav": (encoded(subtype="PCM_32"), None),
    "float64.wav": (encoded(subtype="DOUBLE"), None),
    "ulaw.wav": (encoded(subtype="ULAW"), None),
    "adpcm.wav": (encoded(subtype="IMA_ADPCM"), None),
    "8_channels.wav": (encoded(noise(channels=8)), None),
    "24_channels.wav": (encoded(noise(channels=24)), None),
    "extensible.wav": (encoded(noise(channels=2), container="WAVEX"), None),
    "rf64.wav": (encoded(container="RF64"), None),
    "a_flac_named.wav": (encoded(container="FLAC"), None),
    "garbage_before.mp3": (bytes(700) + encoded(noise(3), container="MP3", subtype="MPEG_LAYER_III"), None),
    "LOUD.WAV": (encoded(), None),
    # names
    "with space, comma.wav": (encoded(noise(seed=1)), None),
    "quote ' \" `.wav": (encoded(noise(seed=2)), None),
    "new\nline.wav": (encoded(noise(seed=3)), None),
    "new\nline, broken.wav": (b"", EMPTY),
    "còi báo động.wav": (encoded(noise(seed=4)), None),
    "🔥🚨.wav": (encoded(noise(seed=5)), None),
    "-rf.wav": (encoded(noise(seed=6)), None),
    "%s {0} $HOME.wav": (encoded(noise(seed=7)), None),
    "=1+1.wav": (encoded(noise(seed=8)), None),
    "x" * 251 + ".wav": (encoded(noise(seed=9)), None),
}
