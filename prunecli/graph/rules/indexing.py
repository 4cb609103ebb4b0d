"""Rules for operators that pick or place elements by index tensors.

Which element is taken is data: axes that are indexed keep their size, the others pass on.
"""

import torch
from torch import Tensor

from prunecli.graph.call import Call, frozen, merge, pin_value
from prunecli.graph.fields import Value, compress, labelled_axes
from prunecli.graph.labels import Freeze

INDEXED = "is indexed by a tensor"


def index(call: Call) -> Value:
    """`x[:, i, j]` with index tensors: indexed axes keep their size, the others pass on."""
    value = call.value("self")
    given = call.arguments["indices"]
    axes = tuple(axis for axis, item in enumerate(given) if item is not None)
    why = call.why(INDEXED)
    pin_value(call, value, axes, why)
    for field in (field for item in given if item is not None for field in item.fields):
        call.labels.freeze(field, why)
    picks = [
        slice(None) if item is None else torch.zeros(item.shape, dtype=torch.int64)
        for item in given
    ]
    fields = []
    for field in value.fields:
        for axis in axes:
            field = _alike(call, field, axis, why)
        fields.append(compress(field.expand(value.shape)[tuple(picks)]))
    return Value(call.shape, tuple(field for field in fields if labelled_axes(field)))


def index_select(call: Call) -> Value:
    """`index_select(x, dim, index)`: as `index` with one index tensor."""
    value, chosen = call.value("self"), call.value("index")
    axis = call.arguments["dim"] % len(value.shape)
    why = call.why(INDEXED)
    pin_value(call, value, (axis,), why)
    pin_value(call, chosen, (0,), why)
    fields = [_alike(call, field, axis, why).narrow(axis, 0, 1) for field in value.fields]
    return Value(call.shape, tuple(field for field in fields if labelled_axes(field)))


def gather(call: Call) -> Value | tuple[Value, ...]:
    """`gather(x, dim, index)`, `take_along_dim`: along `dim` any element may be taken; along the
    other axes the index has its own place for every element."""
    value = call.value("self")
    chosen = call.value("index" if "index" in call.arguments else "indices")
    given = call.arguments["dim"]
    spread = call.name == "aten.take_along_dim"
    if given is None or any(
        one != two and not (spread and 1 in (one, two))
        for axis, (one, two) in enumerate(zip(value.shape, chosen.shape, strict=True))
        if axis != given % len(value.shape)
    ):
        return frozen(call, INDEXED)
    why = call.why(INDEXED)
    parts = [_without(call, part, given % len(value.shape), why) for part in (value, chosen)]
    return merge(call, call.shape, tuple(parts), f"{INDEXED} with")


def scatter(call: Call) -> Value:
    """`scatter`, `index_add` and the like: along `dim` elements go anywhere; along the other axes
    what is written meets what it is written into."""
    value = call.value("self")
    axis = call.arguments["dim"] % len(value.shape)
    why = call.why("is written to by index")
    parts = [
        _without(call, part, axis % len(part.shape), why)
        for part in call.values()
        if len(part.shape) == len(value.shape)
    ]
    for part in call.values():
        if len(part.shape) < len(value.shape):
            pin_value(call, part, tuple(range(len(part.shape))), why)
    return merge(call, call.shape, tuple(parts), "is written by index with")


def _without(call: Call, value: Value, axis: int, why: Freeze) -> Value:
    """What the value says besides `axis`, which is pinned."""
    pin_value(call, value, (axis,), why)
    fields = (_alike(call, field, axis, why).narrow(axis, 0, 1) for field in value.fields)
    shape = (*value.shape[:axis], 1, *value.shape[axis + 1 :])
    return Value(shape, tuple(field for field in fields if labelled_axes(field)))


def _alike(call: Call, field: Tensor, axis: int, why: Freeze) -> Tensor:
    """Which index of a pinned axis is taken is not known: all of them must be alike."""
    if field.shape[axis] > 1 and len(labelled_axes(field)) > 1:
        first = field.narrow(axis, 0, 1)
        call.labels.tie(field, first, why)
        return first
    return field
