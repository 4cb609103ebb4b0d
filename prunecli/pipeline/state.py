"""A network on its way from the original to the result.

Stage: pipeline. In: a captured network. Out: `State`, which no later step changes: each makes a
new one, so that a step that went wrong is undone by going on from the state before it.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
from torch import Tensor, fx

from prunecli.graph.again import captured_again
from prunecli.graph.capture import Captured, quiet_export
from prunecli.graph.cost import Cost, CostModel, cost_model
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.walk import Flow, walk
from prunecli.selection.layers import LayerPlan
from prunecli.selection.plan import Plan, Tensors
from prunecli.selection.revising import compose

Pair = tuple[int, int]


@dataclass(frozen=True)
class Analysis:
    """What can go, and what it costs."""

    flow: Flow
    coupling: Coupling
    costs: CostModel


@dataclass(frozen=True)
class EmptiedPlan:
    """Units that masks had emptied, and that were cut away.

    Attributes:
        tensors: as in `Plan`.
    """

    tensors: Tensors


Step = LayerPlan | Plan | EmptiedPlan
"""What was removed at once, and can be removed again from the original."""


@dataclass(frozen=True)
class State:
    """A network, and how it came about.

    Attributes:
        captured: its network has the weights as they are now.
        cost: of it.
        masks: single weights that are held at zero.
        plans: what was removed, in order, each in terms of what the ones before it left.
        stale: the graph's own shapes are those of an earlier, larger network.
        analysis: of `captured`, once it was needed.
        trained: whether weights were trained.
        units, layers, weights: (before, now) of what strategies removed.
    """

    captured: Captured
    cost: Cost
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    plans: tuple[Step, ...] = ()
    stale: bool = False
    analysis: Analysis | None = None
    trained: bool = False
    units: Pair | None = None
    layers: Pair | None = None
    weights: Pair | None = None

    @property
    def network(self) -> fx.GraphModule:
        """The graph with its weights."""
        return self.captured.network


def composed(plans: Iterable[Step]) -> Tensors:
    """Which indices of the original's tensors stay when all plans are carried out."""
    steps = [plan.tensors for plan in plans if not isinstance(plan, LayerPlan)]
    nothing: Tensors = {}
    return reduce(compose, steps, nothing)


def analyse(captured: Captured) -> Analysis:
    """Walk, couple and count."""
    flow = walk(captured)
    coupling = couple(flow)
    costs = cost_model(captured.network, flow, coupling, captured.batch)
    return Analysis(flow, coupling, costs)


def whole(analysis: Analysis) -> Cost:
    """Cost when everything stays."""
    return analysis.costs.evaluate(np.ones(analysis.coupling.count, dtype=np.bool_))


def analysed(state: State) -> tuple[State, Analysis]:
    """The state with fresh shapes, and its analysis."""
    if state.stale:
        fresh = captured_again(state.network, state.captured)
        state = replace(state, captured=fresh, stale=False, analysis=None)
    found = state.analysis or analyse(state.captured)
    return replace(state, analysis=found, cost=whole(found)), found


def owned(state: State) -> State:
    """The state with a network of its own, so that training or masking it leaves others alone."""
    return replace(state, captured=replace(state.captured, network=copied(state.network)))


def copied(network: fx.GraphModule) -> fx.GraphModule:
    """The same network in memory of its own."""
    with quiet_export():
        return copy.deepcopy(network)
