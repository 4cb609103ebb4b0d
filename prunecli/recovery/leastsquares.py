"""Ridge regression towards known weights, by normal equations or, with few rows, by their dual.

Stage: recovery. In: inputs, wanted outputs, old weights. Out: new weights and the mean error.
Knows no networks. B: blocks solved independently, R: rows, U: unknowns, O: outputs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = tuple[Tensor, Tensor]
"""Inputs (B, R, U) and wanted outputs (B, R, O)."""


@dataclass(frozen=True)
class Fit:
    """A solution.

    Attributes:
        weight: (B, O, U), float64.
        bias: (B, O), what the weights leave of the mean; zero where no bias was allowed.
    """

    weight: Tensor
    bias: Tensor


def fit(
    chunks: Iterable[Rows],
    old: Tensor,
    ridge: float,
    *,
    with_bias: bool,
    support: Tensor | None = None,
) -> Fit:
    """Minimise |wanted - inputs W^T - b|^2 / R + lambda |W - old|^2.

    Args:
        chunks: rows in any number of portions; only sums over them are kept.
        old: (B, O, U), float64.
        ridge: lambda, relative to the inputs' mean square.
        support: bool (B, O, U), weights that may differ from zero; all others are zero in `old`
            and stay so.
    """
    blocks, outputs, unknowns = old.shape
    gram = torch.zeros(blocks, unknowns + 1, unknowns + 1, dtype=torch.float64)
    cross = torch.zeros(blocks, outputs, unknowns + 1, dtype=torch.float64)
    for inputs, wanted in chunks:
        # The last column is the constant: its products are the sums of the others.
        augmented = torch.cat([inputs, torch.ones(*inputs.shape[:2], 1)], 2)
        gram += (augmented.transpose(1, 2) @ augmented).double()
        cross += (wanted.transpose(1, 2) @ augmented).double()
    count = gram[:, -1:, -1:]
    mean_in, mean_out = gram[:, -1:, :-1] / count, cross[:, :, -1:] / count
    second, mixed = gram[:, :-1, :-1] / count, cross[:, :, :-1] / count
    if with_bias:
        second = second - mean_in.transpose(1, 2) @ mean_in
        mixed = mixed - mean_out @ mean_in
    pull = ridge * _scale(second.diagonal(dim1=1, dim2=2))
    regular = second + pull * torch.eye(unknowns, dtype=torch.float64)
    missing = mixed - old @ second
    if support is None:
        weight = old + torch.linalg.solve(regular, missing.transpose(1, 2)).transpose(1, 2)
    else:
        weight = old + _row_by_row(regular, missing, support)
    return Fit(weight, _bias(weight, mean_in, mean_out, with_bias))


def _row_by_row(regular: Tensor, missing: Tensor, support: Tensor) -> Tensor:
    """Every output's own system, over the weights that it has."""
    change = torch.zeros_like(missing)
    for block in range(missing.shape[0]):
        for output in range(missing.shape[1]):
            own = support[block, output].nonzero().squeeze(1)
            if own.numel():
                system = regular[block][own][:, own]
                change[block, output, own] = torch.linalg.solve(system, missing[block, output, own])
    return change


def fit_few(rows: Rows, old: Tensor, ridge: float, *, with_bias: bool) -> Fit:
    """The same minimum, for fewer rows than unknowns: a system of R instead of U equations."""
    inputs, wanted = rows[0].double(), rows[1].double()
    mean_in = inputs.mean(1, keepdim=True)
    mean_out = wanted.mean(1, keepdim=True)
    if with_bias:
        inputs, wanted = inputs - mean_in, wanted - mean_out
    count = inputs.shape[1]
    pull = ridge * _scale(inputs.square().mean(1)) * count
    kernel = inputs @ inputs.transpose(1, 2)
    regular = kernel + pull * torch.eye(count, dtype=torch.float64)
    error = wanted - inputs @ old.transpose(1, 2)
    weight = old + torch.linalg.solve(regular, error).transpose(1, 2) @ inputs
    return Fit(weight, _bias(weight, mean_in, mean_out.transpose(1, 2), with_bias))


def _scale(mean_squares: Tensor) -> Tensor:
    """(B, U) -> (B, 1, 1), never zero."""
    return mean_squares.mean(1).clamp_min(1e-12)[:, None, None]


def _bias(weight: Tensor, mean_in: Tensor, mean_out: Tensor, with_bias: bool) -> Tensor:
    if not with_bias:
        return torch.zeros(weight.shape[:2], dtype=torch.float64)
    return (mean_out - weight @ mean_in.transpose(1, 2)).squeeze(2)
