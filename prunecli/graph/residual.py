"""Residual additions: where a value is added to what was computed from it.

Stage: graph. In: `Wiring`. Out: `Residual`s, and why other additions are none. Knows no names of
architectures; changes nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.nodes import operator_name
from prunecli.graph.wiring import Nodes, Wiring

COMPUTED_ANEW = "the shortcut has weights, or pads or reshapes the value"
USED_ELSEWHERE = "something inside is used by other parts of the network as well"
OVERWRITTEN = "the value on the shortcut is overwritten in place before it is added"
NO_LAYERS = "nothing with weights inside"


@dataclass(frozen=True)
class Residual:
    """`exit_` is `entry` plus what was computed from it.

    Attributes:
        entry, exit_: values of one shape and type; the last one is an addition.
        trunk: the additions on the way of `entry` itself, the last one being `exit_`.
        inside: what is computed from `entry` and used for `exit_` only, in order, with `exit_`.
    """

    entry: fx.Node
    exit_: fx.Node
    trunk: Nodes
    inside: Nodes


@dataclass(frozen=True)
class Residuals:
    """All of a network.

    Attributes:
        found: in graph order of their exits.
        others: per reason, additions of two tensors that are no residual blocks.
    """

    found: tuple[Residual, ...]
    others: Mapping[str, Nodes]


def find_residuals(wiring: Wiring) -> Residuals:
    """Every addition `b = a + f(a)`, with further summands that depend on `a` perhaps, where all
    of `f` is used for `b` only."""
    found: dict[fx.Node, Residual] = {}
    others: dict[str, list[fx.Node]] = {}
    for node in wiring.order:
        if not _adds(node):
            continue
        reason = COMPUTED_ANEW
        for terms in _sums(node, wiring):
            made = _residual(node, terms, wiring)
            if isinstance(made, Residual):
                for step in made.trunk:
                    # An addition on the way to a larger sum: both parts go together.
                    found.pop(step, None)
                found[node] = made
                break
            reason = made
        else:
            others.setdefault(reason, []).append(node)
    return Residuals(
        tuple(found.values()), {reason: tuple(nodes) for reason, nodes in others.items()}
    )


Terms = dict[fx.Node, Nodes]
"""Summands that count once, each with the additions it passes, from the inside out."""


def _adds(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return (
        node.op == "call_function"
        and operator_name(node) == "aten.add"
        and isinstance(value, Tensor)
        and value.is_floating_point()
        and len(node.args) == 2
        and all(isinstance(item, fx.Node) for item in node.args)
    )


def _sums(node: fx.Node, wiring: Wiring) -> Iterator[Terms]:
    """The sum as a whole, then the addition alone."""
    whole = _terms(node, wiring, deep=True)
    alone = _terms(node, wiring, deep=False)
    yield whole
    if whole.keys() != alone.keys():
        yield alone


def _terms(node: fx.Node, wiring: Wiring, *, deep: bool) -> Terms:
    terms: Terms = {}
    waiting: list[tuple[fx.Node, Nodes]] = [(node, ())]
    while waiting:
        item, path = waiting.pop()
        first = item is node
        inner = deep and _adds(item) and _alike(item, node) and wiring.users[item] == (path[:1])
        if not first and not inner:
            # A value that is there twice is no summand that counts once.
            terms[item] = path if item not in terms else ()
            continue
        alpha = item.kwargs.get("alpha", 1)
        left, right = (part for part in item.args if isinstance(part, fx.Node))
        waiting.append((left, (item, *path)))
        # What is added with a factor is no summand that counts once either.
        waiting.append((right, (item, *path)) if alpha == 1 else (right, ()))
    return terms


def _residual(node: fx.Node, terms: Terms, wiring: Wiring) -> Residual | str:
    """The block that ends with `node`, or why there is none."""
    entry = min(terms, key=lambda item: wiring.place[item])
    inside = wiring.between(entry, node)
    trunk = terms[entry]
    # A branch that only moves the value about is no block.
    if not trunk or not _alike(entry, node):
        return COMPUTED_ANEW
    if any(item is not entry and item not in inside for item in terms):
        return COMPUTED_ANEW
    if not closed(inside, wiring):
        return USED_ELSEWHERE
    if overwritten(entry, trunk, wiring):
        return OVERWRITTEN
    return Residual(entry, node, trunk, inside)


def closed(inside: Nodes, wiring: Wiring) -> bool:
    """Whether nothing but the last of `inside` is used outside."""
    own = set(inside)
    return all(user in own for node in inside[:-1] for user in wiring.users[node])


def overwritten(entry: fx.Node, trunk: Nodes, wiring: Wiring) -> bool:
    """Whether something off the trunk writes into the memory of `entry` before the trunk ends.

    `x += f(x)` is part of the trunk. Where the branch writes into `x`, the sum is not that of the
    value that came in.
    """
    start, end = wiring.place[entry], max(wiring.place[step] for step in trunk)
    return any(
        start < wiring.place[writer] <= end and writer not in trunk
        for writer in wiring.writers.get(wiring.owners[entry], ())
    )


def _alike(one: fx.Node, two: fx.Node) -> bool:
    return alike(one.meta.get("val"), two.meta.get("val"))


def alike(one: object, two: object) -> bool:
    """Whether two values have one type and one shape, whatever the free sizes are."""
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        return False
    return one.dtype == two.dtype and extents(one) == extents(two)


def extents(value: Tensor) -> tuple[str, ...]:
    """Sizes as text, the free ones as formulas of free sizes."""
    return tuple(formula(size) for size in value.shape)


def formula(size: int | torch.SymInt) -> str:
    """A size as text."""
    symbolic: Any = getattr(size, "node", None)
    return str(size) if symbolic is None else str(symbolic.expr)
