"""What the rest cannot restore, against least squares over all that is gone at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from importance_cases import NAMES, Case, make
from torch import Tensor, nn

from prunecli.choices import Criterion, Strategy
from prunecli.errors import ConfigError, TrainingError
from prunecli.graph.capture import capture
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk
from prunecli.importance import restorable
from prunecli.importance.calibration import Calibration
from prunecli.importance.evidence import Evidence
from prunecli.importance.restorable import errors_without
from prunecli.importance.units import score_units
from prunecli.progress import SilentReporter
from prunecli.removal import mixture
from prunecli.tasks import CLASSIFICATION, REGRESSION

READERS = {
    "conv": {"a": ["b"], "g": ["fc"]},
    "mlp": {"a": ["b"], "b": ["c"]},
    "lstm": {"rnn.weight_ih_l0": ["fc"]},
}
"""Layers that read a group's units, other than depthwise, grouped and recurrent ones."""


def seen(case: Case, layer: str) -> tuple[Tensor, Tensor]:
    """What a layer reads, (positions, inputs); and the mean over examples of the squares of its
    outputs' gradients, (outputs,)."""
    module = case.module.get_submodule(layer)
    kept: list[tuple[Tensor, Tensor]] = []
    hook = module.register_forward_hook(lambda _, given, out: kept.append((given[0], out)))
    squares, rows = torch.zeros(()), []
    for one in range(len(case.calibration)):
        inputs, targets = case.calibration.inputs[0][[one]], case.calibration.targets[0][[one]]
        outputs = case.module(inputs)
        regression = case.calibration.task is REGRESSION
        loss = (
            ((outputs - targets) ** 2).mean() if regression else F.cross_entropy(outputs, targets)
        )
        read, said = kept.pop()
        (slope,) = torch.autograd.grad(loss, said)
        squares = squares + slope.square().transpose(0, 1).flatten(1).sum(1)
        if isinstance(module, nn.Conv2d):
            size = module.kernel_size
            read = F.unfold(read, size, padding=module.padding).transpose(1, 2).flatten(0, 1)
        rows.append(read.detach())
    hook.remove()
    return torch.cat(rows), squares / len(case.calibration)


def error(case: Case, layer: str, gone: list[int]) -> float:
    """Of the layer without the inputs `gone`, whose other weights are free."""
    read, squares = seen(case, layer)
    weight = case.module.get_submodule(layer).weight.detach().flatten(1)
    centred = (read - read.mean(0)) / len(read) ** 0.5
    pull = (1e-3 * centred.square().sum(0).mean()).sqrt()
    stacked = torch.cat([centred, pull * torch.eye(centred.shape[1])])
    free = [place for place in range(centred.shape[1]) if place not in gone]
    missing = stacked[:, gone] @ weight[:, gone].T
    change = torch.linalg.lstsq(stacked[:, free], missing).solution
    return float((missing - stacked[:, free] @ change).square().sum(0) @ squares)


def turns(name: str, group: str) -> list[float]:
    """The cheapest unit goes first, then the cheapest of those that are left."""
    case = cases(name)
    entries, layers = case.entries[group], READERS[name][group]
    taps = {layer: case.module.get_submodule(layer).weight[0, 0].numel() for layer in layers}

    def total(units: list[int]) -> float:
        found = 0.0
        for layer in layers:
            places = [place for unit in units for place in entries[unit]]
            inputs = [place * taps[layer] + tap for place in places for tap in range(taps[layer])]
            found += error(case, layer, inputs) if inputs else 0.0
        return found

    errors, gone = [0.0] * len(entries), []
    while len(gone) < len(entries):
        before = total(gone)
        costs = {u: total([*gone, u]) - before for u in range(len(entries)) if u not in gone}
        unit = min(costs, key=lambda u: costs[u])
        errors[unit] = max(costs[unit], *(errors[u] for u in gone), 0.0)
        gone.append(unit)
    return errors


_CASES: dict[str, Case] = {}


def cases(name: str) -> Case:
    return _CASES.setdefault(name, make(name))


def evidence(case: Case) -> Evidence:
    return Evidence(case.captured, case.calibration, 0, SilentReporter())


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_least_squares(name: str) -> None:
    case = cases(name)
    found = errors_without(evidence(case), case.coupling)
    for group in case.coupling.groups:
        if group.name in READERS[name]:
            expected = turns(name, group.name)
            np.testing.assert_allclose(found[group.units], expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_norms_are_given_out_in_that_order(name: str) -> None:
    case = cases(name)

    def scored(criterion: Criterion) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        return score_units(
            case.captured, case.flow, case.coupling, Strategy.STRUCTURED, mixture(criterion),
            case.calibration, 0, SilentReporter(),
        ).raw  # fmt: skip

    errors = errors_without(evidence(case), case.coupling)
    for group in case.coupling.groups:
        ours, norms = (
            scored(item)[group.units] for item in (Criterion.RECONSTRUCTION, Criterion.L2)
        )
        np.testing.assert_array_equal(np.sort(ours), np.sort(norms))
        order = np.argsort(errors[group.units], kind="stable")
        assert (np.diff(ours[order]) >= 0).all()


def test_units_that_no_layer_tells_anything_of_keep_their_norms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = cases("mlp")
    monkeypatch.setattr(restorable, "MOST_INPUTS", 6)  # layer b reads 7
    errors = errors_without(evidence(case), case.coupling)
    first, second = (group.units for group in case.coupling.groups)
    assert np.isinf(errors[first]).all()
    assert np.isfinite(errors[second]).all()


class Joined(nn.Module):
    """One layer reads two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 1)
        self.c, self.d = nn.Conv2d(9, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(F.relu(self.c(torch.cat([self.a(x), self.b(x)], 1))).mean((2, 3)))


def judged(module: nn.Module) -> tuple[Evidence, Coupling]:
    torch.manual_seed(0)
    inputs, targets = torch.randn(40, 3, 6, 6), torch.randint(0, 3, (40,))
    captured = capture(module.eval(), positional((inputs[:2],)))
    calibration = Calibration((inputs,), (targets,), CLASSIFICATION)
    return Evidence(captured, calibration, 0, SilentReporter()), couple(walk(captured))


def test_groups_that_one_layer_reads_are_judged_each_by_itself() -> None:
    torch.manual_seed(1)
    own, coupling = judged(Joined())
    forwards = errors_without(own, coupling)
    backwards = errors_without(own, replace(coupling, groups=coupling.groups[::-1]))
    assert len(coupling.groups) == 3
    np.testing.assert_array_equal(forwards, backwards)


class TwoHeads(nn.Module):
    """The second output is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.a(x)).mean((2, 3))
        return self.b(x), 100 * self.c(x)


def test_an_output_that_is_not_trained_counts_for_nothing() -> None:
    torch.manual_seed(1)
    module = TwoHeads()
    before = errors_without(*judged(module))
    with torch.no_grad():
        module.c.weight.copy_(module.c.weight.flip(1) * 5)
    np.testing.assert_array_equal(before, errors_without(*judged(module)))


def test_what_is_not_finite_has_no_order() -> None:
    torch.manual_seed(1)
    own, coupling = judged(Joined())
    bad = replace(own.calibration, inputs=(own.calibration.inputs[0] * 1e38,))
    with pytest.raises(TrainingError, match=r"calibration: .* must be finite"):
        errors_without(replace(own, calibration=bad), coupling)


class Same(nn.Module):
    """Padding in words is not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)).mean((2, 3))


def test_a_network_that_no_layer_tells_anything_of_is_refused() -> None:
    own, coupling = judged(Same())
    assert np.isinf(errors_without(own, coupling)).all()
    with pytest.raises(ConfigError, match="--criterion: reconstruction judges what linear"):
        score_units(
            own.captured, walk(own.captured), coupling, Strategy.STRUCTURED,
            mixture(Criterion.RECONSTRUCTION), own.calibration, 0, SilentReporter(),
        )  # fmt: skip


def test_large_images_go_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    own, coupling = judged(Joined())
    whole = errors_without(own, coupling)
    monkeypatch.setattr(restorable, "LARGEST_PATCHES", 1)
    np.testing.assert_allclose(errors_without(own, coupling), whole, rtol=1e-4)
