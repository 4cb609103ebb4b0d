"""What holds of scores whatever the criterion: mixtures, repeats, refusals, nothing left behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from importance_cases import Case, make
from torch import Tensor, nn

from prunecli.choices import CRITERIA, Criterion, Strategy, needs_data
from prunecli.errors import ConfigError, ModelError, TrainingError
from prunecli.graph.capture import capture
from prunecli.graph.coupling import couple
from prunecli.graph.inputs import positional
from prunecli.graph.maskable import maskables
from prunecli.graph.walk import walk
from prunecli.importance.calibration import Calibration
from prunecli.importance.mixing import normalised
from prunecli.importance.scores import UnitScores
from prunecli.importance.units import score_units
from prunecli.importance.weights import score_weights
from prunecli.progress import SilentReporter
from prunecli.removal import Mixture, mixture
from prunecli.tasks import CLASSIFICATION, REGRESSION

UNITS = [
    (strategy, criterion)
    for strategy in (Strategy.STRUCTURED, Strategy.NEURON)
    for criterion in CRITERIA[strategy]
]


@pytest.fixture(scope="module")
def case() -> Case:
    return make("conv")


def units(
    case: Case, mix: Mixture, strategy: Strategy = Strategy.STRUCTURED, seed: int = 0
) -> UnitScores:
    return score_units(
        case.captured, case.flow, case.coupling, strategy, mix, case.calibration, seed,
        SilentReporter(),
    )  # fmt: skip


def weights(case: Case, mix: Mixture, seed: int = 0) -> dict[str, Tensor]:
    own = maskables(case.captured, case.flow)
    return dict(score_weights(case.captured, own, mix, case.calibration, seed, SilentReporter()))


def judge(case: Case, strategy: Strategy, criterion: Criterion) -> object:
    if strategy is Strategy.WEIGHT:
        return weights(case, mixture(criterion))
    return units(case, mixture(criterion), strategy)


@pytest.mark.parametrize(("strategy", "criterion"), UNITS)
def test_scores_repeat_and_leave_nothing_behind(
    case: Case, strategy: Strategy, criterion: Criterion
) -> None:
    network = case.captured.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    one, two = (units(case, mixture(criterion), strategy, 3) for _ in range(2))
    assert np.array_equal(one.raw, two.raw)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("criterion", CRITERIA[Strategy.WEIGHT])
def test_weight_scores_repeat_and_leave_nothing_behind(case: Case, criterion: Criterion) -> None:
    network = case.captured.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    one, two = (weights(case, mixture(criterion), 3) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    # Scores are tensors of their own: W may work on them in place.
    for item in one.values():
        item.fill_(-1.0)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_random_follows_the_seed(case: Case) -> None:
    one, two = (units(case, mixture(Criterion.RANDOM), seed=seed).raw for seed in (1, 2))
    assert not np.array_equal(one, two)
    left, right = (weights(case, mixture(Criterion.RANDOM), seed) for seed in (1, 2))
    assert not torch.equal(left["a.weight"], right["a.weight"])


@pytest.mark.parametrize("criterion", [Criterion.MOVEMENT, Criterion.WEIGHT_CHANGE, Criterion.L2])
def test_normalising_keeps_order_and_sign(case: Case, criterion: Criterion) -> None:
    found = units(case, mixture(criterion))
    for group in case.coupling.groups:
        raw, scaled = found.raw[group.units], found.normalised[group.units]
        assert np.array_equal(np.argsort(raw), np.argsort(scaled))
        assert np.array_equal(np.sign(raw), np.sign(scaled))
        assert np.abs(scaled).max() == pytest.approx(1.0)
    if criterion is not Criterion.L2:
        assert (found.raw < 0).any()


def test_a_group_that_is_all_negative_keeps_its_order(case: Case) -> None:
    raw = -np.arange(1.0, case.coupling.count + 1)
    scaled = normalised(raw, case.coupling)
    for group in case.coupling.groups:
        assert np.array_equal(np.argsort(raw[group.units]), np.argsort(scaled[group.units]))


def test_mixtures_of_units_add_normalised_scores(case: Case) -> None:
    mix = Mixture(((Criterion.L2, 0.25), (Criterion.TAYLOR, 2.0), (Criterion.FPGM, 0.0)))
    found = units(case, mix)
    one, two = (units(case, mixture(item)).raw for item in (Criterion.L2, Criterion.TAYLOR))
    for group in case.coupling.groups:
        a, b = one[group.units], two[group.units]
        expected = [0.25 * x / max(a) + 2.0 * y / max(b) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(found.raw[group.units], expected, rtol=1e-9)
    assert np.array_equal(found.raw, found.normalised)


def test_mixtures_of_weights_divide_by_the_mean_of_all(case: Case) -> None:
    mix = Mixture(((Criterion.L1, 0.25), (Criterion.MOVEMENT, 2.0)))
    found = weights(case, mix)
    one, two = (weights(case, mixture(item)) for item in (Criterion.L1, Criterion.MOVEMENT))
    count = sum(item.numel() for item in one.values())
    sizes = [sum(float(x.abs().sum()) for x in own.values()) / count for own in (one, two)]
    for name, scores in found.items():
        expected = 0.25 * one[name] / sizes[0] + 2.0 * two[name] / sizes[1]
        torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("strategy", "criterion"),
    [
        *((s, c) for s, c in UNITS if needs_data(s, c)),
        *(
            (Strategy.WEIGHT, c)
            for c in CRITERIA[Strategy.WEIGHT]
            if needs_data(Strategy.WEIGHT, c)
        ),
    ],
)
def test_data_is_asked_for(case: Case, strategy: Strategy, criterion: Criterion) -> None:
    without = replace(case, calibration=None)
    with pytest.raises(ConfigError, match="calibration examples, got none") as raised:
        judge(without, strategy, criterion)
    assert "--data" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("strategy", "criterion"),
    [
        *((s, c) for s, c in UNITS if not needs_data(s, c)),
        *(
            (Strategy.WEIGHT, c)
            for c in CRITERIA[Strategy.WEIGHT]
            if not needs_data(Strategy.WEIGHT, c)
        ),
    ],
)
def test_weights_alone_need_none(case: Case, strategy: Strategy, criterion: Criterion) -> None:
    assert judge(replace(case, calibration=None), strategy, criterion)


class Reporter(SilentReporter):
    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


def half_normed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def test_groups_without_a_norm_stay_and_are_named() -> None:
    torch.manual_seed(0)
    net = half_normed()
    captured = capture(net, positional((torch.randn(2, 5),)))
    flow = walk(captured)
    reporter = Reporter()
    coupling = couple(flow)
    found = score_units(
        captured, flow, coupling, Strategy.STRUCTURED, mixture(Criterion.BN_SCALE), None, 0,
        reporter,
    )  # fmt: skip
    normed, bare = (found.raw[group.units] for group in coupling.groups)
    np.testing.assert_allclose(normed, net[1].weight.detach().abs().numpy())
    assert np.isinf(bare).all()
    assert np.isinf(found.normalised[coupling.groups[1].units]).all()
    assert reporter.warned == [
        "bn-scale judges the scales of normalisations: without any, these stay as they are: 3"
    ]


def test_a_network_without_norms_is_refused() -> None:
    case = make("mlp")
    with pytest.raises(ConfigError, match="no unit of this network has any"):
        units(case, mixture(Criterion.BN_SCALE))


class FixedBatch(nn.Module):
    """Takes four examples, no more and no fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)).reshape(4, 6))


def fixed(examples: int) -> Case:
    torch.manual_seed(0)
    net = FixedBatch().double()
    inputs = torch.randn(examples, 5, dtype=torch.float64)
    captured = capture(net, positional((torch.randn(4, 5, dtype=torch.float64),)))
    assert captured.dynamic_batch is False
    flow = walk(captured)
    calibration = Calibration((inputs,), (torch.randint(0, 3, (examples,)),), CLASSIFICATION)
    return Case(net, captured, flow, couple(flow), calibration, {}, {})


def test_a_fixed_batch_is_kept() -> None:
    case = fixed(10)
    found = units(case, mixture(Criterion.GRADIENT)).raw
    total = np.zeros(6)
    for start in (0, 4):
        case.module.zero_grad()
        rows = slice(start, start + 4)
        outputs = case.module(case.calibration.inputs[0][rows])
        F.cross_entropy(outputs, case.calibration.targets[0][rows]).backward()
        own = {name: tensor.grad.abs() / 2 for name, tensor in case.module.named_parameters()}
        total += (own["a.weight"].sum(1) + own["a.bias"] + own["b.weight"].sum(0)).numpy()
    np.testing.assert_allclose(found, total, rtol=1e-9)
    for strategy, criterion in UNITS:
        if criterion not in (Criterion.BN_SCALE,):
            assert np.isfinite(units(case, mixture(criterion), strategy).raw).all()


def test_too_few_examples_for_a_fixed_batch() -> None:
    with pytest.raises(ConfigError, match="the graph takes batches of 4, got 3 examples"):
        units(fixed(3), mixture(Criterion.GRADIENT))


def test_losses_that_are_not_finite_are_refused(case: Case) -> None:
    broken = replace(case.calibration, inputs=(case.calibration.inputs[0] * float("inf"),))
    for strategy, criterion in UNITS:
        if criterion in (Criterion.GRADIENT, Criterion.MOVEMENT) or (
            strategy is Strategy.NEURON and criterion is Criterion.TAYLOR
        ):
            with pytest.raises(TrainingError, match="the loss must be finite"):
                units(replace(case, calibration=broken), mixture(criterion), strategy)


def test_outputs_that_do_not_fit_the_task_are_refused(case: Case) -> None:
    targets = torch.randn(len(case.calibration), 2)
    wrong = replace(case.calibration, targets=(targets,), task=REGRESSION)
    with pytest.raises(ModelError, match="regression needs outputs"):
        units(replace(case, calibration=wrong), mixture(Criterion.SNIP))


def test_large_tensors_are_looked_at_in_pieces(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    criteria = (Criterion.L2, Criterion.LINF, Criterion.VARIANCE, Criterion.SNIP, Criterion.FPGM)
    once = [units(case, mixture(criterion)).raw for criterion in criteria]
    monkeypatch.setattr("prunecli.importance.sums.CHUNK_ELEMENTS", 60)
    monkeypatch.setattr("prunecli.importance.layers.COLUMNS", 2)
    for criterion, expected in zip(criteria, once, strict=True):
        np.testing.assert_allclose(units(case, mixture(criterion)).raw, expected, rtol=1e-9)


class Frozen(nn.Module):
    """Nothing of it may go, and no weight either."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_where_there_is_nothing_to_judge() -> None:
    captured = capture(Frozen(), positional((torch.randn(2, 5),)))
    flow = walk(captured)
    calibration = Calibration(
        (torch.randn(4, 5),), (torch.zeros(4, dtype=torch.int64),), REGRESSION
    )
    nothing = Case(Frozen(), captured, flow, couple(flow), calibration, {}, {})
    for strategy, criterion in UNITS:
        assert units(nothing, mixture(criterion), strategy).raw.size == 0
    for criterion in CRITERIA[Strategy.WEIGHT]:
        assert weights(nothing, mixture(criterion)) == {}
