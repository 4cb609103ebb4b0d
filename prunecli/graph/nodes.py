"""Reading a captured graph: what a node calls, where it came from, how large its value is.

Stage: graph. In: nodes. Out: names, sizes and tensors. Changes nothing.
"""

from typing import Any

import torch
from torch import Tensor, fx

from prunecli.errors import ModelError

Shape = tuple[int, ...]


def operator_name(node: fx.Node) -> str:
    """`aten.add` for `aten.add_.Tensor`: namespace and packet, without overload."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__name__", str(target))
    namespace, _, packet = target._schema.name.partition("::")
    in_place = packet.endswith("_") and not packet.endswith("__")
    return f"{namespace}.{packet[:-1] if in_place else packet}"


def module_path(node: fx.Node) -> str:
    """Path of the module that called the operator, as far as capture kept it."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    return paths[-1] if paths else ""


def is_input(node: fx.Node) -> bool:
    """Whether the value is an input of the network, perhaps moved or cast."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1:
        (node,) = node.all_input_nodes
    return node.op == "placeholder"


def stack_trace(node: fx.Node) -> str:
    """The lines of Python that called the operator, outermost first, as far as they are known."""
    return node.meta.get("stack_trace") or ""


def attribute(network: fx.GraphModule, target: str) -> Any:
    """The tensor behind a dotted `get_attr` target."""
    found: Any = network
    for part in target.split("."):
        found = getattr(found, part)
    return found


def concrete(item: Any) -> Any:
    """Sizes as plain numbers: symbolic ones take the value they had during capture.

    Raises:
        ModelError: the size has no value before the network runs.
    """
    if not isinstance(item, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return item
    if item.node.hint is None:
        raise ModelError(
            f"model: a size inside the network depends on the values of its input, got {item}",
            "leave out what selects by value (nonzero, masks as indices, repeats as a tensor)",
        )
    return int(item.node.hint) if isinstance(item, torch.SymInt) else item.node.hint


def shape_of(tensor: Tensor) -> Shape:
    """A captured tensor's shape with the example's batch."""
    return tuple(int(concrete(extent)) for extent in tensor.shape)
