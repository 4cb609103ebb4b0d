"""Packed sequences, captured as padded ones.

Stage: graph, while capturing. `torch.export` cannot follow `pack_padded_sequence`: how many rows
a packed sequence has depends on the lengths. While this is in force, a packed sequence keeps its
padding and remembers its lengths, and recurrent layers work on it so that every value at a real
step is what it would have been: backwards, every sequence is turned by its own length; last states
are read at the last real step. The result is ordinary operators with the lengths as data.

Outputs are padded to the length of the input, where PyTorch pads to the longest sequence of the
batch unless `total_length` is given: the two are the same if some sequence is as long as the input.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import PackedSequence

NOTE = "packed sequences are captured with their padding, up to the length of the input"

UNLIKE = (
    "its packed sequences cannot be captured: with padding it must answer the same",
    "give pad_packed_sequence its total_length, and leave .data of a packed sequence to recurrent "
    "layers",
)
"""What is wrong where the graph answers something else: what reads a packed sequence's data itself
would see padding."""

CLOSED = 1e3
"""Added to a gate's input, it shuts the gate (or opens it) whatever else comes in."""

States = tuple[Tensor, ...]

_KINDS = (nn.LSTM, nn.GRU, nn.RNN)
_OPERATORS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


@dataclass(frozen=True)
class _Lengths:
    """Stands where a packed sequence has its batch sizes.

    Attributes:
        steps: length of the padded sequences.
        lengths: real length of each, shape (N,).
        device: of the lengths.
    """

    steps: Any
    lengths: Tensor
    device: torch.device

    def size(self, axis: int) -> Any:
        """What `pad_packed_sequence` asks for: the longest length."""
        return self.steps

    def beyond(self) -> Tensor:
        """Which steps are padding, shape (N, T)."""
        return torch.arange(self.steps) >= self.lengths.unsqueeze(1)


@contextmanager
def packed_as_padded() -> Iterator[list[str]]:
    """While this is in force, packed sequences keep their padding.

    Yields a list that holds a note once one was made.
    """
    notes: list[str] = []

    def pack(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, _Lengths]:
        if not notes:
            notes.append(NOTE)
        x = x if batch_first else x.transpose(0, 1)
        return x.flatten(0, 1), _Lengths(x.shape[1], lengths, lengths.device)

    functions: Any = torch._VF
    originals = {kind: kind.forward for kind in _KINDS}
    inverse = rnn.invert_permutation
    rnn.invert_permutation = _inverse
    functions._pack_padded_sequence = pack
    functions._pad_packed_sequence = _pad
    for kind in _KINDS:
        setattr(kind, "forward", _forward_of(originals[kind]))  # noqa: B010
    try:
        yield notes
    finally:
        del functions._pack_padded_sequence, functions._pad_packed_sequence
        rnn.invert_permutation = inverse
        for kind in _KINDS:
            setattr(kind, "forward", originals[kind])  # noqa: B010


def drop_unasked(network: fx.GraphModule) -> None:
    """Drop what turned out not to be asked for, such as last states that nobody reads."""
    # An operator that can drop out at random is not dropped by itself.
    network.graph.eliminate_dead_code(
        lambda node: node.is_impure() and node.target is not torch.ops.aten.lstm.input
    )
    network.recompile()


def _pad(
    data: Tensor, sizes: _Lengths, batch_first: bool, value: float, total: Any
) -> tuple[Tensor, Tensor]:
    x = _unpacked(data, sizes)
    x = x.masked_fill(sizes.beyond().reshape(-1, sizes.steps, *[1] * (x.dim() - 2)), value)
    if total != sizes.steps:
        x = F.pad(x, [*[0, 0] * (x.dim() - 2), 0, total - sizes.steps], value=value)
    return (x if batch_first else x.transpose(0, 1)), sizes.lengths


def _inverse(permutation: Tensor | None) -> Tensor | None:
    """Without the scattering that PyTorch does it by."""
    return None if permutation is None else torch.argsort(permutation)


def _unpacked(data: Tensor, sizes: _Lengths) -> Tensor:
    return data.reshape(-1, sizes.steps, *data.shape[1:])


def _forward_of(original: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` of a recurrent layer, for packed sequences that keep their padding too."""

    def forward(layer: nn.RNNBase, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, PackedSequence) or not isinstance(input.batch_sizes, _Lengths):
            return original(layer, input, hx)
        sizes = input.batch_sizes
        if hx is not None:
            hx = layer.permute_hidden(hx, input.sorted_indices)
        is_lstm = layer.mode == "LSTM"
        given = hx if is_lstm or hx is None else (hx,)
        output, states = _run(layer, _unpacked(input.data, sizes), sizes, given)
        packed = PackedSequence(
            output.flatten(0, 1), input.batch_sizes, input.sorted_indices, input.unsorted_indices
        )
        return packed, layer.permute_hidden(
            states if is_lstm else states[0],  # type: ignore[arg-type]
            input.unsorted_indices,
        )

    return forward


def _run(
    layer: nn.RNNBase, x: Tensor, sizes: _Lengths, given: States | None
) -> tuple[Tensor, States]:
    """All layers and directions, one after another; x (N, T, I)."""
    directions = 2 if layer.bidirectional else 1
    layer._update_flat_weights()
    weights: Any = layer._flat_weights
    each = len(weights) // (layer.num_layers * directions)
    ends: list[States] = []
    for number in range(layer.num_layers):
        if number:
            x = F.dropout(x, layer.dropout, layer.training)
        sides = []
        for side in range(directions):
            place = number * directions + side
            start = _start(layer, x, place, given)
            own = weights[place * each :][:each]
            output, end = _one_way(layer, _turned(x, sizes) if side else x, sizes, start, own)
            sides.append(_turned(output, sizes) if side else output)
            ends.append(end)
        x = torch.cat(sides, -1) if directions == 2 else sides[0]
    return x, tuple(torch.stack(states) for states in zip(*ends, strict=True))


def _start(layer: nn.RNNBase, x: Tensor, place: int, given: States | None) -> States:
    """First states of one layer in one direction, each (1, N, ...)."""
    if given is not None:
        return tuple(state[place : place + 1] for state in given)
    widths = [layer.proj_size or layer.hidden_size]
    widths += [layer.hidden_size] if layer.mode == "LSTM" else []
    return tuple(x.new_zeros(1, x.shape[0], width) for width in widths)


def _one_way(
    layer: nn.RNNBase, x: Tensor, sizes: _Lengths, start: States, weights: list[Tensor]
) -> tuple[Tensor, States]:
    """One layer forwards; its output (N, T, S), its last states, each (N, ...)."""
    operator = _OPERATORS[layer.mode]
    is_lstm = layer.mode == "LSTM"
    rest = (layer.bias, 1, 0.0, False, False, True)
    first = start if is_lstm else start[0]
    output = operator(x, first, weights, *rest)[0]
    rows = torch.arange(x.shape[0])
    last = output[rows, (sizes.lengths - 1).clamp(min=0)]
    if not is_lstm:
        return output, (last,)
    # The cell's last state is no output. Where it is asked for, the layer runs once more, with a
    # column that says "padding" and keeps the cell as it is there; else this is dead code.
    marked = torch.cat([x, sizes.beyond().to(x.dtype).unsqueeze(-1)], -1)
    kept = [_holding(weights[0], layer.hidden_size), *weights[1:]]
    return output, (last, operator(marked, first, kept, *rest)[2][0])


def _holding(into: Tensor, hidden: int) -> Tensor:
    """An LSTM's input weight (4H, I) with a column that shuts the input gate and opens the forget
    gate."""
    gates = [into.new_full((hidden,), amount) for amount in (-CLOSED, CLOSED, 0.0, 0.0)]
    return torch.cat([into, torch.cat(gates).unsqueeze(1)], 1)


def _turned(x: Tensor, sizes: _Lengths) -> Tensor:
    """Every sequence backwards, padding left where it is; x (N, T, ...)."""
    steps = torch.arange(sizes.steps)
    places = torch.where(sizes.beyond(), steps, sizes.lengths.unsqueeze(1) - 1 - steps)
    return x[torch.arange(x.shape[0]).unsqueeze(1), places]
