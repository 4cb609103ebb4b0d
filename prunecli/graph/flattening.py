"""Flattening: a program as a graph from tensors one after another to tensors.

Stage: graph, while capturing. In: a program. Out: a graph module without what export added:
checks, nested arguments, contexts as graphs of their own, parameters that nobody reads.
"""

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from prunecli.errors import ModelError
from prunecli.graph.inlining import inline_contexts


def unlifted(program: ExportedProgram) -> fx.GraphModule:
    """The program as a graph module that is called as what was exported."""
    network = program.module(check_guards=False)
    if not isinstance(network, fx.GraphModule):
        raise ModelError("program: does not unlift to a graph module")
    return network


def flat(network: fx.GraphModule) -> fx.GraphModule:
    """The same, in place, as one that takes and returns tensors one after another."""
    inline_contexts(network)
    for node in list(network.graph.nodes):
        # Export's checks would reject the compact network's own shapes, other devices, and the
        # precision in which results are compared.
        guard = node.op == "call_module" and node.target == "_guards_fn"
        if guard or node.target is torch.ops.aten._assert_tensor_metadata.default:
            network.graph.erase_node(node)
    # Checks of the arguments as they were before flattening.
    for hooks in (network._forward_pre_hooks, network._forward_hooks):
        hooks.clear()
    network._forward_pre_hooks_with_kwargs.clear()
    _flatten(network.graph)
    drop_unread(network)
    network.recompile()
    return network


def _flatten(graph: fx.Graph) -> None:
    graph.set_codegen(fx.graph.CodeGen())
    for node in graph.find_nodes(op="placeholder"):
        # Flags and missing arguments were decided when the program was exported.
        if not isinstance(node.meta.get("val"), Tensor):
            if node.users:
                raise ModelError(
                    f"program: inputs must be tensors, got a number as {node.name}",
                    "export a wrapper that passes it as a constant",
                )
            graph.erase_node(node)
    output = next(iter(graph.find_nodes(op="output")))
    held: list[fx.Node] = []
    fx.map_arg(output.args[0], held.append)
    held = [node for node in held if isinstance(node.meta.get("val"), Tensor)]
    if not held:
        raise ModelError("program: must return tensors, got none", "export a model that does")
    output.args = (held[0] if len(held) == 1 else tuple(held),)


def drop_unread(network: fx.GraphModule) -> None:
    """Forget parameters that the graph does not read, such as those of heads that exist only in
    training: they would count as parts of the network and be stored with it."""
    read = set()
    for node in network.graph.find_nodes(op="get_attr"):
        if node.users:
            read.add(str(node.target))
        else:
            network.graph.erase_node(node)
    for name, _ in list(network.named_parameters(remove_duplicate=False)):
        if name not in read:
            path, _, leaf = name.rpartition(".")
            delattr(network.get_submodule(path), leaf)
