"""The fuzz targets: for each kind of file, small valid seeds, mutations, and the code that reads it.

Mutating single bytes of a zip file only finds checksum errors. So the input of a target is often a recipe: the first
byte selects the kind of file, and the rest says how to build it.
"""

import csv
import io
import json
import random
import sqlite3
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from plain_files import FOLDER, Audio, Manifest, Table, Target, Text

from danger_safe.detection import detector as detectors
from danger_safe.embeddings.journal import Journal, Result
from models.checkpoints import load_model, save_checkpoint
from models.compact import CompactNet
from models.head import Head
from models.models import Cnn14


class Checkpoint(Target):
    """A .pth file: any bytes (first byte 0), a zip with any pickle (1), or valid content with replaced entries (2)."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._members: dict[str, bytes] = {}
        path = FOLDER / "seed.pth"
        model = CompactNet(2, 1)
        save_checkpoint(path, model, categories=["a", "b"], fingerprints=["00" * 8], licence="", training={"seed": 1})
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
        path = FOLDER / "fuzzed.pth"
        if data[:1] == b"\1":
            with zipfile.ZipFile(path, "w") as zipped:
                for name, content in self._members.items():
                    zipped.writestr(f"seed/{name}", data[1:] if name == "data.pkl" else content)
        elif data[:1] == b"\2":
            torch.save(self._replace_entries(data[1:]), path)
        else:
            path.write_bytes(data[1:])
        model, info = load_model(str(path))
        with torch.inference_mode():
            embedding = model(torch.zeros(1, 10_000))["embedding"]
        assert embedding.shape == (1, info.dimensions), embedding.shape
        json.dumps([info.settings, sorted(info.fingerprints), list(info.categories), info.licence])  # for the cache

    def _replace_entries(self, recipe: bytes) -> object:
        """Return the content of a checkpoint with entries replaced as ``recipe`` says."""
        pick = iter(recipe + bytes(2))
        official = next(pick, 0) % 4 == 0
        content = dict(self._official if official else self._content)
        content["model"] = dict(content["model"])
        if not official:
            content["settings"] = dict(content["settings"])
        while (which := next(pick, None)) is not None:
            dicts = [d for d in (content, content.get("settings"), content.get("model")) if isinstance(d, dict) and d]
            if not dicts:
                return {}
            entries = dicts[which % len(dicts)]
            names = sorted(map(str, entries))
            name, value = names[next(pick, 0) % len(names)], VALUES[next(pick, 0) % len(VALUES)]
            if value is REMOVED:
                entries.pop(name, None)
            elif isinstance(tensor := entries.get(name), torch.Tensor) and callable(value):
                entries[name] = value(tensor) if 0 < tensor.numel() * tensor.ndim < 10**6 else tensor
            elif not callable(value):
                entries[name] = value
        return content


REMOVED = object()
VALUES = [
    REMOVED, None, 0, 1, -1, 2, 3, 1000, 10**6, 10**9, 2**63, 10**30, 0.5, -1.0, 1e300, float("nan"), float("inf"), "",
    "x",
    "cnn14", "compact", True, [], [1], [[]], ["a", "b"], {}, {"a": 1}, (), (0.1, 0.2), torch.zeros(()), torch.zeros(0),
    torch.zeros(1).expand(1, 64_000), torch.zeros(1).expand(64_000, 1), torch.zeros(1).expand(10**9, 10**9),
    lambda t: t.to(torch.float64), lambda t: t.to(torch.int8), lambda t: t.to(torch.complex64), lambda t: t.bool(),
    lambda t: t[:0], lambda t: t[None], lambda t: t.reshape(-1), lambda t: t.to_sparse(),
    lambda t: torch.full_like(t, 7),
    lambda t: t.to(torch.bfloat16), lambda t: t.to(torch.float32), lambda t: torch.cat([t.reshape(-1)] * 2),
]  # fmt: skip


class Detector(Text):
    """A detector.npz: any bytes (first byte 0), arrays with any text (1), or text with changed arrays (2)."""

    separators = ',:[]{} "'

    def __init__(self) -> None:
        points = {name: {"threshold": 0.2} for name in detectors.SENSITIVITIES}
        self._builtin = detectors.BuiltinDetector(
            name="built-in", threshold=0.2, checkpoint_sha256="ab", about={"sensitivities": points},
            tag_groups=((0, 1),),
            mean=np.zeros(5), scale=np.ones(5), weights=np.ones(5), bias=0.0, slope=1.0, offset=0.0,
            categories=("a", "b", "c"), category_weights=np.eye(3, 4), category_bias=np.zeros(3), centres=np.eye(3, 4),
            min_similarity=-1.0,
        )  # fmt: skip
        self._path = FOLDER / "detector.npz"
        self._builtin.save(self._path)
        with np.load(self._path) as file:
            self._text = str(file["text"])
            self._arrays = {name: file[name] for name in detectors.ARRAYS}

    def seeds(self) -> Iterator[bytes]:
        self._builtin.save(self._path)
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
                arrays[name] = _change_array(arrays[name], how)
        if data[:1] in (b"\1", b"\2"):
            np.savez(self._path, text=np.array(text), **arrays)
        else:
            self._path.write_bytes(data[1:])
        head = Head(((np.zeros((527, 4), np.float32), np.zeros(527, np.float32)),))
        detector = replace(detectors.load_builtin(self._path), head=head)
        embeddings = np.ones((2, 4), np.float32)
        assert detector.scores(embeddings).shape == (2,)
        for name, similarity in detector.tags(embeddings[0]):
            f"{name} {similarity:.2f}"
        f"{detector.name}, threshold {detector.threshold:.2f} {detector.checkpoint_sha256[:12]}"
        detector.about.get("operating_points")


def _change_array(array: np.ndarray, how: int) -> np.ndarray:
    """Return ``array`` with another shape, type or content."""
    changes = [
        lambda a: a[:0], lambda a: a[None], lambda a: a.ravel(), lambda a: a[:-1], lambda a: a * np.nan,
        lambda a: a * np.inf,
        lambda a: a.astype(str), lambda a: a.astype(np.complex64), lambda a: a.astype(np.float64), lambda a: a > 0,
        lambda a: np.float32(1), lambda a: a * 0, lambda a: a.T, lambda a: np.concatenate([a, a]),
        lambda a: a.astype(np.int64),
    ]  # fmt: skip
    usable = 0 < array.ndim < 8 and 0 < array.size < 10_000 and array.dtype.kind == "f"
    return np.asarray(changes[how % len(changes)](array)) if usable else array


class JournalFile(Text):
    """A .journal: any bytes (first byte 0), a database with any notes and rows (1), or any columns (2)."""

    separators = "\n,:"

    def seeds(self) -> Iterator[bytes]:
        path = FOLDER / "seed.journal"
        path.unlink(missing_ok=True)
        with Journal(path) as journal:
            journal.begin({"checkpoint": "ab"})
            journal.add([Result("a.wav", "1 2", 5.0, np.zeros(4, np.float32)), Result("b", "3", 0.0, None, "bad")])
        yield b"\0" + path.read_bytes()
        yield b'\1{"checkpoint": "ab", "format": 1}\na.wav,1 2,5.0,0000,\nb.wav,3,0.0,,bad\n'
        yield b"\2file TEXT, signature TEXT\n"

    def use(self, data: bytes) -> None:
        path = FOLDER / "fuzzed.journal"
        for ending in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        if data[:1] in (b"\1", b"\2"):
            self._write(path, data[:1], data[1:].decode("utf-8", "replace"))
        else:
            path.write_bytes(data[1:])
        with Journal(path) as journal:
            results = journal.results() if journal.made_with.get("checkpoint") == "ab" else {}
            journal.note("table")
            journal.begin({"checkpoint": "ab"})
            for result in results.values():
                f"{result.file} {result.reason}", float(result.seconds)
            embedded = [file for file, result in results.items() if not result.reason]
            for embedding in journal.embeddings(embedded, 4):
                assert embedding.dtype == np.float32 and embedding.shape == (4,)
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
            return  # such a database cannot exist
        finally:
            database.close()


_KINDS = {
    "audio": Audio, "manifest": Manifest, "table": Table, "checkpoint": Checkpoint, "detector": Detector,
    "journal": JournalFile,
}  # fmt: skip


class _Targets(dict):
    """Makes each target when it is first used."""

    def __missing__(self, name: str) -> Target:
        self[name] = _KINDS[name]()
        return self[name]


TARGETS = _Targets()
