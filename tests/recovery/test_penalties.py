"""Penalties against slow loops over every weight; what training with them does."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_training import SGD, data_for
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from prunecli.choices import Penalty
from prunecli.errors import ConfigError
from prunecli.graph.capture import Captured, capture
from prunecli.graph.cost import Keep
from prunecli.graph.coupling import STAYS, Coupling, couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk
from prunecli.progress import SilentReporter
from prunecli.recovery import finetune
from prunecli.recovery.companion import Setting
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.masking import Masks
from prunecli.recovery.penalties import TERMS, Penalised, SparseTraining, Term
from prunecli.recovery.soft_units import unit_masks
from prunecli.recovery.unit_norms import unit_squares
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import make_kept
from prunecli.timing import Timing


class Grouped(nn.Module):
    """Residual stream, depthwise and grouped convolutions, a flatten into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.one = nn.Conv2d(8, 12, 1)
        self.group = nn.GroupNorm(3, 12)
        self.two = nn.Conv2d(12, 8, 1)
        self.dw = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.hidden = nn.Linear(48, 10)
        self.last = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.a(x)))
        x = F.relu(x + self.two(F.silu(self.group(self.one(x)))))
        x = F.relu(self.wide(F.relu(self.dw(x))))
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)
        found: Tensor = self.last(F.relu(self.hidden(x)))
        return found


class Square(nn.Module):
    """A weight with the same units on both axes, a layer norm and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.square = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.lstm = nn.LSTM(8, 5, batch_first=True)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = self.norm(x + self.square(x))
        found: Tensor = self.last(self.lstm(x.unsqueeze(1))[0][:, 0])
        return found


def analysed(module: nn.Module, *shape: int) -> tuple[Captured, Coupling]:
    torch.manual_seed(0)
    for name, item in module.named_parameters():
        with torch.no_grad():
            item.copy_(torch.randn_like(item) * 0.3 + ("norm" in name and item.dim() == 1))
    found = capture(module.eval(), positional((torch.randn(4, *shape),)))
    return found, couple(walk(found))


def grouped() -> tuple[Captured, Coupling]:
    return analysed(Grouped(), 3, 8, 8)


def square() -> tuple[Captured, Coupling]:
    return analysed(Square(), 6)


Make = Callable[[], tuple[Captured, Coupling]]


def value(term: Term) -> float:
    return term().detach().item()


def members(network: GraphModule, coupling: Coupling) -> list[set[tuple[str, tuple[int, ...]]]]:
    """Unit -> (parameter, place) of every weight that goes with it, one by one."""
    found: list[set[tuple[str, tuple[int, ...]]]] = [set() for _ in range(coupling.count)]
    parameters = dict(network.named_parameters())
    for slot in coupling.slots:
        if slot.tensor not in parameters:
            continue
        shape = tuple(parameters[slot.tensor].shape)
        units = slot.units.reshape(slot.blocks, -1)
        for place in np.ndindex(*shape):
            block = place[0] * slot.blocks // shape[0] if slot.blocks > 1 else 0
            unit = units[block, place[slot.axis]]
            if unit != STAYS:
                found[unit].add((slot.tensor, tuple(place)))
    return found


def by_loop(penalty: Penalty, network: GraphModule, coupling: Coupling) -> float:
    parameters = {name: item.detach() for name, item in network.named_parameters()}
    if penalty is Penalty.GROUP_LASSO:
        total = 0.0
        for unit in members(network, coupling):
            squares = sum(float(parameters[name][place]) ** 2 for name, place in unit)
            total += math.sqrt(len(unit)) * math.sqrt(squares)
        return total
    touched = {slot.tensor for slot in coupling.slots if slot.tensor in parameters}
    if penalty is Penalty.L1:
        weights = [parameters[name] for name in touched if parameters[name].dim() > 1]
        return sum(abs(float(value)) for weight in weights for value in weight.reshape(-1))
    scales = [name for name in touched if name in ("norm.weight", "group.weight")]
    return sum(abs(float(value)) for name in scales for value in parameters[name])


@pytest.mark.parametrize("penalty", list(Penalty))
@pytest.mark.parametrize("make", [grouped, square])
def test_penalties_equal_slow_loops(make: Make, penalty: Penalty) -> None:
    captured, coupling = make()
    assert coupling.count > 8
    network = captured.network
    term = TERMS[penalty](network, Penalised(coupling))
    assert value(term) == pytest.approx(by_loop(penalty, network, coupling), rel=1e-6)
    with torch.no_grad():
        for item in network.parameters():
            item.mul_(1.7).add_(0.1)
    expected = by_loop(penalty, network, coupling)
    assert value(term) == pytest.approx(expected, rel=1e-6), "of the weights as they are now"


def test_the_nets_have_what_is_hard() -> None:
    """Blocked axes, with units of their own and with those of the rows; both axes the same."""
    _, coupling = grouped()
    blocked = {slot.tensor for slot in coupling.slots if slot.blocks > 1}
    assert blocked == {"dw.weight", "wide.weight"}
    _, coupling = square()
    both = [slot.units.tolist() for slot in coupling.slots if slot.tensor == "square.weight"]
    assert len(both) == 2
    assert both[0] == both[1]
    assert "lstm.weight_hh_l0" in {slot.tensor for slot in coupling.slots}


@pytest.mark.parametrize("make", [grouped, square])
def test_squares_and_sizes_of_units(make: Make) -> None:
    captured, coupling = make()
    parameters = {name: item.detach() for name, item in captured.network.named_parameters()}
    squares, sizes = unit_squares(captured.network, coupling)
    units = members(captured.network, coupling)
    assert sizes.tolist() == [len(unit) for unit in units]
    expected = [sum(float(parameters[n][p]) ** 2 for n, p in unit) for unit in units]
    assert squares().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("penalty", list(Penalty))
@pytest.mark.parametrize("make", [grouped, square])
def test_slopes_equal_differences(make: Make, penalty: Penalty) -> None:
    captured, coupling = make()
    network = captured.network.double()
    term = TERMS[penalty](network, Penalised(coupling))
    term().backward()
    generator = np.random.default_rng(0)
    checked = 0
    for item in network.parameters():
        for place in generator.integers(0, item.numel(), 6).tolist():
            flat = item.detach().reshape(-1)
            before = float(flat[place])
            values = []
            for step in (1e-6, -1e-6):
                flat[place] = before + step
                values.append(value(term))
            flat[place] = before
            slope = (values[0] - values[1]) / 2e-6
            found = 0.0 if item.grad is None else float(item.grad.reshape(-1)[place])
            assert found == pytest.approx(slope, rel=1e-4, abs=1e-6)
            checked += slope != 0
    assert checked >= 3


def test_a_unit_at_zero_has_no_slope() -> None:
    captured, coupling = grouped()
    with torch.no_grad():
        for item in captured.network.parameters():
            item.zero_()
    term = TERMS[Penalty.GROUP_LASSO](captured.network, Penalised(coupling))
    term().backward()
    assert value(term) == 0.0
    for item in captured.network.parameters():
        assert item.grad is None or not item.grad.any()


def test_l1_on_chosen_parameters() -> None:
    captured, coupling = grouped()
    on = Penalised(coupling, ("last.weight", "norm.bias"))
    expected = sum(
        captured.network.get_parameter(name).detach().abs().sum().item() for name in on.names
    )
    assert value(TERMS[Penalty.L1](captured.network, on)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("penalty", list(Penalty))
@pytest.mark.parametrize("make", [grouped, square])
def test_training_draws_to_zero(make: Make, penalty: Penalty) -> None:
    """The same training with and without; only the last weights count."""

    def size(strength: float) -> tuple[float, float, int]:
        captured, coupling = make()
        network = captured.network
        data = data_for(network)
        before = by_loop(penalty, network, coupling)
        companion = SparseTraining(penalty, strength, Penalised(coupling))
        config = dataclasses.replace(SGD, lr=0.02)
        result = finetune(network, data, config, SilentReporter(), companion=companion)
        return before, by_loop(penalty, network, coupling), result.best_epoch

    strength = {Penalty.L1: 5e-2, Penalty.GROUP_LASSO: 3e-2, Penalty.NORM_SCALE: 1e-1}[penalty]
    before, with_, kept = size(strength)
    assert kept == 3
    _, without, _ = size(0.0)
    assert with_ < 0.95 * without
    assert with_ < before


def test_strength_scales_the_penalty() -> None:
    captured, coupling = grouped()
    companion = SparseTraining(Penalty.L1, 0.25, Penalised(coupling))
    network = captured.network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    companion.begin(Setting(network, optimizer, 1, lambda: torch.no_grad()))
    found = companion.penalty()
    assert found is not None
    expected = 0.25 * by_loop(Penalty.L1, network, coupling)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert [companion.counts(done, 7) for done in (0, 6, 7)] == [False, False, True]


class Bare(nn.Module):
    """Nothing can go, and there is no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.only(x)
        return found


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        pytest.param(
            Penalty.L1,
            "--penalty: l1 needs a weight that can go and be trained, got a network without",
            id="l1",
        ),
        pytest.param(
            Penalty.GROUP_LASSO,
            "--penalty: group-lasso needs a unit that can go, got a network without",
            id="group-lasso",
        ),
        pytest.param(
            Penalty.NORM_SCALE,
            "--penalty: norm-scale needs a norm with a scale per channel that can go, got a "
            "network without",
            id="norm-scale",
        ),
    ],
)
def test_nothing_to_act_on_is_refused(penalty: Penalty, message: str) -> None:
    captured, coupling = analysed(Bare(), 6)
    with pytest.raises(ConfigError) as caught:
        TERMS[penalty](captured.network, Penalised(coupling))
    assert caught.value.message == message
    assert "--penalty" in (caught.value.hint or "")


@pytest.mark.parametrize("make", [grouped, square])
def test_masks_of_units_equal_a_loop(make: Make) -> None:
    captured, coupling = make()
    keep = np.random.default_rng(0).random(coupling.count) > 0.5
    masks = unit_masks(captured.network, coupling, keep)
    expected = {
        name: torch.ones(item.shape, dtype=torch.bool)
        for name, item in captured.network.named_parameters()
    }
    for unit in np.flatnonzero(~keep):
        for name, place in members(captured.network, coupling)[unit]:
            expected[name][place] = False
    for name, mask in expected.items():
        assert torch.equal(masks.get(name, torch.ones_like(mask)), mask)


def test_soft_units_can_be_removed_exactly() -> None:
    """Gradual pruning of units in soft form: in the end they can go without a difference."""
    captured, coupling = grouped()
    network = captured.network
    own = {group.name: group.units for group in coupling.groups}
    # Equally many of both blocks of the grouped convolution.
    order = np.concatenate([own["a"][[0, 4, 1, 5]], own["hidden"][:6]])

    def left(share: float) -> Keep:
        keep = np.ones(coupling.count, dtype=np.bool_)
        keep[order[: round(share * order.size)]] = False
        return keep

    def choose(share: float, current: Masks) -> Masks:
        return unit_masks(network, coupling, left(share))

    data = data_for(network)
    gradual = Gradual(Timing(every=3), choose)
    config = dataclasses.replace(SGD, lr=0.02)
    finetune(network, data, config, SilentReporter(), companion=gradual)
    kept = make_kept(walk(captured), coupling, left(1.0))
    small = compact(captured, kept)
    assert sum(item.numel() for item in small.parameters()) < sum(
        item.numel() for item in network.parameters()
    )
    inputs = data.choose.inputs[0]
    with torch.no_grad():
        torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-5, atol=1e-5)
