"""A safe reader for the files of ``torch.save``: it does not import PyTorch, and never runs code from a file.

    content = read_torch_file(Path("models/compact.pth"))
    content["model"]["bn0.weight"]      # a NumPy array

A file contains a pickle, which is a program that builds objects, and the data of the tensors. This module interprets
only the pickle opcodes that PyTorch writes for dicts, lists, text, numbers and tensors. Names of functions are compared
with a short list and never imported. Both file formats are supported: the zip archive, and the one used until 2020 (for
example, by the official Cnn14).
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
# The official Cnn14 also contains NumPy arrays, which are not needed.
IGNORED_NAMES = {
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype",
    "_codecs.encode",
}  # fmt: skip
TOO_LARGE = "is damaged: it claims more than it has room for"


class _Refused(Exception):
    """The file contains something that no checkpoint needs."""


class _Ignored:
    """Placeholder for an object that is not needed."""


class _Mark:
    """Marks the start of a tuple's or list's elements on the stack."""


@dataclass(frozen=True)
class _Name:
    """The name of a function or class."""

    full: str


@dataclass(frozen=True)
class _Storage:
    """Description of a storage: the data of one or more tensors."""

    key: str
    dtype: np.dtype
    size: int  # number of elements


@dataclass(frozen=True)
class _Tensor:
    """Description of a tensor: a view of a storage. Offset and strides are numbers of elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, data: np.ndarray) -> np.ndarray:
        """Return the tensor as a view of the data of its storage."""
        strides = tuple(stride * data.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides)


def read_torch_file(path: Path) -> object:
    """Read a file of ``torch.save``, with NumPy arrays in place of tensors in a dict and in the dicts inside it.

    Raises UserError if the file has another format, is damaged, or contains anything but data.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        if tarfile.is_tarfile(path):
            raise UserError(f"{path} is a tar archive, and no checkpoint")
        return _read_legacy(path)
    except _Refused as error:
        raise UserError(f"{path} is not a checkpoint, or holds code and was not loaded: {error}") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is not a checkpoint, or is damaged") from error


def _read_zip(path: Path) -> object:
    """Read the zip format: one pickle, and a file per storage."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        is_uncompressed = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not is_uncompressed or sum(member.file_size for member in members) > path.stat().st_size:
            raise UserError(f"{path} {TOO_LARGE}")
        folder = next(m.filename for m in members if m.filename.endswith("/data.pkl")).removesuffix("data.pkl")
        with archive.open(folder + "data.pkl") as file:
            content = _unpickle(file)

        def read_data(storage: _Storage) -> np.ndarray:
            data = bytearray(archive.read(f"{folder}data/{storage.key}"))  # writable, as torch.from_numpy expects
            return np.frombuffer(data, storage.dtype)

        return _with_arrays(path, content, read_data)


def _read_legacy(path: Path) -> object:
    """Read the format used until 2020.

    It has five pickles (magic number, protocol version, system information, content, keys of the storages), and then
    the size and the data of each storage.
    """
    with open(path, "rb") as file:
        for _ in range(3):
            _unpickle(file)
        storages: dict[str, _Storage] = {}
        content = _unpickle(file, storages)
        keys = _unpickle(file)
        if sum(storage.size * storage.dtype.itemsize for storage in storages.values()) > path.stat().st_size:
            raise UserError(f"{path} {TOO_LARGE}")
        positions = {}
        for key in keys:
            size = int.from_bytes(file.read(8), "little")
            positions[key] = file.tell()
            if key not in storages or size != storages[key].size:
                raise ValueError("a storage has another size than its tensors say")
            file.seek(size * storages[key].dtype.itemsize, 1)

        def read_data(storage: _Storage) -> np.ndarray:
            file.seek(positions[storage.key])
            return np.fromfile(file, storage.dtype, storage.size)

        return _with_arrays(path, content, read_data)


def _with_arrays(path: Path, content: object, read_data: Callable[[_Storage], np.ndarray]) -> object:
    """Return the content of a file with arrays in place of tensors.

    Args:
        path: the file, for messages.
        content: the unpickled content.
        read_data: reads the data of a storage.
    """

    def array(value: object) -> object:
        if not isinstance(value, _Tensor):
            return value
        data = read_data(value.storage)
        sizes = (*value.shape, value.offset, *value.strides)
        if not all(isinstance(size, int) and size >= 0 for size in sizes) or len(value.shape) != len(value.strides):
            raise ValueError("a tensor has no shape")
        last = value.offset + sum((size - 1) * stride for size, stride in zip(value.shape, value.strides, strict=True))
        # Strides of 0 repeat an element, with which a small file could claim terabytes.
        if math.prod(value.shape) > len(data) or (math.prod(value.shape) and last >= len(data)):
            raise UserError(f"{path} is damaged: it claims more numbers than it has room for")
        return value.view(data)

    if not isinstance(content, dict):
        return content
    return {
        key: {inner: array(v) for inner, v in value.items()} if isinstance(value, dict) else array(value)
        for key, value in content.items()
    }


def _unpickle(file: IO[bytes], storages: dict[str, _Storage] | None = None) -> Any:
    """Interpret the next pickle in a file, and return the object that it builds.

    Args:
        file: the file, at the start of a pickle.
        storages: receives the storages of the tensors, by key.
    """
    unpickler = _Unpickler({} if storages is None else storages)
    for opcode, argument, _ in pickletools.genops(file):
        unpickler.execute(opcode.name, argument)
    return unpickler.stack.pop()


_Container = TypeVar("_Container", dict, list)


class _Unpickler:
    """Executes the pickle opcodes that build data. Raises _Refused for any other opcode."""

    def __init__(self, storages: dict[str, _Storage]):
        self.stack: list = []
        self._memo: dict[int, object] = {}
        self._storages = storages

    def execute(self, name: str, argument: Any) -> None:
        """Execute one opcode, named as in ``pickletools``."""
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
        elif name == "BUILD":  # sets attributes; those of an ordered dict or an ignored object are not needed
            stack.pop()
            if not isinstance(stack[-1], dict | _Ignored):
                raise _Refused("it changes what it builds")
        else:
            raise _Refused(f"{name} is among its instructions")

    def _top(self, expected: type[_Container]) -> _Container:
        top = self.stack[-1]
        if not isinstance(top, expected):
            raise _Refused(f"it fills what is no {expected.__name__}")
        return top

    def _since_mark(self) -> list:
        items = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _storage(self, persistent_id: tuple) -> _Storage:
        id_type, storage_type, key, _, size, *_ = persistent_id
        name = storage_type.full if isinstance(storage_type, _Name) else ""
        if id_type != "storage" or not name.startswith("torch.") or name[6:] not in STORAGES:
            raise _Refused(f"it holds {name or id_type}")
        if not isinstance(size, int) or size < 0:
            raise ValueError("a storage has no size")
        return self._storages.setdefault(str(key), _Storage(str(key), np.dtype(STORAGES[name[6:]]), size))


_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": _Mark,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES",
    "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


def _build(function: object, arguments: tuple) -> object:
    """Return what a function would build from its arguments, for the few functions that checkpoints need."""
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
