"""What a row of the operator table is, and the small networks that most rows share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from engine_harness import Net, Shape
from torch import Tensor, nn

Function = Callable[..., Any]

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
IMAGE: Shape = (3, 8, 8)


@dataclass(frozen=True)
class Row:
    """One operator or situation.

    Attributes:
        name: test id.
        make: builds the network.
        shapes: of the inputs, without the batch.
        goes: tensors whose axis 0 must lose something in at least one trial.
        stays: layer -> words of the reason why it stays.
        unknown: operators without a rule.
        macs: target of the trial by MACs, for networks too coarse for the usual one.
        exact: false where the expectation cannot be had by zeroing (norms over a pruned axis
            without parameters); the engine's oracle decides alone there.
    """

    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...] = (IMAGE,)
    goes: tuple[str, ...] = ("a.weight",)
    stays: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    macs: float = 0.6
    exact: bool = True


def sandwich(
    name: str,
    between: Function,
    *,
    width: int = 12,
    after: int | None = None,
    dims: int = 2,
    size: int = 8,
    layers: Callable[[], Mapping[str, nn.Module | Tensor]] = dict,
    **row: Any,
) -> Row:
    """conv a -> `between(net, x)` -> conv b, whose outputs leave the network."""

    def make() -> nn.Module:
        conv = CONV[dims]
        return Net(
            lambda net, x: net.b(between(net, net.a(x))),
            a=conv(3, width, 3, padding=1),
            b=conv(after or width, 5, 1),
            **layers(),
        )

    return Row(name, make, ((3, *[size] * dims),), **row)


def pointwise(name: str, function: Callable[[Tensor], Tensor], **row: Any) -> Row:
    """A function of the features alone."""
    return sandwich(name, lambda net, x: function(x), **row)


def stuck(
    name: str,
    between: Function,
    reason: str,
    *,
    width: int = 12,
    after: int | None = None,
    layers: Callable[[], Mapping[str, nn.Module | Tensor]] = dict,
    **row: Any,
) -> Row:
    """conv a (free) -> relu -> conv b (stays) -> `between(net, x)` -> conv c."""

    def make() -> nn.Module:
        return Net(
            lambda net, x: net.c(between(net, net.b(torch.relu(net.a(x))))),
            a=nn.Conv2d(3, 10, 3, padding=1),
            b=nn.Conv2d(10, width, 1),
            c=nn.Conv2d(after or width, 5, 1),
            **layers(),
        )

    return Row(name, make, (IMAGE,), stays={"b": reason}, macs=0.8, **row)


def mlp(name: str, between: Function, *, after: int = 16, **row: Any) -> Row:
    """linear a (10 -> 16) -> `between(net, x)` -> linear b."""
    layers = row.pop("layers", dict)

    def make() -> nn.Module:
        return Net(
            lambda net, x: net.b(between(net, net.a(x))),
            a=nn.Linear(10, 16),
            b=nn.Linear(after, 4),
            **layers(),
        )

    return Row(name, make, ((10,),), **row)
