"""Dead units: those that masks have made unnecessary.

Stage: surgery. In: a masked network and its analysis. Out: which units can go without any change
to what the network computes. Changes nothing.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from prunecli.graph.capture import Captured
from prunecli.graph.cost import Keep
from prunecli.graph.coupling import Coupling, UnitArray
from prunecli.graph.nodes import attribute
from prunecli.graph.walk import Flow
from prunecli.selection.steps import in_whole_blocks, make_steps
from prunecli.surgery.levels import added_to
from prunecli.surgery.scene import NONE, Scene
from prunecli.surgery.sinks import Requirements, requirements
from prunecli.surgery.steady import find_steady


@dataclass(frozen=True)
class Dead:
    """What masks have emptied.

    Attributes:
        keep: units that must stay, `(units,)`.
        alive: units that some layer gives a constant for, and that are still needed, because it
            is not zero or because what is left of a value would be no rectangle.
        scene: what was found about the network.
    """

    keep: Keep
    alive: int
    scene: Scene


def find_dead(
    masked: Captured,
    flow: Flow,
    coupling: Coupling,
    fold_into: frozenset[str] = frozenset(),
    round_to: int = 1,
) -> Dead:
    """Units that may go: wherever one is summed over, it is zero for every input, or meets only
    weights that are zero or that make what goes as well.

    Of units that can only go together with others (equally many from each head), those go that
    have such others; of every axis at least one stays.

    Args:
        masked: the network with masked weights set to zero.
        fold_into: nodes whose bias may take up what their inputs add to it, where that is a
            constant.
        round_to: widths stay on multiples of this where a group is wide enough: a few channels
            fewer would make the network slower.
    """
    scene = find_steady(masked, flow, coupling)
    needs = requirements(scene, masked.network.graph)
    gone = _all_unnoticed(coupling, needs, fold_into, np.ones(coupling.count, dtype=np.bool_))
    if round_to > 1:
        # A unit may be unnoticed only because another one goes that stays now.
        fewer = in_whole_blocks(coupling, gone, round_to)
        gone = _all_unnoticed(coupling, needs, fold_into, fewer)
    keep: Keep = ~gone
    emptied = np.array(sorted(scene.emptied), dtype=np.int64)
    return Dead(keep, int(keep[emptied].sum()), scene)


def _all_unnoticed(
    coupling: Coupling, needs: Requirements, fold_into: frozenset[str], among: Keep
) -> Keep:
    """Everything `among` (units,) that can go together, shape (units,)."""
    gone = NONE
    while True:
        found = _unnoticed(coupling, needs, gone, fold_into)
        more = _legal(coupling, found[among[found]], gone)
        if more.size <= gone.size:
            break
        gone = more
    every = np.zeros(coupling.count, dtype=np.bool_)
    every[gone] = True
    return every


def _unnoticed(
    coupling: Coupling, needs: Requirements, gone: UnitArray, fold_into: frozenset[str]
) -> UnitArray:
    """Units that nothing would notice if they went too. Each adds nothing to any sum, so that
    all can go at once."""
    noticed = [needs.never]
    for sink in needs.sinks:
        found = sink.noticed(gone)
        if sink.node in fold_into:
            found = np.setdiff1d(found, sink.constant)
        noticed.append(found)
    return np.setdiff1d(np.arange(coupling.count), np.concatenate(noticed))


def _legal(coupling: Coupling, wanted: UnitArray, gone: UnitArray) -> UnitArray:
    """The units of `wanted` that leave every tensor a rectangle with something in it; those that
    are gone already come first."""
    if not wanted.size:
        return NONE
    scores = np.ones(coupling.count)
    scores[wanted] = 0.0
    scores[gone] = -1.0
    steps = make_steps(coupling, scores, 0.0)
    number = steps.never.size
    whole = np.bincount(steps.of_unit, weights=scores > 0.0, minlength=number) == 0
    found: UnitArray = np.flatnonzero((whole & ~steps.never)[steps.of_unit])
    return found


def biased(masked: Captured, flow: Flow, masks_on: frozenset[str]) -> frozenset[str]:
    """Nodes with a bias of their own that is not masked."""
    found: dict[str, list[str]] = {}
    for node in masked.network.graph.nodes:
        bias = added_to(node) if node.op == "call_function" else None
        if bias is not None and bias.op == "get_attr" and len(bias.users) == 1:
            value = flow.parameters.get(str(bias.target))
            tensor = attribute(masked.network, str(bias.target))
            named = value is not None and value.parameter == str(bias.target)
            if named and isinstance(tensor, nn.Parameter) and str(bias.target) not in masks_on:
                found.setdefault(str(bias.target), []).append(node.name)
    return frozenset(nodes[0] for nodes in found.values() if len(nodes) == 1)
