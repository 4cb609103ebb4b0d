"""Targets: met closely, never missed, refused in words that help."""

import re

import numpy as np
import pytest
import torch
from engine_harness import (
    Analysis,
    Net,
    Pruned,
    analyse,
    assert_exact,
    carry_out,
    channels,
    choose,
    flops_of,
    inputs_of,
    kept_of,
    macs,
    prune,
    scores,
    shaken,
)
from engine_nets import IMAGES, fine_net, frozen_net, mlp
from torch import Tensor, nn

from prunecli.choices import Criterion, Quantity
from prunecli.errors import ConfigError, NothingToPruneError, TargetError
from prunecli.parsing import parse_ratio, parse_target
from prunecli.removal import Target
from prunecli.selection.budget import select


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyse(fine_net(), IMAGES)


def measured(found: Analysis, made: Pruned, quantity: Quantity) -> tuple[float, float]:
    """Original and pruned amount, counted on the networks themselves."""
    pair = (found.captured.network, made.network)
    if quantity is Quantity.MACS:
        one, two = (flops_of(item, inputs_of(IMAGES, 1)) for item in pair)
    elif quantity is Quantity.PARAMS:
        one, two = (sum(p.numel() for p in item.parameters()) for item in pair)
    else:
        one, two = found.coupling.count, sum(group.kept for group in made.plan.groups)
    return float(one), float(two)


TARGETS = (
    *(parse_target(Quantity.MACS, text) for text in ("90%", "70%", "50%", "30%", "15%")),
    *(parse_target(Quantity.PARAMS, text) for text in ("90%", "50%", "33.3%", "15%")),
    *(parse_ratio(text) for text in ("0.1", "0.3", "50%", "0.8")),
    parse_target(Quantity.MACS, "2M"),
    parse_target(Quantity.PARAMS, "60k"),
)


@pytest.mark.parametrize("criterion", [Criterion.L1, Criterion.L2, Criterion.RANDOM])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.quantity}-{t.text}")
def test_targets_are_met_within_two_percent(
    found: Analysis, target: Target, criterion: Criterion
) -> None:
    made = prune(found, target, criterion, 1)
    original, got = measured(found, made, target.quantity)
    assert target.limit(original) - 0.02 * original <= got <= target.limit(original)
    assert made.plan.target == target.in_words()


@pytest.mark.parametrize(
    "make", [lambda: fine_net(20), lambda: mlp(10, 7, 5, 9, 4)], ids=["conv", "mlp"]
)
def test_no_target_is_overshot(make) -> None:
    module = make()
    shapes = IMAGES if isinstance(module, Net) else ((10,),)
    coarse = analyse(module, shapes)
    for share in np.linspace(0.35, 0.99, 30):
        target = Target(Quantity.MACS, float(share), None, "x")
        made = prune(coarse, target, Criterion.RANDOM, 2)
        original, got = (
            flops_of(item, inputs_of(shapes, 1)) for item in (coarse.captured.network, made.network)
        )
        assert got <= share * original


@pytest.mark.parametrize(
    ("quantity", "flag"),
    [(Quantity.MACS, "--target-macs"), (Quantity.PARAMS, "--target-params")],
)
def test_the_smallest_reachable_is_said_and_works(
    found: Analysis, quantity: Quantity, flag: str
) -> None:
    with pytest.raises(TargetError) as raised:
        choose(found, parse_target(quantity, "0.01%"), Criterion.L2)
    said = re.fullmatch(
        rf"{flag}: 0.01% cannot be reached, at least ([0-9.]+)% of the original \(([0-9]+)\) stay",
        raised.value.message,
    )
    hint = re.fullmatch(
        rf"the smallest target that works is {flag} ([0-9.]+%)", raised.value.hint or ""
    )
    assert said
    assert hint
    made = prune(found, parse_target(quantity, hint[1]), Criterion.L2)
    original, got = measured(found, made, quantity)
    assert int(said[2]) <= got <= float(hint[1][:-1]) / 100 * original
    lower = f"{float(hint[1][:-1]) - 0.2:.2f}%"
    with pytest.raises(TargetError):
        choose(found, parse_target(quantity, lower), Criterion.L2)


def test_the_largest_channel_ratio_is_said_and_works(found: Analysis) -> None:
    with pytest.raises(TargetError, match=r"^--channel-ratio: 0.99 cannot be reached") as raised:
        choose(found, parse_ratio("0.99"), Criterion.L2)
    hint = re.fullmatch(
        r"--channel-ratio ([0-9.]+) is the largest ratio that works", raised.value.hint or ""
    )
    assert hint
    choose(found, parse_ratio(hint[1]), Criterion.L2)
    with pytest.raises(TargetError):
        choose(found, parse_ratio(f"{float(hint[1]) + 0.01}"), Criterion.L2)


def test_what_the_original_already_meets_is_refused(found: Analysis) -> None:
    with pytest.raises(TargetError) as raised:
        choose(found, parse_target(Quantity.PARAMS, "100M"), Criterion.L2)
    total = sum(p.numel() for p in found.captured.network.parameters())
    assert raised.value.message == (
        f"--target-params: the original already meets 100M (it has {total})"
    )
    assert raised.value.hint == "ask for less than the original has"


def test_shares_outside_the_network_are_refused() -> None:
    for text in ("0%", "100%", "150%"):
        with pytest.raises(ConfigError, match="must lie between 0% and 100%"):
            parse_target(Quantity.MACS, text)


def test_no_layer_vanishes(found: Analysis) -> None:
    with pytest.raises(TargetError) as raised:
        choose(found, macs(0.0001), Criterion.RANDOM, 4)
    smallest = re.search(r"([0-9.]+)%", raised.value.hint or "")
    assert smallest
    target = parse_target(Quantity.MACS, smallest[0])
    made = prune(found, target, Criterion.RANDOM, 4)
    for name, axes in made.plan.tensors.items():
        tensor = found.captured.network.state_dict()[name]
        for axis, kept in axes.items():
            blocked = axis == 1 and name in ("dw.weight", "group.weight")
            extent = tensor.shape[0] if blocked and name == "dw.weight" else tensor.shape[axis]
            extent = 64 if blocked and name == "group.weight" else extent
            assert len(kept) >= 0.05 * extent
    assert_exact(fine_net(), IMAGES, found, made)


def test_a_part_of_a_layer_does_not_vanish() -> None:
    module = shaken(
        Net(
            lambda n, x: n.b(torch.cat([n.p(n.a(x)[:, :6]), n.p(n.a(x)[:, 6:])], 1)),
            a=nn.Conv2d(3, 12, 3, padding=1),
            b=nn.Conv2d(12, 4, 1),
            p=nn.MaxPool2d(2),
        )
    )
    found = analyse(module, IMAGES)
    rising = np.arange(found.coupling.count) + 1.0
    plan = select(found.coupling, found.costs, rising, channels(0.4), "l2", 0)
    assert kept_of(plan, "b.weight", 1).tolist() == [5, 9, 10, 11]
    assert_exact(module, IMAGES, found, carry_out(found, plan))


def test_the_lowest_scores_go() -> None:
    found = analyse(mlp(10, 40, 4), ((10,),))
    plan = choose(found, channels(0.5), Criterion.L1)
    own = scores(found, Criterion.L1)
    assert kept_of(plan, "0.weight").tolist() == sorted(np.argsort(own)[20:].tolist())


def test_widths_are_chosen_over_the_whole_network() -> None:
    """One threshold for all groups, which a layer's scale does not move."""
    module = mlp(64, 64, 64, 64)
    with torch.no_grad():
        module[0].weight.mul_(1000.0)
        module[0].bias.mul_(1000.0)
    found = analyse(module, ((64,),))
    plan = choose(found, channels(0.5), Criterion.L2)
    own = scores(found, Criterion.L2)
    kept = {group.name: group.kept for group in plan.groups}
    threshold = np.sort(own)[64]
    assert kept == {
        group.name: int((own[group.units] >= threshold).sum()) for group in found.coupling.groups
    }
    assert all(16 < number < 48 for number in kept.values()), kept


@pytest.mark.parametrize("share", [0.8, 0.6, 0.4])
def test_rounding_keeps_widths_on_multiples(found: Analysis, share: float) -> None:
    own = scores(found, Criterion.L2)
    plan = select(found.coupling, found.costs, own, macs(share), "l2", 0, round_to=8)
    made = carry_out(found, plan)
    assert_exact(fine_net(), IMAGES, found, made)
    original, got = measured(found, made, Quantity.MACS)
    assert (share - 0.02) * original <= got <= share * original
    free = [group for group in plan.groups if group.name not in ("pw", "group")]
    odd = [group.name for group in free if group.kept % 8]
    assert len(odd) <= 1, [(group.name, group.kept) for group in plan.groups]


def one_head(n: Net, x: Tensor) -> Tensor:
    q, (k, v) = n.q(x), n.kv(x).unflatten(-1, (2, 1, 32)).permute(2, 0, 1, 3, 4).unbind(0)
    k, v = k.flatten(2), v.flatten(2)
    return n.o((q @ k.transpose(1, 2)).softmax(-1) @ v)


def test_rounding_leaves_rows_that_lose_equally_many_alone() -> None:
    """Keys and values of one head are two rows of one grid, but of different groups."""
    net = shaken(Net(one_head, q=nn.Linear(10, 32), kv=nn.Linear(10, 64), o=nn.Linear(32, 4)))
    fused = analyse(net, ((6, 10),))
    own = scores(fused, Criterion.RANDOM)
    for share in np.linspace(0.5, 0.9, 9):
        target = macs(float(share))
        plan = select(fused.coupling, fused.costs, own, target, "random", 0, round_to=8)
        kept = kept_of(plan, "kv.weight")
        assert kept is not None
        assert (kept < 32).sum() == (kept >= 32).sum() < 32
        assert_exact(net, ((6, 10),), fused, carry_out(fused, plan))


def test_a_network_that_is_all_frozen_says_why() -> None:
    found = analyse(shaken(frozen_net()), IMAGES)
    assert found.coupling.count == 0
    with pytest.raises(NothingToPruneError) as raised:
        choose(found, macs(0.5), Criterion.L2)
    assert raised.value.exit_code == 1
    assert raised.value.message.startswith("network: nothing can be pruned: ")
    assert "a, b: is normalised or accumulated over (aten.softmax)" in raised.value.message
    assert "no rule for this operator (aten.linalg_matrix_exp)" in raised.value.message
    assert raised.value.hint == "see the frozen layers and reasons in the report"


def test_a_network_without_inner_layers_says_so() -> None:
    found = analyse(shaken(nn.Sequential(nn.Linear(10, 4))), ((10,),))
    with pytest.raises(NothingToPruneError, match="nothing can be pruned: "):
        choose(found, macs(0.5), Criterion.L2)


def test_units_that_are_all_needed_are_no_target_of_100_percent() -> None:
    """Three groups of four and four groups of three: equal counts in both only for all or none."""
    module = shaken(
        Net(
            lambda n, x: n.b(torch.relu(n.two(torch.relu(n.one(n.a(x)))))),
            a=nn.Conv2d(3, 12, 3),
            one=nn.GroupNorm(3, 12),
            two=nn.GroupNorm(4, 12),
            b=nn.Conv2d(12, 4, 1),
        )
    )
    found = analyse(module, IMAGES)
    with pytest.raises(NothingToPruneError, match="whatever goes would empty a layer, or break"):
        choose(found, macs(0.5), Criterion.L2)
