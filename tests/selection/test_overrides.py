"""Rules and patterns to keep: carried out first, and refused where they cannot be meant."""

import numpy as np
import pytest
from selection_making import (
    Ask,
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

from prunecli.errors import ConfigError, NothingToPruneError, TargetError
from prunecli.removal import Choosing
from prunecli.selection.fates import Fate
from prunecli.selection.matching import check_patterns
from prunecli.selection.overrides import idle_rules, makers_of


@pytest.fixture(scope="module")
def stages() -> Case:
    return analyse(residual(), (3, 8, 8))


def only(shares: dict[str, float], round_to: int = 1, keep: tuple[str, ...] = ()) -> Ask:
    return Ask(None, round_to, Choosing(rules=rules(shares), keep=keep))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"in1": 0.5}, {"in1": 10}),
        ({"in?": 0.25}, {"in1": 5, "in2": 10}),
        ({"in?": 0.25, "in2": 0.7}, {"in1": 5, "in2": 28}),
        ({"in2": 0.7, "in?": 0.25}, {"in1": 5, "in2": 10}),
        ({"in1": 0.5, "in2": 0.0}, {"in1": 10}),
        ({"out1": 0.3}, {"stem": 3}),
        ({"out*": 0.5}, {"stem": 5, "down": 7}),
        ({"in1": 0.124}, {"in1": 2}),
    ],
    ids=lambda item: str(item),
)
def test_a_rule_speaks_of_what_a_layer_makes(
    stages: Case, shares: dict[str, float], expected: dict[str, int]
) -> None:
    scores = stages.scores(1)
    plan = only(shares).plan(stages, scores)
    assert {name: number for name, number in counts(plan).items() if number} == expected
    for group in plan.groups:
        gone = gone_of(stages, plan, group.name)
        own = scores[stages.group(group.name)]
        assert gone == sorted(np.argsort(own)[: len(gone)].tolist())
        if gone:
            assert dict(group.fates)[Fate.OVERRIDE] == tuple(gone)
            assert group.threshold == pytest.approx(np.sort(own)[len(gone) - 1], rel=1e-5)
    assert_sums(stages, plan)
    stages.cut(plan)


def test_who_makes_a_group(stages: Case) -> None:
    found = {group.name: makers_of(stages.coupling, group) for group in stages.coupling.groups}
    assert found == {
        "stem": ("stem", "out1"),
        "in1": ("in1",),
        "down": ("down", "out2"),
        "in2": ("in2",),
    }


@pytest.mark.parametrize("quantity", ["channels", "macs"])
def test_the_rest_fills_up_the_target(stages: Case, quantity: str) -> None:
    make = channels if quantity == "channels" else macs
    scores = stages.scores(2)
    plan = make(0.5, rules=rules({"in1": 0.1}), keep=("stem",)).plan(stages, scores)
    own = counts(plan)
    assert own["in1"] == 2
    assert own["stem"] == 0
    if quantity == "channels":
        total = stages.coupling.count
        assert sum(own.values()) == total - int(0.5 * total)
        rest = np.concatenate([stages.group("down"), stages.group("in2")])
        gone = {unit for name in ("down", "in2")
                for unit in stages.group(name)[gone_of(stages, plan, name)].tolist()}  # fmt: skip
        assert gone == set(rest[np.argsort(scores[rest])[: own["down"] + own["in2"]]].tolist())
    else:
        assert 0.48 <= plan.after.macs / plan.before.macs <= 0.5
    assert_sums(stages, plan)


def test_kept_layers_stay_as_they_are(stages: Case) -> None:
    """Neither what `out1` makes goes, nor what it reads."""
    plan = channels(0.7, keep=("out1",)).plan(stages, stages.scores(3))
    own = counts(plan)
    assert own["stem"] == own["in1"] == 0 < min(own["down"], own["in2"])
    assert not any(name.startswith("out1") for name in plan.tensors)
    fates = {group.name: dict(group.fates) for group in plan.groups}
    assert fates["stem"] == {Fate.KEPT_PATTERN: tuple(range(10))}
    assert all(row.threshold is None for row in plan.groups if row.name in ("stem", "in1"))


def test_linked_groups_share_what_is_said_of_one() -> None:
    case = analyse(linked(), (6, 10))
    names = [group.name for group in case.coupling.groups]
    assert names == ["q", "kv"]
    plan = only({"q": 0.5}).plan(case, case.scores(1))
    kept = plan.tensors["kv.weight"][0]
    assert sum(place < 16 for place in kept) == sum(place >= 16 for place in kept) == 8
    case.cut(plan)
    with pytest.raises(NothingToPruneError, match="--keep leaves nothing to choose from"):
        macs(0.8, keep=("q",)).plan(case, case.scores(1))


def test_rows_of_a_grouped_convolution_lose_equally_many() -> None:
    case = analyse(grouped(2, 24), (3, 6, 6))
    plan = only({"a": 0.35}).plan(case, case.scores(1))
    kept = plan.tensors["a.weight"][0]
    assert sum(place < 12 for place in kept) == sum(place >= 12 for place in kept) == 8
    assert_sums(case, plan)


@pytest.mark.parametrize(
    ("share", "round_to", "kept"),
    [(0.5, 8, 32), (0.7, 8, 16), (0.7, 16, 16), (0.3, 16, 48), (0.9, 16, 6), (0.9, 1, 6),
     (0.0, 16, 64)],
)  # fmt: skip
def test_rules_round_widths_to_what_is_near(share: float, round_to: int, kept: int) -> None:
    case = analyse(mlp(5, 64, 64, 3), (5,))
    shares = {"0": share, "2": 0.25}
    assert counts(only(shares, round_to).plan(case, case.scores(1)))["0"] == 64 - kept


def test_a_rule_that_asks_for_too_much_says_the_largest(stages: Case) -> None:
    with pytest.raises(TargetError) as raised:
        only({"in2": 1.0}).plan(stages, stages.scores(1))
    assert raised.value.message == (
        "--layer: in2=100% cannot be reached, at most 95% of what it matches can go"
    )
    assert raised.value.hint == "the largest share that works is --layer 'in2=95%'"
    assert counts(only({"in2": 0.95}).plan(stages, stages.scores(1)))["in2"] == 38


def test_a_target_beyond_what_rules_leave_is_refused(stages: Case) -> None:
    with pytest.raises(TargetError) as raised:
        channels(0.2, rules=rules({"in2": 0.1})).plan(stages, stages.scores(1))
    hint = raised.value.hint
    assert hint is not None
    assert hint.endswith("; without --keep and --layer it may be less")
    largest = float(hint.split()[1])
    plan = channels(round(1 - largest, 3), rules=rules({"in2": 0.1})).plan(stages, stages.scores(1))
    assert counts(plan)["in2"] == 4


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (only({"head": 0.5}), "--layer: head=50% matches no layer whose outputs can be pruned"),
        (only({"nowhere": 0.5}), "--layer: nowhere=50% matches no layer whose outputs can be"),
        (only({"in1": 0.5}, keep=("in1",)), "--layer: what in1=50% matches stays as it is becaus"),
    ],
)
def test_rules_that_say_nothing_are_refused(stages: Case, ask: Ask, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ask.plan(stages, stages.scores(1))
    assert raised.value.message.startswith(said)
    assert raised.value.hint


def test_idle_rules_are_named(stages: Case) -> None:
    choosing = Choosing(rules=rules({"in1": 0.5, "head": 0.5, "nowhere": 0.1}))
    assert [rule.pattern for rule in idle_rules(stages.coupling, choosing)] == ["head", "nowhere"]


def test_less_than_a_unit(stages: Case) -> None:
    with pytest.raises(NothingToPruneError, match="--layer: less than one unit would go"):
        only({"in1": 0.01}).plan(stages, stages.scores(1))


LAYERS = ("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "head.fc")


@pytest.mark.parametrize(
    ("choosing", "said", "hint"),
    [
        (
            Choosing(keep=("conv2",)),
            "--keep: a pattern must match a layer, got 'conv2'",
            "like conv1",
        ),
        (
            Choosing(rules=rules({"layr1.*": 0.5})),
            "--layer: a pattern must match a layer, got 'layr1.*'",
            "layer1",
        ),
        (
            Choosing(keep=("conv1", "zzz")),
            "--keep: a pattern must match a layer, got 'zzz'",
            "conv1, lay",
        ),
    ],
)
def test_patterns_without_a_layer_are_refused(choosing: Choosing, said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_patterns(choosing, LAYERS)
    assert raised.value.message == said
    assert hint in (raised.value.hint or "")


def test_patterns_match_layers_and_the_modules_they_are_part_of() -> None:
    check_patterns(Choosing(rules=rules({"layer?": 0.1, "*.fc": 0.1}), keep=("head",)), LAYERS)
