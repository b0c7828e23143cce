"""PyTorch's files read without PyTorch, and without running anything that they name.

    content = read_torch_file(Path("models/compact.pth"))
    content["model"]["bn0.weight"]      # a NumPy array

A file holds a pickle, which is a small program that builds objects, and the numbers of its arrays. The few instructions
that PyTorch writes for dicts, lists, text, numbers and tensors are carried out here one by one; a name of a function is
compared with a short list and never looked up. Both layouts are read: the zip of today, and that of until 2020 (the
official Cnn14 is one).
"""

import math
import pickletools
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from danger_safe.core.errors import UserError

STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "|b1",
}  # fmt: skip
# The official Cnn14 also holds arrays of NumPy, which nobody needs.
IGNORED_NAMES = {
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype",
    "_codecs.encode",
}  # fmt: skip
TOO_MUCH = "is damaged: it claims more than it has room for"


class _Refused(Exception):
    """The file asks for something that no checkpoint needs."""


class _Ignored:
    """Stands for what is not needed."""


class _Mark:
    """Where the elements of a tuple or list begin."""


@dataclass(frozen=True)
class _Name:
    """A function or class that the file names."""

    full: str


@dataclass(frozen=True)
class _Storage:
    """The numbers of one or several tensors, not read yet."""

    key: str
    dtype: np.dtype
    numbers: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor, not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers

    def view(self, numbers: np.ndarray) -> np.ndarray:
        """The tensor within the numbers of its storage."""
        strides = tuple(stride * numbers.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides)


def read_torch_file(path: Path) -> object:
    """What ``torch.save`` wrote, with arrays for tensors: in a dict, and in the dicts in it.

    Raises UserError for a file that is none, is damaged, or asks for anything but data.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        if tarfile.is_tarfile(path):
            raise UserError(f"{path} is a tar archive, and no checkpoint")
        return _read_old(path)
    except _Refused as error:
        raise UserError(f"{path} is not a checkpoint, or holds code and was not loaded: {error}") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is not a checkpoint, or is damaged") from error


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > path.stat().st_size:
            raise UserError(f"{path} {TOO_MUCH}")
        folder = next(m.filename for m in members if m.filename.endswith("/data.pkl")).removesuffix("data.pkl")
        with archive.open(folder + "data.pkl") as file:
            content = _unpickle(file)

        def numbers(storage: _Storage) -> np.ndarray:
            content = bytearray(archive.read(f"{folder}data/{storage.key}"))  # not bytes: PyTorch wants to write
            return np.frombuffer(content, storage.dtype)

        return _with_arrays(path, content, numbers)


def _read_old(path: Path) -> object:
    """Magic number, version, system, content, names of the storages; then each storage: its length and its numbers."""
    with open(path, "rb") as file:
        for _ in range(3):
            _unpickle(file)
        storages: dict[str, _Storage] = {}
        content = _unpickle(file, storages)
        keys = _unpickle(file)
        if sum(storage.numbers * storage.dtype.itemsize for storage in storages.values()) > path.stat().st_size:
            raise UserError(f"{path} {TOO_MUCH}")
        places = {}
        for key in keys:
            length = int.from_bytes(file.read(8), "little")
            places[key] = file.tell()
            if key not in storages or length != storages[key].numbers:
                raise ValueError("lengths do not fit")
            file.seek(length * storages[key].dtype.itemsize, 1)

        def numbers(storage: _Storage) -> np.ndarray:
            file.seek(places[storage.key])
            return np.fromfile(file, storage.dtype, storage.numbers)

        return _with_arrays(path, content, numbers)


def _with_arrays(path: Path, content: object, numbers_of: Callable[[_Storage], np.ndarray]) -> object:
    """The content with arrays in place of its tensors."""

    def array(value: object) -> object:
        if not isinstance(value, _Tensor):
            return value
        numbers = numbers_of(value.storage)
        sizes = (*value.shape, value.offset, *value.strides)
        if not all(isinstance(size, int) and size >= 0 for size in sizes) or len(value.shape) != len(value.strides):
            raise ValueError("no shape")
        last = value.offset + sum((size - 1) * stride for size, stride in zip(value.shape, value.strides, strict=True))
        # A number that is said to be repeated would be a small file's way to ask for terabytes.
        if math.prod(value.shape) > len(numbers) or (math.prod(value.shape) and last >= len(numbers)):
            raise UserError(f"{path} is damaged: it claims more numbers than it has room for")
        return value.view(numbers)

    if not isinstance(content, dict):
        return content
    return {
        key: {inner: array(v) for inner, v in value.items()} if isinstance(value, dict) else array(value)
        for key, value in content.items()
    }


def _unpickle(file: IO[bytes], storages: dict[str, _Storage] | None = None) -> Any:
    """The object that the next pickle of a file describes; ``storages`` learns what its tensors need."""
    machine = _Machine({} if storages is None else storages)
    for opcode, argument, _ in pickletools.genops(file):
        machine.do(opcode.name, argument)
    return machine.stack.pop()


_Filled = TypeVar("_Filled", dict, list)


class _Machine:
    """Carries out the instructions of a pickle that build data. Raises _Refused for any other."""

    def __init__(self, storages: dict[str, _Storage]):
        self.stack: list = []
        self._memo: dict[int, object] = {}
        self._storages = storages

    def do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _PUSHED:
            stack.append(argument)
        elif name in ("PROTO", "FRAME", "STOP"):
            pass
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self._top(dict).update(zip(items[::2], items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else [stack.pop()]
            self._top(list).extend(items)
        elif name == "GLOBAL":
            stack.append(_Name(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            module, attribute = stack.pop(-2), stack.pop()
            stack.append(_Name(f"{module}.{attribute}"))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_build(function, arguments))
        elif name == "BUILD":  # the attributes of an ordered dict or an ignored object: not needed
            stack.pop()
            if not isinstance(stack[-1], dict | _Ignored):
                raise _Refused("it changes what it builds")
        else:
            raise _Refused(f"{name} is among its instructions")

    def _top(self, kind: type[_Filled]) -> _Filled:
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise _Refused(f"it fills what is no {kind.__name__}")
        return top

    def _since_mark(self) -> list:
        items = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _storage(self, identity: tuple) -> _Storage:
        kind, storage, key, _, numbers, *_ = identity
        name = storage.full if isinstance(storage, _Name) else ""
        if kind != "storage" or not name.startswith("torch.") or name[6:] not in STORAGES:
            raise _Refused(f"it holds {name or kind}")
        if not isinstance(numbers, int) or numbers < 0:
            raise ValueError("no length")
        return self._storages.setdefault(str(key), _Storage(str(key), np.dtype(STORAGES[name[6:]]), numbers))


_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": _Mark,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES",
    "SHORT_BINBYTES",
    "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


def _build(function: object, arguments: tuple) -> object:
    """What a named function would make of its arguments, for those that checkpoints name."""
    name = function.full if isinstance(function, _Name) else repr(function)
    if name == "collections.OrderedDict":
        return dict(*arguments)
    if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        storage, offset, shape, strides, *_ = arguments
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without numbers")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))
    if name == "torch._utils._rebuild_parameter" and isinstance(arguments[0], _Tensor):
        return arguments[0]
    if name in IGNORED_NAMES:
        return _Ignored()
    raise _Refused(f"it names {name}")
