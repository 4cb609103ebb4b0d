"""Cost: MACs and parameters of the network for any choice of units that stay.

Stage: graph. In: `Flow` and `Coupling`. Out: `CostModel`. Exact for whole plans; the cost of one
evaluation does not depend on how many units go.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import fx, nn

from prunecli.graph.coupling import Coupling, UnitArray
from prunecli.graph.nodes import attribute
from prunecli.graph.walk import Flow

Keep = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Attributes:
        macs: multiply-accumulates of convolutions, linear layers and matrix products for one
            example.
        params: elements of all parameters (buffers are not counted).
    """

    macs: float
    params: float


@dataclass(frozen=True)
class _Term:
    """`amount` of the original, times the share kept of every factor, over that of `blocks`."""

    amount: float
    factors: tuple[int, ...]
    blocks: int | None


@dataclass(frozen=True)
class CostModel:
    """Terms over shared factors; a factor is the share kept of some list of units.

    Attributes:
        units: unit of every entry of every factor, one after another.
        starts: where each factor begins.
        sizes: entries of each factor.
        rows: for block factors, units as (blocks, indices per block).
        macs, params: the terms.
    """

    units: UnitArray
    starts: UnitArray
    sizes: npt.NDArray[np.float64]
    rows: tuple[UnitArray, ...]
    macs: tuple[_Term, ...]
    params: tuple[_Term, ...]

    def evaluate(self, keep: Keep) -> Cost:
        """Cost when exactly the units with `keep[unit]` stay; shape (units,)."""
        # STAYS is -1, so it reads the appended last entry.
        kept = np.append(keep, True)
        shares = (
            np.add.reduceat(kept[self.units].astype(np.float64), self.starts) / self.sizes
            if self.starts.size
            else self.sizes
        )
        blocks = [float(kept[rows].any(axis=1).mean()) for rows in self.rows]

        def total(terms: tuple[_Term, ...]) -> float:
            found = 0.0
            for term in terms:
                amount = term.amount
                for factor in term.factors:
                    amount *= shares[factor]
                if term.blocks is not None and amount:
                    amount /= blocks[term.blocks]
                found += amount
            return found

        return Cost(total(self.macs), total(self.params))


class _Factors:
    """Collects factors, each distinct list of units once."""

    def __init__(self) -> None:
        self.units: list[UnitArray] = []
        self.rows: list[UnitArray] = []
        self._known: dict[bytes, int] = {}
        self._known_rows: dict[bytes, int] = {}

    def add(self, units: UnitArray) -> int:
        flat = units.reshape(-1)
        place = self._known.setdefault(flat.tobytes(), len(self.units))
        if place == len(self.units):
            self.units.append(flat)
        return place

    def add_rows(self, rows: UnitArray) -> int:
        key = rows.tobytes() + bytes(str(rows.shape), "ascii")
        place = self._known_rows.setdefault(key, len(self.rows))
        if place == len(self.rows):
            self.rows.append(rows)
        return place


def cost_model(network: fx.GraphModule, flow: Flow, coupling: Coupling, batch: int) -> CostModel:
    """Build the model. `batch` is the batch of the example inputs, by which MACs are divided."""
    factors = _Factors()
    macs = tuple(_mac_terms(flow, coupling, factors, batch))
    params = tuple(_param_terms(network, flow, coupling, factors))
    sizes = np.array([units.size for units in factors.units], dtype=np.float64)
    starts = (
        np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        if sizes.size
        else (np.empty(0, dtype=np.int64))
    )
    units = np.concatenate(factors.units) if factors.units else np.empty(0, dtype=np.int64)
    return CostModel(units, starts, sizes, tuple(factors.rows), macs, params)


def _mac_terms(flow: Flow, coupling: Coupling, factors: _Factors, batch: int) -> Iterable[_Term]:
    for item in flow.notes.contractions:
        fields = [coupling.units(field) for field in item.out.fields]
        if item.contracted is not None:
            fields.append(coupling.units(item.contracted))
        blocks = None
        if item.blocks is not None:
            blocks = factors.add_rows(coupling.units(item.blocks))
        yield _Term(item.macs / batch, tuple(factors.add(field) for field in fields), blocks)


def _param_terms(
    network: fx.GraphModule, flow: Flow, coupling: Coupling, factors: _Factors
) -> Iterable[_Term]:
    slots: dict[str, list[int]] = {}
    for place, slot in enumerate(coupling.slots):
        slots.setdefault(slot.tensor, []).append(place)
    for name, value in flow.parameters.items():
        if not isinstance(attribute(network, name), nn.Parameter):
            continue
        own = [coupling.slots[place] for place in slots.get(name, ())]
        block = next((slot for slot in own if slot.blocks > 1), None)
        yield _Term(
            float(math.prod(value.shape)),
            tuple(factors.add(slot.units) for slot in own),
            factors.add_rows(block.units.reshape(block.blocks, -1)) if block else None,
        )
