"""Training and evaluation mode of a captured graph.

Stage: recovery. In: a graph captured in evaluation mode. Out: the same graph with its mode
arguments flipped. Never touches weights, and never anything but the mode: instance norm keeps
its `use_input_stats`, and what the author switched on for good (batch norm without running
statistics, dropout that samples in evaluation too) stays on.

The graph carries its mode as operator arguments (`aten.batch_norm(..., training, ...)`,
`aten.dropout(x, p, train)`, `aten.gru(..., train, ...)`); `.train()` and `.eval()` of such a
module raise. `num_batches_tracked` is not advanced: it only matters where the momentum is a
cumulative average, which a captured graph cannot express (see `TRAINING_MOMENTUM`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.fx import GraphModule, Node

from prunecli.graph.nodes import argument, argument_names, operator_name, put_argument

MODE_ARGUMENTS = ("training", "train")
"""How operators name the argument that says whether the network is being trained."""

TRAINING_MOMENTUM = 0.1
"""For batch norms captured with momentum 0: that is how torch.export writes down
`momentum=None` (a cumulative average), and it would leave the statistics of the original
network in place while the weights move away from them."""

_SAVED = "prunecli_evaluation_arguments"


def set_training(network: GraphModule, training: bool) -> None:
    """Switch a captured graph, and every graph inside it, to training or back to evaluation.

    Switching back restores each argument as it was; doing either twice changes nothing.
    """
    for graph_module in network.modules():
        if isinstance(graph_module, GraphModule):
            switch = _enter if training else _leave
            changed = [switch(node) for node in graph_module.graph.nodes]
            if any(changed):
                graph_module.recompile()


@contextmanager
def training_mode(network: GraphModule) -> Iterator[None]:
    """Training mode inside the block, evaluation mode after it, however the block ends."""
    set_training(network, True)
    try:
        yield
    finally:
        set_training(network, False)


def learns_statistics(network: GraphModule) -> bool:
    """Whether some batch norm computes statistics over the batch when training."""
    return any(
        _is_batch_norm(node) and _mode_argument(node) is not None
        for graph_module in network.modules()
        if isinstance(graph_module, GraphModule)
        for node in graph_module.graph.nodes
    )


def _enter(node: Node) -> bool:
    name = _mode_argument(node)
    if name is None or argument(node, name) is not False:
        return False
    saved: dict[str, Any] = {name: False}
    put_argument(node, name, True)
    if _is_batch_norm(node) and argument(node, "momentum") == 0.0:
        saved["momentum"] = 0.0
        put_argument(node, "momentum", TRAINING_MOMENTUM)
    node.meta[_SAVED] = saved
    return True


def _leave(node: Node) -> bool:
    saved: dict[str, Any] = node.meta.pop(_SAVED, {})
    for name, value in saved.items():
        put_argument(node, name, value)
    return bool(saved)


def _mode_argument(node: Node) -> str | None:
    names = argument_names(node)
    return next((name for name in MODE_ARGUMENTS if name in names), None)


def _is_batch_norm(node: Node) -> bool:
    return "batch_norm" in operator_name(node)
