"""Rules for operators that multiply and sum: linear, matmul, convolutions."""

import math

import torch
from torch import Tensor

from prunecli.graph.call import (
    BlockAxis,
    Call,
    Contraction,
    labels_along,
    merge,
    pinned,
    record_blocks,
    tie_axes,
)
from prunecli.graph.fields import Value, along

INPUT_MEETS_WEIGHT = "reads an input that cannot shrink"


def linear(call: Call) -> Value:
    """x (..., I), weight (O, I), bias (O) -> (..., O)."""
    value, weight = call.value("input"), call.value("weight")
    inputs = _contract(call, value, -1, weight, 1)
    outputs = _outputs(call, weight, 0, call.optional("bias"))
    out = _replaced(call, value, -1, outputs)
    _count(call, out, inputs, math.prod(call.shape) * value.shape[-1])
    return out


def addmm(call: Call) -> Value:
    """bias (O), x (N, I), weight (I, O) -> (N, O); also with a full matrix as first operand."""
    product = _product(call, call.value("mat1"), call.value("mat2"))
    return merge(call, call.shape, (product, call.value("self")), "is added to")


def matmul(call: Call) -> Value:
    """(..., M, K) by (..., K, N); vectors as PyTorch defines them."""
    left, right = call.values()[:2]
    return _product(call, left, right)


def _product(call: Call, left: Value, right: Value) -> Value:
    """Contract, then let the batch axes broadcast as in an elementwise operator."""
    row = len(left.shape) > 1
    column = len(right.shape) > 1
    contracted = _contract(call, left, -1, right, -2 if column else 0)
    one = _without(left, -1, keep=column)
    two = _without(right, -2 if column else 0, keep=row)
    out = merge(call, call.shape, (one, two), "is multiplied with")
    _count(call, out, contracted, math.prod(call.shape) * left.shape[-1])
    return out


def convolution(call: Call) -> Value:
    """x (N, I, ...), weight (O, I/g, ...), bias (O) -> (N, O, ...)."""
    return _convolution(call, transposed=False)


def convolution_transpose(call: Call) -> Value:
    """x (N, I, ...), weight (I, O/g, ...), bias (O) -> (N, O, ...)."""
    return _convolution(call, transposed=True)


def _convolution(call: Call, *, transposed: bool) -> Value:
    value, weight = call.value("input"), call.value("weight")
    dims = len(weight.shape) - 2
    channel = len(value.shape) - dims - 1
    space = tuple(range(channel + 1, len(value.shape)))
    value = pinned(call, value, space, call.why("is convolved over"))
    kernel = tuple(range(2, len(weight.shape)))
    pinned(call, weight, kernel, call.why("kernel size", structural=True))
    groups = call.arguments["groups"]
    if groups > 1:
        out, inputs, blocks = _grouped(call, value, weight, channel, groups, transposed)
    else:
        inputs = _contract(call, value, channel, weight, 0 if transposed else 1)
        outputs = _outputs(call, weight, 1 if transposed else 0, call.optional("bias"))
        out, blocks = _replaced(call, value, channel, outputs), None
    # Every position of the larger side (the input, when transposed) meets the whole kernel.
    positions = math.prod(value.shape if transposed else call.shape)
    _count(call, out, inputs, positions * math.prod(weight.shape[1:]), blocks)
    return out


def _grouped(
    call: Call, value: Value, weight: Value, channel: int, groups: int, transposed: bool
) -> tuple[Value, Tensor | None, Tensor | None]:
    """Block j of the output channels reads block j of the input channels only."""
    inputs = labels_along(call, value, channel)
    # Axis 0 of the weight runs over all channels; axis 1 starts anew in every block.
    flat = labels_along(call, weight, 0)
    if not weight.parameter or inputs is None or flat is None:
        return _frozen_grouped(call, value, weight, channel, inputs)
    per_block = weight.shape[1]
    restart = _block_labels(call, weight, groups, per_block)
    if restart is None:
        return _frozen_grouped(call, value, weight, channel, inputs)
    why = call.why(INPUT_MEETS_WEIGHT)
    if transposed:
        call.labels.tie(inputs, flat, why)
        outputs = restart.reshape(-1)
    else:
        call.labels.tie(inputs, restart.reshape(-1), why)
        outputs = flat
    bias = call.optional("bias")
    if bias is not None:
        tie_axes(call, labels_along(call, bias, 0), outputs, why)
    into, out_of = inputs.reshape(groups, -1), outputs.reshape(groups, -1)
    call.notes.blocks[call.node.name] = into
    if into.shape[1] == 1 or out_of.shape[1] == 1:
        # With one channel per block on a side, equal counts and whole blocks are the same.
        call.labels.tie(into, into[:, :1], why)
        call.labels.tie(out_of, into[:, :1], why)
    else:
        record_blocks(call, into, out_of)
    return _replaced(call, value, channel, outputs), inputs, into


def _block_labels(call: Call, weight: Value, groups: int, per_block: int) -> Tensor | None:
    """Labels (groups, per_block) of the weight's axis 1; one set however often it is used."""
    key = (weight.parameter, 1)
    known = call.notes.block_axes.get(key)
    if known is None:
        known = BlockAxis(
            weight.parameter, 1, call.labels.new(groups * per_block).reshape(groups, per_block)
        )
        call.notes.block_axes[key] = known
    return known.labels if known.labels.shape == (groups, per_block) else None


def _frozen_grouped(
    call: Call, value: Value, weight: Value, channel: int, inputs: Tensor | None
) -> tuple[Value, Tensor | None, Tensor | None]:
    """Nothing known about one side: neither may change."""
    why = call.why("grouped convolution over channels that cannot shrink")
    if inputs is not None:
        call.labels.freeze(inputs, why)
    for field in weight.fields:
        call.labels.freeze(field, why)
    bias = call.optional("bias")
    for field in bias.fields if bias is not None else ():
        call.labels.freeze(field, why)
    outputs = labels_along(call, weight, 0) if call.shape[channel] == weight.shape[0] else None
    return _replaced(call, value, channel, outputs), inputs, None


def _count(
    call: Call, out: Value, contracted: Tensor | None, macs: int, blocks: Tensor | None = None
) -> None:
    call.notes.contractions.append(
        Contraction(call.node.name, out, contracted, float(macs), blocks)
    )


def _contract(call: Call, left: Value, axis: int, right: Value, other: int) -> Tensor | None:
    """Tie the two axes that are summed over; the one-dimensional labels, if there are any.

    Where batch axes carry labels together with the summed one (heads), they are tied along
    it: the result has nothing that could say which of them is left.
    """
    one, two = labels_along(call, left, axis), labels_along(call, right, other)
    tie_axes(call, one, two, call.why(INPUT_MEETS_WEIGHT))
    return one if one is not None and two is not None else None


def _outputs(call: Call, weight: Value, axis: int, bias: Value | None) -> Tensor | None:
    outputs = labels_along(call, weight, axis)
    if bias is not None:
        why = call.why("is added to a vector that cannot shrink")
        tie_axes(call, labels_along(call, bias, 0), outputs, why)
    return outputs


def _replaced(call: Call, value: Value, axis: int, labels: Tensor | None) -> Value:
    """The value's labels on all other axes, and new ones on `axis`."""
    rank = len(value.shape)
    axis %= rank
    kept = [field for field in value.fields if field.shape[axis] == 1]
    fresh = [] if labels is None or labels.numel() == 1 else [along(labels, axis, rank)]
    return Value(call.shape, (*kept, *fresh))


def _without(value: Value, axis: int, *, keep: bool) -> Value:
    """The value after summing over `axis`; with `keep`, an axis of extent 1 stays there."""
    axis %= len(value.shape)
    fields = [field for field in value.fields if field.shape[axis] == 1]
    shape = [1 if place == axis else extent for place, extent in enumerate(value.shape)]
    if not keep:
        del shape[axis]
        fields = [torch.squeeze(field, axis) for field in fields]
    return Value(tuple(shape), tuple(fields))
