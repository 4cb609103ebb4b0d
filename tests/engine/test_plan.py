"""Plans: the same text for the same choice, read back unchanged, refused where they do not fit."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from engine_harness import (
    Analysis,
    analyse,
    assert_exact,
    carry_out,
    channels,
    choose,
    kept_of,
    macs,
    prune,
)
from engine_nets import IMAGES, fine_net, mlp

from prunecli.choices import Criterion
from prunecli.errors import ConfigError
from prunecli.selection.plan import Plan, kept_units, plan_from_json


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyse(fine_net(), IMAGES)


@pytest.fixture(scope="module")
def plan(found: Analysis) -> Plan:
    return choose(found, macs(0.5), Criterion.L2)


def test_text_is_read_back_byte_for_byte(plan: Plan) -> None:
    text = plan.to_json()
    again = plan_from_json(text)
    assert again == plan
    assert again.to_json() == text
    assert text.endswith("}\n")


def test_text_is_readable(plan: Plan, found: Analysis) -> None:
    record = json.loads(plan.to_json())
    assert record["version"] == 2
    assert record["criterion"] == "l2"
    assert record["target"] == "keep at most 50% of the MACs"
    assert record["seed"] == 0
    assert record["before"] == dataclasses.asdict(plan.before)
    assert record["tensors"]["a.weight"]["0"] == record["tensors"]["bn.running_mean"]["0"]
    assert sum(group["kept"] for group in record["groups"]) < found.coupling.count
    assert sum(group["total"] for group in record["groups"]) == found.coupling.count
    first = record["groups"][0]
    assert first["name"] == "a"
    assert first["layers"] == ["a", "bn", "one", "two", "dw", "pw"]
    assert first["kept"] == len(record["tensors"]["a.weight"]["0"])
    assert len(first["scores"]) == first["total"]
    assert min(first["scores"]) <= first["threshold"] <= max(first["scores"]) == 1
    assert sorted(x for _, places in first["fates"] for x in places) == list(range(48))


def test_same_seed_same_plan() -> None:
    texts = []
    for _ in range(2):
        found = analyse(fine_net(), IMAGES)
        texts.append(choose(found, macs(0.5), Criterion.RANDOM, 7).to_json())
    assert texts[0] == texts[1]


def test_another_seed_another_random_plan(found: Analysis) -> None:
    one, two = (choose(found, macs(0.5), Criterion.RANDOM, seed) for seed in (0, 1))
    assert one.tensors != two.tensors


def test_magnitudes_do_not_depend_on_the_seed(found: Analysis, plan: Plan) -> None:
    other = choose(found, macs(0.5), Criterion.L2, 9)
    assert other.seed == 9
    assert dataclasses.replace(other, seed=0) == plan


def test_a_plan_is_replayed_on_a_fresh_analysis(plan: Plan) -> None:
    module = fine_net()
    found = analyse(module, IMAGES)
    assert_exact(module, IMAGES, found, carry_out(found, plan_from_json(plan.to_json())))


def test_units_are_recovered_from_the_text(found: Analysis) -> None:
    made = prune(found, channels(0.4), Criterion.RANDOM, 3)
    keep = kept_units(plan_from_json(made.plan.to_json()), found.coupling)
    assert np.array_equal(keep, made.kept.keep[:-1])
    assert keep.sum() == sum(group.kept for group in made.plan.groups)


def test_an_empty_plan_keeps_everything(found: Analysis, plan: Plan) -> None:
    assert kept_units(dataclasses.replace(plan, tensors={}), found.coupling).all()


OTHERS = {
    "narrower": lambda: analyse(fine_net(40), IMAGES),
    "wider": lambda: analyse(fine_net(64), IMAGES),
    "other layers": lambda: analyse(mlp(10, 32, 4), ((10,),)),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_another_network_is_refused(plan: Plan, make: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        kept_units(plan, make().coupling)
    assert raised.value.message == "plan: does not fit this network"
    assert raised.value.hint == "use the plan with the checkpoint it was made for"


def _edited(plan: Plan, tensor: str, axis: int, kept: tuple[int, ...] | None) -> Plan:
    tensors = {name: dict(axes) for name, axes in plan.tensors.items()}
    if kept is None:
        del tensors[tensor][axis]
    else:
        tensors.setdefault(tensor, {})[axis] = kept
    return dataclasses.replace(plan, tensors=tensors)


@pytest.mark.parametrize(
    ("tensor", "axis", "edit"),
    [
        ("a.weight", 0, lambda kept: kept[1:]),
        ("a.weight", 0, lambda kept: (*kept, 1000)),
        ("a.weight", 0, lambda kept: (-1, *kept)),
        ("a.weight", 0, lambda kept: (kept[1], kept[0], *kept[2:])),
        ("a.weight", 0, lambda kept: (*kept, kept[-1])),
        ("a.weight", 0, lambda kept: None),
        ("a.weight", 1, lambda kept: (0, 1)),
        ("nowhere.weight", 0, lambda kept: (0, 1)),
    ],
    ids=["one less", "beyond", "negative", "order", "twice", "missing", "frozen axis", "unknown"],
)
def test_an_edited_plan_is_refused(
    found: Analysis, plan: Plan, tensor: str, axis: int, edit: Any
) -> None:
    kept = kept_of(plan, tensor, axis)
    wrong = _edited(plan, tensor, axis, edit(() if kept is None else tuple(kept.tolist())))
    with pytest.raises(ConfigError, match="plan: does not fit this network"):
        kept_units(wrong, found.coupling)


def test_a_plan_that_empties_a_layer_is_refused(found: Analysis, plan: Plan) -> None:
    tensors = {
        name: {axis: () if name in ("hidden.weight", "hidden.bias") and axis == 0 else kept
               for axis, kept in axes.items()}
        for name, axes in plan.tensors.items()
    }  # fmt: skip
    tensors["fc.weight"] = {1: ()}
    with pytest.raises(ConfigError, match="plan: does not fit this network"):
        kept_units(dataclasses.replace(plan, tensors=tensors), found.coupling)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "plan: cannot be read: "),
        ("{", "plan: cannot be read: "),
        ("[]", "plan: cannot be read: "),
        ("3", "plan: cannot be read: "),
        ("{}", "plan: cannot be read: 'version'"),
        ('{"version": 2}', "plan: cannot be read: 'criterion'"),
        ('{"version": 99}', "plan: version 2 is needed, got 99"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        plan_from_json(text)
    assert raised.value.message.startswith(said)
    assert raised.value.hint


def test_a_damaged_plan_is_refused(plan: Plan) -> None:
    text = plan.to_json()
    for damaged in (
        text[: len(text) // 2],
        text.replace('"macs"', '"macz"'),
        text.replace('"kept"', '"keep"'),
        text.replace('"0": [', '"zero": ['),
    ):
        with pytest.raises(ConfigError, match="plan: cannot be read: "):
            plan_from_json(damaged)
