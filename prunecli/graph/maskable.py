"""Maskable parameters: those whose single weights may go.

Stage: graph. In: the captured graph and its flow. Out: `Maskable` records, in the order in which
the graph reads them. Decides nothing about what is removed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from prunecli.graph.capture import Captured
from prunecli.graph.coupling import layer_of
from prunecli.graph.fields import Value, labelled_axes
from prunecli.graph.nodes import attribute, operator_name
from prunecli.graph.reading import LOOK_UPS, READERS, VECTORS, Kind
from prunecli.graph.walk import Flow

_MOVING = (
    "view reshape _unsafe_view permute transpose t numpy_T mT movedim moveaxis swapaxes swapdims "
    "squeeze unsqueeze flatten unflatten expand contiguous clone detach alias to _to_copy slice "
    "narrow split split_with_sizes chunk"
)

MOVES = frozenset({"getitem", *(f"aten.{name}" for name in _MOVING.split())})
"""What may stand between a parameter and its reader. Whether an axis is still the parameter's
own (or a part of it) is read off its labels."""


@dataclass(frozen=True)
class Maskable:
    """A parameter whose elements can be set to zero one by one.

    Attributes:
        name: of the parameter; one name where several share it, as in `Flow.parameters`.
        kind: of the operator that reads it.
        layer: what patterns are matched with, see `layer_of`.
        input_axis: the parameter's axis that is summed over with the layer's input; the last of
            several; `None` for vectors.
        output_axis: the parameter's axis that makes the outputs; `None` where there is none.
        shape: of the parameter.
        readers: names of all nodes that read it so, in graph order.
        groups: blocks of input channels that the reader keeps apart (grouped convolutions).
    """

    name: str
    kind: Kind
    layer: str
    input_axis: int | None
    output_axis: int | None
    shape: tuple[int, ...]
    readers: tuple[str, ...]
    groups: int = 1

    @property
    def reader(self) -> str:
        """The first node that reads it."""
        return self.readers[0]

    @property
    def size(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()


def maskables(captured: Captured, flow: Flow, *, biases: bool = False) -> tuple[Maskable, ...]:
    """Floating-point parameters that a linear layer, convolution, matrix product or recurrent
    layer reads as its weight, each once however many names and readers it has.

    A table that is looked up in is left out even where a linear layer reads it too (a head tied
    to the embedding): zeros in it would change what goes into the network, not only how it is
    read.

    Args:
        biases: biases and the parameters of norms too (kind `vector`).
    """
    looked_up = {
        operand.parameter
        for node in captured.network.graph.nodes
        if operator_name(node) in LOOK_UPS
        for operand in map(flow.values.get, (item.name for item in node.all_input_nodes))
        if isinstance(operand, Value)
    }
    found: dict[str, Maskable] = {}
    for item in (*_weights(captured, flow), *(_vectors(captured, flow) if biases else ())):
        known = found.setdefault(item.name, item)
        if known is not item and known.kind is not Kind.VECTOR and item.kind is not Kind.VECTOR:
            readers = tuple(dict.fromkeys((*known.readers, *item.readers)))
            found[item.name] = Maskable(**{**vars(known), "readers": readers})
    return tuple(item for name, item in found.items() if name not in looked_up)


def _weights(captured: Captured, flow: Flow) -> Iterator[Maskable]:
    for node in captured.network.graph.nodes:
        reads = READERS.get(operator_name(node)) if node.op == "call_function" else None
        traced = [
            (read, _trace(captured, flow, read.operand)) for read in (reads(node) if reads else ())
        ]
        for read, (value, axes) in traced:
            # A product of two parameters makes a weight, and is none of its readers.
            if value is None or (read.symmetric and all(other for _, (other, _) in traced)):
                continue
            yield Maskable(
                value.parameter,
                read.kind,
                layer_of(value.parameter),
                None if read.input_axis is None else axes[read.input_axis],
                None if read.output_axis is None else axes[read.output_axis],
                value.shape,
                (node.name,),
                read.groups,
            )


def _vectors(captured: Captured, flow: Flow) -> Iterator[Maskable]:
    for node in captured.network.graph.nodes:
        reads = VECTORS.get(operator_name(node)) if node.op == "call_function" else None
        for operand in reads(node) if reads else ():
            value, _ = _trace(captured, flow, operand)
            if value is not None:
                axis = 0 if len(value.shape) == 1 else None
                name = value.parameter
                yield Maskable(
                    name, Kind.VECTOR, layer_of(name), None, axis, value.shape, (node.name,)
                )


def _trace(
    captured: Captured, flow: Flow, node: fx.Node
) -> tuple[Value | None, tuple[int | None, ...]]:
    """The floating-point parameter that a node shows, and for each axis of the node's value the
    parameter's axis that it is; `None` if it is no parameter with all its axes in place."""
    source = node
    while source.op == "call_function" and operator_name(source) in MOVES:
        source = source.all_input_nodes[0]
    origin, shown = flow.values.get(source.name), flow.values.get(node.name)
    if source.op != "get_attr" or not isinstance(origin, Value) or not isinstance(shown, Value):
        return None, ()
    if not origin.parameter:
        return None, ()
    tensor = attribute(captured.network, origin.parameter)
    if not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return None, ()
    if source is node:
        return origin, tuple(range(len(origin.shape)))
    axes = tuple(_origin_of(shown, axis, origin) for axis in range(len(shown.shape)))
    whole = all(axis in axes for axis, extent in enumerate(origin.shape) if extent > 1)
    return (origin, axes) if whole else (None, ())


def _origin_of(shown: Value, axis: int, origin: Value) -> int | None:
    """The axis of `origin` whose labels, or some of them, stand along `axis`."""
    field = shown.field_at(axis)
    if field is None or len(labelled_axes(field)) > 1:
        return None
    for own, extent in enumerate(origin.shape):
        labels = origin.field_at(own) if extent > 1 else None
        if labels is not None and _among(field, labels):
            return own
    return None


def _among(some: Tensor, labels: Tensor) -> bool:
    return bool(torch.isin(some.reshape(-1), labels.reshape(-1)).all())
