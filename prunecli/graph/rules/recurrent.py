"""Rules for recurrent layers and cells that stay single operators: LSTM, GRU, plain RNN.

All layers and directions of one operator share their initial states, so they keep the same
hidden units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prunecli.graph.call import Call, Contraction, labels_along, tie_axes
from prunecli.graph.fields import Value, along

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class _Layer:
    """Weights of one layer in one direction; H hidden units, G gates, S size of the state.

    Attributes:
        into: (G*H, I); I is the input's width, or directions * S above the first layer.
        again: (G*H, S).
        biases: each (G*H).
        project: (S, H), or `None` where the state is the hidden units.
    """

    into: Value
    again: Value
    biases: tuple[Value, ...]
    project: Value | None


def recurrent(call: Call) -> tuple[Value, ...]:
    """input (..., I), states (layers * directions, B, S) -> (..., directions * S), states."""
    source = call.value("data" if "data" in call.arguments else "input")
    gates = GATES[call.name.removeprefix("aten.")]
    layers = _layers(call, gates)
    directions = 2 if call.arguments["bidirectional"] else 1
    hidden = call.labels.new(layers[0].into.shape[0] // gates)
    state = hidden if layers[0].project is None else call.labels.new(layers[0].again.shape[1])
    call.notes.kinds.setdefault("hidden", []).extend([hidden, state])
    steps = source.shape[:-1]
    width = labels_along(call, source, -1)
    for place, layer in enumerate(layers):
        below = width if place < directions else torch.cat([state] * directions)
        _tie_layer(call, layer, gates, below, hidden, state)
        for weight, out, contracted in (
            (layer.into, hidden, below),
            (layer.again, hidden, state),
            (layer.project, state, hidden),
        ):
            if weight is not None:
                _count(call, weight, steps, out, contracted)
    _tie_states(call, state, hidden)
    output = torch.cat([state] * directions)
    ends = (state, hidden) if len(call.shapes) == 3 else (state,)
    return tuple(
        Value(shape, (along(labels, -1, len(shape)),))
        for shape, labels in zip(call.shapes, (output, *ends), strict=True)
    )


def cell(call: Call) -> Value | tuple[Value, ...]:
    """One step: input (..., I), state (..., H) or two for an LSTM -> the same states."""
    source = call.value("input")
    biases = tuple(item for item in map(call.optional, ("b_ih", "b_hh")) if item is not None)
    layer = _Layer(call.value("w_ih"), call.value("w_hh"), biases, None)
    hidden = call.labels.new(layer.again.shape[1])
    call.notes.kinds.setdefault("hidden", []).append(hidden)
    below = labels_along(call, source, -1)
    _tie_layer(call, layer, layer.again.shape[0] // hidden.numel(), below, hidden, hidden)
    for weight, contracted in ((layer.into, below), (layer.again, hidden)):
        _count(call, weight, source.shape[:-1], hidden, contracted)
    _tie_states(call, hidden, hidden)
    results = tuple(Value(shape, (along(hidden, -1, len(shape)),)) for shape in call.shapes)
    return results if call.name == "aten.lstm_cell" else results[0]


def _layers(call: Call, gates: int) -> list[_Layer]:
    """The flat list of weights, layer by layer and direction by direction."""
    flat: list[Value] = list(call.arguments["params"])
    biases = 2 if call.arguments["has_biases"] else 0
    directions = 2 if call.arguments["bidirectional"] else 1
    number = int(call.arguments["num_layers"]) * directions
    each = len(flat) // number
    found = []
    for start in range(0, len(flat), each):
        own = flat[start : start + each]
        project = own[2 + biases] if each > 2 + biases else None
        found.append(_Layer(own[0], own[1], tuple(own[2 : 2 + biases]), project))
    return found


def _tie_layer(
    call: Call,
    layer: _Layer,
    gates: int,
    below: Tensor | None,
    hidden: Tensor,
    state: Tensor,
) -> None:
    why = call.why("is read by a recurrent layer")
    per_gate = hidden.repeat(gates)
    for value in (layer.into, layer.again, *layer.biases):
        tie_axes(call, labels_along(call, value, 0), per_gate, why)
    tie_axes(call, labels_along(call, layer.into, 1), below, why)
    tie_axes(call, labels_along(call, layer.again, 1), state, why)
    if layer.project is not None:
        tie_axes(call, labels_along(call, layer.project, 0), state, why)
        tie_axes(call, labels_along(call, layer.project, 1), hidden, why)


def _tie_states(call: Call, state: Tensor, hidden: Tensor) -> None:
    """Initial states: one tensor, or two for an LSTM."""
    given = call.arguments["hx"]
    states: list[Value] = list(given) if isinstance(given, (list, tuple)) else [given]
    why = call.why("starts from a state that cannot shrink")
    for value, labels in zip(states, (state, hidden), strict=False):
        tie_axes(call, labels_along(call, value, -1), labels, why)


def _count(
    call: Call, weight: Value, steps: tuple[int, ...], out: Tensor, contracted: Tensor | None
) -> None:
    macs = float(weight.shape[0] * weight.shape[1])
    for extent in steps:
        macs *= extent
    result = Value((out.numel(),), (out,))
    call.notes.contractions.append(Contraction(call.node.name, result, contracted, macs))
