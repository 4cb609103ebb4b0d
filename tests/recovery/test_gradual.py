"""Curves against their closed formulas; masks that only grow and end exactly at the target."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from tiny_training import (
    ADAMW,
    SGD,
    Watcher,
    cnn,
    data_for,
    mlp,
    random_masks,
    smallest,
    tied,
    train,
    weight_names,
)
from torch.fx import GraphModule

from prunecli.choices import Curve
from prunecli.errors import VerificationError
from prunecli.recovery.curves import CURVES, removed_share, updates
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.masking import Masks
from prunecli.timing import Timing
from prunecli.tuning import TrainConfig

Make = Callable[[], GraphModule]


def by_formula(curve: Curve, progress: float, timing: Timing) -> float:
    """Written as in the papers: the final share minus what is missing."""
    t = (progress - timing.begin) / (timing.end - timing.begin)
    missing = {
        Curve.POLYNOMIAL: (1 - t) ** timing.power,
        Curve.LINEAR: 1 - t,
        Curve.COSINE: (1 + math.cos(math.pi * t)) / 2,
        Curve.EXPONENTIAL: (math.exp(-5 * t) - math.exp(-5)) / (1 - math.exp(-5)),
    }[curve]
    return 1 + (timing.initial - 1) * missing


@pytest.mark.parametrize("curve", list(Curve))
@pytest.mark.parametrize(
    "timing",
    [
        Timing(),
        Timing(initial=0.3, begin=0.1, end=0.6),
        Timing(power=1.5, end=1.0),
        Timing(initial=1.0),
    ],
    ids=["default", "within", "to the end", "all at once"],
)
def test_curves_equal_their_formulas(curve: Curve, timing: Timing) -> None:
    timing = dataclasses.replace(timing, curve=curve)
    grid = [place / 200 for place in range(201)]
    shares = [removed_share(progress, timing) for progress in grid]
    for progress, share in zip(grid, shares, strict=True):
        if progress < timing.begin:
            expected = 0.0
        elif progress >= timing.end:
            expected = 1.0
        else:
            expected = by_formula(curve, progress, timing)
        assert share == pytest.approx(expected, abs=1e-12)
    assert shares == sorted(shares)
    assert removed_share(timing.begin, timing) == timing.initial
    assert removed_share(timing.end, timing) == 1.0


def test_every_curve_has_its_function() -> None:
    assert set(CURVES) == set(Curve)
    rises = {function(0.3, 3.0) for function in CURVES.values()}
    assert len(rises) == len(CURVES)


def test_cubic_by_numbers() -> None:
    """Zhu & Gupta 2017 by hand: a quarter of the way, 1 - (3/4)^3 = 37/64 is done."""
    timing = Timing(begin=0.0, end=1.0)
    assert removed_share(0.25, timing) == pytest.approx(37 / 64)
    assert removed_share(0.5, timing) == pytest.approx(7 / 8)


@pytest.mark.parametrize("steps", [27, 40, 100, 333, 1000, 12345])
def test_a_long_rise_has_20_to_50_updates(steps: int) -> None:
    found = updates(steps, Timing())
    assert 20 <= len(found) <= 50
    assert (min(found), max(found)) == (0, round(0.75 * steps))


@pytest.mark.parametrize(
    ("steps", "timing", "expected"),
    [
        pytest.param(20, Timing(every=4), [0, 4, 8, 12, 15], id="the last is always there"),
        pytest.param(20, Timing(every=5), [0, 5, 10, 15], id="even"),
        pytest.param(20, Timing(begin=0.5, end=1.0, every=3), [10, 13, 16, 19], id="to the end"),
        pytest.param(10, Timing(begin=0.2, end=0.5), [2, 3, 4, 5], id="every step"),
        pytest.param(20, Timing(every=100), [0, 15], id="every too long"),
        pytest.param(2, Timing(), [0, 1], id="two steps"),
        pytest.param(1, Timing(), [0], id="one step"),
        pytest.param(1, Timing(begin=0.9, end=1.0), [0], id="one step, late"),
    ],
)
def test_steps_of_updates(steps: int, timing: Timing, expected: list[int]) -> None:
    found = updates(steps, timing)
    assert list(found) == expected
    assert found[expected[-1]] == 1.0
    if len(expected) > 1:
        assert found[expected[0]] == timing.initial
    for step in expected[1:-1]:
        time = (step - expected[0]) / (expected[-1] - expected[0])
        assert found[step] == pytest.approx(1 - (1 - time) ** 3)


def zeros(network: GraphModule) -> int:
    return sum(int((network.get_parameter(name) == 0).sum()) for name in weight_names(network))


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("curve", list(Curve))
@pytest.mark.parametrize("make", [mlp, cnn, tied])
def test_masks_only_grow_and_end_at_the_target(
    make: Make, curve: Curve, config: TrainConfig
) -> None:
    network, watcher = make(), Watcher()
    asked: list[tuple[float, Masks]] = []
    choose = smallest(network, 0.8)

    def written(share: float, current: Masks) -> Masks:
        for name, mask in current.items():
            assert not network.get_parameter(name)[~mask].any(), "masked weights are zero"
        asked.append((share, current))
        return choose(share, current)

    timing = Timing(curve=curve, initial=0.2, begin=0.1, every=2)
    gradual = Gradual(timing, written)
    result = train(network, config, gradual, watcher)
    due = updates(18, timing)
    assert [share for share, _ in asked] == list(due.values())
    assert [item.step for item in gradual.history] == list(due)
    for step, weights in enumerate(watcher.weights):
        shares = [share for when, share in due.items() if when <= step]
        for name in weight_names(network):
            gone, size = int((weights[name] == 0).sum()), weights[name].numel()
            assert gone == (round(shares[-1] * 0.8 * size) if shares else 0), (step, name)
            if step:
                before = watcher.weights[step - 1][name]
                assert not ((before == 0) & (weights[name] != 0)).any(), "none came back"
    assert result.best_epoch == 3, "sparsity rises until step 14, so only the last epoch counts"
    sizes = [network.get_parameter(name).numel() for name in weight_names(network)]
    assert zeros(network) == sum(round(0.8 * size) for size in sizes)
    for name, mask in gradual.masks.items():
        assert torch.equal(network.get_parameter(name) != 0, mask)
    assert gradual.history[-1].removed == zeros(network)
    assert gradual.history[-1].prunable == sum(sizes)


def test_only_epochs_with_the_final_masks_count() -> None:
    """The start would be the best; the rise ends with the first of four epochs."""
    network = mlp()
    data = data_for(network)
    labels = network(data.choose.inputs[0]).argmax(1)
    data = dataclasses.replace(data, choose=dataclasses.replace(data.choose, targets=(labels,)))
    config = dataclasses.replace(SGD, epochs=4)
    gradual = Gradual(Timing(end=0.25), smallest(network, 0.8))
    result = train(network, config, gradual, data=data)
    assert result.start == 1.0
    counting = [item.score for item in result.curve[1:]]
    assert result.curve[result.best_epoch - 1].score == max(counting)
    assert result.best_epoch > 1
    for name, mask in gradual.masks.items():
        assert torch.equal(network.get_parameter(name) != 0, mask)
        assert int((~mask).sum()) == round(0.8 * mask.numel())


def test_a_rise_that_ends_with_an_epoch_needs_one_more_step() -> None:
    """The last update comes before step 6, the first of the second epoch."""
    network, data = mlp(), data_for(mlp())
    gradual = Gradual(Timing(end=1 / 3), smallest(network, 0.8))
    train(network, SGD, gradual, data=data)
    assert gradual.history[-1].step == 6
    assert [gradual.counts(done, 18) for done in (0, 5, 6, 7, 18)] == [False] * 3 + [True] * 2


def test_a_choice_that_brings_weights_back_is_refused() -> None:
    network = mlp()
    seeds = iter(range(100))
    gradual = Gradual(Timing(), lambda share, current: random_masks(network, 0.5, next(seeds)))
    with pytest.raises(VerificationError, match=r"must not come back, got one in 0\.weight"):
        train(network, SGD, gradual)
    lost = iter([random_masks(network), {}])
    with pytest.raises(VerificationError, match="must not come back"):
        train(mlp(), SGD, Gradual(Timing(), lambda share, current: next(lost)))


def test_the_same_seed_gives_the_same_bits() -> None:
    def run() -> list[torch.Tensor]:
        network = cnn()
        torch.seed()
        train(network, SGD, Gradual(Timing(regrow=0.3), smallest(network, 0.8)))
        return [item.detach() for item in network.parameters()]

    assert all(map(torch.equal, run(), run()))


def test_a_companion_can_be_used_again() -> None:
    network = mlp()
    gradual = Gradual(Timing(), smallest(network, 0.5))
    train(network, SGD, gradual)
    first = gradual.history
    train(network, SGD, gradual)
    assert len(gradual.history) == len(first)
