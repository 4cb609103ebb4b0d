"""What a layer's output should be, given what is around it.

Stage: recovery. In: the original's output, and the values of both networks so far. Out: `Aim`s.
Changes nothing.

Two things make it differ from the original's output. Where the output is added to another value
(a residual stream), it makes up for what that value has lost already. And where what follows is
flat (a rectifier below zero), the original's output matters only as far as it stays there: Zhang
et al. 2016, "Accelerating Very Deep Convolutional Networks for Classification and Detection"
(arXiv:1505.06798), section 3.2, who solve for one layer at a time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from prunecli.graph.fields import Value
from prunecli.graph.nodes import argument, operator_name
from prunecli.graph.stepping import Stepper
from prunecli.surgery.kept import Kept

Range = tuple[float, float]

STEEP_ENOUGH = 1e-3
"""A norm that shrinks a channel to less than this share of the largest one's hides it: nothing
that is added later can be made up for there."""


@dataclass(frozen=True)
class Following:
    """What is done to a layer's output, where nothing else reads it.

    Attributes:
        norm: a batch norm.
        other: what is added to it then.
        alive: between which values what comes then has a slope, (lowest, highest); `None` where
            it has one everywhere or is not known.
    """

    norm: fx.Node | None = None
    other: fx.Node | None = None
    alive: Range | None = None


@dataclass(frozen=True)
class Aim:
    """What a layer's output should be. All shapes are those of the output.

    Attributes:
        wanted: its values.
        before: what reaches a rectifier then.
        slope: how that changes with the output; broadcasts to it.
        alive: as in `Following`.
    """

    wanted: Tensor
    before: Tensor | None = None
    slope: Tensor | None = None
    alive: Range | None = None


@dataclass(frozen=True)
class Pair:
    """Both networks while they run side by side.

    Attributes:
        twins: the original's nodes by name.
    """

    original: Stepper
    smaller: Stepper
    twins: Mapping[str, fx.Node]
    kept: Kept

    def expected(self, node: fx.Node) -> Tensor | None:
        """The original's value of `node`, on the channels that stay, while it is there."""
        twin, value = self.twins.get(node.name), self.kept.flow.values.get(node.name)
        found = None if twin is None else self.original.env.get(twin)
        if not isinstance(found, Tensor) or not isinstance(value, Value):
            return None
        return self.kept.gather(value, found)


def following(node: fx.Node) -> Following:
    """What comes after a layer."""
    norm = other = None
    last, after = _next(node)
    if after is not None and _is_norm_of(after, node):
        norm = after
        last, after = _next(after)
    if after is not None and operator_name(after) == "aten.add" and not after.kwargs:
        others = [item for item in after.args if item is not last]
        if len(others) == 1 and isinstance(others[0], fx.Node):
            other = others[0]
            _, after = _next(after)
    alive = _ALIVE.get(operator_name(after)) if after is not None else None
    return Following(norm, other, alive(after) if alive and after is not None else None)


def aim_of(node: fx.Node, around: Following, pair: Pair) -> Aim | None:
    """What the output of `node` should be; `None` where the original has no such value.

    Call it when the original has run `node` and the smaller network what comes before it.
    """
    wanted = pair.expected(node)
    if wanted is None:
        return None
    norm = _affine(around.norm, pair.smaller, wanted)
    if around.other is None:
        return _rectified(wanted, None, norm, around.alive)
    there = pair.smaller.env.get(around.other)
    meant = pair.expected(around.other)
    if not isinstance(there, Tensor) or meant is None or there.shape != wanted.shape:
        return Aim(wanted)  # it is computed later, and makes up for this one
    slope = norm[0]
    steep = slope.abs() >= STEEP_ENOUGH * slope.abs().max()
    lost = torch.where(steep, (meant - there) / torch.where(steep, slope, 1.0), 0.0)
    return _rectified(wanted + lost, there, norm, around.alive)


def _rectified(
    wanted: Tensor, other: Tensor | None, norm: tuple[Tensor, Tensor], alive: Range | None
) -> Aim:
    if alive is None:
        return Aim(wanted)
    slope, offset = norm
    before = wanted * slope + offset
    return Aim(wanted, before if other is None else before + other, slope, alive)


def _affine(norm: fx.Node | None, network: Stepper, output: Tensor) -> tuple[Tensor, Tensor]:
    """What a norm that has its statistics does, as slope and offset `(1, C, 1, ...)`."""
    if norm is None:
        one = torch.ones((1,) * output.dim())
        return one, torch.zeros_like(one)

    def numbers(name: str, otherwise: float) -> Tensor:
        given = argument(norm, name)
        if given is None:
            return torch.full((output.shape[1],), otherwise, dtype=torch.float64)
        found: Tensor = network.map_nodes_to_values(given, norm)
        return found.double()

    slope = numbers("weight", 1.0) / (numbers("running_var", 1.0) + argument(norm, "eps")).sqrt()
    offset = numbers("bias", 0.0) - numbers("running_mean", 0.0) * slope
    shape = (1, -1, *(1,) * (output.dim() - 2))
    return slope.reshape(shape).to(output.dtype), offset.reshape(shape).to(output.dtype)


def _is_norm_of(after: fx.Node, node: fx.Node) -> bool:
    """Whether it is a batch norm with statistics of its own, over the axis of the layer's
    outputs."""
    if operator_name(after) != "aten.batch_norm" or argument(after, "running_mean") is None:
        return False
    return operator_name(node) != "aten.linear" or len(node.meta["val"].shape) == 2


def _next(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """The only reader of a value, and by which name it reads it; what does nothing outside of
    training is passed."""
    users = list(node.users)
    while len(users) == 1 and operator_name(users[0]) in _NOTHING:
        node = users[0]
        users = list(node.users)
    return node, users[0] if len(users) == 1 else None


_NOTHING = frozenset({"aten.dropout", "aten.feature_dropout"})


def _between(low: float, high: float) -> Callable[[fx.Node], Range]:
    return lambda _: (low, high)


def _clamped(node: fx.Node) -> Range:
    return float(argument(node, "min_val")), float(argument(node, "max_val"))


_ALIVE: Mapping[str, Callable[[fx.Node], Range]] = {
    "aten.relu": _between(0.0, math.inf),
    "aten.relu6": _between(0.0, 6.0),
    "aten.hardtanh": _clamped,
    "aten.hardswish": _between(-3.0, math.inf),
    "aten.hardsigmoid": _between(-3.0, 3.0),
}
"""Between which values an operator has a slope. What is smooth has one everywhere."""
