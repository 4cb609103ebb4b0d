"""Wanda: a weight times how much comes through it on data.

Stage: importance. In: `Evidence` and the weights to be judged. Out: per weight tensor, the norms
of the input features that its elements multiply. The network runs in evaluation mode and stays as
it is.

Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models"
(arXiv:2306.11695): |w_ij| * ||x_j||_2, the norm over all examples and positions. The paper
compares scores within each output (--scope local comes closest). A bias multiplies 1, and a norm's
scale something of mean square 1: theirs is the norm of as many ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.errors import ModelError
from prunecli.graph.maskable import MOVES, Maskable
from prunecli.graph.nodes import attribute, operator_name
from prunecli.graph.reading import VECTORS, Kind, given
from prunecli.graph.stepping import Stepper
from prunecli.importance.evidence import Evidence

Values = Callable[[Any], Any]
"""A node's value; anything else as it is."""

Sums = Iterator[tuple[fx.Node, Tensor]]
"""Operand that is a weight, and the sums of squares of what its elements multiply, broadcasting
to it."""


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
                if source.op != "get_attr" or not _same(attribute(network, str(source.target)), weight):
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

    def value(item: Any) -> Any:
        return stepper.map_nodes_to_values(item, item) if item is not None else None

    given_inputs = iter([inputs])
    for node in network.graph.nodes:
        own = readers.get(node.name, {})
        sums = SUMS.get(operator_name(node)) if own else None
        # Before the node runs: afterwards its operands may be gone, or overwritten.
        for operand, squares in sums(node, value) if sums else ():
            read = own.get(operand.name)
            if read is not None and not read.vector:
                yield read, read.placed(squares)
        result = stepper.run_one(node, given_inputs)
        for operand, count in _counts(node, result, own):
            read = own[operand.name]
            yield read, read.placed(count.expand(operand.meta["val"].shape))


def _counts(node: fx.Node, result: Any, own: Mapping[str, _Read]) -> Sums:
    """How often each element of a vector is used."""
    vectors = VECTORS.get(operator_name(node)) if own else None
    for operand in vectors(node) if vectors else ():
        if operand.name in own and own[operand.name].vector:
            first = result[0] if isinstance(result, tuple) else result
            recurrent = isinstance(result, tuple)
            extent = first.shape[-1] if recurrent else operand.meta["val"].numel()
            yield operand, torch.tensor(first.numel() / extent, dtype=torch.float64)


def _check_seen(maskables: Sequence[Maskable], totals: Mapping[str, Tensor]) -> None:
    unseen = [item for item in maskables if item.name not in totals]
    if unseen:
        raise ModelError(
            f"{unseen[0].name}: wanda needs the inputs of what it judges, got a "
            f"{unseen[0].kind.value} whose inputs cannot be seen",
            "use --criterion l1, or --keep that layer",
        )


def _over(values: Tensor, *kept: int) -> Tensor:
    """Sum of squares over all axes but `kept`, which come out in their order; double."""
    places = [axis % values.dim() for axis in kept]
    others = [axis for axis in range(values.dim()) if axis not in places]
    squares = values.double().square()
    return squares.sum(others) if others else squares


def _linear(node: fx.Node, value: Values) -> Sums:
    """x (..., I), weight (O, I)."""
    yield given(node, "weight"), _over(value(given(node, "input")), -1)


def _convolution(node: fx.Node, value: Values) -> Sums:
    """x (N, I, ...), weight (O, I/g, ...): every input channel once per position."""
    weight: fx.Node = given(node, "weight")
    shape = value(weight).shape
    groups = value(given(node, "groups"))
    source = value(given(node, "input"))
    squares = _over(source, source.dim() - len(shape) + 1).reshape(groups, -1)
    rows = squares.repeat_interleave(shape[0] // groups, 0)
    yield weight, rows.reshape(*rows.shape, *[1] * (len(shape) - 2))


def _transposed(node: fx.Node, value: Values) -> Sums:
    """x (N, I, ...), weight (I, O/g, ...)."""
    weight: fx.Node = given(node, "weight")
    rank = value(weight).dim()
    source = value(given(node, "input"))
    squares = _over(source, source.dim() - rank + 1)
    yield weight, squares.reshape(-1, *[1] * (rank - 1))


def _product(first: str, second: str) -> Callable[[fx.Node, Values], Sums]:
    """(..., M, K) by (..., K, N), vectors as PyTorch defines them; either may be the weight."""

    def sums(node: fx.Node, value: Values) -> Sums:
        left, right = given(node, first), given(node, second)
        one, two = value(left), value(right)
        yield right, _into_right(one, two)
        yield left, _into_right(two.mT if two.dim() > 1 else two, one.mT).mT if (
            one.dim() > 1
        ) else _into_right(two.mT if two.dim() > 1 else two, one)

    return sums


def _into_right(left: Tensor, right: Tensor) -> Tensor:
    """What the elements of `right` (..., K, N) or (K) multiply in `left` (..., M, K) or (K)."""
    squares = left.double().square()
    if squares.dim() > 1:
        squares = squares.sum(-2)  # (..., K)
    batch = right.shape[:-2] if right.dim() > 2 else ()
    while squares.dim() - 1 > len(batch):
        squares = squares.sum(0)
    for axis, extent in enumerate(batch[len(batch) - squares.dim() + 1 :]):
        if extent == 1 < squares.shape[axis]:
            squares = squares.sum(axis, keepdim=True)
    repeats = 1.0
    for place, extent in enumerate(batch):
        own = place - (len(batch) - squares.dim() + 1)
        repeats *= 1.0 if extent else 1.0
        del own
    return squares.unsqueeze(-1) * repeats if right.dim() > 1 else squares
