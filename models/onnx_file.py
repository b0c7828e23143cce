"""A graph written as an ONNX file.

    write_onnx(embedding_graph(weights), file, {"sample_rate": "32000"})

ONNX is a message of Protocol Buffers: fields, each a number, a kind and a value, some of which are messages again. The
dozen fields that are needed are written here: the package onnx, which would write them too, takes 35 MB that a
Raspberry Pi does not have to spare. tests/models/test_export.py lets that package check what is written.
"""

import struct
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from models.graph import Attribute, Graph, Node, Shape

IR_VERSION, OPSET = 9, 18
_VARINT, _LENGTH, _FIXED32 = 0, 2, 5  # kinds of values
_TYPES = {"float32": 1, "int64": 7}  # numbers of TensorProto.DataType
Parts = list[bytes | memoryview]  # a message in pieces, so that weights are not copied


def write_onnx(graph: Graph, file: BinaryIO, metadata: dict[str, str] | None = None) -> None:
    """Write a graph, with texts about it by name."""
    for part in _model(graph, metadata or {}):
        file.write(part)


def onnx_bytes(graph: Graph) -> bytes:
    """The same in memory."""
    return b"".join(_model(graph, {}))


def _model(graph: Graph, metadata: dict[str, str]) -> Parts:
    return [
        *_integer(1, IR_VERSION),
        *_text(2, "danger-safe"),
        *_message(7, _graph(graph)),
        *_message(8, [*_text(1, ""), *_integer(2, OPSET)]),
        *(part for item in metadata.items() for part in _message(14, [*_text(1, item[0]), *_text(2, item[1])])),
    ]


def _graph(graph: Graph) -> Parts:
    return [
        *_all(_message(1, _node(node)) for node in graph.nodes),
        *_text(2, "network"),
        *_all(_message(5, _tensor(name, array)) for name, array in graph.tensors.items()),
        *_message(11, _value(*graph.input)),
        *_all(_message(12, _value(*output)) for output in graph.outputs),
    ]


def _node(node: Node) -> Parts:
    return [
        *_all(_text(1, name) for name in node.inputs),
        *_text(2, node.output),
        *_text(3, node.output),
        *_text(4, node.operation),
        *_all(_message(5, _attribute(name, value)) for name, value in node.attributes.items()),
    ]


def _attribute(name: str, value: Attribute) -> Parts:
    if isinstance(value, str):
        return [*_text(1, name), *_text(4, value), *_integer(20, 3)]
    if isinstance(value, list):
        return [*_text(1, name), *_all(_integer(8, one) for one in value), *_integer(20, 7)]
    if isinstance(value, float):
        return [*_text(1, name), _key(2, _FIXED32) + struct.pack("<f", value), *_integer(20, 1)]
    return [*_text(1, name), *_integer(3, value), *_integer(20, 2)]


def _tensor(name: str, array: np.ndarray) -> Parts:
    content = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data
    return [
        *_all(_integer(1, size) for size in array.shape),
        *_integer(2, _TYPES[array.dtype.name]),
        *_text(8, name),
        *_message(9, [content]),
    ]


def _value(name: str, shape: Shape) -> Parts:
    """An input or output: its name, float32, and its shape."""
    sizes = _all(_message(1, _integer(1, size) if isinstance(size, int) else _text(2, size)) for size in shape)
    return [*_text(1, name), *_message(2, _message(1, [*_integer(1, _TYPES["float32"]), *_message(2, sizes)]))]


def _all(messages: Iterable[Parts]) -> Parts:
    return [part for message in messages for part in message]


def _message(number: int, parts: Parts) -> Parts:
    return [_key(number, _LENGTH) + _varint(sum(map(len, parts))), *parts]


def _text(number: int, text: str) -> Parts:
    return _message(number, [text.encode()])


def _integer(number: int, value: int) -> Parts:
    return [_key(number, _VARINT) + _varint(value)]


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, of a number that is not negative."""
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127)
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])
