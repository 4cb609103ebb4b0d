"""Where units end: what must be zero so that the rest of the network does not notice that they
have gone.

Stage: surgery. In: the scene of a masked network. Out: requirements. Changes nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from prunecli.graph.coupling import STAYS, UnitArray
from prunecli.graph.fields import Value
from prunecli.graph.nodes import argument, operator_name
from prunecli.graph.rules.contraction import attention
from prunecli.graph.rules.elementwise import along_dim
from prunecli.graph.rules.movement import cut, move_pinned, strided_slice, unlabelled
from prunecli.graph.rules.normalization import grouped, trailing
from prunecli.graph.rules.recurrent import cell, recurrent
from prunecli.graph.rules.reduction import norm, reduction, total
from prunecli.graph.rules.table import RULES
from prunecli.graph.rules.windows import columns, from_columns, triangle, windows
from prunecli.surgery.levels import added_to
from prunecli.surgery.scene import NONE, Scene, Units, Weight, operands_of, summed
from prunecli.surgery.steady import KEEPING_ZERO, MOVING, POINTWISE

PASSING = frozenset(
    {*POINTWISE, *MOVING, *KEEPING_ZERO, along_dim, reduction, trailing, grouped}
    | {unlabelled, windows, columns, from_columns, triangle}
)
"""Rules of operators that compute each unit's part of the result from that unit's part of the
operands. What else they make of units (statistics, sums) is looked at one by one."""

_LEAVING_OUT = (cut, strided_slice, move_pinned)
_SUMMING = (total, norm)


@dataclass(frozen=True)
class Sink:
    """A node that sums over units.

    Attributes:
        open: units that are not zero when they get there.
        constant: those of them that are one number everywhere, which the node's bias can take.
        weights: what they meet.
    """

    node: str
    open: UnitArray
    constant: UnitArray
    weights: tuple[Weight, ...]

    def noticed(self, gone: UnitArray) -> UnitArray:
        """Those of `open` that some output not `gone` depends on."""
        if not self.open.size:
            return NONE
        known = np.unique(np.concatenate([NONE, *(w.columns.reshape(-1) for w in self.weights)]))
        found = [np.setdiff1d(self.open, known)]
        for weight in self.weights:
            busy = weight.busy_columns(~np.isin(weight.rows, gone))
            found.append(np.intersect1d(weight.columns[busy], self.open))
        return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class Requirements:
    """What keeps units from going.

    Attributes:
        never: units that something else than a sum depends on.
        sinks: sums that notice them unless the weights are zero.
    """

    never: UnitArray
    sinks: tuple[Sink, ...]


def requirements(scene: Scene, nodes: fx.Graph) -> Requirements:
    """Look at every node that a unit reaches."""
    never: list[UnitArray] = [NONE]
    sinks: list[Sink] = []
    for node in nodes.nodes:
        if node.op != "call_function" or operator_name(node) == "getitem":
            continue
        read = _read(scene, node)
        if not read.size:
            continue
        rule: Any = RULES.get(operator_name(node))
        if any(item.node == node.name for item in scene.flow.notes.contractions):
            sinks.append(_sink(scene, node, rule))
        elif rule in PASSING:
            never += [_statistics(scene, node), _lost(scene, node, rule, read)]
        else:
            never.append(read)
    found = np.unique(np.concatenate(never))
    return Requirements(found[found != STAYS], tuple(sinks))


def _read(scene: Scene, node: fx.Node) -> UnitArray:
    return np.unique(
        np.concatenate([NONE, *(scene.units(item).all for item in operands_of(scene, node))])
    )


def _made(scene: Scene, node: fx.Node) -> UnitArray:
    known = scene.known.get(node.name, Units())
    parts = known if isinstance(known, tuple) else (known,)
    return np.unique(np.concatenate([NONE, *(part.all for part in parts)]))


def _sink(scene: Scene, node: fx.Node, rule: Any) -> Sink:
    """A contraction. One factor that is zero makes the product zero."""
    needed = summed(scene, node)
    weights = tuple(scene.weights.get(node.name, ()))
    if rule is attention:
        factors = [argument(node, "query"), argument(node, "key")]
    else:
        added = added_to(node)
        factors = [item for item in operands_of(scene, node) if item is not added]
    # A weight's rows say nothing about its columns: those are looked at on their own.
    factors = [item for item in factors if item.name not in scene.still]
    zero = np.concatenate([NONE, *(scene.units(item).zero for item in factors)])
    if rule in (recurrent, cell):
        # Units that are also its own come in from one step to the next.
        zero = np.setdiff1d(zero, _made(scene, node))
    level = scene.levels.get(node.name)
    constant = NONE if level is None else np.intersect1d(level.units, needed)
    return Sink(node.name, np.setdiff1d(needed, zero), constant, weights)


def _statistics(scene: Scene, node: fx.Node) -> UnitArray:
    """Units along axes that a normalisation takes its statistics over."""
    axes = scene.flow.notes.normalised.get(node.name, ())
    value = scene.flow.values.get(node.all_input_nodes[0].name)
    if not axes or not isinstance(value, Value):
        return NONE
    fields = [value.field_at(axis) for axis in axes]
    found = [scene.coupling.units(item).reshape(-1) for item in fields if item is not None]
    return np.unique(np.concatenate([NONE, *found]))


def _lost(scene: Scene, node: fx.Node, rule: Any, read: UnitArray) -> UnitArray:
    """Units that end here. A sum does not notice those that are zero, and a part of a value says
    nothing of the other parts."""
    if rule in _LEAVING_OUT:
        return NONE
    gone = np.setdiff1d(read, _made(scene, node))
    if rule in _SUMMING:
        (source,) = operands_of(scene, node)[:1]
        own = scene.units(source)
        return np.setdiff1d(np.union1d(gone, own.twice), own.zero)
    return gone
