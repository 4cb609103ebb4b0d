"""Attention as ONNX has it: with four axes.

Stage: export. In: a graph. Out: one that computes the same, with the same tensors.
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.capture import quiet_export

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default

AXES = 4
"""Batch, heads, tokens, width."""


def with_four_axes(network: fx.GraphModule) -> fx.GraphModule:
    """Where attention has more axes, those before its last three become one.

    Attention whose mask has those axes too is left as it is.
    """
    if not any(_axes(node) > AXES for node in network.graph.nodes):
        return network
    with quiet_export():
        graph = copy.deepcopy(network.graph)
    changed = fx.GraphModule(network, graph)
    for node in changed.graph.find_nodes(op="call_function", target=ATTENTION):
        if _axes(node) > AXES:
            _fold(changed.graph, node, _axes(node) - AXES)
    changed.recompile()
    return changed


def _axes(node: fx.Node) -> int:
    """Axes of the query; 0 for anything that is no attention, or has a mask per axis."""
    if node.target is not ATTENTION:
        return 0
    operands: list[Any] = [node.args[0], *node.args[3:4], node.kwargs.get("attn_mask")]
    ranks = [
        item.meta["val"].dim()
        for item in operands
        if isinstance(item, fx.Node) and isinstance(item.meta.get("val"), Tensor)
    ]
    return 0 if any(rank > 2 for rank in ranks[1:]) else ranks[0]


def _fold(graph: fx.Graph, node: fx.Node, more: int) -> None:
    """Axes 0 to `more` of query, key and value become one, and of the result again several."""
    call = graph.call_function
    query = node.args[0]
    with graph.inserting_before(node):
        sizes = [call(torch.ops.aten.sym_size.int, (query, axis)) for axis in range(more + 1)]
        for place in range(3):
            flat = call(torch.ops.aten.flatten.using_ints, (node.args[place], 0, more))
            node.update_arg(place, flat)
    with graph.inserting_after(node):
        result = call(torch.ops.aten.unflatten.int, (node, 0, sizes))
    node.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)
