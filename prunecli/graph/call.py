"""One operator call as a rule sees it, and what every rule may do to labels.

Stage: graph. A rule is a function `Call -> Value | tuple[Value, ...]`; see docs/operators.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.fields import Value, aligned, labelled_axes
from prunecli.graph.labels import FIXED, Blocks, Freeze, Grid, Labels

Shape = tuple[int, ...]


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
        blocks: per node with a number of groups, the labels of its blocks, one row each.
        block_axes: axes of weights that restart per block, by (tensor, axis).
        unknown: operators without a rule -> module paths.
    """

    contractions: list[Contraction]
    normalised: dict[str, tuple[int, ...]]
    blocks: dict[str, Tensor]
    block_axes: dict[tuple[str, int], BlockAxis]
    unknown: dict[str, list[str]]


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
        return Freeze(reason, self.name, self.place, structural)


Rule = Callable[[Call], Value | tuple[Value, ...]]


def pin(call: Call, field: Tensor, axis: int, why: Freeze) -> Tensor:
    """`axis` must keep its extent. Returns the field to go on with.

    A field along this axis alone is frozen. One that spans others too is tied along the axis:
    then whole slices of the other axes may still go.
    """
    if field.shape[axis] == 1:
        return field
    if len(labelled_axes(field)) == 1:
        call.labels.freeze(field, why)
        return field
    first = field.narrow(axis, 0, 1)
    call.labels.tie(field, first, why)
    return first


def pinned(call: Call, value: Value, axes: tuple[int, ...], why: Freeze) -> Value:
    """The value after all of `axes` were pinned."""
    rank = len(value.shape)
    fields = []
    for field in value.fields:
        for axis in axes:
            field = pin(call, field, axis % rank, why)
        fields.append(field)
    return Value(value.shape, tuple(fields), value.parameter)


def labels_along(call: Call, value: Value, axis: int) -> Tensor | None:
    """One-dimensional labels of `axis`, after tying what shares an index of it."""
    field = value.field_at(axis)
    if field is None:
        return None
    axis %= len(value.shape)
    for other in labelled_axes(field):
        if other != axis:
            field = pin(call, field, other, call.why("an axis that must keep its size"))
    return field.reshape(-1)


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
    why = call.why(f"{what} an axis that cannot shrink")
    merged: list[Tensor] = []
    for field in (aligned(field, rank) for value in values for field in value.fields):
        hits = [other for other in merged if _overlap(other, field)]
        merged = [other for other in merged if not _overlap(other, field)]
        for other in hits:
            call.labels.tie(other, field, why)
        common = _on_common_axes([*hits, field])
        if common is None:
            call.labels.freeze(field, why)
        else:
            merged.append(common)
    for value in values:
        for axis in _bare_axes(value, shape):
            merged = [pin(call, field, axis, why) for field in merged]
    return Value(shape, tuple(field for field in merged if labelled_axes(field)))


def _overlap(one: Tensor, two: Tensor) -> bool:
    return bool(set(labelled_axes(one)) & set(labelled_axes(two)))


def _on_common_axes(fields: list[Tensor]) -> Tensor | None:
    """After tying, labels repeat along every axis that some field does not span."""
    axes = set.intersection(*(set(labelled_axes(field)) for field in fields))
    if not axes:
        return None
    field = fields[0]
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
            call.labels.grids.append(Grid(torch.squeeze(field), call.node.name))
    return value


def record_blocks(call: Call, *matrices: Tensor) -> None:
    """Note that these axes go by whole blocks or by equal counts."""
    call.labels.blocks.append(Blocks(matrices, call.node.name))


def fixed_labels(number: int) -> Tensor:
    """Labels for positions that must stay."""
    return torch.full((number,), FIXED)
