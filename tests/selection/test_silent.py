"""What a criterion says nothing about stays, whatever decides, and nothing infinite is written."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunecli.choices import Criterion, Quantity, Scope, Strategy
from prunecli.errors import ConfigError, TargetError
from prunecli.graph.capture import capture
from prunecli.graph.cost import CostModel, cost_model
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk
from prunecli.importance.scores import UnitScores
from prunecli.importance.units import score_units
from prunecli.progress import SilentReporter
from prunecli.removal import Choosing, LayerRule, Target, Threshold, UnitsWanted, mixture
from prunecli.selection.budget import select
from prunecli.selection.fates import Fate
from prunecli.selection.plan import Plan

HALF = UnitsWanted(Target(Quantity.CHANNELS, 0.5, None, "50%"), 1)
NONE = UnitsWanted(None, 1)


@pytest.fixture(scope="module")
def judged() -> tuple[Coupling, CostModel, UnitScores]:
    """Of three groups, the one of layer `3` has no norm."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(),
        nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3),
    )  # fmt: skip
    for place in (1, 6):
        net[place].weight.data.copy_(0.5 + torch.rand(16))
    captured = capture(net, positional((torch.randn(2, 5),)))
    flow = walk(captured)
    coupling = couple(flow)
    mix = mixture(Criterion.BN_SCALE)
    scores = score_units(
        captured, flow, coupling, Strategy.STRUCTURED, mix, None, 0, SilentReporter()
    )
    return coupling, cost_model(captured.network, flow, coupling, 2), scores


def chosen(
    judged: tuple[Coupling, CostModel, UnitScores], wanted: UnitsWanted, choosing: Choosing
) -> Plan:
    coupling, model, scores = judged
    return select(coupling, model, scores, wanted, choosing, "bn-scale", 0)


@pytest.mark.parametrize(
    ("wanted", "choosing"),
    [
        (HALF, Choosing()),
        (HALF, Choosing(scope=Scope.LOCAL)),
        (HALF, Choosing(scope=Scope.ISOMORPHIC)),
        (NONE, Choosing(threshold=Threshold(0.9))),
        (NONE, Choosing(threshold=Threshold(100.0))),
        (NONE, Choosing(threshold=Threshold(0.5, dynamic=True))),
        (NONE, Choosing(rules=(LayerRule("0", 0.5),))),
        (replace(HALF, round_to=4), Choosing(rules=(LayerRule("0", 0.5),))),
    ],
    ids=["global", "local", "isomorphic", "threshold", "high", "dynamic", "rule", "rounded"],
)
def test_it_stays(
    judged: tuple[Coupling, CostModel, UnitScores], wanted: UnitsWanted, choosing: Choosing
) -> None:
    plan = chosen(judged, wanted, choosing)
    first, bare, last = plan.groups
    assert (bare.kept, bare.total) == (8, 8)
    assert bare.fates == ((Fate.KEPT_SILENT, tuple(range(8))),)
    assert first.kept < 16
    if wanted.target is not None:
        assert first.kept + last.kept <= 20 - 8
    json.loads(plan.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert all(np.isfinite(group.scores).all() for group in plan.groups)


def test_a_rule_about_it_is_refused(judged: tuple[Coupling, CostModel, UnitScores]) -> None:
    with pytest.raises(ConfigError, match="the criterion says nothing about what 3=50% matches"):
        chosen(judged, NONE, Choosing(rules=(LayerRule("3", 0.5),)))


def test_it_counts_as_what_must_stay(judged: tuple[Coupling, CostModel, UnitScores]) -> None:
    tenth = UnitsWanted(Target(Quantity.CHANNELS, 0.2, None, "20%"), 1)
    with pytest.raises(TargetError, match="cannot be reached") as raised:
        chosen(judged, tenth, Choosing())
    assert "with --criterion l2 it may be less" in str(raised.value.hint)
