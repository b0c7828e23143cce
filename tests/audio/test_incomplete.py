"""Missing sound is never called Safe: every reader knows how much sound it should deliver."""

import io
import itertools
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from helpers import run
from hostile_files import encoded, noise, spoilt, wav_header

from danger_safe.audio.containers import find_sections
from danger_safe.audio.decode import AUDIO_SUFFIXES, AudioError, read_channels, read_clip
from danger_safe.audio.pcm import distinct_channels, to_mono
from danger_safe.audio.sections import Source
from danger_safe.audio.stream import _read_format, _Stream, stream_wav

RATE = 16_000
KINDS = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"),
    ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("VOC", "PCM_16"),
    ("NIST", "PCM_16"),
]  # fmt: skip
ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def read_sound(path, content=None):
    """Read a file: (seconds, error message or "")."""
    if content is not None:
        path.write_bytes(content)
    samples, error_text = 0, ""
    try:
        for chunk in read_channels(path):
            samples += len(chunk)
    except AudioError as error:
        error_text = str(error)
    return samples / 32_000, error_text


def patched(content, at, data):
    return content[:at] + data + content[at + len(data) :]


@pytest.mark.parametrize(("container", "subtype"), KINDS)
def test_complete_truncated_and_concatenated_files(tmp_path, container, subtype):
    complete = encoded(noise(4, seed=1), container=container, subtype=subtype)
    other = encoded(noise(3, 2, seed=2), container=container, subtype=subtype)
    path = tmp_path / "sound"
    assert read_sound(path, complete) == (pytest.approx(4, abs=0.1), "")
    seconds, error_text = read_sound(path, complete[: int(len(complete) * 0.6)])
    assert seconds < 3.9 and error_text.startswith("breaks off at 0:0")
    if container not in ("VOC", "NIST"):
        for joined in (complete + other, complete + complete):
            seconds, error_text = read_sound(path, joined)
            assert error_text == "" and seconds == pytest.approx(8 if joined == complete + complete else 7, abs=0.3)


@pytest.mark.parametrize(("container", "subtype"), [kind for kind in KINDS if kind[0] in ("FLAC", "OGG", "MP3")])
def test_damaged_sections_are_reported(tmp_path, container, subtype):
    seconds, error_text = read_sound(
        tmp_path / "sound", spoilt(encoded(noise(8), container=container, subtype=subtype), 0.5, 3_000)
    )
    assert error_text and (seconds > 5 or container == "FLAC")


WAV = encoded(noise(4, rate=RATE))
LENGTHS = (0, 1, 0x7FFF_FFFF, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFDB, 32_000)


def test_headers_with_a_length_that_is_too_small(tmp_path):
    """Or with no length, as in streams and after a recorder has crashed."""
    path = tmp_path / "sound"
    for length, riff in itertools.product(LENGTHS, (0, 36, len(WAV) - 8, 0xFFFF_FFFF)):
        content = patched(patched(WAV, 40, struct.pack("<I", length)), 4, struct.pack("<I", riff))
        assert read_sound(path, content) == (pytest.approx(4, abs=0.01), ""), (length, riff)
        streamed = np.concatenate(list(stream_wav(io.BytesIO(content))))
        assert len(streamed) == pytest.approx(4 * 32_000, abs=200), (length, riff)
    aiff, au, caf, flac = (encoded(noise(4), container=kind) for kind in ("AIFF", "AU", "CAF", "FLAC"))
    sound = aiff.find(b"SSND")
    settings = int.from_bytes(flac[18:26], "big")
    for content in (
        patched(aiff, sound + 4, struct.pack(">I", 32_008)),
        patched(
            patched(aiff, sound + 4, struct.pack(">I", 32_008)), aiff.find(b"COMM") + 10, struct.pack(">I", 16_000)
        ),
        patched(au, 8, struct.pack(">I", 32_000)),
        patched(au, 8, b"\xff" * 4),
        patched(caf, caf.find(b"data") + 4, struct.pack(">q", 32_004)),
        patched(caf, caf.find(b"data") + 4, b"\xff" * 8),
        patched(flac, 18, (settings - 3 * RATE).to_bytes(8, "big")),
        patched(flac, 18, (settings - 4 * RATE).to_bytes(8, "big")),  # no length: written to a pipe
    ):
        assert read_sound(path, content) == (pytest.approx(4, abs=0.01), "")


def test_mp3_with_any_length_frame(tmp_path):
    """Also variable bit rate with a missing or wrong one: libsndfile's guess is not used."""
    loud_then_quiet = np.concatenate([noise(2, rate=44_100), 1e-4 * noise(20, rate=44_100)])
    content = encoded(loud_then_quiet, 44_100, "MP3", "MPEG_LAYER_III")
    tag = max(content.find(b"Xing"), content.find(b"Info"))
    frames = struct.unpack(">I", content[tag + 8 : tag + 12])[0]
    path = tmp_path / "sound.mp3"
    with_id3 = b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + content + b"TAG" + bytes(125)
    for changed in (
        content,
        patched(content, tag, b"none"),
        patched(content, tag + 8, struct.pack(">I", frames // 3)),
        with_id3,
    ):
        assert read_sound(path, changed) == (pytest.approx(22, abs=0.15), "")
    seconds, error_text = read_sound(path, patched(content, tag + 8, struct.pack(">I", 2 * frames)))
    assert seconds > 21 and "of 0:44" in error_text


def test_wav_files_above_4_gib(tmp_path):
    """Their length field has overflowed or is unknown. The file is sparse; only its sections' positions are tested."""
    frames = 2**31 + 4_000
    for length in (2 * frames % 2**32, 0xFFFF_FFFF, 0):
        with open(tmp_path / "long.wav", "wb") as file:
            file.write(wav_header(length, riff=(2 * frames + 36) % 2**32))
            file.truncate(44 + 2 * frames)
            file.seek(-2, io.SEEK_END)
            file.write(b"\1\1")
        with open(tmp_path / "long.wav", "rb") as file:
            sections = find_sections(Source(file))
        assert sum(section.end - section.start for section in sections) == 2 * frames
        assert all(not section.fault and struct.unpack("<I", section.header[40:44])[0] < 2**31 for section in sections)
    (tmp_path / "long.wav").unlink()


def test_a_stream_is_read_to_its_end_whatever_its_header_says():
    """Reading 4 GiB takes a minute, so only the use of the length field is tested."""
    for length in (0, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFDB):
        assert _read_format(_Stream(io.BytesIO(wav_header(length, riff=0xFFFF_FFFF))), is_first=True).length is None


class NoWaiting(io.RawIOBase):
    """A stream that sometimes returns nothing, as a non-blocking pipe does."""

    def __init__(self, content):
        self.content, self.turn = io.BytesIO(content), 0

    def read(self, size=-1):
        self.turn += 1
        return None if self.turn % 2 else self.content.read(min(size, 1_000))


def test_streams_that_are_slow_truncated_or_concatenated(monkeypatch):
    monkeypatch.setattr("danger_safe.audio.stream.time.sleep", lambda seconds: None)
    assert sum(map(len, stream_wav(NoWaiting(WAV)))) == 4 * 32_000
    other = encoded(noise(2, 2, rate=8_000), 8_000)
    assert sum(map(len, stream_wav(io.BytesIO(WAV + b"LIST\4\0\0\0abcd" + other)))) == pytest.approx(6 * 32_000, abs=99)
    with pytest.raises(AudioError, match=r"breaks off at 0:02\.0 of 0:04\.0"):
        list(stream_wav(io.BytesIO(WAV[: 44 + 64_000])))
    with pytest.raises(AudioError, match="has no samples"):
        list(stream_wav(io.BytesIO(WAV[:44])))
    assert len(np.concatenate(list(stream_wav(io.BytesIO(encoded(noise(1), subtype="FLOAT")))))) == 32_000


def test_metadata_after_the_sound_is_ignored(tmp_path):
    path = tmp_path / "sound.wav"
    short_noise = noise(1.00006)[:16_001]
    for content in (WAV, encoded(short_noise, subtype="PCM_U8"), encoded(short_noise, subtype="PCM_24")):
        for tail in (b"", b"\0", bytes(452), b"LIST\4\0\0\0INFO", b"TAG" + bytes(125),
        b"id3 \x0a\0\0\0ID3\3\0\0\0\0\0\0",
                     b"abcd\4\0\0\0efgh", b"\r\n"):  # fmt: skip
            seconds, error_text = read_sound(path, content + tail)
            assert error_text == "" and seconds == pytest.approx(round(seconds), abs=0.01), tail


def test_a_danger_on_one_channel_is_found():
    rng = np.random.default_rng(0)
    siren = np.sin(np.arange(32_000) / 5).astype(np.float32)
    hiss = 0.1 * rng.standard_normal((32_000, 2)).astype(np.float32)
    crossed = np.stack([siren, -siren], axis=1) + hiss * 0.7  # 20 dB below
    assert np.ptp(to_mono(crossed)) > 1.5
    assert len(distinct_channels(np.stack([siren, -siren], axis=1))) == 1
    assert len(distinct_channels(np.stack([siren, 0.5 * siren], axis=1))) == 1
    traffic = rng.standard_normal(32_000).astype(np.float32)
    for channels in ([traffic, 0.3 * siren], [traffic + 0.3 * siren, traffic - 0.3 * siren]):
        assert len(distinct_channels(np.stack(channels, axis=1))) == 2
    silent = np.stack([siren, 0 * siren], axis=1)
    assert np.array_equal(distinct_channels(silent)[0], siren) and len(distinct_channels(silent)) == 1
    assert len(distinct_channels(0 * silent)) == 1


def made(path, *arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments), path], check=True)
    return path


def made_kinds(folder, recording, kinds):
    """Encode a recording into several files by one process; ``kinds``: ffmpeg's flags by name."""
    *others, (last, flags) = kinds.items()
    made(folder / last, "-i", recording, *(part for name, more in others for part in (*more, folder / name)), *flags)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "sound.wav"
    soundfile.write(path, noise(6, rate=44_100), 44_100)
    return path


@ffmpeg
def test_sound_that_ffmpeg_drops_is_reported(tmp_path, recording):
    kinds = {
        "a.m4a": ("-movflags", "faststart"), "a.aac": (), "a.mka": ("-c:a", "aac"), "a.webm": ("-c:a", "libopus"),
        "a.wma": (), "a.flv": (), "f.mp4": ("-movflags", "frag_keyframe+empty_moov", "-frag_duration", "500000"),
    }  # fmt: skip
    others = {"alac.caf": ("-c:a", "alac", "-sample_fmt", "s32p"), "mp3.wav": ("-c:a", "libmp3lame")}
    made_kinds(tmp_path, recording, kinds | others)
    for name in kinds:
        content = (tmp_path / name).read_bytes()
        whole, seconds = (2 * content, 12) if name in ("a.m4a", "a.wma", "a.flv") else (content, 6)
        assert read_sound(tmp_path / f"whole{name}", whole) == (pytest.approx(seconds, abs=0.3), ""), name
        seconds, error_text = read_sound(tmp_path / f"cut{name}", content[: int(len(content) * 0.6)])
        assert seconds < 5 and error_text.startswith("breaks off at"), name
        if name != "a.wma":  # undetectable
            assert "breaks off" in read_sound(tmp_path / name, spoilt(content, 0.5, 4_000))[1], name
    lossless = (tmp_path / "alac.caf").read_bytes()
    assert read_sound(tmp_path / "two.caf", 2 * lossless) == (pytest.approx(12, abs=0.1), "")
    assert read_sound(tmp_path / "mp3.wav") == (pytest.approx(6, abs=0.1), "")


@ffmpeg
def test_lengths_of_parts_are_checked(tmp_path, recording):
    """In TTA and AVI: ffmpeg skips missing parts without a message."""
    kinds = {"a.tta": (), "pcm.avi": ("-c:a", "pcm_s16le"), "mp3.avi": ("-c:a", "mp3")}
    made_kinds(tmp_path, recording, kinds | {"a.thd": ("-c:a", "truehd", "-strict", "-2", "-f", "truehd")})
    complete = (tmp_path / "a.tta").read_bytes()
    for name in kinds:
        content = (tmp_path / name).read_bytes()
        half, more = len(content) // 2, len(content) * 2 // 3
        assert read_sound(tmp_path / name, 2 * content) == (pytest.approx(12, abs=0.2), ""), name
        assert read_sound(tmp_path / name, content[:half] + content[more:])[1], name
    assert "is damaged" in read_sound(tmp_path / "b.tta", patched(complete, len(complete) // 2, bytes(4_000)))[1]
    assert read_sound(tmp_path / "a.thd")[1].startswith("cannot be decoded")  # it has no length field


@ffmpeg
def test_audio_tracks_channels_and_times_of_videos(tmp_path, recording):
    black = ("-f", "lavfi", "-i", "color=size=32x32:rate=5:duration=9")
    late = made(tmp_path / "late.mkv", *black, "-itsoffset", 3, "-i", recording, "-c:a", "flac")
    samples = np.concatenate(list(read_channels(late)))
    assert len(samples) == pytest.approx(9 * 32_000, abs=6_000) and not samples[: 2 * 32_000].any()
    gap = made(tmp_path / "gap.mkv", "-i", recording, "-af", "aselect='not(between(t,1,3))'", "-c:a", "aac")
    assert read_sound(gap) == (pytest.approx(6, abs=0.1), "")
    soundfile.write(tmp_path / "quiet.wav", np.zeros(2 * RATE), RATE)
    for name in ("two.mka", "two.m4a"):
        two = made(tmp_path / name, "-i", tmp_path / "quiet.wav", "-i", recording, "-map", 0, "-map", 1, "-c:a", "aac")
        samples = np.concatenate(list(read_channels(two)))
        assert samples.shape[1] == 2 and len(samples) > 5.9 * 32_000 and samples[:, 1].std() > 0.03
    crossed = noise(3, rate=44_100) * np.array([[1, -1]])
    soundfile.write(tmp_path / "crossed.wav", crossed, 44_100)
    assert read_clip(made(tmp_path / "crossed.m4a", "-i", tmp_path / "crossed.wav")).std() > 0.03


@ffmpeg
def test_playlists_do_not_open_other_files(tmp_path, recording):
    shutil.copy(recording, tmp_path / "secret.wav")
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n"
    for name, text in (("list.m4a", hls), ("list.mkv", f"ffconcat version 1.0\nfile '{tmp_path / 'secret.wav'}'\n")):
        (tmp_path / name).write_text(text)
        seconds, error_text = read_sound(tmp_path / name)
        assert seconds == 0 and error_text.startswith("cannot be decoded"), name


def test_prediction_and_extraction_read_the_same_files(tmp_path):
    """Skipped files are reported, and incomplete files are not simply Safe."""
    for number, suffix in enumerate(AUDIO_SUFFIXES):
        (tmp_path / ("Danger", "Safe")[number % 2]).mkdir(exist_ok=True)
        (tmp_path / ("Danger", "Safe")[number % 2] / f"a{suffix}").write_bytes(encoded(noise(0.5, seed=number)))
    (tmp_path / "Safe" / "cut.wav").write_bytes(encoded(noise(5))[:5_000])
    (tmp_path / "Safe" / "._a.wav").write_bytes(b"\0\5\x16\7")
    (tmp_path / "notes.xyz").write_text("no sound")
    flags = ("--checkpoint", "mfcc", "--output", tmp_path / "t.csv")
    done = run("extractEmbeddingCnn14.py", "--dataset", tmp_path, *flags, status=3)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + len(AUDIO_SUFFIXES)
    assert "Safe/cut.wav breaks off at 0:00.2 of 0:05.0" in done.stderr
    assert "1 file skipped (not audio files)" in done.stderr and ".xyz" in done.stderr
