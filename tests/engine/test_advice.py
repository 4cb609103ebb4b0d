"""Advice is for reasons that the rules really give: for each a network in which one gives it."""

import pytest
import torch
import torch.nn.functional as F
from engine_harness import analyse, shaken
from engine_rows import Row, sandwich
from torch import nn

from prunecli.report.advice import ADVICE, NO_RULE


def turned(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 3)


# Constants in the code, not buffers: `torch.arange` in forward.
ROWS = (
    sandwich(NO_RULE, lambda n, x: torch.special.bessel_j0(x)),
    sandwich("is indexed by a tensor", lambda n, x: x.index_select(1, n.i), layers=lambda: {
        "i": torch.arange(12)}),
    sandwich("is moved as a tensor says", lambda n, x: torch.repeat_interleave(
        x, torch.full((12,), 1), 1, output_size=12)),
    sandwich("is sampled at computed places", lambda n, x: F.grid_sample(
        x, x.reshape(-1, 24, 16, 2), align_corners=False)),
    sandwich("is cut where the input's size says", lambda n, x: torch.cat(
        [x[:, : x.shape[0]], x[:, x.shape[0] :]], 1)),
    sandwich("is indexed by a constant", lambda n, x: x * x[:, 3].unsqueeze(1)),
    sandwich("is reduced over", lambda n, x: x * x.var(1, keepdim=True)),
    sandwich("is rolled", lambda n, x: x.roll(2, 1)),
    sandwich("is added to an axis that cannot shrink", lambda n, x: turned(
        F.linear(turned(x), n.w, torch.arange(12.0))), layers=lambda: {
        "w": nn.Parameter(torch.randn(12, 12))}),
    sandwich("is multiplied with an axis that cannot shrink", lambda n, x: turned(
        F.linear(turned(x), torch.arange(144.0).view(12, 12)))),
    sandwich("meets an axis that cannot shrink", lambda n, x: x + torch.arange(12.0).view(
        1, 12, 1, 1)),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_reason_is_given(row: Row) -> None:
    found = analyse(shaken(row.make()), row.shapes)
    assert row.name in {item.why.reason for item in found.coupling.frozen}


def test_every_advice_is_for_one_of_them() -> None:
    assert {row.name for row in ROWS} == set(ADVICE)
