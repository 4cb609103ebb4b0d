"""What went before stays gone, whatever the scores say now."""

import itertools

import numpy as np
import pytest
from selection_making import (
    Ask,
    Case,
    analyse,
    assert_sums,
    at,
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

from prunecli.choices import Quantity, Scope
from prunecli.removal import Choosing, Target
from prunecli.selection.fates import Fate
from prunecli.selection.plan import kept_units
from prunecli.selection.steps import make_steps

CASES = {
    "mlp": lambda: analyse(mlp(6, 64, 128, 50, 3), (6,)),
    "residual": lambda: analyse(residual(), (3, 8, 8)),
    "grouped": lambda: analyse(grouped(4, 48), (3, 6, 6)),
    "linked": lambda: analyse(linked(), (6, 10)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.mark.parametrize("round_to", [1, 8, 16])
@pytest.mark.parametrize("scope", Scope)
def test_nothing_ever_comes_back(case: Case, scope: Scope, round_to: int) -> None:
    gone = np.zeros(case.coupling.count, dtype=np.bool_)
    for place, share in enumerate((0.93, 0.8, 0.65, 0.5, 0.4)):
        scores = case.scores(place)  # other scores every time
        plan = macs(share, round_to, scope=scope).plan(case, scores, gone=gone)
        keep = kept_units(plan, case.coupling)
        assert not keep[gone].any()
        assert share - 0.07 < plan.after.macs / plan.before.macs <= share
        assert_sums(case, plan)
        before = {
            name: set(dict(row.fates).get(Fate.BEFORE, ()))
            for name, row in ((row.name, row) for row in plan.groups)
        }
        for group in case.coupling.groups:
            assert before[group.name] == set(np.flatnonzero(gone[group.units]).tolist())
        case.cut(plan)
        gone = ~keep
    assert gone.any()


def test_the_lowest_of_the_rest_go() -> None:
    case = analyse(mlp(6, 20, 30, 3), (6,))
    scores = case.scores(1)
    gone = np.zeros(50, dtype=np.bool_)
    gone[np.argsort(scores)[-8:]] = True  # the best, by these scores
    gone[case.group("0")[np.argmax(scores[case.group("0")])]] = True
    plan = channels(0.5).plan(case, scores, gone=gone)
    rest = np.flatnonzero(~gone)
    expected = set(rest[np.argsort(scores[rest])[: 25 - gone.sum()]].tolist())
    keep = kept_units(plan, case.coupling)
    assert set(np.flatnonzero(~keep & ~gone).tolist()) == expected
    limit = np.sort(scores[rest])[24 - gone.sum()]
    assert {row.threshold for row in plan.groups} == {float(f"{limit:.6g}")}


def test_a_target_that_is_met_already_takes_nothing_more() -> None:
    case = analyse(mlp(6, 20, 30, 3), (6,))
    first = channels(0.5).plan(case, case.scores(1))
    gone = ~kept_units(first, case.coupling)
    again = channels(0.7).plan(case, case.scores(2), gone=gone)
    assert again.tensors == first.tensors
    fates = [fate for row in again.groups for fate, _ in row.fates]
    assert set(fates) == {Fate.BEFORE, Fate.KEPT_TARGET}


@pytest.mark.parametrize("before", [0, 5, 16, 21, 48, 60])
def test_widths_come_back_to_multiples(before: int) -> None:
    case = analyse(mlp(6, 64, 9, 3), (6,))
    scores = case.scores(1)
    own = case.group("0")
    gone = np.zeros(case.coupling.count, dtype=np.bool_)
    gone[own[np.argsort(-scores[own])[:before]]] = True
    steps = make_steps(case.coupling, scores, 0.0, 16, gone)
    left = 64 - before
    widths = []
    for step in np.unique(steps.of_unit[own[~gone[own]]])[
        np.argsort(steps.scores[np.unique(steps.of_unit[own[~gone[own]]])])
    ]:
        members = np.flatnonzero(steps.of_unit == step)
        assert not gone[members].any()
        left -= members.size
        widths.append(left)
    assert left == 0
    assert all(width % 16 == 0 for width in widths)


@pytest.mark.parametrize("dynamic", [False, True])
def test_thresholds_respect_it_too(dynamic: bool) -> None:
    case = analyse(mlp(6, 20, 30, 3), (6,))
    gone = np.zeros(50, dtype=np.bool_)
    own = case.group("2")
    gone[own[[3, 4, 5]]] = True
    raw = case.scores(3)
    raw[gone] = 0.0  # emptied: they must not move the mean
    plan = at(1.0 if dynamic else 0.2, dynamic=dynamic).plan(case, raw, gone=gone)
    left = raw[own[~gone[own]]]
    limit = left.mean() - left.std() if dynamic else 0.2
    low = {place for place in range(30) if raw[own[place]] <= limit}
    assert set(gone_of(case, plan, "2")) == low | {3, 4, 5}
    assert dict(plan.groups[1].fates)[Fate.BEFORE] == (3, 4, 5)
    nothing = at(-1.0).plan(case, case.scores(3), gone=gone)
    assert counts(nothing) == {"0": 0, "2": 3}


def test_rules_count_what_went_before() -> None:
    case = analyse(mlp(6, 20, 30, 3), (6,))
    scores = case.scores(4)
    best = case.group("2")[np.argsort(-scores[case.group("2")])[:6]]
    gone = np.isin(np.arange(50), best)
    ask = Ask(None, 1, Choosing(rules=rules({"2": 0.5})))
    plan = ask.plan(case, scores, gone=gone)
    lowest = case.group("2")[np.argsort(scores[case.group("2")])[:9]]
    expected = set(best.tolist()) | set(lowest.tolist())
    assert set(case.group("2")[gone_of(case, plan, "2")].tolist()) == expected


def test_absolute_targets_fall_step_by_step() -> None:
    case = analyse(mlp(6, 20, 30, 3), (6,))
    gone = np.zeros(50, dtype=np.bool_)
    kept = []
    for limit in (700, 600, 450, 300):
        ask = Ask(Target(Quantity.MACS, None, float(limit), f"{limit}"), 1)
        plan = ask.plan(case, case.scores(limit), gone=gone)
        assert 0 <= limit - plan.after.macs <= 40
        gone = ~kept_units(plan, case.coupling)
        kept.append(50 - int(gone.sum()))
    assert all(a > b for a, b in itertools.pairwise(kept))


def test_what_must_go_with_it_counts_as_gone() -> None:
    """One unit of one row: its like in the other row went too."""
    case = analyse(grouped(2, 12), (3, 6, 6))
    gone = np.zeros(case.coupling.count, dtype=np.bool_)
    gone[case.group("a")[8]] = True
    scores = case.scores(a=np.linspace(0.4, 0.9, 12))
    plan = channels(20 / 24).plan(case, scores, gone=gone)
    fates = dict(next(row.fates for row in plan.groups if row.name == "a"))
    assert fates[Fate.BEFORE] == (0, 8)
    assert_sums(case, plan)
    case.cut(plan)
