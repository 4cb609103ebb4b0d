"""Scopes: every group, or every kind of group, loses the same share; the lowest scores of it."""

import itertools

import numpy as np
import pytest
from selection_making import (
    Case,
    analyse,
    assert_sums,
    channels,
    counts,
    gone_of,
    grouped,
    linked,
    macs,
    mlp,
    residual,
    rules,
)
from torch import nn

from prunecli.choices import Scope
from prunecli.selection.scope import classes, topology
from prunecli.selection.steps import linked as linked_groups

WIDTHS = (6, 10, 24, 40, 17, 3)


@pytest.fixture(scope="module")
def plain() -> Case:
    return analyse(mlp(*WIDTHS), (6,))


@pytest.fixture(scope="module")
def stages() -> Case:
    return analyse(residual(), (3, 8, 8))


def lowest(scores: np.ndarray, number: int) -> list[int]:
    return sorted(np.argsort(scores, kind="stable")[:number].tolist())


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.25])
def test_local_takes_the_same_share_of_every_group(plain: Case, share: float) -> None:
    scores = plain.scores(1)
    # The last group is by far the least important, which must not matter.
    scores[plain.group("6")] /= 1000
    plan = channels(share, scope=Scope.LOCAL).plan(plain, scores)
    assert sum(group.kept for group in plan.groups) == int(share * plain.coupling.count)
    for group in plan.groups:
        gone = gone_of(plain, plan, group.name)
        assert abs(len(gone) - (1 - share) * group.total) <= 1
        assert gone == lowest(scores[plain.group(group.name)], len(gone))
    assert_sums(plain, plan)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("widths", [WIDTHS, (300, 40, 30, 2)], ids=["even", "cheap last"])
def test_local_meets_a_target_of_macs_with_the_smallest_share(
    widths: tuple[int, ...], share: float
) -> None:
    """Though there would be room for many units of a cheap layer."""
    case = analyse(mlp(*widths), (widths[0],))
    plan = macs(share, scope=Scope.LOCAL).plan(case, case.scores(2))

    def cost(inner: list[int]) -> int:
        return sum(a * b for a, b in itertools.pairwise((widths[0], *inner, widths[-1])))

    def left(fraction: float) -> list[int]:
        return [width - round(fraction * width) for width in widths[1:-1]]

    original = cost(list(widths[1:-1]))
    needed = next(x for x in np.linspace(0, 0.95, 2000) if cost(left(x)) <= share * original)
    found = [group.kept for group in plan.groups]
    assert max(abs(a - b) for a, b in zip(left(needed), found, strict=True)) <= 1
    assert cost(found) == plan.after.macs <= share * original


def test_local_counts_what_went_before() -> None:
    case = analyse(mlp(6, 40, 60, 50, 3), (6,))
    scores = case.scores(5)
    gone = np.zeros(150, dtype=np.bool_)
    gone[case.group("2")[10:34]] = True
    plan = channels(0.5, scope=Scope.LOCAL).plan(case, scores, gone=gone)
    assert counts(plan) == {"0": 20, "2": 30, "4": 25}
    assert set(range(10, 34)) < set(gone_of(case, plan, "2"))


def test_global_takes_whatever_scores_lowest(plain: Case) -> None:
    scores = plain.scores(1)
    scores[plain.group("6")] /= 1000
    plan = channels(0.9).plan(plain, scores)
    assert counts(plan) == {"0": 0, "2": 0, "4": 0, "6": 10}


def test_groups_of_one_topology_are_known_whatever_their_width(stages: Case) -> None:
    found = {group.name: topology(stages.coupling, group) for group in stages.coupling.groups}
    assert found["in1"] == found["in2"]
    assert found["stem"] != found["down"]  # the latter is read by the last linear layer
    assert len({found["in1"], found["stem"], found["down"]}) == 3


TWINS = {
    "width": (nn.Conv2d(8, 12, 3), nn.Conv2d(8, 20, 3), True),
    "kernel": (nn.Conv2d(8, 12, 3), nn.Conv2d(8, 12, 5), False),
    "bias": (nn.Conv2d(8, 12, 3), nn.Conv2d(8, 12, 3, bias=False), False),
    "rank": (nn.Conv2d(8, 12, 1), nn.Linear(8, 12), False),
}


@pytest.mark.parametrize(("one", "two", "same"), TWINS.values(), ids=TWINS)
def test_what_makes_a_topology(one: nn.Module, two: nn.Module, same: bool) -> None:
    found = []
    for layer in (one, two):
        conv = isinstance(layer, nn.Conv2d)
        width = layer.weight.shape[0]
        last = nn.Conv2d(width, 4, 1) if conv else nn.Linear(width, 4)
        case = analyse(nn.Sequential(layer, nn.ReLU(), last), (8, 9, 9) if conv else (8,))
        found.append(topology(case.coupling, case.coupling.groups[0]))
    assert (found[0] == found[1]) == same


@pytest.mark.parametrize("share", [0.8, 0.6, 0.4])
def test_isomorphic_takes_the_same_share_of_every_class(stages: Case, share: float) -> None:
    scores = stages.scores(3)
    scores[stages.group("in2")] *= 0.6
    scores[stages.group("stem")] /= 1000
    plan = channels(share, scope=Scope.ISOMORPHIC).plan(stages, scores)
    own = counts(plan)
    together = np.concatenate([scores[stages.group(name)] for name in ("in1", "in2")])
    for number, total in ((own["in1"] + own["in2"], 60), (own["stem"], 10), (own["down"], 14)):
        assert abs(number - (1 - share) * total) <= 1
    # Within the class the lowest go, whichever group they are of.
    gone = gone_of(stages, plan, "in1") + [20 + place for place in gone_of(stages, plan, "in2")]
    assert sorted(gone) == lowest(together, len(gone))
    assert own["in1"] / 20 < own["in2"] / 40
    assert_sums(stages, plan)


def test_groups_that_lose_equally_many_share_a_class() -> None:
    case = analyse(linked(), (6, 10))
    parts = linked_groups(case.coupling)
    on = {group.name: set(parts[group.units].tolist()) for group in case.coupling.groups}
    assert all(len(found) == 1 for found in on.values())
    for scope in Scope:
        found = classes(case.coupling, parts, scope)
        for block in case.coupling.rank_blocks:
            assert np.unique(found[block.units]).size == 1
        plan = macs(0.6, scope=scope).plan(case, case.scores(1))
        kept = plan.tensors["kv.weight"][0]
        assert sum(place < 16 for place in kept) == sum(place >= 16 for place in kept) < 16
        case.cut(plan)
        assert_sums(case, plan)


@pytest.mark.parametrize("scope", [Scope.LOCAL, Scope.ISOMORPHIC])
def test_blocks_of_a_grouped_convolution_stay_even(scope: Scope) -> None:
    case = analyse(grouped(3, 24), (3, 6, 6))
    plan = channels(0.6, scope=scope).plan(case, case.scores(2))
    kept = plan.tensors["a.weight"][0]
    assert {sum(place // 8 == block for place in kept) for block in range(3)} == {len(kept) // 3}
    case.cut(plan)
    assert_sums(case, plan)


def test_local_widths_are_rounded(plain: Case) -> None:
    case = analyse(mlp(8, 64, 128, 96, 4), (8,))
    plan = macs(0.5, 8, scope=Scope.LOCAL).plan(case, case.scores(1))
    assert [group.kept % 8 for group in plan.groups].count(0) >= 2
    shares = [group.kept / group.total for group in plan.groups]
    assert max(shares) - min(shares) <= 8 / 64
    assert plan.after.macs <= 0.5 * plan.before.macs


@pytest.mark.parametrize("scope", [Scope.LOCAL, Scope.ISOMORPHIC])
def test_the_rest_fills_up_what_rules_and_keep_leave(stages: Case, scope: Scope) -> None:
    ask = channels(0.7, scope=scope, rules=rules({"in1": 0.1}), keep=("head",))
    plan = ask.plan(stages, stages.scores(4))
    own = counts(plan)
    assert own["in1"] == 2
    assert own["down"] == 0
    total = stages.coupling.count
    assert sum(own.values()) == total - int(0.7 * total)
    rest = sum(own.values()) - 2
    assert abs(own["in2"] / 40 - rest / 50) < 0.06
    assert abs(own["stem"] / 10 - rest / 50) < 0.1
    assert_sums(stages, plan)
