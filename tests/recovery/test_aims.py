"""What layers should say: made up for on residual streams, free beyond the bend of a rectifier."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecli.graph.capture import Captured, capture
from prunecli.graph.coupling import couple
from prunecli.graph.inputs import example_inputs
from prunecli.graph.nodes import operator_name
from prunecli.graph.walk import walk
from prunecli.progress import SilentReporter
from prunecli.recovery import leastsquares
from prunecli.recovery.aims import Following, following
from prunecli.recovery.leastsquares import Bend, fit
from prunecli.recovery.reconstruction import reconstruct
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import Kept, make_kept


def test_beyond_a_bend_what_is_as_good_and_closer_is_aimed_at() -> None:
    # The operator reads 2 * output + what is added: (before - 2 * wanted).
    bend = Bend(torch.tensor([[[2.0]]]), 0.0, 6.0)
    wanted = torch.tensor([[[1.0], [-1.0], [-1.0], [4.0], [4.0], [2.0]]])
    before = torch.tensor([[[2.0], [-2.0], [-2.0], [8.0], [8.0], [4.0]]])
    answer = torch.tensor([[[-3.0], [-4.0], [5.0], [9.0], [1.0], [7.0]]])
    # alive: as wanted; flat: where the answer is, at most to the bend.
    expected = torch.tensor([[[1.0], [-4.0], [0.0], [9.0], [3.0], [2.0]]])
    torch.testing.assert_close(bend.aim(wanted, before, answer), expected)


def test_a_channel_that_its_norm_hides_is_aimed_at_as_it_is() -> None:
    bend = Bend(torch.tensor([[[0.0]]]), 0.0, math.inf)
    one = torch.ones(1, 1, 1)
    torch.testing.assert_close(bend.aim(one, -one, 5 * one), one)


@pytest.mark.parametrize("masked", [False, True])
def test_what_comes_after_a_rectifier_is_closer_with_a_bend(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 500, 6, generator=generator)
    wanted = torch.randn(2, 500, 4, generator=generator) + inputs[:, :, :4].abs() - 1.0
    slope = torch.tensor([[[1.0, -2.0, 0.5, 3.0]]]).expand(2, 1, 4)
    before = wanted * slope + torch.randn(2, 500, 4, generator=generator)
    old = torch.zeros(2, 4, 6, dtype=torch.float64)
    support = torch.rand(2, 4, 6, generator=generator) < 0.6 if masked else None
    rows = [
        tuple(part[:, start : start + 200] for part in (inputs, wanted, before))
        for start in (0, 200, 400)
    ]

    def missed(bend: Bend | None) -> float:
        found = fit(rows, old, 1e-6, with_bias=True, support=support, bend=bend)
        answer = inputs.double() @ found.weight.transpose(1, 2) + found.bias[:, None]
        there = before + slope * (answer - wanted)
        return float((there.relu() - before.relu()).square().mean())

    assert missed(Bend(slope, 0.0, math.inf)) < 0.95 * missed(None)


def test_systems_that_are_too_large_to_keep_are_solved_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, wanted = torch.randn(1, 50, 6), torch.randn(1, 50, 4)
    old, support = torch.zeros(1, 4, 6, dtype=torch.float64), torch.ones(1, 4, 6) > 0
    plain = fit([(inputs, wanted)], old, 1e-3, with_bias=True, support=support)
    monkeypatch.setattr(leastsquares, "LARGEST_FACTORS", 4 * 36 - 1)
    bend = Bend(torch.ones(1, 1, 4), 0.0, math.inf)
    rows = [(inputs, wanted, wanted)]
    found = fit(rows, old, 1e-3, with_bias=True, support=support, bend=bend)
    assert torch.equal(found.weight, plain.weight)


class _Blocks(nn.Module):
    """Two residual blocks: what the first loses, the second can make up for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(8, 12, 3, padding=1) for _ in range(2))
        self.outer = nn.ModuleList(nn.Conv2d(12, 8, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for inner, outer, norm in zip(self.inner, self.outer, self.norms, strict=True):
            x = F.relu(x + F.dropout(norm(outer(F.relu(inner(x)))), 0.1, self.training))
        return self.head(x.mean((2, 3)))


def _cut() -> tuple[Captured, torch.fx.GraphModule, Kept]:
    torch.manual_seed(0)
    net = _Blocks()
    for _ in range(20):
        net(torch.randn(64, 3, 8, 8))
    captured = capture(net.eval(), example_inputs((2, 3, 8, 8)))
    flow = walk(captured)
    coupling = couple(flow)
    keep = np.ones(coupling.count, dtype=np.bool_)
    for group in coupling.groups:
        if group.name.startswith("inner"):
            keep[group.units[:6]] = False
    kept = make_kept(flow, coupling, keep)
    return captured, compact(captured, kept), kept


def test_what_follows_a_layer_is_found() -> None:
    captured, _, _ = _cut()
    nodes = [node for node in captured.network.graph.nodes if operator_name(node) == "aten.conv2d"]
    stem, inner, outer = nodes[:3]
    assert following(stem) == Following(), "two read it"
    assert following(inner) == Following(alive=(0.0, math.inf))
    found = following(outer)
    assert found.norm is not None
    assert found.other is stem
    assert found.alive == (0.0, math.inf)


def _without_others(node: torch.fx.Node) -> Following:
    return Following(following(node).norm)


def _bends_only(node: torch.fx.Node) -> Following:
    found = following(node)
    return found if found.other is None else Following(found.norm)


@pytest.mark.parametrize("less", [_bends_only, _without_others])
def test_each_of_the_two_brings_outputs_closer(
    less: Callable[[torch.fx.Node], Following], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, unseen = torch.randn(256, 3, 8, 8), torch.randn(128, 3, 8, 8)

    def apart() -> float:
        captured, network, kept = _cut()
        reconstruct(captured, network, kept, (seen,), SilentReporter())
        with torch.no_grad():
            return float((network(unseen) - captured.network(unseen)).square().mean())

    whole = apart()
    monkeypatch.setattr("prunecli.recovery.solvable.following", less)
    assert whole < apart()


def test_a_norm_without_statistics_is_no_fixed_slope() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, track_running_stats=False)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), conv, norm, nn.ReLU(), nn.Conv2d(6, 2, 3)).eval()
    captured = capture(net, example_inputs((2, 3, 8, 8)))
    nodes = [node for node in captured.network.graph.nodes if operator_name(node) == "aten.conv2d"]
    assert following(nodes[1]) == Following()
