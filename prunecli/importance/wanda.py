"""Wanda: a weight times how much comes through it on data.

Stage: importance. In: `Evidence` and the weights to be judged. Out: per weight tensor, the norms
of the input features that its elements multiply. The network runs in evaluation mode and stays as
it is.

Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models"
(arXiv:2306.11695): |w_ij| * ||x_j||_2, the norm over all examples and positions. The paper
compares scores within each output (--scope local comes closest). A bias multiplies 1, and a norm's
scale something of mean square 1: theirs is the norm of as many ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.errors import ModelError
from prunecli.graph.maskable import MOVES, Maskable
from prunecli.graph.nodes import attribute, operator_name
from prunecli.graph.reading import VECTORS, Kind
from prunecli.graph.stepping import Stepper
from prunecli.importance.evidence import Evidence
from prunecli.importance.feeding import FEEDS


def input_norms(evidence: Evidence, maskables: Sequence[Maskable]) -> Mapping[str, Tensor]:
    """Per parameter, a tensor that broadcasts to it.

    Raises:
        ConfigError: no calibration examples.
        ModelError: an operator whose input cannot be told apart by weight.
    """
    network = evidence.captured.network
    readers = _readers(network, maskables)
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for inputs, _ in evidence.batches("inputs of all layers", evidence.cuts(rest=True)):
            for read, squares in _run(network, inputs, readers):
                known = totals.get(read.name)
                totals[read.name] = squares if known is None else known + squares
    _check_seen(maskables, totals)
    return {name: total.sqrt() for name, total in totals.items()}


@dataclass(frozen=True)
class _Read:
    """One weight at one reader.

    Attributes:
        name: of the parameter.
        vector: it is a bias or a scale.
        places: where the elements of the operand are in the parameter; `None` where the operand
            is the parameter itself.
    """

    name: str
    vector: bool
    shape: tuple[int, ...]
    places: Tensor | None

    def placed(self, squares: Tensor) -> Tensor:
        """Sums over an operand's elements, as those of the parameter's."""
        if self.places is None:
            return squares
        found = torch.zeros(self.shape, dtype=torch.float64)
        spread = squares.expand(self.places.shape).reshape(-1)
        return found.view(-1).index_add_(0, self.places.reshape(-1), spread).view(self.shape)


_Readers = Mapping[str, Mapping[str, _Read]]
"""Reader's name -> operand's name -> the weight that it is."""


def _readers(network: fx.GraphModule, maskables: Sequence[Maskable]) -> _Readers:
    nodes = {node.name: node for node in network.graph.nodes}
    found: dict[str, dict[str, _Read]] = {}
    for item in maskables:
        weight = attribute(network, item.name)
        for reader in item.readers:
            for operand in nodes[reader].all_input_nodes:
                source, path = _origin(operand)
                if source.op != "get_attr" or not _same(
                    attribute(network, str(source.target)), weight
                ):
                    continue
                places = _places(item.shape, path) if path else None
                read = _Read(item.name, item.kind is Kind.VECTOR, item.shape, places)
                found.setdefault(reader, {})[operand.name] = read
    return found


def _origin(node: fx.Node) -> tuple[fx.Node, list[fx.Node]]:
    """Where a moved value comes from, and the nodes that move it, in order."""
    path: list[fx.Node] = []
    while node.op == "call_function" and operator_name(node) in MOVES:
        path.insert(0, node)
        node = node.all_input_nodes[0]
    return node, path


def _places(shape: tuple[int, ...], path: list[fx.Node]) -> Tensor:
    """Where the elements of the moved value are in the parameter: what moves it, moves numbers."""
    value: Any = torch.arange(torch.Size(shape).numel()).reshape(shape)
    for node in path:
        target: Any = node.target
        if operator_name(node) in ("aten.to", "aten._to_copy"):
            continue
        value = target(value, *node.args[1:], **node.kwargs)
    assert isinstance(value, Tensor)
    return value


def _same(one: Any, two: Any) -> bool:
    return isinstance(one, Tensor) and one.data_ptr() == two.data_ptr() and one.shape == two.shape


def _run(
    network: fx.GraphModule, inputs: Tensor, readers: _Readers
) -> Iterator[tuple[_Read, Tensor]]:
    """Run one batch; for every weight at every reader, sums of squares placed in the parameter."""
    stepper = Stepper(network, torch.promote_types(inputs.dtype, torch.float32))
    given_inputs = iter([inputs])
    for node in network.graph.nodes:
        own = readers.get(node.name, {})
        feeds = FEEDS.get(operator_name(node)) if own else None
        # Before the node runs: afterwards its operands may be gone, or overwritten.
        if feeds is not None:
            for operand, squares in feeds(node, partial(_value, stepper, node)):
                read = own.get(operand.name)
                if read is not None and not read.vector:
                    yield read, read.placed(squares())
        result = stepper.run_one(node, given_inputs)
        for operand, count in _counts(node, result, own):
            yield own[operand.name], own[operand.name].placed(count)


def _value(stepper: Stepper, node: fx.Node, item: Any) -> Any:
    return stepper.map_nodes_to_values(item, node)


def _counts(
    node: fx.Node, result: Any, own: Mapping[str, _Read]
) -> Iterator[tuple[fx.Node, Tensor]]:
    """How often each element of a vector is used, in its shape."""
    vectors = VECTORS.get(operator_name(node)) if own else None
    for operand in vectors(node) if vectors else ():
        if operand.name in own and own[operand.name].vector:
            first = result[0] if isinstance(result, tuple) else result
            shape = operand.meta["val"].shape
            # A recurrent layer has more biases than outputs: one for every gate.
            each = first.shape[-1] if _recurrent(node) else shape.numel()
            yield operand, torch.full(shape, first.numel() / each, dtype=torch.float64)


def _recurrent(node: fx.Node) -> bool:
    name = operator_name(node).removeprefix("aten.")
    return name.removesuffix("_cell") in ("lstm", "gru", "rnn_tanh", "rnn_relu")


def _check_seen(maskables: Sequence[Maskable], totals: Mapping[str, Tensor]) -> None:
    unseen = [item for item in maskables if item.name not in totals]
    if unseen:
        raise ModelError(
            f"{unseen[0].name}: wanda needs the inputs of what it judges, got a "
            f"{unseen[0].kind.value} whose inputs cannot be seen",
            "use --criterion l1",
        )
