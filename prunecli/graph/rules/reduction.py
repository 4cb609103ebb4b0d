"""Rules for reductions, pooling and resizing."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prunecli.graph.call import Call, Shape, pin_value, without_axis
from prunecli.graph.fields import Value
from prunecli.graph.rules.elementwise import elementwise


def reduction(call: Call) -> Value | tuple[Value, ...]:
    """Variance, product, argmax over some axes: those keep their size, since what is gone would
    have changed the result."""
    value = call.values()[0]
    axes = reduced_axes(call.arguments, len(value.shape))
    pin_value(call, value, axes, call.why("is reduced over"))
    return _over(call, axes)


def total(call: Call) -> Value | tuple[Value, ...]:
    """Sum and mean: an axis may shrink where what goes was zero. A mean still divides by what the
    axis once had (the rewriter sees to that), so RMS norms written out keep their scale."""
    value = call.values()[0]
    if not value.vanishes:
        return reduction(call)
    return _over(call, reduced_axes(call.arguments, len(value.shape)))


def norm(call: Call) -> Value | tuple[Value, ...]:
    """Vector norms: as a sum, where the order is a positive number."""
    order = call.arguments.get("ord", call.arguments.get("p", 2))
    order = 2 if order is None else order
    finite = isinstance(order, (int, float)) and 0 < order < math.inf
    return total(call) if finite else reduction(call)


def largest(call: Call) -> Value | tuple[Value, ...]:
    """`amax`, `amin`: a statistic of what is left, as in a normalisation."""
    source = call.node.all_input_nodes[0].meta["val"]
    if not source.is_floating_point():
        return reduction(call)  # whole numbers have no smallest one to stand for what is gone
    call.notes.extremes[call.node.name] = -math.inf if "max" in call.name else math.inf
    return _over(call, reduced_axes(call.arguments, len(call.values()[0].shape)))


def extremum(call: Call) -> Value | tuple[Value | None, ...]:
    """`max` and `min`: of two tensors position by position, of one over some axes. Where the
    places of the largest are read too, the axis keeps its size."""
    if call.optional("other") is not None:
        return elementwise(call)
    if any(user.users and user.args[1:] == (1,) for user in call.node.users):
        return reduction(call)
    found = largest(call)
    # The places are others once the axis is shorter; nobody reads them.
    return (found[0], None) if isinstance(found, tuple) else found


def _over(call: Call, axes: tuple[int, ...]) -> Value | tuple[Value, ...]:
    value = call.values()[0]
    results = tuple(_reduced(call, value, axes, shape) for shape in call.shapes)
    return results[0] if len(results) == 1 else results


def spatial(call: Call) -> Value | tuple[Value, ...]:
    """Pooling and interpolation: the trailing axes keep their size, the others pass on."""
    value = call.values()[0]
    count = _window_axes(call)
    rank = len(value.shape)
    why = call.why("is pooled or resized")
    pin_value(call, value, tuple(range(rank - count, rank)), why)
    results = tuple(Value(shape, _leading(call, value, count)) for shape in call.shapes)
    return results[0] if len(results) == 1 else results


def sampled(call: Call) -> Value:
    """`grid_sampler`: input (N, C, H, W), grid (N, H', W', 2) -> (N, C, H', W').

    Every channel is looked up at the same places, so channels pass on.
    """
    value, grid = call.value("input"), call.value("grid")
    space = len(value.shape) - 2
    why = call.why("is sampled at computed places")
    pin_value(call, value, tuple(range(2, 2 + space)), why)
    pin_value(call, grid, tuple(range(len(grid.shape))), why)
    return Value(call.shape, _leading(call, value, space))


def reduced_axes(arguments: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """The axes that an operator with these arguments reduces over."""
    given = arguments.get("dim")
    if given is None or given == []:
        return tuple(range(rank))
    axes = given if isinstance(given, (list, tuple)) else [given]
    return tuple(axis % rank for axis in axes) if rank else ()


def _reduced(call: Call, value: Value, axes: tuple[int, ...], shape: Shape) -> Value:
    rank = len(value.shape)
    fields = []
    for field in value.fields:
        left: Tensor | None = field
        for axis in axes:
            left = None if left is None else without_axis(call, left, axis)
        if left is not None:
            fields.append(left)
    if len(shape) != rank:
        kept = [axis for axis in range(rank) if axis not in axes]
        fields = [field.reshape([field.shape[axis] for axis in kept]) for field in fields]
    return Value(shape, tuple(fields))


def _leading(call: Call, value: Value, count: int) -> tuple[Tensor, ...]:
    """The fields without what they say about the trailing axes, which get new extents."""
    rank = len(value.shape)
    return _reduced(call, value, tuple(range(rank - count, rank)), value.shape).fields


def _window_axes(call: Call) -> int:
    """How many trailing axes the operator works on, from its name: `..._pool2d`, `..._linear1d`."""
    digits = [char for char in call.name if char.isdigit()]
    return int(digits[-1])
