"""Weights with many exact zeros, stored in an ONNX file without their zeros.

Stage: export. In: an ONNX model. Out: the same model with such weights packed, or the weights of
a packed one. Never decides what is zero, never touches a file.

A packed weight is two initialisers: the values that are left, in order, and the gap from each to
the one before it, as bytes or half bytes. Ordinary operators of ONNX add the gaps up to positions
and scatter the values over zeros; onnxruntime folds them into a plain weight when it loads the
file, so what runs is what the dense file runs. With optimisation off they run at every call:
slower, and as right. Gaps between rows of pruned matrices are how Han et al. 2016 store them
(https://arxiv.org/abs/1510.00149, section 2).

Why so, measured with onnxruntime 1.31 and a float32 matrix of 2048 x 2048; sizes are parts of the
dense file, loading is time and peak memory of 64 MiB of weights against the dense file's:

    zeros                        50%    80%    90%    95%    98%   loading at 80%
    gaps, the shorter of both    0.56   0.23   0.125  0.062  0.025 1.8x time,  2.2x memory
    bit mask, CumSum, Gather     0.53   0.23   0.13   0.081  0.051 7x time,    5x memory
    bit mask, NonZero, Scatter   0.53   0.23   0.13   0.081  0.051 never folded
    sparse initialiser, int64    1.50   0.60   0.30   0.15   0.060 1x time,    1.3x memory
    sparse initialiser, int32    1.00   0.40   0.20   0.10   0.040 not valid ONNX

A bit mask is a little smaller where half of the weights are left, but each of its steps is as
large as the dense weight and stays in memory until the whole file is loaded. onnxruntime does not
fold NonZero. ONNX's own sparse initialisers are larger throughout, and onnx's shape inference does
not know their shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from prunecli.errors import ModelError

Array = NDArray[Any]

FIRST_OPSET = 18
"""The first with `BitwiseAnd`."""

WORTH = 0.9
"""A weight is packed if that takes at most this part of its bytes: loading takes longer."""

BYTE, HALF = 8, 4
"""Bits of a gap."""

_WORDS: Mapping[int, type[np.unsignedinteger[Any]]] = {
    TensorProto.FLOAT16: np.uint16,
    TensorProto.FLOAT: np.uint32,
    TensorProto.DOUBLE: np.uint64,
}
"""Weights that can be packed, and integers of the same width."""

_MOST_ELEMENTS = 2**31 - 1
"""Positions are int32."""

_UNPACK = "prunecli/unpack/"
"""The name of the node that puts a weight's values in their places is this and the weight's."""

_CONSTANTS: Mapping[str, Array] = {
    "gaps/axis": np.array(0, np.int64),
    "gaps/flat": np.array([-1], np.int64),
    "gaps/first": np.array([0], np.int64),
    "gaps/shifts": np.array([[HALF, 0]], np.uint8),
    "gaps/low": np.array([(1 << HALF) - 1], np.uint8),
}
"""What all packed weights read, by the name it has in the file."""


@dataclass(frozen=True)
class _Packed:
    """What stands in the file instead of one weight, while it is put together.

    Attributes:
        name: the weight's; those of what is added start with it.
        initializers: its own.
        nodes: in their order; the output of the last one is called like the weight.
    """

    name: str
    initializers: list[TensorProto] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)

    def store(self, tag: str, value: Array) -> str:
        """Adds an initialiser; returns its name."""
        name = f"{self.name}/{tag}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **given: Any) -> str:
        """Adds a node; returns its output's name."""
        output = output or f"{self.name}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **given))
        return output

    def names(self) -> set[str]:
        """Names of all values that are added, without the weight's own."""
        outputs = {name for node in self.nodes for name in node.output}
        return {item.name for item in self.initializers} | outputs - {self.name}

    def size_bytes(self) -> int:
        """Bytes in the file."""
        stored: int = sum(item.ByteSize() for item in self.initializers)
        nodes: int = sum(item.ByteSize() for item in self.nodes)
        return stored + nodes


def compress(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model in which every float weight that has enough zeros is packed.

    Values stay the same bit for bit, except that a negative zero becomes a positive one. Weights
    that would hardly become smaller, that a caller may replace (inputs) or that stand in subgraphs
    stay as they are.

    Raises:
        ModelError: the model's operators are older than those that unpacking needs, or one of its
            values has the name of one that unpacking needs.
    """
    opset = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < FIRST_OPSET:
        raise ModelError(
            f"export: packed weights need ONNX opset {FIRST_OPSET} or later, got {opset}",
            "--storage dense writes the zeros too",
        )
    inputs = {item.name for item in model.graph.input}
    kept, packed = [], []
    for item in model.graph.initializer:
        found = _pack(item) if item.name not in inputs else None
        if found is None:
            kept.append(item)
        else:
            packed.append(found)
    _check_names(model.graph, packed)
    return _with(model, kept, packed)


def expanded(model: onnx.ModelProto) -> dict[str, Array]:
    """The float weights of a model by name, whether packed or not, as the network sees them."""
    makers = {output: node for node in model.graph.node for output in node.output}
    stored = {item.name: item for item in model.graph.initializer}
    found, parts = {}, set()
    for node in model.graph.node:
        if node.op_type == "ScatterElements" and node.name.startswith(_UNPACK):
            name = node.name.removeprefix(_UNPACK)
            found[name] = _unpacked(node, makers[name], makers, stored)
            parts.add(node.input[2])
    for name, item in stored.items():
        if item.data_type in _WORDS and name not in parts:
            found[name] = numpy_helper.to_array(item)
    return found


def count_nonzero(weight: Array) -> int:
    """Elements that are neither a positive nor a negative zero."""
    return len(_places(weight.reshape(-1)))


def _places(flat: Array) -> NDArray[np.int64]:
    """Positions of what is not zero: all bits but the sign. Not `flat != 0`, for a thread that
    flushes subnormal numbers would not see those."""
    word = _WORDS[helper.np_dtype_to_tensor_dtype(flat.dtype)]
    return np.flatnonzero(np.ascontiguousarray(flat).view(word) << 1)


def _check_names(graph: onnx.GraphProto, packed: list[_Packed]) -> None:
    new = set(_CONSTANTS).union(*(item.names() for item in packed)) if packed else set()
    clash = sorted(new & _names(graph))
    if clash:
        raise ModelError(
            f"export: a packed weight needs a name that is taken, got a value called {clash[0]}",
            "--storage dense writes the zeros too",
        )


def _names(graph: onnx.GraphProto) -> set[str]:
    """Names of all values, in subgraphs too."""
    taken = {item.name for item in (*graph.input, *graph.initializer)}
    for node in graph.node:
        taken |= {*node.output}
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                taken |= _names(inner)
    return taken


def _with(
    model: onnx.ModelProto, kept: list[TensorProto], packed: list[_Packed]
) -> onnx.ModelProto:
    """`model` with other initialisers, and the nodes that unpack them before its own."""
    read = {name for item in packed for node in item.nodes for name in node.input}
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.initializer[:], found.graph.node[:]
    found.graph.initializer.extend(kept)
    for name, value in _CONSTANTS.items():
        if name in read:
            found.graph.initializer.append(numpy_helper.from_array(value, name))
    for item in packed:
        found.graph.initializer.extend(item.initializers)
        found.graph.node.extend(item.nodes)
    found.graph.node.extend(model.graph.node)
    return found


def _pack(weight: TensorProto) -> _Packed | None:
    """`weight` packed, or `None` where that cannot be done or is not worth it."""
    elements = int(np.prod(weight.dims, dtype=np.int64))
    if weight.data_type not in _WORDS or not 0 < elements <= _MOST_ELEMENTS:
        return None
    flat = numpy_helper.to_array(weight).reshape(-1)
    places = _places(flat)
    if len(places) > WORTH * elements:
        return None
    both = (_packed(weight, flat, places, bits) for bits in (HALF, BYTE))
    found = min(both, key=_Packed.size_bytes)
    return found if found.size_bytes() <= WORTH * weight.ByteSize() else None


def _packed(weight: TensorProto, flat: Array, places: NDArray[np.int64], bits: int) -> _Packed:
    gaps, values = _gaps(flat, places, (1 << bits) - 1)
    found = _Packed(weight.name)
    at = found.store("gaps", gaps) if bits == BYTE else _add_halves(found, gaps)
    at = found.add("Cast", at, to=TensorProto.INT32)
    at = found.add("CumSum", at, "gaps/axis")
    zeros = found.add(
        "ConstantOfShape",
        found.store("size", np.array([flat.size])),
        value=numpy_helper.from_array(np.zeros(1, flat.dtype)),
    )
    values_name = found.store("values", values)
    name = f"{_UNPACK}{weight.name}"
    full = found.add("ScatterElements", zeros, at, values_name, axis=0, name=name)
    shape = found.store("shape", np.array(weight.dims, np.int64))
    found.add("Reshape", full, shape, output=weight.name)
    return found


def _gaps(flat: Array, places: NDArray[np.int64], most: int) -> tuple[Array, Array]:
    """Gaps (uint8, the first one the first position itself) and values, from the positions of
    what is not zero. Where a gap is above `most`, zeros are stored as well, `most` apart; where
    all is zero, the first one."""
    if not len(places):
        return np.zeros(1, np.uint8), np.zeros(1, flat.dtype)
    apart = np.diff(places, prepend=-1)
    more = (apart - 1) // most
    ends = np.cumsum(more + 1) - 1
    gaps = np.full(ends[-1] + 1, most, np.uint8)
    values = np.zeros(ends[-1] + 1, flat.dtype)
    gaps[ends] = apart - most * more
    values[ends] = flat[places]
    gaps[0] -= 1
    return gaps, values


def _add_halves(found: _Packed, gaps: Array) -> str:
    """Stores two gaps in a byte, the first one above; returns what takes them apart."""
    odd = len(gaps) % 2
    pairs = np.append(gaps, np.zeros(odd, np.uint8)).reshape(-1, 2)
    bytes_name = found.store("gaps", pairs[:, :1] << HALF | pairs[:, 1:])
    at = found.add("BitShift", bytes_name, "gaps/shifts", direction="RIGHT")
    at = found.add("BitwiseAnd", at, "gaps/low")
    at = found.add("Reshape", at, "gaps/flat")
    if odd:
        count = found.store("count", np.array([len(gaps)]))
        at = found.add("Slice", at, "gaps/first", count)
    return at


def _unpacked(
    node: NodeProto,
    last: NodeProto,
    makers: Mapping[str, NodeProto],
    stored: Mapping[str, TensorProto],
) -> Array:
    """What `node` and `last` make of the initialisers that they depend on."""
    zeros, at, values_name = node.input
    halves = False
    while at in makers:
        halves |= makers[at].op_type == "BitShift"
        at = makers[at].input[0]
    size, gaps, values, shape = (
        numpy_helper.to_array(stored[name])
        for name in (makers[zeros].input[0], at, values_name, last.input[1])
    )
    if halves:
        gaps = np.concatenate([gaps >> HALF, gaps & (1 << HALF) - 1], 1).reshape(-1)
    flat = np.zeros(size, values.dtype)
    flat[np.cumsum(gaps[: len(values)], dtype=np.int64)] = values
    return flat.reshape(shape)
