"""Rules for operators that work position by position."""

from prunecli.graph.call import Call, Shape, merge, pin_value
from prunecli.graph.fields import Value


def elementwise(call: Call) -> Value:
    """Any number of operands that broadcast: their labels are tied."""
    return merge(call, call.shape, call.values(), "meets")


def along_dim(call: Call) -> Value:
    """Elementwise but for `dim`, whose every index influences every other (softmax, cumsum)."""
    value = call.values()[0]
    why = call.why("is normalised or accumulated over")
    pin_value(call, value, (call.arguments["dim"],), why)
    return Value(call.shape, value.fields)


def gated(call: Call) -> Value:
    """`glu`: the first half of `dim` times the sigmoid of the second; the halves go together."""
    value = call.value("self")
    axis = call.arguments["dim"] % len(value.shape)
    half = value.shape[axis] // 2
    halves = tuple(
        Value(
            call.shape,
            tuple(
                field.narrow(axis, start, half) if field.shape[axis] > 1 else field
                for field in value.fields
            ),
        )
        for start in (0, half)
    )
    return merge(call, call.shape, halves, "gates")


def prelu(call: Call) -> Value:
    """One slope, or one per channel on axis 1."""
    value, weight = call.value("self"), call.value("weight")
    if weight.shape[0] == 1:
        return Value(value.shape, value.fields)
    return merge(call, call.shape, (value, on_axis(weight, 1, value.shape)), "scales")


def on_axis(vector: Value, axis: int, shape: Shape) -> Value:
    """A one-dimensional value as one that broadcasts along `axis` of `shape`."""
    view = [1] * len(shape)
    view[axis] = vector.shape[0]
    return Value(tuple(view), tuple(field.reshape(view) for field in vector.fields))
