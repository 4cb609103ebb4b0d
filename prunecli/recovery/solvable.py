"""Layers whose weights least squares can find anew.

Stage: recovery. In: the compact network, what is kept, masks. Out: `SolvableLayer`s. Changes
nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, fx, nn

from prunecli.graph.fields import Value
from prunecli.graph.nodes import argument, attribute, operator_name
from prunecli.recovery.aims import Following, following
from prunecli.surgery.kept import Kept

MOST_UNKNOWNS, MOST_WORK = 10_000, 3e12
"""Masked layers with more inputs, or more operations to solve for all outputs, stay as they are."""


@dataclass(frozen=True)
class SolvableLayer:
    """A layer with weights of its own in the compact network.

    Attributes:
        weight: (O, I/groups, ...).
        groups: blocks of a convolution.
        after: what is done to the output.
        mask: of `weight`, True stays; `None` where nothing is masked.
    """

    node: fx.Node
    weight: nn.Parameter
    bias: nn.Parameter | None
    groups: int
    after: Following
    mask: Tensor | None


def solvable_layers(
    network: fx.GraphModule, kept: Kept, masks: Mapping[str, Tensor]
) -> Iterator[SolvableLayer]:
    """Layers whose inputs or weights lost something, used once."""
    pruned = {slot.tensor for slot in kept.coupling.slots if not kept.keep[slot.units].all()}
    for node in network.graph.nodes:
        if operator_name(node) not in ("aten.linear", "aten.conv1d", "aten.conv2d"):
            continue
        source = argument(node, "weight")
        weight = attribute(network, str(source.target)) if source.op == "get_attr" else None
        if not isinstance(weight, nn.Parameter) or len(source.users) != 1:
            continue
        value = kept.flow.values[source.name]
        if not isinstance(value, Value) or value.parameter is None:
            continue
        mask = masks.get(value.parameter)
        if (value.parameter not in pruned and mask is None) or _too_large(weight, mask):
            continue
        groups = argument(node, "groups") or 1  # linear layers have none
        if isinstance(argument(node, "padding"), str) or weight.shape[1] == 1 < groups:
            continue
        given = argument(node, "bias")
        bias = attribute(network, str(given.target)) if given is not None else None
        yield SolvableLayer(node, weight, bias, int(groups), following(node), mask)


def _too_large(weight: Tensor, mask: Tensor | None) -> bool:
    """Whether a system for each output would take too much time or memory."""
    unknowns = math.prod(weight.shape[1:])
    if mask is None:
        return False
    own = mask.flatten(1).sum(1).double()
    return unknowns > MOST_UNKNOWNS or float(own.pow(3).sum()) > MOST_WORK
