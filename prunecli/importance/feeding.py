"""What comes through each weight of an operator: one function per kind of operator.

Stage: importance. In: a node that is about to run, and the values of its operands. Out: for each
weight, the sum of squares of what its elements multiply. Operators that are not in `FEEDS` cannot
be looked into.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.nodes import argument

Values = Callable[[Any], Any]
"""A node's value (also inside of lists); anything else as it is."""

Feeds = Iterator[tuple[fx.Node, Callable[[], Tensor]]]
"""Operands that may be weights, and how to get the sums; those broadcast to the operand."""


def _sums(values: Tensor, axis: int) -> Tensor:
    """Sum of squares over all axes but one; double."""
    return values.double().square().movedim(axis, 0).flatten(1).sum(1)


def _linear(node: fx.Node, value: Values) -> Feeds:
    """x (..., I), weight (O, I)."""
    yield argument(node, "weight"), lambda: _sums(value(argument(node, "input")), -1)


def _convolution(node: fx.Node, value: Values) -> Feeds:
    """x (N, I, ...), weight (O, I/g, ...): every input channel once per position."""
    weight: fx.Node = argument(node, "weight")

    def sums() -> Tensor:
        shape, source = value(weight).shape, value(argument(node, "input"))
        groups: int = value(argument(node, "groups"))
        squares = _sums(source, source.dim() - len(shape) + 1).reshape(groups, -1)
        rows = squares.repeat_interleave(shape[0] // groups, 0)
        return rows.reshape(*rows.shape, *[1] * (len(shape) - 2))

    yield weight, sums


def _transposed(node: fx.Node, value: Values) -> Feeds:
    """x (N, I, ...), weight (I, O/g, ...)."""
    weight: fx.Node = argument(node, "weight")

    def sums() -> Tensor:
        rank, source = value(weight).dim(), value(argument(node, "input"))
        return _sums(source, source.dim() - rank + 1).reshape(-1, *[1] * (rank - 1))

    yield weight, sums


def _product(operands: tuple[fx.Node, fx.Node], terms: tuple[str, str], value: Values) -> Feeds:
    """Two operands with one letter per axis, either of which may be the weight."""
    (left, right), (one, two) = operands, terms
    yield right, lambda: _met(value(left), one, value(right).shape, two)
    yield left, lambda: _met(value(right), two, value(left).shape, one)


def _met(values: Tensor, term: str, shape: torch.Size, own: str) -> Tensor:
    """Sum of squares of the values that each element of the other operand, of `shape` and with
    axes `own`, is multiplied with; broadcasts to it."""
    summed = [
        axis
        for axis, letter in enumerate(term)
        if letter not in own or shape[own.index(letter)] == 1
    ]
    squares = values.double().square()
    squares = squares.sum(summed) if summed else squares
    left = [letter for axis, letter in enumerate(term) if axis not in summed]
    squares = squares.permute([left.index(letter) for letter in own if letter in left])
    for axis, letter in enumerate(own):
        if letter not in left:
            squares = squares.unsqueeze(axis)
    return squares


def _fixed_product(first: str, one: str, second: str, two: str) -> Callable[..., Feeds]:
    def feeds(node: fx.Node, value: Values) -> Feeds:
        yield from _product((argument(node, first), argument(node, second)), (one, two), value)

    return feeds


def _matmul(node: fx.Node, value: Values) -> Feeds:
    """(..., M, K) by (..., K, N); vectors as PyTorch defines them."""
    left, right = node.args[:2]
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    one, two = (len(item.meta["val"].shape) for item in (left, right))
    letters = "abcdefgh"[: max(one, two, 2) - 2]
    first = letters[len(letters) - max(one - 2, 0) :] + ("MK" if one > 1 else "K")
    second = letters[len(letters) - max(two - 2, 0) :] + ("KN" if two > 1 else "K")
    yield from _product((left, right), (first, second), value)


def _einsum(node: fx.Node, value: Values) -> Feeds:
    """Of two operands; what an ellipsis stands for is aligned at its end."""
    operands = node.args[1]
    assert isinstance(operands, (list, tuple))
    terms = str(node.args[0]).replace(" ", "").partition("->")[0].split(",")
    if len(operands) != 2:
        return
    left, right = operands
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    spelled = []
    for item, term in zip((left, right), terms, strict=True):
        hidden = len(item.meta["val"].shape) - len(term.replace("...", ""))
        spelled.append(term.replace("...", "αβγδεζηθ"[8 - hidden :]))
    yield from _product((left, right), (spelled[0], spelled[1]), value)


def _recurrent(node: fx.Node, value: Values) -> Feeds:
    """Matrices (gates * H, I) read the layer's input, (gates * H, S) the states before each step.

    Layers above the first are fed by those below, which are run again one by one. What a
    projection reads is not seen.
    """
    source = argument(node, "input")
    if source is None:  # packed sequences
        return
    given_states = value(argument(node, "hx"))
    first: Tensor = given_states[0] if isinstance(given_states, (list, tuple)) else given_states
    params: list[fx.Node] = list(argument(node, "params"))
    directions = 2 if argument(node, "bidirectional") else 1
    layers = int(argument(node, "num_layers"))
    each = len(params) // (layers * directions)
    x = value(source).transpose(0, 1) if argument(node, "batch_first") else value(source)
    for layer in range(layers):
        own = slice(layer * directions, (layer + 1) * directions)
        weights = params[own.start * each : own.stop * each]
        out = _run_layer(node, x, given_states, own, value(weights))
        for place in range(directions):
            start = first[own.start + place]
            states = out.chunk(directions, -1)[place]
            before = states[1:] if place else states[:-1]
            squares = _sums(before, -1) + _sums(start, -1)
            yield weights[place * each], _constant(_sums(x, -1))
            yield weights[place * each + 1], _constant(squares)
        x = out


def _constant(found: Tensor) -> Callable[[], Tensor]:
    return lambda: found


def _run_layer(node: fx.Node, x: Tensor, states: Any, own: slice, weights: list[Tensor]) -> Tensor:
    """Output (T, B, directions * S) of one layer for the input (T, B, I)."""
    target: Any = node.target
    start = [item[own] for item in states] if isinstance(states, (list, tuple)) else states[own]
    biases, both = argument(node, "has_biases"), argument(node, "bidirectional")
    out: Tensor = target(x, start, weights, biases, 1, 0.0, False, both, False)[0]
    return out


def _cell(node: fx.Node, value: Values) -> Feeds:
    """One step: input (..., I), state (..., H)."""
    yield argument(node, "w_ih"), lambda: _sums(value(argument(node, "input")), -1)
    given_states = argument(node, "hx")
    state = given_states[0] if isinstance(given_states, (list, tuple)) else given_states
    yield argument(node, "w_hh"), lambda: _sums(value(state), -1)


_TABLE: tuple[tuple[Callable[[fx.Node, Values], Feeds], str], ...] = (
    (_linear, "linear"),
    (_convolution, "conv1d conv2d conv3d"),
    (_transposed, "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (_fixed_product("mat1", "NI", "mat2", "IO"), "addmm"),
    (_fixed_product("batch1", "BNK", "batch2", "BKM"), "baddbmm"),
    (_fixed_product("mat", "NK", "vec", "K"), "addmv"),
    (_matmul, "matmul mm bmm mv"),
    (_einsum, "einsum"),
    (_recurrent, "lstm gru rnn_tanh rnn_relu"),
    (_cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
)

FEEDS = {f"aten.{name}": feeds for feeds, names in _TABLE for name in names.split()}
