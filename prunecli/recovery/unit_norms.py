"""Sizes of units that can be differentiated: the sum of squares of all weights of each.

Stage: recovery. In: a placed network and its coupling. Out: a function that computes the sums for
the weights as they are. Everything but the sums themselves is prepared once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunecli.graph.coupling import STAYS, Coupling, Slot
from prunecli.graph.nodes import attribute


@dataclass(frozen=True)
class _Place:
    """Where units sit on a parameter.

    Attributes:
        axes: that the units do not depend on, summed over.
        blocks: 1, or the number of blocks of axis 0 in which the units restart.
        units: of every entry of the sums, flat; what stays is counted in an extra last unit.
        fresh: 1 where an element was not counted for the same unit on an earlier axis, 0 where
            it was; broadcasts to the parameter; `None` for 1 throughout.
    """

    axes: tuple[int, ...]
    blocks: int
    units: Tensor
    fresh: Tensor | None

    def sums(self, elements: Tensor) -> Tensor:
        """One sum per entry of `units`."""
        if self.fresh is not None:
            elements = elements * self.fresh
        summed = elements.sum(self.axes) if self.axes else elements
        if self.blocks > 1:
            rows, width = summed.shape
            summed = summed.reshape(self.blocks, rows // self.blocks, width).sum(1)
        return summed.reshape(-1)


def unit_squares(network: GraphModule, coupling: Coupling) -> tuple[Callable[[], Tensor], Tensor]:
    """A function that returns the sum of squares of every unit's weights, shape (units,), and how
    many weights each has; both float64. An element counts once for each unit that it goes with."""
    slots: dict[str, list[Slot]] = {}
    for slot in coupling.slots:
        slots.setdefault(slot.tensor, []).append(slot)
    found: list[tuple[nn.Parameter, list[_Place]]] = []
    for name, own in slots.items():
        tensor = attribute(network, name)
        if isinstance(tensor, nn.Parameter):
            found.append((tensor, _places(tensor, own, coupling.count)))

    def total(element: Callable[[Tensor], Tensor]) -> Tensor:
        device = found[0][0].device if found else None
        sums = torch.zeros(coupling.count + 1, dtype=torch.float64, device=device)
        for tensor, places in found:
            elements = element(tensor)
            for place in places:
                with _in_order(tensor.device):
                    sums = sums.index_add(0, place.units, place.sums(elements).double())
        return sums[:-1]

    return lambda: total(torch.square), total(lambda tensor: torch.ones_like(tensor)).detach()


def _places(tensor: nn.Parameter, slots: list[Slot], count: int) -> list[_Place]:
    found: list[_Place] = []
    earlier: list[Tensor] = []
    for slot in slots:
        field = units_of(tensor, slot)
        again = torch.zeros((), dtype=torch.bool)
        for other in earlier:
            again = again | ((field == other) & (field != STAYS))
        earlier.append(field)
        if bool(again.all()):
            continue
        spans = {slot.axis, 0} if slot.blocks > 1 else {slot.axis}
        units = torch.from_numpy(slot.units)
        found.append(
            _Place(
                axes=tuple(axis for axis in range(tensor.dim()) if axis not in spans),
                blocks=slot.blocks,
                units=torch.where(units == STAYS, count, units).to(tensor.device),
                fresh=(~again).to(tensor.device, tensor.dtype) if bool(again.any()) else None,
            )
        )
    return found


@contextmanager
def _in_order(device: torch.device) -> Iterator[None]:
    """On a GPU, sums over equal indices are else added up in any order."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def units_of(tensor: Tensor, slot: Slot) -> Tensor:
    """The unit of every element with respect to a slot; broadcasts to the tensor."""
    shape = [1] * tensor.dim()
    shape[slot.axis] = tensor.shape[slot.axis]
    units = torch.from_numpy(slot.units)
    if slot.blocks > 1:
        shape[0] = tensor.shape[0]
        rows = tensor.shape[0] // slot.blocks
        units = units.reshape(slot.blocks, -1).repeat_interleave(rows, 0)
    return units.reshape(shape)
