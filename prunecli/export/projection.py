"""LSTMs with a projection, in a form that ONNX has.

Stage: export. In: the arguments of such an LSTM. Out: its results. ONNX's LSTM knows no projection
(Sak et al. 2014, https://arxiv.org/abs/1402.1128), but with `r = P h` its recurrence `W r` is
`(W P) h`: an ordinary LSTM over `h` with the recurrent weight `W P`, whose outputs are projected
afterwards. The product is made in the file, from the weights as they are.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

ZEROS = (
    *(torch.ops.aten.zeros.default, torch.ops.aten.zeros_like.default),
    torch.ops.aten.new_zeros.default,
)


def has_projection(node: fx.Node) -> bool:
    """Whether `node` is one."""
    if node.target is not torch.ops.aten.lstm.input:
        return False
    args: Any = node.args
    params, has_biases, layers, _, _, both_ways = args[2:8]
    each = len(params) // (layers * (2 if both_ways else 1))
    return bool(each == (5 if has_biases else 3))


def starts_at_zero(node: fx.Node) -> bool:
    """Whether `node` is one that starts from zeros."""
    states: Any = node.args[1] if has_projection(node) else None
    return states is not None and all(state.target in ZEROS for state in states)


def projected_lstm_from_zeros(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`projected_lstm` from zeros, which needs no columns for its first state."""
    return projected_lstm(*arguments, from_zeros=True)


def projected_lstm(
    x: Tensor,
    states: tuple[Tensor, Tensor],
    params: list[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    both_ways: bool,
    batch_first: bool,
    *,
    from_zeros: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`aten.lstm` in evaluation mode, without its projection: same arguments, same results.

    x (N, T, I) or (T, N, I); states (layers * directions, N, S) and (..., H); S is the width of
    the projection, H that of the hidden units.
    """
    directions = 2 if both_ways else 1
    each = 5 if has_biases else 3
    outputs, cells = [], []
    for layer in range(layers):
        first = layer * directions
        own = [params[place * each :][:each] for place in range(first, first + directions)]
        flat = [item for ih, hh, *biases, hr in own for item in (ih, hh @ hr, *biases)]
        state, cell = (item[first : first + directions] for item in states)
        if not from_zeros:
            x = _with_first_states(x, state, batch_first)
            flat = _reading_first_states(flat, own)
        hidden, last, cell = torch.lstm(
            x,
            [torch.zeros_like(cell), cell],
            flat,
            has_biases,
            1,
            0.0,
            False,
            both_ways,
            batch_first,
        )
        parts = hidden.chunk(directions, -1)
        x = torch.cat([F.linear(part, w[-1]) for part, w in zip(parts, own, strict=True)], -1)
        outputs += [F.linear(part, w[-1]) for part, w in zip(last.unbind(0), own, strict=True)]
        cells.append(cell)
    return x, torch.stack(outputs), torch.cat(cells)


def _with_first_states(x: Tensor, state: Tensor, batch_first: bool) -> Tensor:
    """The input with S more columns per direction, which hold that direction's first state at its
    first step and zeros at all others."""
    time = 1 if batch_first else 0
    more = x.shape[time] - 1
    rest = [0, 0] if batch_first else [0, 0, 0, 0]
    columns = [F.pad(state[0].unsqueeze(time), [*rest, 0, more])]
    if state.shape[0] == 2:
        columns.append(F.pad(state[1].unsqueeze(time), [*rest, more, 0]))
    return torch.cat([x, *columns], -1)


def _reading_first_states(flat: list[Tensor], own: list[list[Tensor]]) -> list[Tensor]:
    """Weights that treat these columns as the state they are."""
    each = len(flat) // len(own)
    changed = list(flat)
    for place, weights in enumerate(own):
        into, again = weights[:2]
        columns = [
            again if place == other else torch.zeros_like(again) for other in range(len(own))
        ]
        changed[place * each] = torch.cat([into, *columns], 1)
    return changed
