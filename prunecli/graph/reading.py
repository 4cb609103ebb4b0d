"""How operators read their weights: which operand, and what its axes are.

Stage: graph. In: a node. Out: `Read` records. One table for weights, one for vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor, fx

from prunecli.graph.nodes import argument, concrete, shape_of


class Kind(StrEnum):
    """What reads a parameter."""

    LINEAR = "linear"
    CONVOLUTION = "convolution"
    GROUPED = "grouped convolution"
    DEPTHWISE = "depthwise convolution"
    TRANSPOSED = "transposed convolution"
    PRODUCT = "matrix product"
    RECURRENT = "recurrent"
    VECTOR = "vector"


@dataclass(frozen=True)
class Read:
    """A weight among a node's operands.

    Attributes:
        operand: the node whose value is the weight.
        input_axis, output_axis: axes of that value; see `Maskable`.
        groups: blocks of input channels that the node keeps apart.
        symmetric: any operand may be the weight, so that it is one only beside data.
    """

    operand: fx.Node
    kind: Kind
    input_axis: int | None
    output_axis: int | None
    groups: int = 1
    symmetric: bool = False


def _linear(node: fx.Node) -> list[Read]:
    return [Read(argument(node, "weight"), Kind.LINEAR, 1, 0)]


def _convolution(node: fx.Node) -> list[Read]:
    """Weight (O, I/g, ...)."""
    weight, groups = argument(node, "weight"), _groups(node)
    kind = Kind.CONVOLUTION if groups == 1 else Kind.GROUPED
    if groups > 1 and shape_of(weight.meta["val"])[1] == 1:
        kind = Kind.DEPTHWISE
    return [Read(weight, kind, 1, 0, groups)]


def _transposed(node: fx.Node) -> list[Read]:
    """Weight (I, O/g, ...)."""
    return [Read(argument(node, "weight"), Kind.TRANSPOSED, 0, 1, _groups(node))]


def _groups(node: fx.Node) -> int:
    groups = argument(node, "groups")
    return int(concrete(groups.meta["val"]) if isinstance(groups, fx.Node) else groups)


def _addmm(node: fx.Node) -> list[Read]:
    """bias + x (N, I) by weight (I, O)."""
    return _product(_operands(node, "mat1", "mat2"), ("NI", "IO"), "NO")


def _baddbmm(node: fx.Node) -> list[Read]:
    return _product(_operands(node, "batch1", "batch2"), ("BNK", "BKM"), "BNM")


def _addmv(node: fx.Node) -> list[Read]:
    return _product(_operands(node, "mat", "vec"), ("NK", "K"), "N")


def _matmul(node: fx.Node) -> list[Read]:
    """(..., M, K) by (..., K, N); vectors as PyTorch defines them."""
    operands = list(node.all_input_nodes)[:2]
    if len(operands) < 2:
        return []
    one, two = (len(_shape(item)) for item in operands)
    row, column = "M" if one > 1 else "", "N" if two > 1 else ""
    batch = "abcdefgh"[: max(one, two) - 2] if max(one, two) > 2 else ""
    first = batch[len(batch) - max(one - 2, 0) :] + row + "K"
    second = batch[len(batch) - max(two - 2, 0) :] + "K" + column
    return _product(operands, (first, second), batch + row + column)


def _einsum(node: fx.Node) -> list[Read]:
    """Letters as given; what an ellipsis stands for is batch axes of whatever has them."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    assert isinstance(operands, (list, tuple))
    inputs, arrow, output = equation.partition("->")
    if not arrow:
        text = inputs.replace("...", "").replace(",", "")
        output = "".join(sorted(x for x in set(text) if text.count(x) == 1))
    terms = []
    for term, item in zip(inputs.split(","), operands, strict=True):
        hidden = len(_shape(item)) - len(term.replace("...", ""))
        terms.append(term.replace("...", "." * hidden))
    return _product([item for item in operands if isinstance(item, fx.Node)], terms, output)


def _tensordot(node: fx.Node) -> list[Read]:
    operands = _operands(node, "self", "other")
    one, two = (list(range(len(_shape(item)))) for item in operands)
    mine, theirs = argument(node, "dims_self"), argument(node, "dims_other")
    first = "".join(chr(ord("a") + axis) for axis in one)
    second = [chr(ord("A") + axis) for axis in two]
    for left, right in zip(mine, theirs, strict=True):
        second[right] = first[left]
    free = [x for x in first if x not in second] + [x for x in second if x not in first]
    return _product(operands, (first, "".join(second)), "".join(free))


def _inner(node: fx.Node) -> list[Read]:
    operands = _operands(node, "self", "other")
    ranks = [len(_shape(item)) for item in operands]
    terms = ["abcdefgh"[: ranks[0] - 1] + "K", "ABCDEFGH"[: ranks[1] - 1] + "K"]
    return _product(operands, terms, terms[0][:-1] + terms[1][:-1])


def _bilinear(node: fx.Node) -> list[Read]:
    """Weight (O, I, J)."""
    return [Read(argument(node, "weight"), Kind.PRODUCT, 2, 0)]


def _recurrent(node: fx.Node) -> list[Read]:
    """A list of matrices (gates * H, I), (gates * H, S), (S, H), and vectors."""
    return [
        Read(item, Kind.RECURRENT, 1, 0)
        for item in argument(node, "params")
        if len(_shape(item)) == 2
    ]


def _cell(node: fx.Node) -> list[Read]:
    return [Read(item, Kind.RECURRENT, 1, 0) for item in _operands(node, "w_ih", "w_hh")]


def _operands(node: fx.Node, *names: str) -> list[fx.Node]:
    return [item for name in names if isinstance(item := argument(node, name), fx.Node)]


def _product(operands: Sequence[fx.Node], terms: Sequence[str], output: str) -> list[Read]:
    """Any operand may be the weight: its letters that the output lacks are summed over, those
    that it has alone are outputs. One letter per axis; a dot is an axis without a name."""
    reads = []
    for place, (item, term) in enumerate(zip(operands, terms, strict=True)):
        others = "".join(other for which, other in enumerate(terms) if which != place)
        summed = [axis for axis, x in enumerate(term) if x not in output and x in others]
        free = [axis for axis, x in enumerate(term) if x in output and x not in others + "."]
        if summed:
            last = free[-1] if free else None
            reads.append(Read(item, Kind.PRODUCT, summed[-1], last, symmetric=True))
    return reads


def _shape(node: fx.Node) -> tuple[int, ...]:
    val = node.meta.get("val")
    return shape_of(val) if isinstance(val, Tensor) else ()


def _bias(node: fx.Node) -> list[fx.Node]:
    return _operands(node, "bias")


def _norm(node: fx.Node) -> list[fx.Node]:
    return _operands(node, "weight", "bias")


def _added(node: fx.Node) -> list[fx.Node]:
    return _operands(node, "self")


def _recurrent_biases(node: fx.Node) -> list[fx.Node]:
    return [item for item in argument(node, "params") if len(_shape(item)) == 1]


def _cell_biases(node: fx.Node) -> list[fx.Node]:
    return _operands(node, "b_ih", "b_hh")


def _elementwise(node: fx.Node) -> list[fx.Node]:
    """A bias or a scale that is written out."""
    return [item for item in node.all_input_nodes if len(_shape(item)) == 1]


def _table(*rows: tuple[Callable[[fx.Node], Any], str]) -> dict[str, Callable[[fx.Node], Any]]:
    return {f"aten.{name}": function for function, names in rows for name in names.split()}


READERS: dict[str, Callable[[fx.Node], list[Read]]] = _table(
    (_linear, "linear"),
    (_convolution, "conv1d conv2d conv3d"),
    (_transposed, "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (_addmm, "addmm"),
    (_baddbmm, "baddbmm"),
    (_addmv, "addmv"),
    (_matmul, "matmul mm bmm mv"),
    (_einsum, "einsum"),
    (_tensordot, "tensordot"),
    (_inner, "inner"),
    (_bilinear, "bilinear"),
    (_recurrent, "lstm gru rnn_tanh rnn_relu"),
    (_cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
)

VECTORS: dict[str, Callable[[fx.Node], list[fx.Node]]] = _table(
    (_bias, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (_bias, "bilinear"),
    (_norm, "batch_norm instance_norm layer_norm group_norm rms_norm"),
    (_added, "addmm baddbmm addmv"),
    (_recurrent_biases, "lstm gru rnn_tanh rnn_relu"),
    (_cell_biases, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    (_elementwise, "add sub mul"),
)

_LOOKING_UP = ("embedding", "embedding_bag", "index", "index_select", "gather")

LOOK_UPS = frozenset(f"aten.{name}" for name in _LOOKING_UP)
"""Operators that read rows of a table."""
