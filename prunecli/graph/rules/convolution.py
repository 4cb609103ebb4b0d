"""Rules for convolutions, plain, transposed and grouped, also with weights that are computed."""

import math

from torch import Tensor, fx

from prunecli.graph.call import (
    BlockAxis,
    Call,
    Contraction,
    labels_along,
    note_blocks,
    pin_value,
    tie_axes,
)
from prunecli.graph.fields import Value, along, labelled_axes
from prunecli.graph.nodes import argument
from prunecli.graph.rules.contraction import MULTIPLIED


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
    pin_value(call, value, space, call.why("is convolved over"))
    kernel = tuple(range(2, len(weight.shape)))
    pin_value(call, weight, kernel, call.why("kernel size", structural=True))
    inputs = labels_along(call, value, channel)
    blocks = None
    if isinstance(argument(call.node, "groups"), fx.Node):
        outputs, blocks = _per_example(call, weight, inputs, transposed)
    elif call.arguments["groups"] > 1:
        outputs, blocks = _grouped(call, weight, inputs, transposed)
    else:
        why = call.why_unyielding(MULTIPLIED)
        tie_axes(call, inputs, labels_along(call, weight, 0 if transposed else 1), why)
        outputs = labels_along(call, weight, 1 if transposed else 0)
    bias = call.optional("bias")
    if bias is not None:
        why = call.why("is added to a vector that cannot shrink")
        tie_axes(call, labels_along(call, bias, 0), outputs, why)
    rank = len(value.shape)
    kept = [field for field in value.fields if all(a < channel for a in labelled_axes(field))]
    fresh = [] if outputs is None or outputs.numel() == 1 else [along(outputs, channel, rank)]
    out = Value(call.shape, (*kept, *fresh))
    # Every position of the larger side (the input, when transposed) meets the whole kernel.
    positions = math.prod(value.shape if transposed else call.shape)
    macs = float(positions * math.prod(weight.shape[1:]))
    call.notes.contractions.append(Contraction(call.node.name, out, inputs, macs, blocks))
    return out


def _grouped(
    call: Call, weight: Value, inputs: Tensor | None, transposed: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Block j of the output channels reads block j of the input channels only.

    Returns the output labels and the input labels as (blocks, channels per block).
    """
    groups = call.arguments["groups"]
    # Axis 0 of the weight runs over all channels; axis 1 starts anew in every block.
    flat = labels_along(call, weight, 0)
    if inputs is None or flat is None or (transposed and not weight.parameter):
        return _frozen_grouped(call, weight, inputs, transposed), None
    if not weight.parameter:
        return flat, _computed_grouped(call, weight, inputs, flat)
    restart = _block_labels(call, weight, groups)
    if restart is None:
        return _frozen_grouped(call, weight, inputs, transposed), None
    why = call.why_unyielding(MULTIPLIED)
    call.labels.tie(inputs, flat if transposed else restart.reshape(-1), why)
    outputs = restart.reshape(-1) if transposed else flat
    return outputs, _paired(call, inputs, outputs, groups)


def _computed_grouped(call: Call, weight: Value, inputs: Tensor, outputs: Tensor) -> Tensor:
    """A weight that is computed (standardised, say) has one set of labels along axis 1: every
    block loses the same of its input channels. Returns them as (blocks, channels per block)."""
    into = _paired(call, inputs, outputs, call.arguments["groups"])
    if into.shape[1] > 1:
        columns = call.labels.presence(into, 1, call.node.name)
        tie_axes(call, columns, labels_along(call, weight, 1), call.why_unyielding(MULTIPLIED))
    return into


def _paired(call: Call, inputs: Tensor, outputs: Tensor, groups: int) -> Tensor:
    """Blocks of inputs and of outputs go together; the inputs as (blocks, channels per block)."""
    into, out_of = inputs.reshape(groups, -1), outputs.reshape(groups, -1)
    note_blocks(call, into)
    note_blocks(call, out_of)
    call.notes.blocks[call.node.name] = into
    call.labels.tie(_rows(call, into), _rows(call, out_of), call.why_unyielding(MULTIPLIED))
    return into


def _per_example(
    call: Call, weight: Value, inputs: Tensor | None, transposed: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Every example has weights of its own: x (1, N * I, ...), and (N * O, I, ...) or, transposed,
    (N * I, O, ...), in N groups; or depthwise, in N * I groups. All examples lose the same.

    Returns what `_grouped` does.
    """
    groups = call.arguments["groups"]
    flat, own = labels_along(call, weight, 0), labels_along(call, weight, 1)
    why = call.why_unyielding(MULTIPLIED)
    if inputs is not None and flat is not None and weight.shape[1] == 1:
        into, out_of = inputs.reshape(groups, -1), flat.reshape(groups, -1)
        if into.shape[1] == 1 and not transposed:
            call.labels.tie(into, out_of, why)
            call.notes.blocks[call.node.name] = into
            return flat, into
    if inputs is not None and flat is not None and own is not None:
        rows = (flat if transposed else inputs).reshape(groups, -1)
        if bool((rows == rows[0]).all()):
            call.labels.tie(inputs, flat if transposed else own.repeat(groups), why)
            return own.repeat(groups) if transposed else flat, None
    _frozen_grouped(call, weight, inputs, transposed)
    return None, None


def _rows(call: Call, matrix: Tensor) -> Tensor:
    """Labels of whole blocks."""
    if matrix.shape[1] == 1:
        return matrix.reshape(-1)
    if matrix.shape[0] == 1:
        return matrix[:, 0]
    return call.labels.presence(matrix, 0, call.node.name)


def _block_labels(call: Call, weight: Value, groups: int) -> Tensor | None:
    """Labels (groups, extent of axis 1) of the weight; one set however often it is used."""
    key = (weight.parameter, 1)
    known = call.notes.block_axes.get(key)
    if known is None:
        labels = call.labels.new(groups * weight.shape[1]).reshape(groups, -1)
        known = BlockAxis(weight.parameter, 1, labels)
        call.notes.block_axes[key] = known
    return known.labels if known.labels.shape[0] == groups else None


def _frozen_grouped(
    call: Call, weight: Value, inputs: Tensor | None, transposed: bool
) -> Tensor | None:
    """Nothing known about one side: neither may change."""
    why = call.why("grouped convolution over channels that cannot shrink")
    if inputs is not None:
        call.labels.freeze(inputs, why)
    for field in weight.fields:
        call.labels.freeze(field, why)
    return None if transposed else labels_along(call, weight, 0)
