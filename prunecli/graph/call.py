"""One operator call as a rule sees it, and what every rule may do to labels.

Stage: graph. A rule is a function `Call -> Value | tuple[Value, ...]`; see docs/operators.md.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.fields import Value, aligned, along, labelled_axes
from prunecli.graph.labels import FIXED, Freeze, Labels
from prunecli.graph.nodes import is_input, stack_trace
from prunecli.graph.roles import Reader

Shape = tuple[int, ...]

MEETS_INPUT = "meets the network's input"


@dataclass(frozen=True)
class Contraction:
    """Multiply-accumulate work of one node.

    Attributes:
        node: the graph node.
        out: the result, with its labels.
        contracted: labels summed over, one-dimensional over all blocks; `None` if unlabelled.
        macs: multiply-accumulates of the original, for the example's batch.
        blocks: labels as (blocks, indices per block) when the contraction is blockwise.
    """

    node: str
    out: Value
    contracted: Tensor | None
    macs: float
    blocks: Tensor | None = None


@dataclass(frozen=True)
class BlockAxis:
    """Axis `axis` of `tensor` holds, for every block of axis 0, that block's own indices.

    `labels` is (blocks, indices per block); a grouped convolution's weight (O, I/g, ...) is
    described by its (g, I/g) input channels.
    """

    tensor: str
    axis: int
    labels: Tensor


@dataclass
class Notes:
    """What the walk records besides labels; filled in by rules.

    Attributes:
        contractions: where the multiply-accumulates are.
        normalised: per normalising node, the axes over which statistics are taken.
        extremes: per node that takes the largest or smallest, what can never be it.
        blocks: per node with a number of groups, the labels of its blocks, one row each.
        block_axes: axes of weights that restart per block, by (tensor, axis).
        kinds: per kind of unit, labels that are of it.
        readers: per parameter, buffer or constant, the operators that read it, each with the
            name of its argument.
        unknown: operators without a rule -> module paths and stack traces.
    """

    contractions: list[Contraction] = dataclasses.field(default_factory=list)
    normalised: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    extremes: dict[str, float] = dataclasses.field(default_factory=dict)
    blocks: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    block_axes: dict[tuple[str, int], BlockAxis] = dataclasses.field(default_factory=dict)
    kinds: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)
    readers: dict[str, list[Reader]] = dataclasses.field(default_factory=dict)
    unknown: dict[str, list[tuple[str, str]]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One node of the graph, its arguments by name, and the notebooks.

    Attributes:
        node: the graph node.
        name: operator without overload and in-place underscore, e.g. `aten.add`.
        arguments: by schema name; tensors are `Value`s, symbolic sizes are plain integers.
        shapes: shape of each tensor result (one for an ordinary operator).
    """

    node: fx.Node
    name: str
    arguments: dict[str, Any]
    shapes: tuple[Shape, ...]
    labels: Labels
    notes: Notes
    place: str

    @property
    def shape(self) -> Shape:
        """Shape of the first result."""
        return self.shapes[0]

    def value(self, name: str) -> Value:
        """The tensor argument `name`."""
        found = self.arguments[name]
        assert isinstance(found, Value), f"{self.name}: {name} is no tensor"
        return found

    def optional(self, name: str) -> Value | None:
        """The tensor argument `name`, or `None` where it was not given."""
        found = self.arguments.get(name)
        return found if isinstance(found, Value) else None

    def values(self) -> tuple[Value, ...]:
        """All tensor arguments in order, those inside lists too."""
        found: list[Value] = []
        for item in self.arguments.values():
            members = item if isinstance(item, (list, tuple)) else (item,)
            found.extend(member for member in members if isinstance(member, Value))
        return tuple(found)

    def why(self, reason: str, *, structural: bool = False) -> Freeze:
        """A reason that points at this call."""
        return Freeze(reason, self.name, self.place, structural, stack_trace(self.node))

    def why_unyielding(self, what: str) -> Freeze:
        """Why an axis stays that `what` brings together with one that has its own size."""
        if any(map(is_input, self.node.all_input_nodes)):
            return self.why(MEETS_INPUT)
        return self.why(f"{what} an axis that cannot shrink")


Rule = Callable[[Call], Value | tuple[Value | None, ...]]


def presence(call: Call, field: Tensor, axis: int) -> Tensor:
    """One-dimensional labels of `axis`: its own, or those of its slices where the field spans
    several axes."""
    axes = labelled_axes(field)
    if len(axes) < 2:
        return field.reshape(-1)
    return call.labels.presence(torch.squeeze(field), axes.index(axis), call.node.name)


def name_cut(call: Call, field: Tensor, axis: int, kind: str) -> None:
    """Say what a slice across `axis` is called, for reports."""
    axes = labelled_axes(field)
    if len(axes) > 1:
        call.labels.grid(torch.squeeze(field), call.node.name).kinds[axes.index(axis)] = kind


def pin(call: Call, field: Tensor, axis: int, why: Freeze) -> None:
    """`axis` must keep its extent. Where the field spans other axes too, those may still go."""
    if field.shape[axis] > 1:
        call.labels.freeze(presence(call, field, axis), why)


def pin_value(call: Call, value: Value, axes: tuple[int, ...], why: Freeze) -> None:
    """Pin all of `axes`."""
    for field in value.fields:
        for axis in axes:
            pin(call, field, axis % len(value.shape), why)


def labels_along(call: Call, value: Value, axis: int) -> Tensor | None:
    """One-dimensional labels of `axis`, if it has any."""
    field = value.field_at(axis)
    return None if field is None else presence(call, field, axis % len(value.shape))


def without_axis(call: Call, field: Tensor, axis: int) -> Tensor | None:
    """What a field says once `axis` is summed over: whether anything is left of each index of
    the other axes. Keeps the rank; `None` if it says nothing."""
    others = [other for other in labelled_axes(field) if other != axis]
    if field.shape[axis] == 1:
        return field
    if not others:
        return None
    if len(others) > 1:
        # Rare enough not to be followed further: the slices go as wholes.
        call.labels.tie(field, field.narrow(axis, 0, 1), call.why("is summed over"))
        return field.narrow(axis, 0, 1)
    return along(presence(call, field, others[0]), others[0], field.dim())


def tie_axes(call: Call, left: Tensor | None, right: Tensor | None, why: Freeze) -> None:
    """Tie two axes index by index; if one carries no labels, the other is frozen."""
    if left is not None and right is not None:
        call.labels.tie(left, right, why)
    elif left is not None:
        call.labels.freeze(left, why)
    elif right is not None:
        call.labels.freeze(right, why)


def merge(call: Call, shape: Shape, values: tuple[Value, ...], what: str) -> Value:
    """Position by position, the labels of all operands are tied (broadcasting as PyTorch does).

    An operand that has the full extent of an axis but no labels for it pins that axis.
    """
    rank = len(shape)
    why = call.why_unyielding(what)
    merged: list[Tensor] = []
    for field in (aligned(field, rank) for value in values for field in value.fields):
        hits = [other for other in merged if overlap(other, field)]
        merged = [other for other in merged if not overlap(other, field)]
        joined: Tensor | None = field
        for other in hits:
            joined = None if joined is None else _join(call, other, joined, why)
        if joined is not None:
            merged.append(joined)
    for value in values:
        for axis in _bare_axes(value, shape):
            for field in merged:
                pin(call, field, axis, why)
    return Value(shape, tuple(merged))


def _join(call: Call, one: Tensor, two: Tensor, why: Freeze) -> Tensor | None:
    """Tie two fields that share an axis; the field that describes both from then on."""
    first, second = set(labelled_axes(one)), set(labelled_axes(two))
    if first == second:
        call.labels.tie(one, two, why)
        return one
    small, large = (one, two) if first < second else (two, one)
    if len(labelled_axes(small)) == 1 and (first < second or second < first):
        # A vector against a grid (a bias per head): it goes with whole slices.
        (axis,) = labelled_axes(small)
        call.labels.tie(small.reshape(-1), presence(call, large, axis), why)
        return large
    call.labels.tie(one, two, why)
    return _on_common_axes([one, two], call, why)


def overlap(one: Tensor, two: Tensor) -> bool:
    """Whether two fields label a common axis."""
    return bool(set(labelled_axes(one)) & set(labelled_axes(two)))


def _on_common_axes(fields: list[Tensor], call: Call, why: Freeze) -> Tensor | None:
    """After tying, labels repeat along every axis that some field does not span."""
    axes = set.intersection(*(set(labelled_axes(field)) for field in fields))
    field = fields[0]
    if not axes:
        call.labels.freeze(field, why)
        return None
    for axis in labelled_axes(field):
        if axis not in axes:
            field = field.narrow(axis, 0, 1)
    return field


def _bare_axes(value: Value, shape: Shape) -> list[int]:
    """Axes of the result along which `value` has the full extent and no labels."""
    offset = len(shape) - len(value.shape)
    return [
        axis + offset
        for axis, extent in enumerate(value.shape)
        if extent > 1 and value.field_at(axis) is None and shape[axis + offset] == extent
    ]


def record_grids(call: Call, value: Value) -> Value:
    """Note that every field which spans several axes must stay rectangular."""
    for field in value.fields:
        if len(labelled_axes(field)) > 1:
            call.labels.grid(torch.squeeze(field), call.node.name)
    return value


def note_blocks(call: Call, rows: Tensor) -> None:
    """The node works on blocks of channels: whole blocks go, or equally many of each."""
    call.notes.blocks[call.node.name] = rows
    if rows.shape[0] > 1 and rows.shape[1] > 1:
        grid = call.labels.grid(rows, call.node.name)
        grid.kinds.update({0: "groups", 1: "channels"})


def frozen(call: Call, reason: str) -> Value | tuple[Value, ...]:
    """Everything that reaches the operator stays as it is."""
    for value in call.values():
        for field in value.fields:
            call.labels.freeze(field, call.why(reason))
    results = tuple(Value(shape) for shape in call.shapes)
    return results[0] if isinstance(call.node.meta["val"], Tensor) else results


def fixed_labels(number: int) -> Tensor:
    """Labels for positions that must stay."""
    return torch.full((number,), FIXED)
