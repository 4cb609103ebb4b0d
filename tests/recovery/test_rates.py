"""The rate of every step."""

import itertools
import math

import pytest

from prunecli.choices import OptimizerName, ScheduleName
from prunecli.errors import ConfigError
from prunecli.recovery.pace import Pace
from prunecli.recovery.rates import DEFAULT_LR, Rates, default_lr, peak_lr, rates_of
from prunecli.tuning import TrainConfig

HUNDRED = Pace(batch=8, used=80, steps=100)
"""Ten epochs of ten steps."""


def rates(schedule: str, **given: object) -> list[float]:
    config = TrainConfig(lr=1.0, schedule=ScheduleName(schedule), **given)  # type: ignore[arg-type]
    found = rates_of(config, HUNDRED)
    return [found.at(step) for step in range(100)]


@pytest.mark.parametrize(("batch", "factor"), [(32, 1.0), (8, 0.5), (128, 2.0)])
@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_the_default_rate_follows_the_root_of_the_batch(
    optimizer: OptimizerName, batch: int, factor: float
) -> None:
    config = TrainConfig(batch_size=batch, optimizer=optimizer.value)
    assert peak_lr(config) == pytest.approx(DEFAULT_LR[optimizer] * factor)


def test_masked_networks_take_twice_the_rate() -> None:
    config = TrainConfig()
    assert default_lr(config, masked=True) == 2 * default_lr(config)


def test_a_given_rate_is_taken_as_it_is() -> None:
    assert peak_lr(TrainConfig(lr=0.3, batch_size=7)) == 0.3


def test_one_cycle_rises_for_a_tenth_and_ends_near_zero() -> None:
    found = rates("one-cycle")
    assert found[0] == pytest.approx(0.04)
    assert found[5] == pytest.approx(0.52)
    assert found.index(max(found)) == 10
    assert max(found) == 1.0
    assert found[55] == pytest.approx(0.5)
    assert found[99] < 0.001
    single = Rates(ScheduleName.ONE_CYCLE, 1.0, 1, 1, 0.1, 1.0, False)
    assert single.at(0) == pytest.approx(0.04)


def test_the_others_start_at_the_peak() -> None:
    cosine, linear, constant = rates("cosine"), rates("linear"), rates("constant")
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[:51:50] == pytest.approx([1.0, 0.5])
    assert linear == pytest.approx([1 - step / 100 for step in range(100)])
    assert set(constant) == {1.0}


def test_decaying_rates_fall_by_their_factor() -> None:
    step = rates("step")
    assert [(rate, len(list(same))) for rate, same in itertools.groupby(step)] == [
        (1.0, 34),
        (pytest.approx(0.1), 33),
        (pytest.approx(0.01), 33),
    ]
    smooth = rates("exponential", decay=0.5, every=2.0)
    assert smooth == pytest.approx([0.5 ** (step / 20) for step in range(100)])
    stairs = rates("exponential", decay=0.5, every=2.0, staircase=True)
    assert stairs == pytest.approx([0.5 ** (step // 20) for step in range(100)])
    assert stairs == rates("step", decay=0.5, every=2.0)


@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_any_schedule_can_warm_up(schedule: ScheduleName) -> None:
    found = rates(schedule.value, warm_up=0.25)
    assert found[:26] == pytest.approx([1 / 25 + 24 / 25 * step / 25 for step in range(26)])
    assert found[25] == max(found) == 1.0
    assert rates(schedule.value, warm_up=0.0)[0] == 1.0
    assert all(math.isfinite(rate) and rate >= 0 for rate in found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"decay": 0.5}, "--lr-decay: is for the schedules step and exponential, got one-cycle"),
        ({"every": 1.0}, "--lr-every: is for the schedules step and exponential, got one-cycle"),
        ({"staircase": True}, "--staircase: is for the schedule exponential, got one-cycle"),
        ({"warm_up": 1.0}, "--warm-up: 0 up to 1 is needed, got 1"),
        ({"schedule": ScheduleName.STEP, "decay": 0.0}, "--lr-decay: more than 0 and at most 1"),
        ({"schedule": ScheduleName.STEP, "every": 0.0}, "--lr-every: a positive number"),
        ({"weight_decay": -1.0}, "--weight-decay: 0 or more"),
        ({"l1": math.nan}, "--l1-decay: 0 or more"),
        ({"clip": 0.0}, "--clip: a positive number"),
        ({"layer_decay": 1.5}, "--layer-decay: more than 0 and at most 1"),
        ({"momentum": 1.0}, "--momentum: 0 up to 1"),
        ({"label_smoothing": 1.0}, "--label-smoothing: 0 up to 1"),
        ({"label_smoothing": 0.1, "distill": 1.0}, "--label-smoothing: changes labels"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**given)  # type: ignore[arg-type]
    assert caught.value.message.startswith(said)
