"""Running a network without some of its blocks, without changing it.

Stage: graph. In: a graph, blocks and inputs. Out: values. Changes nothing.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.blocks import Block


class _Bypass(fx.Interpreter):
    """Runs a graph; a block's exit has the value that came into the block."""

    def __init__(self, network: fx.GraphModule, blocks: Iterable[Block]) -> None:
        super().__init__(network)
        self.left_out = list(blocks)
        self.skipped = {name for block in self.left_out for name in block.inside}
        self.entry_of = {block.exit: block.entry for block in self.left_out}
        self.entries = set(self.entry_of.values())
        self.seen: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.name in self.entry_of:
            value = self.seen[self.entry_of[n.name]]
        elif n.name in self.skipped:
            return None
        else:
            value = super().run_node(n)
        if n.name in self.entries:
            # A copy, since what comes later may write into it.
            self.seen[n.name] = value.clone()
        return value


def outermost(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Those of `blocks` that are not inside of another."""
    listed = list(blocks)
    return tuple(
        block
        for block in listed
        if not any(block.exit in other.inside for other in listed if other is not block)
    )


def run_without(
    network: fx.GraphModule, blocks: Iterable[Block], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Outputs of `network` for `inputs`, with every block's exit set to its entry."""
    runner = _Bypass(network, outermost(blocks))
    with torch.no_grad():
        # Copies, since a network may work on its input in place.
        found = runner.run(*(item.clone() for item in inputs))
    return found if isinstance(found, tuple) else (found,)
