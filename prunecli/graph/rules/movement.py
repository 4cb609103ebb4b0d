"""Rules for operators that only move data: the operator itself is run on the labels."""

from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.call import (
    Call,
    Shape,
    fixed_labels,
    frozen,
    labels_along,
    merge,
    note_blocks,
    overlap,
    pin,
    pin_value,
    presence,
    record_grids,
)
from prunecli.graph.fields import Value, along, compress, labelled_axes
from prunecli.graph.labels import Freeze
from prunecli.graph.nodes import arguments

SINGLED_OUT = "is taken out alone"

_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def move(call: Call) -> Value | tuple[Value, ...]:
    """View, permute, slice, split, expand, roll, ...: labels move as the data does."""
    name, value = _moved(call)
    others = {key: item for key, item in call.arguments.items() if key != name}
    if any(isinstance(item, Value) for item in others.values()):
        return frozen(call, "is moved as a tensor says")
    results = [_run(call, {name: field.expand(value.shape), **others}) for field in value.fields]
    moved = []
    for place, shape in enumerate(call.shapes):
        fields = [compress(result[place]) for result in results]
        moved.append(record_grids(call, _disjoint(call, shape, fields)))
    return moved[0] if isinstance(call.node.meta["val"], Tensor) else tuple(moved)


def cut(call: Call) -> Value | tuple[Value, ...]:
    """Slice, split, narrow. A part of one index has no axis left that could say whether its
    index is there, so that index stays."""
    _, value = _moved(call)
    axis = call.arguments["dim"] % len(value.shape)
    field = value.field_at(axis)
    if field is not None and any(_is_size(item) for item in call.node.all_input_nodes):
        # Only the part that the example's sizes show is known here.
        pin(call, field, axis, call.why("is cut where the input's size says"))
    if (
        field is not None
        and len(labelled_axes(field)) > 1
        and any(shape[axis] == 1 for shape in call.shapes)
    ):
        pin(call, field, axis, call.why(SINGLED_OUT))
    return move(call)


def _is_size(node: fx.Node) -> bool:
    return not isinstance(node.meta.get("val"), Tensor)


def move_as(call: Call) -> Value:
    """`view_as` and `reshape_as`: moved into the shape of another tensor, whose labels it meets."""
    value, other = call.values()
    fields = [compress(field.expand(value.shape).reshape(call.shape)) for field in value.fields]
    moved = _disjoint(call, call.shape, fields)
    return record_grids(call, merge(call, call.shape, (moved, other), "takes the shape of"))


def move_pinned(call: Call) -> Value | tuple[Value, ...]:
    """As `move`, but the index along `dim` has a meaning (select, unbind): it cannot shrink."""
    _, value = _moved(call)
    axis = call.arguments["dim"]
    why = call.why("is indexed by a constant")
    pin_value(call, value, (axis,), why)
    return move(call)


def channel_shuffle(call: Call) -> Value | tuple[Value, ...]:
    """Hides a view as (groups, channels per group): the same rows and columns must go."""
    value = call.value("self")
    labels = labels_along(call, value, 1)
    if labels is not None:
        rows = labels.reshape(call.arguments["groups"], -1)
        note_blocks(call, rows)
        if min(rows.shape) > 1:
            # The result is the transposed matrix laid flat.
            call.labels.grid(rows.T, call.node.name)
    return move(call)


def pixel_shuffle(call: Call) -> Value | tuple[Value, ...]:
    """Channels move into height and width, which keep their sizes: those go together."""
    moved = move(call)
    assert isinstance(moved, Value)
    rank = len(moved.shape)
    pin_value(call, moved, (rank - 2, rank - 1), call.why("is moved into height and width"))
    return moved


def strided_slice(call: Call) -> Value | tuple[Value, ...]:
    """A slice with step 1 only moves its bounds; with another step the axis cannot shrink."""
    return cut(call) if call.arguments["step"] == 1 else move_pinned(call)


def roll(call: Call) -> Value | tuple[Value, ...]:
    """Rolled axes keep their size (their indices have a meaning)."""
    _, value = _moved(call)
    axes = tuple(call.arguments["dims"]) or tuple(range(len(value.shape)))
    pin_value(call, value, axes, call.why("is rolled"))
    return move(call)


def unchanged(call: Call) -> Value:
    """The same data in another type, layout or place."""
    value = call.values()[0]
    return Value(call.shape, value.fields)


def concatenate(call: Call) -> Value:
    """`cat`: along `dim` labels follow one another; along other axes they are tied."""
    values = [value for value in call.arguments["tensors"] if value.shape != (0,)]
    rank = len(call.shape)
    axis = call.arguments["dim"] % rank
    why = call.why_unyielding("is joined with")
    joined = [value.field_at(axis) for value in values]
    result: list[Tensor] = []
    if any(field is not None for field in joined):
        spans = [_or_fixed(field, value, axis) for field, value in zip(joined, values, strict=True)]
        if len({labelled_axes(span) for span in spans}) > 1:
            spans = [along(presence(call, span, axis), axis, rank) for span in spans]
        shape = [max(span.shape[other] for span in spans) for other in range(rank)]
        shape[axis] = -1
        result.append(torch.cat([span.expand(shape) for span in spans], axis))
    for other in range(rank):
        if other != axis and any(value.field_at(other) is not None for value in values):
            _tie_across(call, values, other, why)
    for field in values[0].fields:
        if field.shape[axis] == 1 and not any(overlap(field, other) for other in result):
            result.append(field)
    return record_grids(call, Value(call.shape, tuple(result)))


def stack(call: Call) -> Value:
    """A new axis without labels; the operands' own axes are tied."""
    values = call.arguments["tensors"]
    axis = call.arguments["dim"] % len(call.shape)
    why = call.why_unyielding("is stacked with")
    for other in range(len(values[0].shape)):
        if any(value.field_at(other) is not None for value in values):
            _tie_across(call, values, other, why)
    fields = tuple(field.unsqueeze(axis) for field in values[0].fields)
    return Value(call.shape, fields)


def pad(call: Call) -> Value:
    """Padding a labelled axis with a constant adds labels of its own; other modes pin the axis."""
    value = call.value("self")
    amounts: list[int] = list(call.arguments["pad"])
    constant = call.arguments.get("mode", "constant") == "constant"
    if call.name not in ("aten.pad", "aten.constant_pad_nd"):
        constant = False
    rank = len(value.shape)
    fields = list(value.fields)
    for place in range(len(amounts) // 2):
        before, after = amounts[2 * place], amounts[2 * place + 1]
        if before or after:
            axis = rank - 1 - place
            fields = [_padded(call, field, axis, before, after, constant) for field in fields]
    return Value(call.shape, tuple(fields))


def _pad_repeating(field: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Labels of a pinned axis after padding: it keeps its size, so any of its labels serve."""
    places = torch.arange(-before, field.shape[axis] + after).clamp(0, field.shape[axis] - 1)
    return field.index_select(axis, places)


def expand(call: Call) -> Value | tuple[Value, ...]:
    """`expand`, `repeat`: as `move`, but an axis over which something is repeated a written number
    of times can follow what it meets."""
    moved = move(call)
    assert isinstance(moved, Value)
    rank = len(moved.shape)
    before = (*[1] * (rank - len(call.value("self").shape)), *call.value("self").shape)
    fresh = [
        along(call.labels.new(item), axis, rank)
        for axis, item in enumerate(written_sizes(call.node))
        if isinstance(item, int) and item > before[axis] == 1
    ]
    return Value(moved.shape, (*moved.fields, *fresh))


def embedding(call: Call) -> Value:
    """weight (V, E), indices (...) -> (..., E): the width may go, never the vocabulary."""
    weight = call.value("weight")
    pin_value(call, weight, (0,), call.why("vocabulary"))
    indices = call.value("indices")
    pin_value(call, indices, tuple(range(len(indices.shape))), call.why("holds indices"))
    labels = labels_along(call, weight, 1)
    rank = len(call.shape)
    return Value(call.shape, () if labels is None else (along(labels, -1, rank),))


def created(call: Call) -> Value:
    """`zeros`, `ones`, `full`: a constant of any size, so its axes can follow what they meet."""
    axes = [
        axis
        for axis, item in enumerate(written_sizes(call.node))
        if isinstance(item, int) and item > 1
    ]
    fields = []
    for axis in axes:
        fields.append(along(call.labels.new(call.shape[axis]), axis, len(call.shape)))
    return Value(call.shape, tuple(fields))


def unlabelled(call: Call) -> Value | tuple[Value, ...]:
    """Values that depend on sizes or positions only (`arange`): nothing to follow."""
    return Value(call.shape)


def written_sizes(node: fx.Node) -> tuple[Any, ...]:
    """The sizes as they stand in the graph: numbers, or nodes where they are computed."""
    given = arguments(node)
    return tuple(next((given[name] for name in ("size", "shape", "repeats") if name in given), ()))


def _moved(call: Call) -> tuple[str, Value]:
    return next((key, item) for key, item in call.arguments.items() if isinstance(item, Value))


def _run(call: Call, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
    target: Any = call.node.target
    names = [argument.name for argument in target._schema.arguments if not argument.kwarg_only]
    # Labels are spread out with stride 0, over which a view may be impossible.
    run = torch.ops.aten.reshape.default if target in _VIEWS else target
    result = run(*(arguments[name] for name in names))
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _disjoint(call: Call, shape: Shape, fields: list[Tensor]) -> Value:
    """Of two fields that a view has put onto one axis, that with more labels speaks for it; the
    other's stay, so that places still exist exactly while the label they see is kept."""
    for field in fields:
        if not labelled_axes(field):
            call.labels.freeze(field, call.why(SINGLED_OUT))
    fields = [field for field in fields if labelled_axes(field)]
    # Next to its channels, nobody expects to prune a parameter's kernel size.
    parameter = any(value.parameter for value in call.values())
    why = call.why("is merged with another prunable axis", structural=parameter)
    good: list[Tensor] = []
    if len(fields) > 1:
        fields.sort(key=lambda item: -torch.unique(item).numel())
    for field in fields:
        if any(overlap(field, other) for other in good):
            call.labels.freeze(field, why)
        else:
            good.append(field)
    return Value(shape, tuple(good))


def _tie_across(call: Call, values: list[Value], axis: int, why: Freeze) -> None:
    """Tie `axis` of all operands index by index; an unlabelled one freezes the rest.

    Fields of the same kind are tied position by position, others by what is left of a slice.
    """
    fields = [value.field_at(axis) for value in values]
    known = [field for field in fields if field is not None]
    if len(known) < len(fields):
        for field in known:
            pin(call, field, axis, why)
        return
    first = known[0]
    for field in known[1:]:
        if field.shape == first.shape and field.dim() == first.dim():
            call.labels.tie(first, field, why)
        else:
            call.labels.tie(presence(call, first, axis), presence(call, field, axis), why)


def _or_fixed(field: Tensor | None, value: Value, axis: int) -> Tensor:
    if field is not None:
        return field
    shape = [1] * len(value.shape)
    shape[axis] = value.shape[axis]
    return fixed_labels(value.shape[axis]).reshape(shape)


def _padded(
    call: Call, field: Tensor, axis: int, before: int, after: int, constant: bool
) -> Tensor:
    if field.shape[axis] == 1:
        return field
    if not constant or before < 0 or after < 0 or len(labelled_axes(field)) > 1:
        pin(call, field, axis, call.why("is padded"))
        return compress(_pad_repeating(field, axis, before, after))

    def fresh(number: int) -> Tensor:
        shape = [1] * field.dim()
        shape[axis] = number
        return call.labels.new(number).reshape(shape)

    return torch.cat([fresh(before), field, fresh(after)], axis)
