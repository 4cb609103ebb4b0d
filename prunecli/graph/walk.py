"""The walk: once over the graph, giving every value its labels.

Stage: graph. In: `Captured`. Out: `Flow`. Decides nothing about what is removed.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunecli.graph.call import Call, Notes, Shape, frozen
from prunecli.graph.capture import Captured
from prunecli.graph.fields import Value, along
from prunecli.graph.labels import Freeze, Labels
from prunecli.graph.nodes import (
    arguments,
    attribute,
    concrete,
    module_path,
    operator_name,
    shape_of,
    shown,
    stack_trace,
    writes,
)
from prunecli.graph.rules.table import RULES
from prunecli.graph.vanishing import vanishing

Result = Value | tuple[Value | None, ...] | None


@dataclass(frozen=True)
class Flow:
    """What the walk found.

    Attributes:
        labels: ties, freezes and constraints.
        values: per node name, its value(s); `None` for sizes and other non-tensors.
        parameters: per parameter, buffer or constant, its value.
        notes: what the rules recorded besides labels.
    """

    labels: Labels
    values: Mapping[str, Result]
    parameters: Mapping[str, Value]
    notes: Notes


def walk(captured: Captured) -> Flow:
    """Propagate labels through the captured graph, in its order."""
    labels = Labels()
    notes = Notes()
    parameters: dict[str, Value] = {}
    values: dict[str, Result] = {}
    identity: dict[tuple[int, ...], str] = {}
    for node in captured.network.graph.nodes:
        if node.op == "placeholder" or (node.op == "get_attr" and not node.users):
            values[node.name] = _plain(node)
        elif node.op == "get_attr":
            name = _canonical(captured.network, str(node.target), identity)
            known = parameters.get(name) or _parameter(captured.network, node, name, labels)
            if known is not None:
                parameters[name] = known
            values[node.name] = known
        elif node.op == "call_function":
            values[node.name] = _call(node, values, labels, notes)
            _note_written(node, values)
        elif node.op == "output":
            _close(node, values, labels)
    return Flow(labels, values, parameters, notes)


def _call(node: fx.Node, values: dict[str, Result], labels: Labels, notes: Notes) -> Result:
    if node.target is operator.getitem:
        origin, place = node.args
        source = values[str(origin)]
        return source[place] if isinstance(source, tuple) and isinstance(place, int) else None
    shapes = _shapes(node)
    if not shapes:
        return None
    name = operator_name(node)
    arguments = _arguments(node, values)
    call = Call(node, name, arguments, shapes, labels, notes, module_path(node))
    _note_readers(call)
    rule = RULES.get(name)
    if rule is None:
        return _frozen(call)
    result = rule(call)
    if isinstance(result, tuple):
        return tuple(None if item is None else _marked(call, item) for item in result)
    return _marked(call, result)


def _note_readers(call: Call) -> None:
    for argument, item in call.arguments.items():
        for member in item if isinstance(item, (list, tuple)) else (item,):
            if isinstance(member, Value) and member.parameter:
                call.notes.readers.setdefault(member.parameter, []).append((call.name, argument))


def _marked(call: Call, value: Value) -> Value:
    return replace(value, vanishes=True) if vanishing(call, value) else value


def _note_written(node: fx.Node, values: dict[str, Result]) -> None:
    """What an operator writes shows in all that shares its memory: views, and what they are of."""
    result = values[node.name]
    if not writes(node) or not isinstance(result, Value) or result.vanishes:
        return
    for item in sharing_memory(node):
        if item.name in values:
            values[item.name] = _not_vanishing(values[item.name])


def sharing_memory(node: fx.Node) -> list[fx.Node]:
    """The node that owns the memory which `node` shows, and all that show it, `node` too."""
    owner = node
    while (source := shown(owner)) is not None:
        owner = source
    found = [owner]
    for item in found:
        found += [user for user in item.users if shown(user) is item]
    return found


def _not_vanishing(value: Result) -> Result:
    if isinstance(value, tuple):
        return tuple(None if item is None else replace(item, vanishes=False) for item in value)
    return None if value is None else replace(value, vanishes=False)


def _frozen(call: Call) -> Result:
    """No rule: whatever reaches the operator stays as it is."""
    if any(value.fields for value in call.values()):
        call.notes.unknown.setdefault(call.name, []).append((call.place, stack_trace(call.node)))
    return frozen(call, "no rule for this operator")


def _shapes(node: fx.Node) -> tuple[Shape, ...]:
    val = node.meta.get("val")
    if isinstance(val, Tensor):
        return (shape_of(val),)
    if isinstance(val, (list, tuple)):
        return tuple(shape_of(item) for item in val if isinstance(item, Tensor))
    return ()


def _arguments(node: fx.Node, values: dict[str, Result]) -> dict[str, Any]:
    """Arguments by name, with what the walk knows of them."""

    def resolve(item: Any) -> Any:
        if isinstance(item, fx.Node):
            value = values[item.name]
            return concrete(item.meta.get("val")) if value is None else value
        if isinstance(item, (list, tuple)):
            return [resolve(member) for member in item]
        return item

    if not isinstance(node.target, torch._ops.OpOverload):
        return {str(place): resolve(item) for place, item in enumerate(node.args)}
    return {name: resolve(item) for name, item in arguments(node).items()}


def _plain(node: fx.Node) -> Result:
    val = node.meta.get("val")
    return Value(shape_of(val)) if isinstance(val, Tensor) else None


def _canonical(network: fx.GraphModule, target: str, identity: dict[tuple[int, ...], str]) -> str:
    """One name for a tensor that several names share, so that all its uses share labels."""
    tensor = attribute(network, target)
    if not isinstance(tensor, Tensor) or tensor.numel() < 2:
        return target
    key = (tensor.data_ptr(), tensor.storage_offset(), *tensor.shape, *tensor.stride())
    return identity.setdefault(key, target)


def _parameter(network: fx.GraphModule, node: fx.Node, name: str, labels: Labels) -> Value | None:
    val = node.meta.get("val")
    if not isinstance(val, Tensor):
        return None
    shape = shape_of(val)
    fields = tuple(
        along(labels.new(extent), axis, len(shape))
        for axis, extent in enumerate(shape)
        if extent > 1
    )
    return Value(shape, fields, name, isinstance(attribute(network, name), nn.Parameter))


def _close(node: fx.Node, values: dict[str, Result], labels: Labels) -> None:
    """What leaves the network keeps its shape."""
    outputs: list[fx.Node] = []
    fx.map_arg(node.args[0], outputs.append)
    for item in outputs:
        value = values[item.name]
        members = value if isinstance(value, tuple) else (value,)
        for member in members:
            for field in member.fields if member is not None else ():
                labels.freeze(field, Freeze("network output", "", module_path(item)))
