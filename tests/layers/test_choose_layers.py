"""Which blocks go: by rank, by threshold, by rule; what stays; the plan as text."""

import json
from dataclasses import replace

import numpy as np
import pytest

from prunecli.errors import ConfigError, NothingToPruneError, TargetError
from prunecli.graph.blocks import Block
from prunecli.removal import Choosing, LayerRule, LayersWanted, Threshold
from prunecli.selection.layers import (
    LayerPlan,
    Why,
    choose_layers,
    dropped_blocks,
    idle_rules,
    layer_plan_from_json,
)

NOTHING = LayersWanted()
SCORES = [0.5, 0.1, 0.4, 0.2, 0.3, 0.6]


def block(name: str, *inside: str) -> Block:
    own = (*(f"{other}.exit" for other in inside), f"{name}.exit")
    return Block(name, f"{name}.entry", f"{name}.exit", own, (f"{name}.conv",), 10)


BLOCKS = tuple(
    block(name) for name in ("first.0", "first.1", "first.2", "last.0", "last.1", "last.2")
)


def choose(
    wanted: LayersWanted = NOTHING,
    blocks: tuple[Block, ...] = BLOCKS,
    scores: list[float] = SCORES,
    before: LayerPlan | None = None,
    **choosing: object,
) -> LayerPlan:
    gone = [row for row in before.rows if row.dropped] if before is not None else []
    return choose_layers(
        blocks,
        np.asarray(scores),
        wanted,
        Choosing(**choosing),  # type: ignore[arg-type]
        "similarity",
        3,
        gone,
    )


def whys(plan: LayerPlan) -> list[str]:
    return [("-" if row.dropped else "+") + row.why.value for row in plan.rows]


@pytest.mark.parametrize(
    ("wanted", "dropped"),
    [
        (LayersWanted(count=1), "first.1"),
        (LayersWanted(count=3), "first.1 last.0 last.1"),
        (LayersWanted(count=6), "first.0 first.1 first.2 last.0 last.1 last.2"),
        (LayersWanted(count=0), ""),
        (LayersWanted(share=0.25), "first.1 last.0"),
        (LayersWanted(share=0.5), "first.1 last.0 last.1"),
    ],
)
def test_lowest_scores_go(wanted: LayersWanted, dropped: str) -> None:
    plan = choose(wanted)
    assert list(plan.dropped) == dropped.split()
    assert {row.why for row in plan.rows} == {Why.RANK}
    assert [row.score for row in plan.rows] == SCORES
    assert (plan.criterion, plan.seed, plan.threshold) == ("similarity", 3, None)


def test_equal_scores_go_in_order() -> None:
    plan = choose(LayersWanted(count=2), scores=[1.0] * 6)
    assert plan.dropped == ("first.0", "first.1")


def test_more_than_there_are() -> None:
    with pytest.raises(TargetError, match="at most 6 of 6 layers can go, got 7") as error:
        choose(LayersWanted(count=7))
    assert error.value.hint == "--layers-to-drop 6"
    held = r"at most 2 of 6 layers can go \(--keep and --layer hold 4\), got 3"
    with pytest.raises(TargetError, match=held):
        choose(LayersWanted(count=3), keep=("last.*",), rules=(LayerRule("first.1", 0.0),))


def test_a_threshold_takes_what_is_at_or_below_it() -> None:
    plan = choose(threshold=Threshold(0.3))
    assert plan.dropped == ("first.1", "last.0", "last.1")
    assert plan.threshold == 0.3
    assert {row.why for row in plan.rows} == {Why.THRESHOLD}
    assert plan.target == "drop layers that score at or below 0.3"


def test_a_dynamic_threshold_is_relative_to_mean_and_deviation() -> None:
    plan = choose(threshold=Threshold(1.0, dynamic=True))
    mean = sum(SCORES) / 6
    deviation = (sum((score - mean) ** 2 for score in SCORES) / 6) ** 0.5
    assert plan.threshold == pytest.approx(mean - deviation, abs=1e-12)
    assert plan.dropped == ("first.1",)


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (Threshold(0.05), r"--threshold 0.05: .* scores range from 0.1 to 0.6"),
        (Threshold(3.0, dynamic=True), "--threshold 3sd: no layer that may go scores so far below"),
    ],
)
def test_a_threshold_that_takes_nothing_is_refused(threshold: Threshold, text: str) -> None:
    with pytest.raises(NothingToPruneError, match=text):
        choose(threshold=threshold)


def test_what_is_kept_stays() -> None:
    plan = choose(LayersWanted(count=2), keep=("first.1.conv", "last.0"))
    assert plan.dropped == ("first.2", "last.1")
    assert whys(plan) == ["+rank", "+kept", "-rank", "+kept", "-rank", "+rank"]


def test_rules_come_first_and_count() -> None:
    plan = choose(LayersWanted(count=3), rules=(LayerRule("last.*", 0.67),))
    assert plan.dropped == ("first.1", "last.0", "last.1")
    assert whys(plan) == ["+rank", "-rank", "+rank", "-override", "-override", "+override"]
    # What a rule spares is not taken by rank.
    plan = choose(LayersWanted(count=3), rules=(LayerRule("last", 0.0),))
    assert plan.dropped == ("first.0", "first.1", "first.2")
    # It may ask for more.
    plan = choose(LayersWanted(count=1), rules=(LayerRule("first", 1.0),))
    assert plan.dropped == ("first.0", "first.1", "first.2")


def test_the_last_rule_that_fits_counts() -> None:
    rules = (LayerRule("first.*", 1.0), LayerRule("first.1", 0.0))
    assert choose(rules=rules).dropped == ("first.0", "first.2")
    assert choose(rules=rules[::-1]).dropped == ("first.0", "first.1", "first.2")


def test_shares_of_rules_count_what_earlier_rounds_dropped() -> None:
    rules = (LayerRule("first", 0.67),)
    first = choose(rules=rules)
    assert first.dropped == ("first.1", "first.2")
    left = tuple(item for item in BLOCKS if item.name not in first.dropped)
    scores = [score for item, score in zip(BLOCKS, SCORES, strict=True) if item in left]
    assert choose(blocks=left, scores=scores, rules=rules, before=first).dropped == ()


def test_rules_that_speak_of_nothing() -> None:
    rules = (LayerRule("first", 0.5), LayerRule("head", 0.5), LayerRule("*.conv", 0.5))
    assert idle_rules(BLOCKS, Choosing(rules=rules)) == rules[1:2]


NESTED = (block("outer", "inner.0", "inner.1"), block("inner.0"), block("inner.1"), block("other"))


@pytest.mark.parametrize(
    ("count", "scores", "dropped"),
    [
        # Too large as a whole for two.
        (2, [0.1, 0.2, 0.3, 0.4], "inner.0 inner.1"),
        (3, [0.1, 0.2, 0.3, 0.4], "outer inner.0 inner.1"),
        (3, [0.3, 0.1, 0.4, 0.2], "inner.0 other inner.1"),
        (4, [0.9, 0.1, 0.4, 0.2], "outer inner.0 inner.1 other"),
    ],
)
def test_a_block_takes_those_inside_with_it(count: int, scores: list[float], dropped: str) -> None:
    plan = choose(LayersWanted(count=count), NESTED, scores)
    assert set(plan.dropped) == set(dropped.split())


def test_why_what_is_inside_goes() -> None:
    plan = choose(blocks=NESTED, scores=[0.1, 0.5, 0.5, 0.5], threshold=Threshold(0.2))
    assert whys(plan) == ["-threshold", "-inside", "-inside", "+threshold"]
    plan = choose(LayersWanted(count=1), NESTED, [0.1, 0.2, 0.3, 0.4], keep=("inner.1",))
    assert whys(plan) == ["+kept", "-rank", "+kept", "+rank"]


def test_a_network_without_blocks() -> None:
    with pytest.raises(NothingToPruneError, match="no block is left that could be dropped"):
        choose(LayersWanted(count=1), (), [])


def test_the_plan_survives_its_text() -> None:
    plan = choose(threshold=Threshold(0.3), keep=("last.1",))
    text = plan.to_json()
    assert layer_plan_from_json(text) == plan
    assert layer_plan_from_json(text).to_json() == text
    assert json.loads(text)["version"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "layer plan: cannot be read"),
        ("[]", "layer plan: cannot be read"),
        ('{"version": 1}', "layer plan: cannot be read"),
        ('{"version": 7}', "layer plan: version 1 is needed, got 7"),
    ],
)
def test_what_is_no_plan(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layer_plan_from_json(text)


def test_a_plan_fits_its_own_network_only() -> None:
    plan = choose(LayersWanted(count=2))
    assert dropped_blocks(plan, BLOCKS) == ("first.1", "last.0")
    other = (*BLOCKS[:-1], replace(BLOCKS[-1], params=11))
    for blocks in (BLOCKS[:-1], other):
        with pytest.raises(ConfigError, match="layer plan: does not fit this network"):
            dropped_blocks(plan, blocks)
