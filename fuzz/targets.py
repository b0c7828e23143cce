"""What fuzz.py tries: for each kind of file, small valid ones to begin with, how to spoil them, and what reads them.

A byte here and there finds little in a zip, whose checksums refuse it, and in a table, whose header it spoils. So
a target's input is a plan: its first byte says what kind of file it is, the rest is what that file is made of.
"""

import atexit
import contextlib
import csv
import io
import json
import random
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch

from danger_safe import detector as detectors
from danger_safe.audio import AudioError, read_blocks, read_header
from danger_safe.categories import read_categories, read_dangers, read_same
from danger_safe.clips import read_clips
from danger_safe.errors import UserError
from danger_safe.journal import Journal, Result
from danger_safe.recording import wav_pieces
from danger_safe.table import read_table
from danger_safe.table_sounds import checkpoint_of, find_sounds
from danger_safe.table_writing import side_file
from models.checkpoints import load_model, save_checkpoint
from models.compact import CompactNet
from models.models import Cnn14

HOSTILE = [
    "", "0", "-1", "1", "2", "nan", "inf", "-inf", "1e999", "1e-320", "99999999999999999999", "0x10", "1_000", "١", "true",
    "null", "[]", "{}", "[1, 2, ... 3]", '"', "'", "\0", "\x1a", "\ufeff", "é", "😀", "../x", "/x", "C:\\x", "a/b", "CON",
    "x" * 5_000, "[" * 2_000, "file", "label", "feat_0000", "Danger", "Safe",
]  # fmt: skip
_MEMORY = Path("/dev/shm")  # Linux: files in memory
_FOLDER = Path(tempfile.mkdtemp(prefix="danger-safe-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
Mutate = Callable[[bytes, int], bytes]


class Target:
    """One kind of file. ``check`` raises what should not be raised."""

    def seeds(self) -> Iterator[bytes]:
        """Inputs to begin with."""
        raise NotImplementedError

    def check(self, data: bytes) -> None:
        """Use a file; a refusal is no error."""
        try:
            self.use(data)
        except (UserError, AudioError) as refusal:
            if not str(refusal).strip():
                raise AssertionError("refused without a word") from refusal

    def use(self, data: bytes) -> None:
        raise NotImplementedError

    def mutate(self, data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
        """Another input; libFuzzer's own ``mutate`` changes bytes."""
        return mutate(data, longest)


class Audio(Target):
    """Sound files of every kind, as a file and as a stream."""

    def seeds(self) -> Iterator[bytes]:
        sound = 0.3 * np.sin(np.arange(600))
        for kind, subtype in (
            ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "MS_ADPCM"),
            ("WAVEX", "PCM_32"), ("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None),
            ("AIFF", "PCM_16"), ("AU", "ULAW"), ("W64", "DOUBLE"), ("CAF", "ALAC_16"), ("WAV", "GSM610"), ("NIST", "PCM_16"),
        ):  # fmt: skip
            data = io.BytesIO()
            channels = 1 if subtype in ("GSM610",) else 2
            soundfile.write(data, np.stack([sound] * channels, axis=1), 8_000, format=kind, subtype=subtype)
            yield data.getvalue()

    def use(self, data: bytes) -> None:
        path = _FOLDER / "sound.wav"
        path.write_bytes(data)
        try:
            read_header(path)
            _some(read_blocks(path, 30))
        finally:
            _some(wav_pieces(io.BytesIO(data)))


def _some(pieces: Iterator[np.ndarray]) -> None:
    """An hour of sound at most: a small file may be a day of silence, and rightly."""
    samples = 0
    for piece in pieces:
        assert piece.dtype == np.float32 and piece.ndim == 1, (piece.dtype, piece.shape)
        assert np.isfinite(piece).all(), "NaN or infinite"
        samples += len(piece)
        if samples > 3_600 * 32_000:
            return


class Text(Target):
    """Files of text: half the time a whole cell, line or number is put in the place of another."""

    separators = ",\n"

    def mutate(self, data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5 or len(data) < 2:
            return mutate(data, longest)
        kind, text = data[:1], data[1:].decode("utf-8", "surrogateescape")
        ends = [n for n, letter in enumerate(text) if letter in self.separators]
        starts = [0, *(n + 1 for n in ends)]
        which = rng.randrange(len(starts))
        end = ends[which] if which < len(ends) else len(text)
        cell = rng.choice([*HOSTILE, text[starts[which] : end] * 2])
        text = text[: starts[which]] + cell + text[end:]
        return (kind + text.encode("utf-8", "surrogateescape"))[:longest]


class Manifest(Text):
    """The tables of a folder of sounds, and the mappings."""

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
            path = _FOLDER / "mapping.toml"
            path.write_bytes(content)
            if kind == b"\4":
                read_same(path)
                return
            read_categories(path, {"dog", "siren", "rain"})
            read_dangers([path], ["dog", "siren", "rain"])
            return
        name = {b"\1": "meta/esc50.csv", b"\2": "clips.csv"}.get(kind, "manifest.csv")
        folder = _FOLDER / Path(name).stem
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
    """An embedding table (first byte 0) or the .json beside a good one (1)."""

    separators = ',\n:"'
    good = b"file,label,category,fold,source,seen,feat_0000,feat_0001\na.wav,1,dog,1,a,False,0.5,1\nb.wav,0,rain,2,b,True,2,3\n"

    def seeds(self) -> Iterator[bytes]:
        yield b"\0" + self.good
        yield b"\0" + self.good.replace(b"0.5,1", b'"[0.1 0.2 ... 0.3]",nan')
        yield b'\1{"checkpoint": {"name": "compact", "sha256": "ab"}, "made_of": {"dataset": "d", "checkpoint": "compact"}}'

    def use(self, data: bytes) -> None:
        path = _FOLDER / "table.csv"
        as_table = data[:1] != b"\1"
        path.write_bytes(data[1:] if as_table else self.good)
        side_file(path, ".json").write_bytes(b"{}" if as_table else data[1:])
        table = read_table(path)
        assert table.features.dtype == np.float32 and np.isfinite(table.features).all()
        assert set(table.labels.tolist()) == {0, 1}
        sorted(set(table.clips["category"])), sorted(set(table.clips["source"]))  # as the trainings do
        table.checkpoint["name"], table.checkpoint["sha256"][:12]
        for question in (find_sounds, checkpoint_of):
            try:
                question(table)
            except UserError:
                continue


class Checkpoint(Target):
    """A .pth of three kinds: any bytes (0), a valid zip whose pickle is spoilt (1), valid parts in wrong places (2)."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._members: dict[str, bytes] = {}
        path = _FOLDER / "seed.pth"
        model = CompactNet(2, 1)
        save_checkpoint(path, model, categories=["a", "b"], clips=["x.wav"], licence="", training={"seed": 1})
        self._content = torch.load(path, weights_only=True)
        with zipfile.ZipFile(path) as zipped:
            self._members = {name.split("/", 1)[1]: zipped.read(name) for name in zipped.namelist()}
        self._official = {"model": Cnn14(classes=3, width=1).state_dict()}

    def seeds(self) -> Iterator[bytes]:
        old = io.BytesIO()
        torch.save({"model": {"fc_audioset.weight": torch.zeros(2, 32)}}, old, _use_new_zipfile_serialization=False)
        yield b"\0" + old.getvalue()
        yield b"\1" + self._members["data.pkl"]
        for number in range(20):
            yield b"\2" + random.Random(number).randbytes(12)

    def use(self, data: bytes) -> None:
        path = _FOLDER / "fuzzed.pth"
        if data[:1] == b"\1":
            with zipfile.ZipFile(path, "w") as zipped:
                for name, content in self._members.items():
                    zipped.writestr(f"seed/{name}", data[1:] if name == "data.pkl" else content)
        elif data[:1] == b"\2":
            torch.save(self._spoilt(data[1:]), path)
        else:
            path.write_bytes(data[1:])
        model, info = load_model(str(path))
        with torch.inference_mode():
            embedding = model(torch.zeros(1, 10_000))["embedding"]
        assert embedding.shape == (1, info.dimensions), embedding.shape
        json.dumps([info.settings, sorted(info.clips), list(info.categories), info.licence])  # as the cache keeps them

    def _spoilt(self, plan: bytes) -> object:
        """The content of a checkpoint with some entries replaced, as the plan's bytes say."""
        pick = iter(plan + bytes(2))
        official = next(pick, 0) % 4 == 0
        content = dict(self._official if official else self._content)
        content["model"] = dict(content["model"])
        if not official:
            content["settings"] = dict(content["settings"])
        while (which := next(pick, None)) is not None:
            places = [p for p in (content, content.get("settings"), content.get("model")) if isinstance(p, dict) and p]
            if not places:
                return {}
            place = places[which % len(places)]
            names = sorted(map(str, place))
            name, value = names[next(pick, 0) % len(names)], VALUES[next(pick, 0) % len(VALUES)]
            if value is REMOVED:
                place.pop(name, None)
            elif isinstance(place.get(name), torch.Tensor) and callable(value):
                place[name] = value(place[name]) if 0 < place[name].numel() * place[name].ndim < 10**6 else place[name]
            elif not callable(value):
                place[name] = value
        return content


REMOVED = object()
VALUES = [
    REMOVED, None, 0, 1, -1, 2, 3, 1000, 10**6, 10**9, 2**63, 10**30, 0.5, -1.0, 1e300, float("nan"), float("inf"), "", "x",
    "cnn14", "compact", True, [], [1], [[]], ["a", "b"], {}, {"a": 1}, (), (0.1, 0.2), torch.zeros(()), torch.zeros(0),
    torch.zeros(1).expand(1, 64_000), torch.zeros(1).expand(64_000, 1), torch.zeros(1).expand(10**9, 10**9),
    lambda t: t.to(torch.float64), lambda t: t.to(torch.int8), lambda t: t.to(torch.complex64), lambda t: t.bool(),
    lambda t: t[:0], lambda t: t[None], lambda t: t.reshape(-1), lambda t: t.to_sparse(), lambda t: torch.full_like(t, 7),
    lambda t: t.to(torch.bfloat16), lambda t: t.to(torch.float32), lambda t: torch.cat([t.reshape(-1)] * 2),
]  # fmt: skip


class Detector(Text):
    """A detector.npz: any bytes (0), valid arrays with spoilt text (1), a valid text with spoilt arrays (2)."""

    separators = ',:[]{} "'

    def __init__(self) -> None:
        self._ready = detectors.ReadyDetector(
            name="ready", threshold=0.2, checkpoint_sha256="ab", about={"threshold": 0.2}, danger=(True, False, True),
            weights=np.ones((3, 4)), bias=np.ones(3), slope=1.0, offset=0.0, mean=np.zeros(4), scale=np.ones(4),
            room=np.zeros(4), room_bias=0.0, categories=("a", "b", "c"), centres=np.eye(3, 4),
        )  # fmt: skip
        self._path = _FOLDER / "detector.npz"
        self._ready.save(self._path)
        with np.load(self._path) as file:
            self._text = str(file["text"])
            self._arrays = {name: file[name] for name in detectors.ARRAYS}

    def seeds(self) -> Iterator[bytes]:
        self._ready.save(self._path)
        yield b"\0" + self._path.read_bytes()
        yield b"\1" + self._text.encode()
        for number in range(10):
            yield b"\2" + random.Random(number).randbytes(8)

    def use(self, data: bytes) -> None:
        text, arrays = self._text, dict(self._arrays)
        if data[:1] == b"\1":
            text = data[1:].decode("utf-8", "replace").replace("\0", "")
        elif data[:1] == b"\2":
            for which, how in zip(data[1::2], data[2::2], strict=False):
                name = detectors.ARRAYS[which % len(detectors.ARRAYS)]
                arrays[name] = _spoilt_array(arrays[name], how)
        if data[:1] in (b"\1", b"\2"):
            np.savez(self._path, text=np.array(text), **arrays)
        else:
            self._path.write_bytes(data[1:])
        detector = detectors.load_ready(self._path)
        embeddings = np.ones((2, detector.weights.shape[1]), np.float32)
        assert detector.scores(embeddings).shape == (2,)
        for name, similarity in detector.heard(embeddings[0]):
            f"{name} {similarity:.2f}"
        f"{detector.name}, threshold {detector.threshold:.2f} {detector.checkpoint_sha256[:12]}"
        detector.about.get("operating_points")


def _spoilt_array(array: np.ndarray, how: int) -> np.ndarray:
    ways = [
        lambda a: a[:0], lambda a: a[None], lambda a: a.ravel(), lambda a: a[:-1], lambda a: a * np.nan, lambda a: a * np.inf,
        lambda a: a.astype(str), lambda a: a.astype(np.complex64), lambda a: a.astype(np.float64), lambda a: a > 0,
        lambda a: np.float32(1), lambda a: a * 0, lambda a: a.T, lambda a: np.concatenate([a, a]), lambda a: a.astype(np.int64),
    ]  # fmt: skip
    return np.asarray(ways[how % len(ways)](array)) if array.ndim and array.size and array.dtype.kind == "f" else array


class JournalFile(Text):
    """A .journal: any bytes (0), or a database with spoilt notes and rows (1: a line a statement's value)."""

    separators = "\n,:"

    def seeds(self) -> Iterator[bytes]:
        path = _FOLDER / "seed.journal"
        path.unlink(missing_ok=True)
        with Journal(path) as journal:
            journal.begin({"checkpoint": "ab"})
            journal.add([Result("a.wav", "1 2", 5.0, np.zeros(4, np.float32)), Result("b", "3", 0.0, None, "bad")])
        yield b"\0" + path.read_bytes()
        yield b'\1{"checkpoint": "ab", "format": 1}\na.wav,1 2,5.0,0000,\nb.wav,3,0.0,,bad\n'
        yield b"\2file TEXT, signature TEXT\n"

    def use(self, data: bytes) -> None:
        path = _FOLDER / "fuzzed.journal"
        for ending in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        if data[:1] in (b"\1", b"\2"):
            self._write(path, data[:1], data[1:].decode("utf-8", "replace"))
        else:
            path.write_bytes(data[1:])
        with Journal(path) as journal:
            known = journal.results() if journal.made_with.get("checkpoint") == "ab" else {}
            journal.note("table")
            journal.begin({"checkpoint": "ab"})
            for result in known.values():
                f"{result.file} {result.reason}", float(result.seconds)
            whole = [file for file, result in known.items() if not result.reason]
            for embedding in journal.embeddings(whole):
                assert embedding.dtype == np.float32 and embedding.ndim == 1
            journal.keep_only(["a.wav"])
            journal.add([Result("c.wav", "1 2", 5.0, np.zeros(4, np.float32))])
            assert journal.results()["c.wav"].signature == "1 2"

    def _write(self, path: Path, kind: bytes, text: str) -> None:
        database = sqlite3.connect(path, isolation_level=None)
        try:
            if kind == b"\2":
                database.execute(f"CREATE TABLE clips ({text.splitlines()[0] if text.strip() else 'a'})")
                return
            database.execute("CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT)")
            database.execute(
                "CREATE TABLE clips (file TEXT PRIMARY KEY, signature TEXT, seconds REAL, embedding BLOB, reason TEXT)"
            )
            made_with, *rows = text.split("\n")
            database.execute("INSERT INTO notes VALUES ('made with', ?)", (made_with,))
            for row in csv.reader(line.replace("\0", "") for line in rows):
                cells = [*row, *[None] * 5][:5]
                cells[3] = cells[3].encode("utf-8", "replace") if cells[3] else None
                database.execute("INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?)", cells)
        except (sqlite3.Error, csv.Error, UnicodeError, ValueError):
            return  # no such database can be
        finally:
            database.close()


_KINDS = {
    "audio": Audio, "manifest": Manifest, "table": Table, "checkpoint": Checkpoint, "detector": Detector, "journal": JournalFile,
}  # fmt: skip


class _Targets(dict):
    """Made when asked for: each in a process of its own."""

    def __missing__(self, name: str) -> Target:
        self[name] = _KINDS[name]()
        return self[name]


TARGETS = _Targets()
