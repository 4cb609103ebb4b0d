"""Running a captured graph one node at a time, so that two graphs can run side by side.

Stage: graph. In: a graph and its inputs, in the order of its placeholders. Out: values. Changes
nothing.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx


class Stepper(fx.Interpreter):
    """Runs a graph one node at a time, freeing values after their last use.

    Parameters are made where they are used: captured graphs name them all at the start, and
    masked or cast copies of all at once would be as large as the network.
    """

    def __init__(self, network: fx.GraphModule, precision: torch.dtype) -> None:
        super().__init__(network)
        self.precision = precision

    def run_one(self, node: fx.Node, inputs: Any) -> Any:
        """Value of `node`; those before it must have been run."""
        if node.op == "get_attr":
            return None
        self.args_iter = inputs
        # What the network's own code casts, or creates, is in the asked precision too.
        value = self.run_node(node)
        if isinstance(value, (tuple, list)):
            value = tuple(cast(item, self.precision) for item in value)
        value = cast(value, self.precision)
        self.env[node] = value
        for dead in self.user_to_last_uses.get(node, ()):
            self.env.pop(dead, None)
        return value

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:
        def value(item: fx.Node) -> Any:
            return self.run_node(item) if item.op == "get_attr" else self.env[item]

        return fx.map_arg(args, value)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return cast(super().get_attr(target, args, kwargs), self.precision)


def at_least_single(inputs: Iterable[Tensor]) -> torch.dtype:
    """The precision of the inputs that are numbers, at least single."""
    kinds = (item.dtype for item in inputs if item.is_floating_point())
    return reduce(torch.promote_types, kinds, torch.float32)


def cast(item: Any, precision: torch.dtype) -> Any:
    """Floating tensors in `precision`, anything else as it is."""
    if isinstance(item, Tensor) and item.is_floating_point():
        return item.to(precision)
    return item
