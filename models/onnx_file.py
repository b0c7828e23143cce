"""A writer for ONNX files.

    write_onnx(embedding_graph(weights), file, {"sample_rate": "32000"})

An ONNX file is a message of Protocol Buffers: fields with a number, a wire type and a value, which may be a message
itself. Only a dozen fields are needed, and the package onnx takes 35 MB, which is much for a Raspberry Pi. Its checker
is run on the written files in tests/models/test_export.py. Field numbers are those of onnx.proto.
"""

import struct
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from models.graph import Attribute, Graph, Node, Shape

IR_VERSION, OPSET = 9, 18
_VARINT, _LENGTH_DELIMITED, _FIXED32 = 0, 2, 5  # wire types
_DATA_TYPES = {"float32": 1, "int64": 7}  # of TensorProto.DataType
Parts = list[bytes | memoryview]  # a message in parts, which avoids copying the weights


def write_onnx(graph: Graph, file: BinaryIO, metadata: dict[str, str] | None = None) -> None:
    """Write a graph to an open file, with optional metadata."""
    for part in _model(graph, metadata or {}):
        file.write(part)


def onnx_bytes(graph: Graph) -> bytes:
    """Return a graph as the content of an ONNX file."""
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
        *_concatenate(_message(1, _node(node)) for node in graph.nodes),
        *_text(2, "network"),
        *_concatenate(_message(5, _tensor(name, array)) for name, array in graph.tensors.items()),
        *_message(11, _value(*graph.input)),
        *_concatenate(_message(12, _value(*output)) for output in graph.outputs),
    ]


def _node(node: Node) -> Parts:
    return [
        *_concatenate(_text(1, name) for name in node.inputs),
        *_text(2, node.output),
        *_text(3, node.output),
        *_text(4, node.operation),
        *_concatenate(_message(5, _attribute(name, value)) for name, value in node.attributes.items()),
    ]


def _attribute(name: str, value: Attribute) -> Parts:
    if isinstance(value, str):
        return [*_text(1, name), *_text(4, value), *_integer(20, 3)]
    if isinstance(value, list):
        return [*_text(1, name), *_concatenate(_integer(8, item) for item in value), *_integer(20, 7)]
    if isinstance(value, float):
        return [*_text(1, name), _key(2, _FIXED32) + struct.pack("<f", value), *_integer(20, 1)]
    return [*_text(1, name), *_integer(3, value), *_integer(20, 2)]


def _tensor(name: str, array: np.ndarray) -> Parts:
    content = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data
    return [
        *_concatenate(_integer(1, size) for size in array.shape),
        *_integer(2, _DATA_TYPES[array.dtype.name]),
        *_text(8, name),
        *_message(9, [content]),
    ]


def _value(name: str, shape: Shape) -> Parts:
    """Encode an input or output of type float32."""
    sizes = _concatenate(_message(1, _integer(1, size) if isinstance(size, int) else _text(2, size)) for size in shape)
    return [*_text(1, name), *_message(2, _message(1, [*_integer(1, _DATA_TYPES["float32"]), *_message(2, sizes)]))]


def _concatenate(messages: Iterable[Parts]) -> Parts:
    return [part for message in messages for part in message]


def _message(number: int, parts: Parts) -> Parts:
    return [_key(number, _LENGTH_DELIMITED) + _varint(sum(map(len, parts))), *parts]


def _text(number: int, text: str) -> Parts:
    return _message(number, [text.encode()])


def _integer(number: int, value: int) -> Parts:
    return [_key(number, _VARINT) + _varint(value)]


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Encode a non-negative integer, seven bits per byte, the lowest bits first."""
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127)
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])
