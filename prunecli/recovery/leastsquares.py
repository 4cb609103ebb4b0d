"""Ridge regression towards known weights, by normal equations or, with few rows, by their dual.

Stage: recovery. In: inputs, wanted outputs, old weights. Out: new weights and the mean error.
Knows no networks. B: blocks solved independently, R: rows, U: unknowns, O: outputs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = tuple[Tensor, ...]
"""Inputs (B, R, U), wanted outputs (B, R, O); for a `Bend` also what comes before it (B, R, O)."""

Solver = Callable[[Tensor], Tensor]
"""From what the old weights leave (B, O, U), as products with the inputs, to their change."""

ROUNDS = 3
"""Of looking which outputs are on a flat side, and solving again; more change little."""

LARGEST_FACTORS = 1 << 27
"""Numbers kept from round to round where every output has a system of its own; where there would
be more, there are no rounds."""


@dataclass(frozen=True)
class Bend:
    """What follows: slopes and sums, then an operator that has a slope between two values only.

    Attributes:
        slope: (B, 1, O), of what reaches the operator with respect to the output.
        low, high: the two values.
    """

    slope: Tensor
    low: float
    high: float

    def aim(self, wanted: Tensor, before: Tensor, answer: Tensor) -> Tensor:
        """Of the outputs that are as good as `wanted`, those closest to `answer`: beyond a bend
        it does not matter how far. All (B, R, O).

        Args:
            before: what reaches the operator with the wanted outputs.
        """
        there = before + self.slope * (answer - wanted)
        good = torch.where(before <= self.low, there.clamp(max=self.low), before)
        good = torch.where(before >= self.high, there.clamp(min=self.high), good)
        steep = self.slope != 0
        return wanted + torch.where(steep, good - before, 0.0) / torch.where(steep, self.slope, 1.0)


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
    portions: Iterable[Rows],
    old: Tensor,
    ridge: float,
    *,
    with_bias: bool,
    support: Tensor | None = None,
    bend: Bend | None = None,
) -> Fit:
    """Minimise |wanted - inputs W^T - b|^2 / R + lambda |W - old|^2; with a bend, what is wanted
    is then moved to where it is as good and closer, and the weights are solved for again.

    Args:
        portions: rows in any number of portions, gone over once in every round; only sums over
            them are kept.
        old: (B, O, U), float64.
        ridge: lambda, relative to the inputs' mean square.
        support: bool (B, O, U), weights that may differ from zero; all others are zero in `old`
            and stay so.
    """
    blocks, outputs, unknowns = old.shape
    gram = torch.zeros(blocks, unknowns + 1, unknowns + 1, dtype=torch.float64)
    cross = torch.zeros(blocks, outputs, unknowns + 1, dtype=torch.float64)
    for inputs, wanted, *_ in portions:
        augmented = _augmented(inputs)
        gram += (augmented.transpose(1, 2) @ augmented).double()
        cross += (wanted.transpose(1, 2) @ augmented).double()
    count = gram[:, -1:, -1:]
    mean_in, second = gram[:, -1:, :-1] / count, gram[:, :-1, :-1] / count
    if with_bias:
        second = second - mean_in.transpose(1, 2) @ mean_in
    pull = ridge * _scale(second.diagonal(dim1=1, dim2=2))
    regular = second + pull * torch.eye(unknowns, dtype=torch.float64)
    few = support is None or int(support.sum(2).square().sum()) <= LARGEST_FACTORS
    solver = _solver(regular) if support is None else _row_by_row(regular, support, keep=few)

    def solved(cross: Tensor) -> Fit:
        mean_out, mixed = cross[:, :, -1:] / count, cross[:, :, :-1] / count
        if with_bias:
            mixed = mixed - mean_out @ mean_in
        weight = old + solver(mixed - old @ second)
        return Fit(weight, _bias(weight, mean_in, mean_out, with_bias))

    found = solved(cross)
    for _ in range(ROUNDS if bend is not None and few else 0):
        assert bend is not None
        cross = torch.zeros_like(cross)
        for inputs, wanted, before in portions:
            answer = inputs @ found.weight.transpose(1, 2).to(inputs.dtype)
            aim = bend.aim(wanted, before, answer + found.bias[:, None].to(inputs.dtype))
            cross += (aim.transpose(1, 2) @ _augmented(inputs)).double()
        found = solved(cross)
    return found


def _augmented(inputs: Tensor) -> Tensor:
    """The last column is the constant: its products are the sums of the others."""
    return torch.cat([inputs, torch.ones(*inputs.shape[:2], 1)], 2)


def _solver(regular: Tensor) -> Solver:
    """One system for all outputs of a block."""
    factor, pivots = torch.linalg.lu_factor(regular)
    return lambda missing: torch.linalg.lu_solve(factor, pivots, missing.transpose(1, 2)).transpose(
        1, 2
    )


def _row_by_row(regular: Tensor, support: Tensor, *, keep: bool) -> Solver:
    """Every output's own system, over the weights that it has.

    Args:
        keep: factors, for the next time.
    """
    own = {
        (block, output): support[block, output].nonzero().squeeze(1)
        for block in range(support.shape[0])
        for output in range(support.shape[1])
    }
    factors: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def solve(missing: Tensor) -> Tensor:
        change = torch.zeros_like(missing)
        for (block, output), mine in own.items():
            if not mine.numel():
                continue
            factor = factors.get((block, output))
            if factor is None:
                factor = torch.linalg.lu_factor(regular[block][mine][:, mine])
                if keep:
                    factors[block, output] = factor
            part = missing[block, output, mine].unsqueeze(1)
            change[block, output, mine] = torch.linalg.lu_solve(*factor, part).squeeze(1)
        return change

    return solve


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
