"""Rules for operators that take windows out of axes, or transform whole axes."""

import torch

from prunecli.graph.call import Call, labels_along, pin_value, without_axis
from prunecli.graph.fields import Value, along, labelled_axes

WINDOWED = "is cut into windows"


def windows(call: Call) -> Value:
    """`x.unfold(dim, size, step)`: windows along `dim`, their content on a new last axis."""
    value = call.value("self")
    axis = call.arguments["dimension"] % len(value.shape)
    pin_value(call, value, (axis,), call.why(WINDOWED))
    fields = (without_axis(call, field, axis) for field in value.fields)
    return Value(call.shape, tuple(field.unsqueeze(-1) for field in fields if field is not None))


def columns(call: Call) -> Value:
    """`F.unfold`: (N, C, H, W) -> (N, C * window, places); a channel's whole window goes."""
    value = call.value("self")
    pin_value(call, value, (-2, -1), call.why(WINDOWED))
    labels = labels_along(call, value, -3)
    if labels is None:
        return Value(call.shape)
    each = call.shape[-2] // labels.numel()
    return Value(call.shape, (along(labels.repeat_interleave(each), -2, len(call.shape)),))


def from_columns(call: Call) -> Value:
    """`F.fold`: (N, C * window, places) -> (N, C, H, W)."""
    value = call.value("self")
    why = call.why("is put together from windows")
    pin_value(call, value, (-1,), why)
    labels = labels_along(call, value, -2)
    if labels is None:
        return Value(call.shape)
    rows = labels.reshape(call.shape[-3], -1)
    call.labels.tie(rows, rows[:, :1], why)
    return Value(call.shape, (along(rows[:, 0], -3, len(call.shape)),))


def triangle(call: Call) -> Value:
    """`tril` and `triu`: the last two axes keep their size, since places on them count."""
    value = call.value("self")
    pin_value(call, value, (-2, -1), call.why("is cut to a triangle"))
    return Value(call.shape, value.fields)


def to_complex(call: Call) -> Value:
    """(..., 2) -> complex (...)."""
    value = call.value("self")
    pin_value(call, value, (-1,), call.why("becomes complex numbers", structural=True))
    fields = (without_axis(call, field, len(value.shape) - 1) for field in value.fields)
    return Value(call.shape, tuple(field.squeeze(-1) for field in fields if field is not None))


def to_real(call: Call) -> Value:
    """Complex (...) -> (..., 2)."""
    value = call.value("self")
    return Value(call.shape, tuple(field.unsqueeze(-1) for field in value.fields))


def bags(call: Call) -> tuple[Value, ...]:
    """`embedding_bag`: weight (V, E), indices, ... -> (N, E) and three results of bookkeeping."""
    weight = call.value("weight")
    pin_value(call, weight, (0,), call.why("vocabulary"))
    for value in call.values()[1:]:
        pin_value(call, value, tuple(range(len(value.shape))), call.why("holds indices"))
    field = weight.field_at(1)
    width = () if field is None or len(labelled_axes(field)) > 1 else (torch.squeeze(field),)
    fields = tuple(along(labels, -1, len(call.shape)) for labels in width)
    return (Value(call.shape, fields), *(Value(shape) for shape in call.shapes[1:]))
