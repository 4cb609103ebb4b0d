"""Tiny networks and literal scores for the tests of what is chosen."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.choices import Quantity
from prunecli.graph.capture import Captured, capture
from prunecli.graph.cost import CostModel, Keep, cost_model
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import Flow, walk
from prunecli.importance.scores import Scores, UnitScores
from prunecli.removal import Choosing, LayerRule, Target, Threshold, UnitsWanted
from prunecli.selection.budget import select
from prunecli.selection.plan import Plan, kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import Kept, make_kept


@dataclass(frozen=True)
class Case:
    """A network, analysed."""

    captured: Captured
    flow: Flow
    coupling: Coupling
    costs: CostModel

    def group(self, name: str) -> np.ndarray:
        """Units of the group of this name."""
        (found,) = (item.units for item in self.coupling.groups if item.name == name)
        return found

    def scores(self, seed: int = 0, **literal: Sequence[float]) -> Scores:
        """Random scores, but those given by group name (dots written as `__`)."""
        found = np.random.default_rng(seed).random(self.coupling.count)
        for name, values in literal.items():
            found[self.group(name.replace("__", ".").lstrip("_"))] = values
        return found

    def kept(self, plan: Plan) -> Kept:
        return make_kept(self.flow, self.coupling, kept_units(plan, self.coupling))

    def cut(self, plan: Plan) -> fx.GraphModule:
        return compact(self.captured, self.kept(plan))


def analyse(module: nn.Module, *shapes: tuple[int, ...]) -> Case:
    """With a batch of 2."""
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn((2, *shape), generator=generator) for shape in shapes)
    captured = capture(module.eval(), positional(inputs))
    flow = walk(captured)
    coupling = couple(flow)
    return Case(captured, flow, coupling, cost_model(captured.network, flow, coupling, 2))


def mlp(*widths: int) -> nn.Module:
    """Linear layers `0`, `2`, `4`, ... with relu between them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise(widths):
        layers += [nn.Linear(one, two), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Net(nn.Module):
    """Named layers and a function over them."""

    def __init__(self, forward: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def grouped(rows: int = 2, width: int = 12) -> nn.Module:
    """Convolution `a`, of which equally many must go for every block of the grouped `b`."""
    torch.manual_seed(1)
    return Net(
        lambda n, x: n.c(torch.relu(n.norm(n.b(torch.relu(n.a(x)))))).mean((2, 3)),
        a=nn.Conv2d(3, width, 3),
        b=nn.Conv2d(width, width, 1, groups=rows),
        norm=nn.BatchNorm2d(width),
        c=nn.Conv2d(width, 5, 1),
    )


def residual() -> nn.Module:
    """Two blocks of two stages: `x + out(relu(in(x)))`, between `stem` and `head`."""

    def forward(n: Any, x: Tensor) -> Tensor:
        x = torch.relu(n.stem(x))
        x = x + n.out1(torch.relu(n.in1(x)))
        x = torch.relu(n.down(x))
        x = x + n.out2(torch.relu(n.in2(x)))
        return n.head(x.mean((2, 3)))

    torch.manual_seed(2)
    return Net(
        forward,
        stem=nn.Conv2d(3, 10, 3),
        in1=nn.Conv2d(10, 20, 3, padding=1),
        out1=nn.Conv2d(20, 10, 1),
        down=nn.Conv2d(10, 14, 3),
        in2=nn.Conv2d(14, 40, 3, padding=1),
        out2=nn.Conv2d(40, 14, 1),
        head=nn.Linear(14, 4),
    )


def linked() -> nn.Module:
    """Keys and values of one head: two groups that lose equally many."""

    def forward(n: Any, x: Tensor) -> Tensor:
        q, (k, v) = n.q(x), n.kv(x).unflatten(-1, (2, 1, 16)).permute(2, 0, 1, 3, 4).unbind(0)
        k, v = k.flatten(2), v.flatten(2)
        return n.o((q @ k.transpose(1, 2)).softmax(-1) @ v)

    torch.manual_seed(3)
    return Net(forward, q=nn.Linear(10, 16), kv=nn.Linear(10, 32), o=nn.Linear(16, 4))


@dataclass(frozen=True)
class Ask:
    """What is asked for, with nothing rounded."""

    target: Target | None = None
    round_to: int = 1
    choosing: Choosing = field(default_factory=Choosing)

    def with_choosing(self, **changes: Any) -> "Ask":
        return dataclasses.replace(self, choosing=dataclasses.replace(self.choosing, **changes))

    def plan(
        self, case: Case, raw: Scores, normalised: Scores | None = None, gone: Keep | None = None
    ) -> Plan:
        both = UnitScores(raw, raw if normalised is None else normalised)
        wanted = UnitsWanted(self.target, self.round_to)
        return select(case.coupling, case.costs, both, wanted, self.choosing, "l2", 0, gone)


def channels(share: float, **choosing: Any) -> Ask:
    """This share of the units may stay."""
    return Ask(Target(Quantity.CHANNELS, share, None, f"{share:.0%}"), 1, Choosing(**choosing))


def macs(share: float, round_to: int = 1, **choosing: Any) -> Ask:
    """This share of the MACs may stay."""
    return Ask(Target(Quantity.MACS, share, None, f"{share:.0%}"), round_to, Choosing(**choosing))


def at(value: float, *, dynamic: bool = False, round_to: int = 1, **choosing: Any) -> Ask:
    """A threshold instead."""
    return Ask(None, round_to, Choosing(Threshold(value, dynamic), **choosing))


def rules(shares: Mapping[str, float]) -> tuple[LayerRule, ...]:
    return tuple(LayerRule(pattern, share) for pattern, share in shares.items())


def gone_of(case: Case, plan: Plan, name: str) -> list[int]:
    """Positions within the group that the plan takes."""
    keep = kept_units(plan, case.coupling)
    return np.flatnonzero(~keep[case.group(name)]).tolist()


def counts(plan: Plan) -> dict[str, int]:
    """How many units of each group go."""
    return {group.name: group.total - group.kept for group in plan.groups}


def assert_sums(case: Case, plan: Plan) -> None:
    """Every unit has one fate, which is true."""
    keep = kept_units(plan, case.coupling)
    for group, row in zip(case.coupling.groups, plan.groups, strict=True):
        places = sorted(place for _, own in row.fates for place in own)
        assert places == list(range(row.total)) == list(range(group.units.size))
        stays = {place for fate, own in row.fates if fate.stays for place in own}
        assert stays == set(np.flatnonzero(keep[group.units]).tolist())
        assert len(stays) == row.kept
        assert len(row.scores) == row.total
