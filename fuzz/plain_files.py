"""Fuzz targets whose input is the file itself: sounds, manifests and mappings, embedding tables."""

import atexit
import contextlib
import io
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from danger_safe.audio.decode import AudioError, read_blocks, read_header
from danger_safe.audio.stream import stream_wav
from danger_safe.core.errors import UserError
from danger_safe.data.categories import read_categories, read_dangers, read_same
from danger_safe.data.clips import read_clips
from danger_safe.embeddings.table import read_table
from danger_safe.embeddings.table_sounds import find_sounds, table_checkpoint
from danger_safe.embeddings.table_writer import side_file

HOSTILE = [
    "", "0", "-1", "1", "2", "nan", "inf", "-inf", "1e999", "1e-320", "99999999999999999999", "0x10", "1_000", "١",
    "true",
    "null", "[]", "{}", "[1, 2, ... 3]", '"', "'", "\0", "\x1a", "\ufeff", "é", "😀", "../x", "/x", "C:\\x", "a/b",
    "CON",
    "x" * 5_000, "[" * 2_000, "file", "label", "feat_0000", "Danger", "Safe",
]  # fmt: skip
_MEMORY = Path("/dev/shm")  # Linux: files in memory
FOLDER = Path(tempfile.mkdtemp(prefix="danger-safe-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
Mutate = Callable[[bytes, int], bytes]


class Target:
    """One kind of file."""

    def seeds(self) -> Iterator[bytes]:
        """Yield the initial inputs."""
        raise NotImplementedError

    def check(self, data: bytes) -> None:
        """Use a file. UserError and AudioError are accepted; any other exception is a finding."""
        try:
            self.use(data)
        except (UserError, AudioError) as error:
            if not str(error).strip():
                raise AssertionError("refused without a message") from error

    def use(self, data: bytes) -> None:
        """Read a file as the scripts do."""
        raise NotImplementedError

    def mutate(self, data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
        """Return a mutated input.

        Args:
            data: the input.
            max_size: in bytes, of the result.
            seed: of the random choices.
            mutate: libFuzzer's own mutation, which changes bytes.
        """
        return mutate(data, max_size)


class Audio(Target):
    """Sound files of every format, read as a file and as a stream."""

    def seeds(self) -> Iterator[bytes]:
        sound = 0.3 * np.sin(np.arange(600))
        for kind, subtype in (
            ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "MS_ADPCM"),
            ("WAVEX", "PCM_32"), ("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
            ("MP3", None),
            ("AIFF", "PCM_16"), ("AU", "ULAW"), ("W64", "DOUBLE"), ("CAF", "ALAC_16"), ("WAV", "GSM610"),
            ("NIST", "PCM_16"),
        ):  # fmt: skip
            data = io.BytesIO()
            channels = 1 if subtype in ("GSM610",) else 2
            soundfile.write(data, np.stack([sound] * channels, axis=1), 8_000, format=kind, subtype=subtype)
            yield data.getvalue()

    def use(self, data: bytes) -> None:
        path = FOLDER / "sound.wav"
        path.write_bytes(data)
        try:
            read_header(path)
            _read_up_to_an_hour(read_blocks(path, 30))
        finally:
            _read_up_to_an_hour(stream_wav(io.BytesIO(data)))


def _read_up_to_an_hour(chunks: Iterator[np.ndarray]) -> None:
    """Read at most an hour of sound: a small file may validly be a day of silence."""
    samples = 0
    for chunk in chunks:
        assert chunk.dtype == np.float32 and chunk.ndim in (1, 2), (chunk.dtype, chunk.shape)
        assert np.isfinite(chunk).all(), "NaN or infinite"
        samples += len(chunk)
        if samples > 3_600 * 32_000:
            return


class Text(Target):
    """Text files: half of the mutations replace a whole cell, line or number."""

    separators = ",\n"

    def mutate(self, data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5 or len(data) < 2:
            return mutate(data, max_size)
        kind, text = data[:1], data[1:].decode("utf-8", "surrogateescape")
        ends = [n for n, letter in enumerate(text) if letter in self.separators]
        starts = [0, *(n + 1 for n in ends)]
        which = rng.randrange(len(starts))
        end = ends[which] if which < len(ends) else len(text)
        cell = rng.choice([*HOSTILE, text[starts[which] : end] * 2])
        text = text[: starts[which]] + cell + text[end:]
        return (kind + text.encode("utf-8", "surrogateescape"))[:max_size]


class Manifest(Text):
    """Manifests, ESC-50's table, clips.csv and the mappings; the first byte says which."""

    separators = ',\n=[]"'

    def seeds(self) -> Iterator[bytes]:
        yield b"\0file,label,category,fold,source\nDanger/a.wav,1,dog,1,a\nSafe/b.wav,0,rain,2,b\n"
        yield b"\1filename,fold,target,category,esc10,src_file,take\n1-1-A-0.wav,1,0,dog,True,1,A\n"
        yield b"\2file,source\nDanger/a.wav,one\nSafe/b.wav,two\n"
        yield b'\3Danger = ["dog", "siren"]\nSafe = ["rain"]\n'
        yield b'\4dog_bark = "dog"\nwaves = "sea_waves"\n'

    def use(self, data: bytes) -> None:
        kind, content = data[:1], data[1:]
        if kind in (b"\3", b"\4"):
            path = FOLDER / "mapping.toml"
            path.write_bytes(content)
            if kind == b"\4":
                read_same(path)
                return
            read_categories(path, {"dog", "siren", "rain"})
            read_dangers([path], ["dog", "siren", "rain"])
            return
        name = {b"\1": "meta/esc50.csv", b"\2": "clips.csv"}.get(kind, "manifest.csv")
        folder = FOLDER / Path(name).stem
        for file in (name, "Danger/a.wav", "Safe/b.wav"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "Danger" / "a.wav").touch()
        (folder / "Safe" / "b.wav").touch()
        (folder / name).write_bytes(content)
        for clip in read_clips(folder):
            assert Path(clip.path).resolve().is_relative_to(folder.resolve()), clip.path
            with contextlib.suppress(AudioError):
                read_header(clip.path)


class Table(Text):
    """An embedding table (first byte 0), or the .json next to a valid one (1)."""

    separators = ',\n:"'
    valid_table = (
        b"file,label,category,fold,source,seen,feat_0000,feat_0001\n"
        b"a.wav,1,dog,1,a,False,0.5,1\nb.wav,0,rain,2,b,True,2,3\n"
    )
    valid_json = (
        b'{"checkpoint": {"name": "compact", "sha256": "ab"}, "settings": {"dimensions": 2}, '
        b'"made_of": {"dataset": "d", "checkpoint": "compact"}}'
    )

    def seeds(self) -> Iterator[bytes]:
        yield b"\0" + self.valid_table
        yield b"\0" + self.valid_table.replace(b"0.5,1", b'"[0.1 0.2 ... 0.3]",nan')
        yield b"\1" + self.valid_json

    def use(self, data: bytes) -> None:
        path = FOLDER / "table.csv"
        is_table = data[:1] != b"\1"
        path.write_bytes(data[1:] if is_table else self.valid_table)
        side_file(path, ".json").write_bytes(self.valid_json if is_table else data[1:])
        table = read_table(path)
        assert table.features.dtype == np.float32 and np.isfinite(table.features).all()
        assert set(table.labels.tolist()) == {0, 1}
        sorted(set(table.clips["category"])), sorted(set(table.clips["source"]))  # as the trainings do
        table.checkpoint["name"], table.checkpoint["sha256"][:12]
        for reader in (find_sounds, table_checkpoint):
            try:
                reader(table)
            except UserError:
                continue
