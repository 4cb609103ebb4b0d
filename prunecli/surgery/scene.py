"""The scene: what is known of every value's units while a masked network runs.

Stage: surgery. Records, and questions about single nodes that need no numbers. Changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from prunecli.graph.cost import Keep
from prunecli.graph.coupling import STAYS, Coupling, UnitArray
from prunecli.graph.fields import Value
from prunecli.graph.nodes import operator_name
from prunecli.graph.reading import READERS, Read
from prunecli.graph.walk import Flow

Mask = npt.NDArray[np.bool_]

NONE: UnitArray = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Units:
    """Units of one value, each ascending.

    Attributes:
        all: those that some axis of the value has.
        steady: those at which no element depends on the input.
        zero: those of them at which every element is zero.
        twice: those that several axes have.
    """

    all: UnitArray = field(default_factory=NONE.copy)
    steady: UnitArray = field(default_factory=NONE.copy)
    zero: UnitArray = field(default_factory=NONE.copy)
    twice: UnitArray = field(default_factory=NONE.copy)


Known = Units | tuple[Units, ...]


@dataclass(frozen=True)
class Weight:
    """A weight as matrices. B: blocks (groups of a convolution), R: outputs and C: inputs of
    each.

    Attributes:
        busy: `(B, R, C)`, whether some weight between an input and an output is not zero.
        rows, columns: units of outputs `(B, R)` and inputs `(B, C)`.
    """

    busy: Mask
    rows: UnitArray
    columns: UnitArray

    def busy_rows(self, alive: Mask) -> Mask:
        """Outputs `(B, R)` with a weight that is not zero on some of the `alive` inputs."""
        return np.asarray((self.busy & alive[:, None, :]).any(2))

    def busy_columns(self, alive: Mask) -> Mask:
        """Inputs `(B, C)` with a weight that is not zero to some of the `alive` outputs."""
        return np.asarray((self.busy & alive[:, :, None]).any(1))


@dataclass(frozen=True)
class Constants:
    """What a layer reads where it is the same at all places, whatever goes into the network.

    Attributes:
        units: those of which that is so.
        of_column: unit of every index of the contracted axis, `(C,)`.
        level: what is read there, `(C,)`; only that of `units` means anything.
    """

    units: UnitArray
    of_column: UnitArray
    level: Tensor

    def going(self, keep: Keep) -> Tensor:
        """Which indices belong to `units` that go, `(C,)`."""
        return torch.from_numpy(np.isin(self.of_column, self.units[~keep[self.units]]))


@dataclass(frozen=True)
class Scene:
    """What is known while the network runs node by node.

    Attributes:
        flow, coupling: the analysis.
        known: per node, its units.
        still: nodes of which nothing depends on the input, not even the shape.
        weights: per node, the weights that it reads.
        levels: per linear layer and unpadded convolution, what it reads, for constants that can
            go into its bias.
        emptied: units for which some layer gives a constant.
    """

    flow: Flow
    coupling: Coupling
    known: dict[str, Known] = field(default_factory=dict)
    still: set[str] = field(default_factory=set)
    weights: dict[str, list[Weight]] = field(default_factory=dict)
    levels: dict[str, Constants] = field(default_factory=dict)
    emptied: set[int] = field(default_factory=set)

    def units(self, node: fx.Node) -> Units:
        """Units of a node with one value; empty where it has none."""
        found = self.known.get(node.name)
        return found if isinstance(found, Units) else Units()


def operands_of(scene: Scene, node: fx.Node) -> list[fx.Node]:
    return [
        item for item in node.all_input_nodes if isinstance(scene.flow.values.get(item.name), Value)
    ]


def units_along(scene: Scene, node: fx.Node, axis: int | None) -> UnitArray | None:
    """Units along one axis of a value, `STAYS` where it has no labels; `None` where labels span
    several axes."""
    value = scene.flow.values.get(node.name)
    if not isinstance(value, Value) or axis is None:
        return None
    labels = value.field_at(axis)
    if labels is None:
        return np.full(value.shape[axis], STAYS, dtype=np.int64)
    units = scene.coupling.units(labels).reshape(-1)
    return units if units.size == value.shape[axis] else None


def reads_of(node: fx.Node) -> list[Read]:
    """The weights among a node's operands."""
    reads: Callable[[fx.Node], list[Read]] | None = READERS.get(operator_name(node))
    return reads(node) if reads is not None and node.op == "call_function" else []


def summed(scene: Scene, node: fx.Node) -> UnitArray:
    """Units over which a node sums, other than for themselves: a whole head that is summed for
    its own row of the result leaves with that row."""
    value = scene.flow.values.get(node.name)
    members = value if isinstance(value, tuple) else (value,)
    results = [
        scene.coupling.units(item).reshape(-1)
        for member in members
        if isinstance(member, Value)
        for item in member.fields
    ]
    made = np.unique(np.concatenate([NONE, *results]))
    read = np.concatenate([NONE, *(scene.units(item).all for item in operands_of(scene, node))])
    found = [np.setdiff1d(read, made)] if _sums(scene, node) else []
    for item in scene.flow.notes.contractions:
        if item.node == node.name and item.contracted is not None:
            units = np.unique(scene.coupling.units(item.contracted))
            own = _own_rows(scene, item.blocks, made)
            found.append(np.setdiff1d(units, own))
    every = np.unique(np.concatenate([NONE, *found]))
    found_units: UnitArray = every[every != STAYS]
    return found_units


def _sums(scene: Scene, node: fx.Node) -> bool:
    return any(item.node == node.name for item in scene.flow.notes.contractions)


def _own_rows(scene: Scene, blocks: Tensor | None, made: UnitArray) -> UnitArray:
    """Units that are a block's whole row, and on the result."""
    if blocks is None:
        return NONE
    rows = scene.coupling.units(blocks).reshape(blocks.shape[0], -1)
    whole = (rows == rows[:, :1]).all(1)
    own: UnitArray = np.intersect1d(rows[whole, 0], made)
    return np.setdiff1d(own, rows[~whole].reshape(-1))
