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
from prunecli.graph.reading import VECTORS
from prunecli.graph.stepping import Stepper, at_least_single
from prunecli.importance.evidence import Evidence
from prunecli.importance.feeding import FEEDS
from prunecli.tasks import Tensors


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
        name, shape: of the parameter.
        vector: it is read as a bias or a scale.
        path: what moves it on the way to the reader.
    """

    name: str
    shape: tuple[int, ...]
    vector: bool
    path: tuple[fx.Node, ...]

    def placed(self, squares: Tensor, moved: Mapping[fx.Node, Tensor]) -> Tensor:
        """Sums over the operand's elements, as those of the parameter's.

        Args:
            moved: where the elements of moved operands are in the parameter.
        """
        if not self.path:
            return squares
        places = moved[self.path[-1]]
        found = torch.zeros(torch.Size(self.shape).numel(), dtype=torch.float64)
        spread = squares.expand(places.shape).reshape(-1)
        return found.index_add_(0, places.reshape(-1), spread).reshape(self.shape)


_CASTS = frozenset(("aten.to", "aten._to_copy"))

_Readers = Mapping[str, Mapping[str, _Read]]
"""Reader's name -> operand's name -> the weight that it is."""


def _readers(network: fx.GraphModule, maskables: Sequence[Maskable]) -> _Readers:
    """All readers of all weights, whatever they are read as."""
    wanted = {_identity(attribute(network, item.name)): item for item in maskables}
    found: dict[str, dict[str, _Read]] = {}
    for node in network.graph.nodes:
        name = operator_name(node) if node.op == "call_function" else ""
        vectors = VECTORS[name](node) if name in VECTORS else []
        for operand in node.all_input_nodes if name in FEEDS or name in VECTORS else ():
            source, path = _origin(operand)
            tensor = attribute(network, str(source.target)) if source.op == "get_attr" else None
            item = wanted.get(_identity(tensor))
            if item is not None:
                read = _Read(item.name, item.shape, operand in vectors, path)
                found.setdefault(node.name, {})[operand.name] = read
    return found


def _identity(tensor: Any) -> tuple[int, ...]:
    """The same for tensors that share all of their memory."""
    return (tensor.data_ptr(), *tensor.shape) if isinstance(tensor, Tensor) else ()


def _origin(node: fx.Node) -> tuple[fx.Node, tuple[fx.Node, ...]]:
    """Where a moved value comes from, and the nodes that move it, in order."""
    path: list[fx.Node] = []
    while node.op == "call_function" and operator_name(node) in MOVES:
        path.insert(0, node)
        node = node.all_input_nodes[0]
    return node, tuple(path)


def _run(
    network: fx.GraphModule, inputs: Tensors, readers: _Readers
) -> Iterator[tuple[_Read, Tensor]]:
    """Run one batch; for every weight at every reader, sums of squares placed in the parameter."""
    stepper = Stepper(network, at_least_single(inputs))
    reads = [read for own in readers.values() for read in own.values()]
    moving = {node: read.shape for read in reads for node in read.path}
    moved: dict[fx.Node, Tensor] = {}
    given_inputs = iter(inputs)
    for node in network.graph.nodes:
        if node in moving:
            moved[node] = _moved(stepper, node, moving[node], moved)
        own = readers.get(node.name, {})
        feeds = FEEDS.get(operator_name(node)) if own else None
        # Before the node runs: afterwards its operands may be gone, or overwritten.
        for operand, squares in feeds(node, partial(_value, stepper, node)) if feeds else ():
            read = own.get(operand.name)
            if read is not None and not read.vector:
                yield read, read.placed(squares(), moved)
        result = stepper.run_one(node, given_inputs)
        for operand, count in _counts(node, result, own):
            yield own[operand.name], own[operand.name].placed(count, moved)


def _moved(
    stepper: Stepper, node: fx.Node, shape: tuple[int, ...], moved: Mapping[fx.Node, Tensor]
) -> Any:
    """What moves a parameter, moves the numbers of its elements."""
    known = moved.get(node.all_input_nodes[0])
    places = torch.arange(torch.Size(shape).numel()).reshape(shape) if known is None else known
    if operator_name(node) in _CASTS:
        return places
    target: Any = node.target
    args, kwargs = stepper.map_nodes_to_values((node.args[1:], node.kwargs), node)
    return target(places, *args, **kwargs)


def _value(stepper: Stepper, node: fx.Node, item: Any) -> Any:
    return stepper.map_nodes_to_values(item, node)


def _counts(
    node: fx.Node, result: Any, own: Mapping[str, _Read]
) -> Iterator[tuple[fx.Node, Tensor]]:
    """How often each element of a vector is used, in its shape."""
    vectors = VECTORS[operator_name(node)](node) if any(x.vector for x in own.values()) else []
    for operand in vectors:
        if operand.name in own:
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
