"""Reading a captured graph: what a node calls, where it came from, how large its value is.

Stage: graph. In: nodes. Out: names, sizes and tensors. Changes nothing.
"""

import operator
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


def argument_names(node: fx.Node) -> tuple[str, ...]:
    """What an operator may be called with, in the order of its schema; nothing where `node` calls
    none."""
    return tuple(item.name for item in _schema_arguments(node))


def arguments(node: fx.Node) -> dict[str, Any]:
    """What an operator is called with, by name, defaults filled in."""
    schema = _schema_arguments(node)
    given = {item.name: value for item, value in zip(schema, node.args, strict=False)}
    given.update(node.kwargs)
    return {item.name: given.get(item.name, item.default_value) for item in schema}


def argument(node: fx.Node, name: str) -> Any:
    """One of `arguments`; `None` where the operator has none of that name."""
    return arguments(node).get(name)


def put_argument(node: fx.Node, name: str, value: Any) -> None:
    """Call the operator with `value` as `name`; a default at the end is not written out."""
    place = argument_names(node).index(name)
    if place < len(node.args):
        node.update_arg(place, value)
        return
    default = _schema_arguments(node)[place].default_value
    kept = {key: item for key, item in node.kwargs.items() if key != name}
    is_default = type(value) is type(default) and value == default
    node.kwargs = kept if is_default else {**kept, name: value}


def writes(node: fx.Node) -> bool:
    """Whether the operator writes into what it is called with."""
    target: Any = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def shown(node: fx.Node) -> fx.Node | None:
    """The operand whose memory the value may be: what it is a view of, or returned as it is."""
    first = node.args[0] if node.args and node.op == "call_function" else None
    if not isinstance(first, fx.Node) or node.target is operator.getitem:
        return first if isinstance(first, fx.Node) else None
    schema = _schema_arguments(node)
    view = bool(schema) and schema[0].alias_info is not None
    return first if view or operator_name(node) in _AS_THEY_ARE else None


def owner(node: fx.Node) -> fx.Node:
    """The value whose memory the value may be, through any number of views."""
    while (source := shown(node)) is not None:
        node = source
    return node


_AS_THEY_ARE = frozenset(
    f"aten.{name}"
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "type_as")
)
"""Operators that may return their operand itself, though their schema does not say so."""


def _schema_arguments(node: fx.Node) -> list[Any]:
    target: Any = node.target
    return target._schema.arguments if isinstance(target, torch._ops.OpOverload) else []


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


def is_free(extent: int | torch.SymInt) -> bool:
    """Whether a size during capture can have other values too."""
    # A symbol can have been found to have one value only: `view(2, -1)` in the model's code.
    return not isinstance(extent, int) and extent.node.maybe_as_int() is None
