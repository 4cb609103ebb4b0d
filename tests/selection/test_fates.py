"""Why each unit went or stayed, by hand."""

import numpy as np
import pytest
from selection_making import (
    Case,
    analyse,
    assert_sums,
    channels,
    grouped,
    linked,
    macs,
    mlp,
    residual,
)

from prunecli.choices import Scope
from prunecli.graph.coupling import Group
from prunecli.selection.fates import IN_WORDS, Fate, fates, of_group
from prunecli.selection.overrides import NO_CUT, Overrides
from prunecli.selection.plan import Plan, plan_from_json
from prunecli.selection.steps import Steps
from prunecli.selection.targets import Cut


def fates_of(plan: Plan, name: str) -> dict[Fate, tuple[int, ...]]:
    return next(dict(row.fates) for row in plan.groups if row.name == name)


def test_by_rank() -> None:
    case = analyse(mlp(3, 4, 6, 2), (3,))
    scores = case.scores(_0=[0.9, 0.1, 0.8, 1.0], _2=[0.2, 0.3, 0.7, 0.6, 0.5, 1.0])
    plan = channels(0.6).plan(case, scores)
    assert fates_of(plan, "0") == {Fate.RANK: (1,), Fate.KEPT_SCORE: (0, 2, 3)}
    assert fates_of(plan, "2") == {Fate.RANK: (0, 1, 4), Fate.KEPT_SCORE: (2, 3, 5)}
    assert {row.threshold for row in plan.groups} == {0.5}
    assert plan.groups[0].scores == (0.9, 0.1, 0.8, 1.0)
    assert plan.compared == "normalised scores, over the whole network"


def test_the_floor() -> None:
    case = analyse(mlp(3, 4, 6, 2), (3,))
    scores = case.scores(_0=[0.01, 0.02, 0.03, 0.04], _2=[0.2, 0.3, 0.7, 0.6, 0.5, 1.0])
    plan = channels(0.5).plan(case, scores)
    assert fates_of(plan, "0") == {Fate.RANK: (0, 1, 2), Fate.KEPT_FLOOR: (3,)}


def test_rounding_keeps_and_takes() -> None:
    """Blocks of two of eight: one that scores above the cut goes, one that scores below stays."""
    case = analyse(mlp(3, 8, 8, 2), (3,))
    scores = case.scores(
        _0=[0.1, 0.5, 0.6, 0.62, 0.8, 0.81, 0.9, 1.0],
        _2=[0.2, 0.21, 0.29, 0.99, 0.991, 0.992, 0.993, 1.0],
    )
    rounded = macs(0.64, 2).plan(case, scores)
    # Means of the blocks: 0.205, 0.3, 0.61, 0.64, ...; two blocks are enough.
    assert [row.kept for row in rounded.groups] == [6, 6]
    assert {row.threshold for row in rounded.groups} == {0.3}
    assert fates_of(rounded, "0") == {
        Fate.RANK: (0,),
        Fate.ROUNDING: (1,),
        Fate.KEPT_SCORE: (2, 3, 4, 5, 6, 7),
    }
    assert fates_of(rounded, "2") == {
        Fate.RANK: (0, 1),
        Fate.KEPT_SCORE: (3, 4, 5, 6, 7),
        Fate.KEPT_ROUNDING: (2,),
    }


def test_rectangularity() -> None:
    case = analyse(grouped(2, 12), (3, 6, 6))
    scores = case.scores(
        a=[0.1, 0.2, 0.3, 0.8, 0.9, 1.0, 0.25, 0.35, 0.55, 0.56, 0.6, 0.7], b=[1.0] * 12
    )
    plan = channels(20 / 24).plan(case, scores)
    # Pairs by rank: (0.1, 0.25), (0.2, 0.35), (0.3, 0.55), ...
    assert {row.threshold for row in plan.groups} == {0.275}
    assert fates_of(plan, "a") == {
        Fate.RANK: (0, 1, 6),
        Fate.RECTANGULARITY: (7,),
        Fate.KEPT_SCORE: (2, 3, 4, 5, 8, 9, 10, 11),
    }
    scores[case.group("a")[2]] = 0.26
    again = channels(20 / 24).plan(case, scores)
    assert fates_of(again, "a")[Fate.KEPT_RECTANGULARITY] == (2,)


def test_what_the_target_has_room_for() -> None:
    """Equal scores: which of them go is by order, and the others stay though as low."""
    case = analyse(mlp(3, 10, 2), (3,))
    plan = channels(0.7).plan(case, np.full(10, 0.5))
    assert fates_of(plan, "0") == {
        Fate.RANK: (0, 1, 2),
        Fate.KEPT_TARGET: (3, 4, 5, 6, 7, 8),
        Fate.KEPT_FLOOR: (9,),
    }


def test_given_back() -> None:
    """The last step overshoots; a cheap one before it is given back."""
    case = analyse(mlp(100, 10, 2, 40, 2), (100,))
    scores = case.scores(_0=np.linspace(0.2, 1, 10), _2=[0.9, 1.0], _4=np.linspace(0.1, 1, 40))
    plan = macs(0.75).plan(case, scores)
    back = [row for row in plan.groups if Fate.KEPT_TARGET in dict(row.fates)]
    assert back
    assert all(row.threshold is not None for row in back)
    for row in back:
        limit = row.threshold
        assert all(row.scores[place] <= limit for place in dict(row.fates)[Fate.KEPT_TARGET])
    assert_sums(case, plan)


NETS = {
    "mlp": lambda: analyse(mlp(6, 64, 128, 50, 3), (6,)),
    "residual": lambda: analyse(residual(), (3, 8, 8)),
    "grouped": lambda: analyse(grouped(4, 48), (3, 6, 6)),
    "linked": lambda: analyse(linked(), (6, 10)),
}


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> Case:
    return NETS[request.param]()


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_every_unit_has_one_true_fate(
    case: Case, share: float, round_to: int, scope: Scope
) -> None:
    plan = macs(share, round_to, scope=scope).plan(case, case.scores(1))
    assert_sums(case, plan)
    # Slack for the six digits of scores and thresholds.
    for row in plan.groups:
        limit = -np.inf if row.threshold is None else row.threshold
        for fate, places in row.fates:
            own = np.array([row.scores[place] for place in places])
            if fate is Fate.RANK:
                assert (own <= limit * (1 + 1e-5)).all()
            if fate in (Fate.RECTANGULARITY, Fate.ROUNDING, Fate.KEPT_SCORE):
                assert (own >= limit * (1 - 1e-5)).all()
            if fate in (Fate.KEPT_RECTANGULARITY, Fate.KEPT_ROUNDING, Fate.KEPT_FLOOR):
                assert (own <= limit * (1 + 1e-5)).all()
            assert fate in IN_WORDS
    text = plan.to_json()
    assert plan_from_json(text) == plan
    assert plan_from_json(text).to_json() == text


def test_every_fate_has_words() -> None:
    assert IN_WORDS.keys() == set(Fate)


def test_units_without_a_partner_stay_for_the_rectangle() -> None:
    """Literal steps: the second unit is left over in its row, the third is the floor."""
    steps = Steps(
        of_unit=np.arange(4),
        scores=np.array([0.1, 0.2, 0.3, 0.9]),
        never=np.array([False, True, True, False]),
        uneven=np.array([False, True, False, False]),
    )
    keep = np.array([False, True, True, True])
    none = np.zeros(4, dtype=np.bool_)
    settled = Overrides(none, none, none, none, none, np.full(4, NO_CUT))
    cut = Cut(keep, steps, np.full(4, 0.5), steps.scores)
    group = Group("layer", "channels", np.arange(4), ())
    assert of_group(fates(cut, steps, settled, threshold=True), group) == (
        (Fate.THRESHOLD, (0,)),
        (Fate.KEPT_SCORE, (3,)),
        (Fate.KEPT_FLOOR, (2,)),
        (Fate.KEPT_RECTANGULARITY, (1,)),
    )
