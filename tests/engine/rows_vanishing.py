"""Rows: sums over what looks as if it were zero where channels go, and is not."""

import torch
import torch.nn.functional as F
from engine_rows import Row, sandwich, stuck
from torch import Tensor, nn

WHY = "is reduced over"


def _view_before_write(net: nn.Module, x: Tensor) -> Tensor:
    seen = x.flatten(2)
    x.add_(1.0)
    return seen.mean(1, keepdim=True).unflatten(2, (8, 8)).expand(-1, 3, -1, -1)


def _dropout_written(net: nn.Module, x: Tensor) -> Tensor:
    F.dropout(x, 0.1, net.training).add_(1.0)
    return x.mean(1, keepdim=True).expand(-1, 3, -1, -1)


def _spread(net: nn.Module, x: Tensor) -> Tensor:
    """(N, 12, 1, 1) repeated over an axis of 6 that goes with `d`'s outputs, then summed."""
    x = x.mean((2, 3))
    grid = x.unsqueeze(-1).expand(-1, -1, 6) + x.unsqueeze(-1) * net.d(x).unsqueeze(-2)
    return grid.sum(-1)[:, :, None, None]


def _one_head_of_values(net: nn.Module, x: Tensor) -> Tensor:
    """Four heads of queries share keys and values; a query head's answer is no zero without it."""
    tokens = x.flatten(2).transpose(1, 2)
    query = net.q(tokens).unflatten(-1, (4, 3)).transpose(1, 2) * torch.arange(3.0)
    attended = F.scaled_dot_product_attention(
        query, net.k(tokens)[:, None] * torch.arange(3.0), net.v(tokens)[:, None]
    )
    return attended.sum(1).transpose(1, 2).unflatten(2, (8, 8))


ROWS: tuple[Row, ...] = (
    stuck("mean-of-view-before-write", _view_before_write, WHY, after=3),
    stuck("mean-after-dropout-is-written", _dropout_written, WHY, after=3),
    sandwich("sum-of-what-was-repeated", _spread, layers=lambda: {"d": nn.Linear(12, 6)},
             stays={"d": WHY}),
    sandwich("sum-over-heads-that-share-values", _one_head_of_values, after=3, goes=(),
             layers=lambda: {"q": nn.Linear(12, 12), "k": nn.Linear(12, 3), "v": nn.Linear(
                 12, 3)}, stays={"q": WHY}),
    stuck("largest-whole-number", lambda n, x: (9 * x).long().amax(1, keepdim=True).float().expand(
        -1, 3, -1, -1), WHY, after=3),
)  # fmt: skip
