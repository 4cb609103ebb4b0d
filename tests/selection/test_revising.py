"""Two plans as one, and groups given back by hand."""

import numpy as np
import pytest
import torch
from selection_making import (
    Case,
    analyse,
    assert_sums,
    channels,
    counts,
    grouped,
    linked,
    macs,
    mlp,
    residual,
)
from torch import nn

from prunecli.errors import ConfigError, VerificationError
from prunecli.graph.capture import capture
from prunecli.graph.cost import cost_model
from prunecli.graph.coupling import couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk
from prunecli.selection.fates import Fate
from prunecli.selection.plan import kept_units, units_of
from prunecli.selection.revising import compose, revised, without
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import make_kept


def depthwise() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Conv2d(24, 24, 3, groups=24), nn.ReLU(),
        nn.Conv2d(24, 30, 1), nn.GroupNorm(5, 30), nn.ReLU(), nn.Conv2d(30, 8, 1),
    )  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.last = nn.Linear(6, 14), nn.Linear(20, 3)
        self.lstm = nn.LSTM(14, 20, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.lstm(self.first(x))[0][:, -1])


NETS = {
    "mlp": (lambda: mlp(6, 24, 18, 3), (6,)),
    "residual": (residual, (3, 8, 8)),
    "grouped": (lambda: grouped(4, 48), (3, 6, 6)),
    "blocks": (lambda: grouped(12, 24), (3, 6, 6)),
    "depthwise": (depthwise, (3, 9, 9)),
    "linked": (linked, (6, 10)),
    "lstm": (Recurrent, (4, 6)),
}


@pytest.mark.parametrize(("make", "shape"), NETS.values(), ids=NETS)
def test_both_at_once_are_one_after_the_other(make, shape: tuple[int, ...]) -> None:
    """Carried out on the tensors themselves, and with the smaller network analysed afresh."""
    case = analyse(make(), shape)
    first = macs(0.7).plan(case, case.scores(1))
    smaller = case.cut(first)
    inputs = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    captured = capture(smaller, positional((inputs,)))
    flow = walk(captured)
    coupling = couple(flow)
    later = Case(captured, flow, coupling, cost_model(captured.network, flow, coupling, 2))
    second = macs(0.6).plan(later, later.scores(2))
    expected = later.cut(second)

    both = compose(first.tensors, second.tensors)
    keep = units_of(both, case.coupling)
    found = compact(case.captured, make_kept(case.flow, case.coupling, keep))
    left, right = expected.state_dict(), found.state_dict()
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name
    assert torch.allclose(expected(inputs), found(inputs), atol=1e-6)

    whole = revised(first, case.coupling, case.costs, keep)
    assert whole.after.params == second.after.params
    assert {name: dict(axes) for name, axes in whole.tensors.items()} == both
    assert_sums(case, whole)
    later_ones = sum(len(dict(row.fates).get(Fate.LATER, ())) for row in whole.groups)
    assert later_ones == sum(counts(whole).values()) - sum(counts(first).values()) > 0


def test_indices_are_looked_up() -> None:
    first = {"a": {0: (1, 4, 7, 9), 1: (0, 2)}, "b": {0: (3, 5)}}
    second = {"a": {0: (0, 2)}, "c": {1: (1,)}}
    assert compose(first, second) == {
        "a": {0: (1, 7), 1: (0, 2)},
        "b": {0: (3, 5)},
        "c": {1: (1,)},
    }
    assert compose(first, {}) == first
    assert compose({}, second) == second


def test_indices_that_are_not_there_are_refused() -> None:
    with pytest.raises(VerificationError, match="a later one keeps index 2 of a, of which an ear"):
        compose({"a": {0: (1, 4)}}, {"a": {0: (0, 2)}})


@pytest.fixture(scope="module")
def stages() -> Case:
    return analyse(residual(), (3, 8, 8))


@pytest.mark.parametrize(
    ("patterns", "whole"),
    [
        (("in1",), {"stem", "in1"}),
        (("stem",), {"stem"}),
        (("head",), {"down"}),
        (("in1", "head"), {"stem", "in1", "down"}),
        (("*",), {"stem", "in1", "down", "in2"}),
    ],
)
def test_groups_come_back_whole(stages: Case, patterns: tuple[str, ...], whole: set[str]) -> None:
    plan = channels(0.5).plan(stages, stages.scores(1))
    keep = kept_units(plan, stages.coupling)
    less = without(plan, stages.coupling, stages.costs, patterns)
    now = kept_units(less, stages.coupling)
    for group, row, old in zip(stages.coupling.groups, less.groups, plan.groups, strict=True):
        if group.name in whole:
            assert now[group.units].all()
            fates = dict(row.fates)
            assert len(fates[Fate.KEPT_RESTORED]) == old.total - old.kept > 0
        else:
            assert np.array_equal(now[group.units], keep[group.units])
            assert row == old
    network = stages.cut(less)
    assert sum(item.numel() for item in network.parameters()) == round(less.after.params)
    assert_sums(stages, less)


def test_linked_groups_come_back_together() -> None:
    case = analyse(linked(), (6, 10))
    plan = macs(0.6).plan(case, case.scores(1))
    less = without(plan, case.coupling, case.costs, ("q",))
    assert counts(less) == {"q": 0, "kv": 0}
    assert less.tensors == {}


def test_what_cannot_come_back_is_said(stages: Case) -> None:
    plan = channels(0.8, keep=("stem",)).plan(stages, stages.scores(1))
    with pytest.raises(ConfigError) as raised:
        without(plan, stages.coupling, stages.costs, ("in2", "nowhere"))
    assert raised.value.message == "--layer: nowhere matches no pruned layer"
    assert raised.value.hint == "what was pruned: in1, down, in2"
    with pytest.raises(ConfigError, match="--layer: stem matches only layers that lost nothing"):
        without(plan, stages.coupling, stages.costs, ("stem",))
