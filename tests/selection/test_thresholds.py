"""Thresholds: what scores at or below one goes, and nothing else."""

import numpy as np
import pytest
import torch
from selection_making import (
    Ask,
    analyse,
    assert_sums,
    at,
    counts,
    gone_of,
    grouped,
    linked,
    macs,
    mlp,
    rules,
)
from torch import nn

from prunecli.errors import ConfigError, NothingToPruneError
from prunecli.removal import Threshold
from prunecli.selection.fates import Fate


def test_the_worked_example() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    rows = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]
    net[0].weight.data = torch.tensor(rows)
    case = analyse(net, (3,))
    linf = net[0].weight.detach().abs().amax(1).double().numpy()
    assert linf[0] > 0.3
    plan = at(0.3).plan(case, linf, linf / linf.max())
    assert plan.tensors == {"0.weight": {0: (1, 2)}, "1.weight": {1: (1, 2)}}
    assert torch.equal(case.cut(plan).get_parameter("0.weight"), torch.tensor(rows[1:]))
    (group,) = plan.groups
    assert group.threshold == 0.3
    assert group.fates == ((Fate.THRESHOLD, (0,)), (Fate.KEPT_SCORE, (1, 2)))
    assert plan.target == "remove what scores at most 0.3"


@pytest.mark.parametrize("value", [0.05, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("round_to", [1, 8])
def test_a_unit_goes_by_its_raw_score(value: float, round_to: int) -> None:
    """Literally, group by group; rounding plays no part, nor do the normalised scores."""
    case = analyse(mlp(5, 11, 30, 7, 3), (5,))
    raw = np.random.default_rng(3).random(case.coupling.count)
    raw[case.group("2")[3]] = value
    plan = at(value, round_to=round_to).plan(case, raw, 1.0 - raw)
    for group in case.coupling.groups:
        own = raw[group.units]
        low = {place for place, score in enumerate(own) if score <= value}
        # The best 5% stay: of 30, two.
        floor = set(np.argsort(own)[-int(np.ceil(0.05 * own.size)) :].tolist())
        assert gone_of(case, plan, group.name) == sorted(low - floor)
    assert_sums(case, plan)


def test_every_layer_keeps_its_best() -> None:
    case = analyse(mlp(5, 10, 30, 3), (5,))
    raw = case.scores()
    plan = at(2.0).plan(case, raw)
    assert counts(plan) == {"0": 9, "2": 28}
    for group in plan.groups:
        fates = dict(group.fates)
        best = np.argsort(raw[case.group(group.name)])[-len(fates[Fate.KEPT_FLOOR]) :]
        assert sorted(best) == list(fates[Fate.KEPT_FLOOR])
        assert set(fates) == {Fate.THRESHOLD, Fate.KEPT_FLOOR}


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0, 1.7])
def test_standard_deviations_are_those_of_the_group(number: float) -> None:
    case = analyse(mlp(5, 12, 30, 3), (5,))
    raw = case.scores(4)
    raw[case.group("2")] = 100 + 5 * raw[case.group("2")]
    plan = at(number, dynamic=True).plan(case, raw, np.ones_like(raw))
    for group in case.coupling.groups:
        own = raw[group.units]
        mean = sum(own) / own.size
        deviation = (sum((score - mean) ** 2 for score in own) / own.size) ** 0.5
        low = [place for place, score in enumerate(own) if score <= mean - number * deviation]
        assert gone_of(case, plan, group.name) == low
        (row,) = (item for item in plan.groups if item.name == group.name)
        assert row.threshold == pytest.approx(mean - number * deviation, rel=1e-5)
    assert sum(counts(plan).values()) > 0
    assert_sums(case, plan)


def test_where_all_score_the_same_nothing_stands_out() -> None:
    case = analyse(mlp(5, 10, 20, 3), (5,))
    raw = case.scores(_0=[0.1 + 0.2] * 5 + [0.3] * 5)
    plan = at(0.0, dynamic=True).plan(case, raw)
    assert counts(plan)["0"] == 0 < counts(plan)["2"]
    (row,) = (item for item in plan.groups if item.name == "0")
    assert row.threshold is None
    assert row.fates == ((Fate.KEPT_SCORE, tuple(range(10))),)


def test_what_must_go_together_is_judged_by_its_mean() -> None:
    case = analyse(grouped(2, 12), (3, 6, 6))
    low, high = [0.1, 0.2, 0.3, 0.8, 0.9, 1.0], [0.25, 0.35, 0.45, 0.5, 0.6, 0.7]
    raw = case.scores(a=low + high)
    raw[case.group("b")] = 9.0
    plan = at(0.3).plan(case, raw)
    # Ranks pair up as (.1, .25), (.2, .35), (.3, .45), ...: means .175, .275, .375
    assert gone_of(case, plan, "a") == [0, 1, 6, 7]
    (row,) = (item for item in plan.groups if item.name == "a")
    assert row.fates == (
        (Fate.THRESHOLD, (0, 1, 6)),
        (Fate.RECTANGULARITY, (7,)),
        (Fate.KEPT_SCORE, (3, 4, 5, 8, 9, 10, 11)),
        (Fate.KEPT_RECTANGULARITY, (2,)),
    )
    case.cut(plan)


def test_linked_groups_with_dynamic_thresholds() -> None:
    case = analyse(linked(), (6, 10))
    raw = case.scores(5)
    plan = at(1.0, dynamic=True).plan(case, raw)
    assert_sums(case, plan)
    kept = plan.tensors["kv.weight"][0]
    assert sum(place < 16 for place in kept) == sum(place >= 16 for place in kept) < 16
    case.cut(plan)


def test_rules_and_keep_go_before_the_threshold() -> None:
    case = analyse(mlp(5, 10, 20, 40, 3), (5,))
    raw = case.scores(6)
    plan = at(0.5, round_to=8, rules=rules({"2": 0.25}), keep=("6",)).plan(case, raw)
    assert counts(plan) == {"0": int((raw[case.group("0")] <= 0.5).sum()), "2": 5, "4": 0}
    assert gone_of(case, plan, "2") == sorted(np.argsort(raw[case.group("2")])[:5].tolist())
    assert dict(plan.groups[2].fates).keys() == {Fate.KEPT_PATTERN}
    assert_sums(case, plan)


def test_a_threshold_below_all_scores_says_their_range() -> None:
    case = analyse(mlp(5, 10, 20, 3), (5,))
    raw = np.random.default_rng(0).permutation(np.linspace(2.0, 4.0, 30))
    with pytest.raises(NothingToPruneError) as raised:
        at(1.5).plan(case, raw, raw / 4)
    assert raised.value.message == (
        "--threshold 1.5: no unit scores at or below it, scores range from 2 to 4"
    )
    assert raised.value.hint == "--threshold 3 takes about half of the units"
    assert sum(counts(at(3).plan(case, raw, raw / 4)).values()) == 15


def test_nothing_so_far_below_the_mean() -> None:
    case = analyse(mlp(5, 10, 20, 3), (5,))
    with pytest.raises(NothingToPruneError) as raised:
        at(9.0, dynamic=True).plan(case, case.scores())
    assert raised.value.message == (
        "--threshold 9sd: no unit scores so far below the mean of its group"
    )


def test_what_is_low_but_may_not_go() -> None:
    case = analyse(grouped(2, 12), (3, 6, 6))
    raw = np.full(case.coupling.count, 0.9)
    raw[case.group("a")[2]] = 0.1
    with pytest.raises(NothingToPruneError, match="nothing of what scores at or below it may go"):
        at(0.3).plan(case, raw)
    assert counts(at(0.5).plan(case, raw)) == {"a": 2, "b": 0}


def test_a_threshold_goes_instead_of_a_target() -> None:
    case = analyse(mlp(5, 10, 3), (5,))
    with pytest.raises(ConfigError, match=r"--threshold: goes instead of a target, got 0\.5 and "):
        macs(0.5, threshold=Threshold(0.5)).plan(case, case.scores())
    with pytest.raises(ConfigError, match="--target-macs: how much is to go is not said"):
        Ask().plan(case, case.scores())
