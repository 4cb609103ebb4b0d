"""Inlining: what a network computes inside a context becomes a part of its graph.

Stage: graph. In: a captured network. Out: the same network without graphs inside its graph, as
far as the context can be written as operators. Changes no result and no gradient.
"""

import operator
from typing import Any

import torch
from torch import fx


def inline_contexts(network: fx.GraphModule) -> None:
    """Take the place of `torch.autocast(..., enabled=False)` and `torch.no_grad()`.

    torch.export keeps them as one operator each, with a graph of its own. Nothing is cast where
    autocast is off; what is computed without gradients is detached.
    """
    for node in list(network.graph.nodes):
        found = _context(node)
        if found is not None:
            _inline(network, node, *found)


def _context(node: fx.Node) -> tuple[int, bool] | None:
    """Where the graph stands among the arguments, and whether its results have no gradient."""
    if not isinstance(node.target, torch._ops.HigherOrderOperator):
        return None
    name = node.target.name()  # type: ignore[no-untyped-call]
    if name == "wrap_with_autocast" and node.args[2] is False:
        return 4, False
    if name == "wrap_with_set_grad_enabled":
        return 1, node.args[0] is False
    return None


def _inline(network: fx.GraphModule, node: fx.Node, place: int, detached: bool) -> None:
    holder = node.args[place]
    assert isinstance(holder, fx.Node)
    path = str(holder.target)
    inner = network.get_submodule(path)
    assert isinstance(inner, fx.GraphModule)
    inline_contexts(inner)
    with network.graph.inserting_before(node):
        results = _copied(network.graph, inner.graph, path, node.args[place + 1 :])
        if detached:
            results = fx.map_arg(results, lambda item: _detached(network.graph, item))
    for user in list(node.users):
        if user.target is operator.getitem and isinstance(results, (tuple, list)):
            which: Any = user.args[1]
            user.replace_all_uses_with(results[which])
            network.graph.erase_node(user)
    if isinstance(results, fx.Node):
        node.replace_all_uses_with(results)
    network.graph.erase_node(node)
    if not holder.users:
        network.graph.erase_node(holder)
    if not any(
        str(item.target).startswith(path) for item in network.graph.find_nodes(op="get_attr")
    ):
        network.delete_submodule(path)


def _copied(graph: fx.Graph, inner: fx.Graph, path: str, inputs: tuple[Any, ...]) -> Any:
    """Copy the nodes of `inner` to where `graph` inserts; what `inner` returns."""
    known: dict[fx.Node, Any] = {}
    given = iter(inputs)
    results: Any = ()
    for node in inner.nodes:
        if node.op == "placeholder":
            known[node] = next(given)
        elif node.op == "output":
            results = fx.map_arg(node.args[0], known.__getitem__)
        else:
            known[node] = graph.node_copy(node, known.__getitem__)
            if node.op == "get_attr":
                known[node].target = f"{path}.{node.target}"
    return results


def _detached(graph: fx.Graph, item: fx.Node) -> fx.Node:
    node = graph.call_function(torch.ops.aten.detach.default, (item,))
    node.meta = dict(item.meta)
    return node
