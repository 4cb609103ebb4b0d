"""Reconstruction against independent solvers, and for what it is there for."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunecli.choices import Criterion, Quantity, Strategy
from prunecli.graph.capture import Captured, capture
from prunecli.graph.cost import cost_model
from prunecli.graph.coupling import couple
from prunecli.graph.inputs import example_inputs
from prunecli.graph.walk import walk
from prunecli.importance.units import score_units
from prunecli.parsing import parse_target
from prunecli.progress import SilentReporter
from prunecli.recovery.leastsquares import fit, fit_few
from prunecli.recovery.reconstruction import affordable, reconstruct
from prunecli.removal import Choosing, UnitsWanted, mixture
from prunecli.selection.budget import select
from prunecli.selection.plan import kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import Kept, make_kept
from prunecli.surgery.masks import apply_masks


def _problem(rows: int, unknowns: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(1, rows, unknowns, generator=generator) + 0.7
    wanted = torch.randn(1, rows, 3, generator=generator)
    old = torch.randn(1, 3, unknowns, generator=generator, dtype=torch.float64)
    return inputs, wanted, old


def _stacked(inputs: Tensor, wanted: Tensor, old: Tensor, ridge: float) -> Tensor:
    """The regularised problem as one plain least-squares problem: extra rows pull to `old`."""
    rows, unknowns = inputs.shape[1:]
    x, y = inputs[0].double(), wanted[0].double()
    x, y = x - x.mean(0), y - y.mean(0)
    pull = (ridge * x.square().mean() * rows).sqrt()
    x = torch.cat([x, pull * torch.eye(unknowns, dtype=torch.float64)])
    y = torch.cat([y, pull * old[0].T])
    return torch.linalg.lstsq(x, y).solution.T


@pytest.mark.parametrize(("rows", "unknowns"), [(200, 7), (9, 30)])
def test_both_forms_equal_plain_least_squares(rows: int, unknowns: int) -> None:
    inputs, wanted, old = _problem(rows, unknowns)
    expected = _stacked(inputs, wanted, old, 0.01)
    halves = list(zip(inputs.split(5, 1), wanted.split(5, 1), strict=True))
    for found in (
        fit(halves, old, 0.01, with_bias=True),
        fit_few((inputs, wanted), old, 0.01, with_bias=True),
    ):
        torch.testing.assert_close(found.weight[0], expected, atol=1e-4, rtol=1e-3)
        left = wanted[0].double() - inputs[0].double() @ found.weight[0].T - found.bias[0]
        assert left.mean(0).abs().max() < 1e-6


def test_masked_weights_are_left_out_of_each_outputs_own_system() -> None:
    inputs, wanted, old = _problem(200, 7)
    support = torch.rand(1, 3, 7, generator=torch.Generator().manual_seed(2)) < 0.6
    support[0, 1] = False
    found = fit([(inputs, wanted)], old * support, 0.01, with_bias=True, support=support)
    assert not found.weight[~support].any()
    x = inputs[0].double() - inputs[0].double().mean(0)
    y = wanted[0].double() - wanted[0].double().mean(0)
    pull = (0.01 * x.square().mean() * 200).sqrt()
    for output in range(3):
        own = support[0, output]
        rows = torch.cat([x[:, own], pull * torch.eye(int(own.sum()), dtype=torch.float64)])
        right = torch.cat([y[:, output], pull * old[0, output, own]])
        expected = torch.linalg.lstsq(rows, right.unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(found.weight[0, output, own], expected, atol=1e-4, rtol=1e-3)


def test_a_strong_pull_keeps_the_old_weights() -> None:
    inputs, wanted, old = _problem(50, 4)
    found = fit([(inputs, wanted)], old, 1e9, with_bias=False)
    torch.testing.assert_close(found.weight, old, atol=1e-6, rtol=0)
    assert not found.bias.any()


class _Net(nn.Module):
    """Redundant on purpose: channels 4-7 of the first layer mix channels 0-3."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.last = nn.Linear(8, 5)
        mix = torch.eye(4).roll(1, 0) * 0.1
        with torch.no_grad():
            self.first.weight[4:] = torch.einsum("oi,ichw->ochw", mix, self.first.weight[:4])
            self.first.bias[4:] = mix @ self.first.bias[:4]

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.second(self.first(x)))
        return self.last(torch.relu(self.grouped(x)).mean((2, 3)))


def _cut(target: str) -> tuple[Captured, torch.fx.GraphModule, Kept]:
    torch.manual_seed(0)
    net = _Net()
    net(torch.randn(64, 3, 12, 12))
    captured = capture(net, example_inputs((1, 3, 12, 12)))
    flow = walk(captured)
    coupling = couple(flow)
    model = cost_model(captured.network, flow, coupling, 2)
    scores = score_units(
        captured,
        flow,
        coupling,
        Strategy.STRUCTURED,
        mixture(Criterion.L2),
        None,
        0,
        SilentReporter(),
    )
    wanted = UnitsWanted(parse_target(Quantity.MACS, target), 1)
    plan = select(coupling, model, scores, wanted, Choosing(), "l2", 0)
    kept = make_kept(flow, coupling, kept_units(plan, coupling))
    return captured, compact(captured, kept), kept


def test_outputs_come_closer_on_examples_not_seen() -> None:
    captured, network, kept = _cut("60%")
    seen, unseen = torch.randn(128, 3, 12, 12), torch.randn(64, 3, 12, 12)
    with torch.no_grad():
        wanted = captured.network(unseen)
        before = (network(unseen) - wanted).square().mean()
        done = reconstruct(captured, network, kept, (seen,), SilentReporter())
        after = (network(unseen) - wanted).square().mean()
    assert done.layers >= 2
    assert done.examples == 128
    assert after < 0.5 * before


def test_masked_layers_come_closer_and_keep_their_zeros() -> None:
    torch.manual_seed(0)
    captured = capture(_Net().eval(), example_inputs((2, 3, 12, 12)))
    flow = walk(captured)
    coupling = couple(flow)
    kept = make_kept(flow, coupling, np.ones(coupling.count, dtype=np.bool_))
    network = compact(captured, kept)
    masks = {
        name: weight.abs() > weight.abs().flatten().median()
        for name, weight in network.named_parameters()
        if weight.dim() > 1
    }
    apply_masks(network, masks)
    seen, unseen = torch.randn(128, 3, 12, 12), torch.randn(64, 3, 12, 12)
    with torch.no_grad():
        wanted = captured.network(unseen)
        before = (network(unseen) - wanted).square().mean()
        done = reconstruct(captured, network, kept, (seen,), SilentReporter(), masks=masks)
        after = (network(unseen) - wanted).square().mean()
    assert done.layers == len(masks) == 4
    assert after < 0.5 * before
    for name, mask in masks.items():
        assert not network.get_parameter(name)[~mask].any(), name


def test_channels_that_others_can_express_cost_nothing() -> None:
    captured, network, kept = _cut("85%")
    assert network.get_parameter("first.weight").shape[0] < 8
    assert network.get_parameter("last.weight").shape[1] == 8, "only redundant channels went"
    unseen = torch.randn(64, 3, 12, 12)
    reconstruct(captured, network, kept, (torch.randn(256, 3, 12, 12),), SilentReporter())
    with torch.no_grad():
        wanted = captured.network(unseen)
        apart = (network(unseen) - wanted).abs().max() / wanted.abs().max()
    assert apart < 0.02


def test_the_original_is_left_alone_and_the_result_repeats() -> None:
    captured, network, kept = _cut("60%")
    before = {name: item.clone() for name, item in captured.network.state_dict().items()}
    examples = torch.randn(64, 3, 12, 12)
    reconstruct(captured, network, kept, (examples,), SilentReporter(), seed=3)
    again = _cut("60%")[1]
    reconstruct(captured, again, kept, (examples,), SilentReporter(), seed=3)
    for name, item in captured.network.state_dict().items():
        assert torch.equal(item, before[name]), name
    for name, item in network.state_dict().items():
        assert torch.equal(item, again.state_dict()[name]), name


def test_memory_bounds_the_number_of_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    captured, _, _ = _cut("60%")
    assert affordable(captured, 1024) == 1024
    monkeypatch.setattr("prunecli.recovery.reconstruction.LIVE_BYTES", 1 << 20)
    assert 1 <= affordable(captured, 1024) < 200
