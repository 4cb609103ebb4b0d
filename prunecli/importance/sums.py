"""Sums over everything that goes with a unit.

Stage: importance. In: tensors and the coupling's slots. Out: one number per unit. Every element
counts once for a unit, though it may stand on two axes with it (the diagonal of a recurrent
matrix, a depthwise convolution).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.graph.coupling import STAYS, Coupling, Slot
from prunecli.graph.nodes import attribute
from prunecli.importance.scores import Scores

Formula = Callable[..., Tensor]

CHUNK_ELEMENTS = 1 << 18
"""Elements of a tensor looked at together: what fits into a processor's cache goes fastest, and
a large tensor is not copied as a whole."""


def coupled(network: fx.GraphModule, coupling: Coupling) -> dict[str, Tensor]:
    """The parameters on which units sit, by name."""
    names = dict.fromkeys(slot.tensor for slot in coupling.slots)
    found = ((name, attribute(network, name)) for name in names)
    return {name: item.detach() for name, item in found if isinstance(item, nn.Parameter)}


def per_unit(
    tensors: Mapping[str, Sequence[Tensor]], coupling: Coupling, formula: Formula
) -> Scores:
    """For every unit, the sum of `formula` over all elements that go with it; shape (units,).

    Args:
        tensors: slot's tensor -> what the formula takes, in the tensor's shape. Others are left
            out.
    """
    total = np.zeros(coupling.count, dtype=np.float64)
    for name, own in _by_tensor(coupling).items():
        if name not in tensors:
            continue
        for slot, sizes in zip(own, per_index(tensors[name], own, formula), strict=True):
            live = slot.units != STAYS
            np.add.at(total, slot.units[live], sizes[live])
    return total


def largest_per_unit(tensors: Mapping[str, Tensor], coupling: Coupling) -> Scores:
    """For every unit, the largest |w| of all elements that go with it; shape (units,)."""
    largest = np.zeros(coupling.count, dtype=np.float64)
    for name, own in _by_tensor(coupling).items():
        if name not in tensors:
            continue
        for start, (chunk,) in _chunks((tensors[name],)):
            sizes = chunk.abs()
            for slot in own:
                kept = (0, slot.axis) if slot.blocks > 1 else (slot.axis,)
                others = [axis for axis in range(chunk.dim()) if axis not in kept]
                found = sizes.amax(others, keepdim=True).double() if others else sizes.double()
                at = _units_at(slot, start, chunk.shape[0], tensors[name].shape[0], chunk.dim())
                units = at.expand(found.shape).numpy()
                live = units != STAYS
                np.maximum.at(largest, units[live], found.numpy()[live])
    return largest


def per_index(tensors: Sequence[Tensor], slots: Sequence[Slot], formula: Formula) -> list[Scores]:
    """For every slot of one tensor, the sum of `formula` over all other axes.

    One pass over the tensor, in chunks along axis 0, whose sums are added up in float64. Returns
    one number per entry of `slot.units`. What an earlier slot has counted for the same unit is
    left out.
    """
    rows = tensors[0].shape[0]
    sums = [torch.zeros(slot.units.size, dtype=torch.float64) for slot in slots]
    earlier = [
        [other for other in slots[:place] if _meet(other, slot)] for place, slot in enumerate(slots)
    ]
    for start, chunks in _chunks(tensors):
        elements = formula(*chunks)
        for slot, counted, total in zip(slots, earlier, sums, strict=True):
            fresh = elements
            for other in counted:
                fresh = fresh * _apart(slot, other, start, rows, elements)
            _accumulate(fresh, start, rows, slot, total)
    return [total.numpy() for total in sums]


def _by_tensor(coupling: Coupling) -> dict[str, list[Slot]]:
    found: dict[str, list[Slot]] = {}
    for slot in coupling.slots:
        found.setdefault(slot.tensor, []).append(slot)
    return found


def _chunks(tensors: Sequence[Tensor]) -> Iterable[tuple[int, list[Tensor]]]:
    """Where a chunk starts along axis 0, and that of every tensor."""
    number = tensors[0].shape[0]
    rows = max(1, CHUNK_ELEMENTS * number // max(tensors[0].numel(), 1))
    for start in range(0, number, rows):
        yield start, [tensor[start : start + rows] for tensor in tensors]


def _meet(one: Slot, two: Slot) -> bool:
    """Whether some unit sits on both."""
    common = np.intersect1d(one.units, two.units)
    return bool((common != STAYS).any())


def _apart(slot: Slot, other: Slot, start: int, rows: int, elements: Tensor) -> Tensor:
    """Zero where an element stands on both slots with the same unit, broadcast to `elements`."""
    number, rank = elements.shape[0], elements.dim()
    one, two = (_units_at(item, start, number, rows, rank) for item in (slot, other))
    return (one != two).to(elements.dtype)


def _units_at(slot: Slot, start: int, number: int, rows: int, rank: int) -> Tensor:
    """Units of `number` rows from `start`, shaped to broadcast to these rows of the tensor (of
    `rank` axes, the slot's among them)."""
    units = torch.from_numpy(slot.units)
    shape = [1] * rank
    if slot.blocks > 1:
        block = torch.arange(start, start + number) * slot.blocks // rows
        units = units.reshape(slot.blocks, -1)[block]
        shape[0], shape[slot.axis] = units.shape
    elif slot.axis == 0:
        units = units[start : start + number]
        shape[0] = number
    else:
        shape[slot.axis] = units.numel()
    return units.reshape(shape)


def _accumulate(elements: Tensor, start: int, rows: int, slot: Slot, total: Tensor) -> None:
    others = [axis for axis in range(elements.dim()) if axis != slot.axis]
    if slot.blocks > 1:
        per_row = (
            elements.movedim(slot.axis, 1).flatten(2)
            if elements.dim() > 2
            else (elements.unsqueeze(2))
        )
        by_row = per_row.sum(2).double()
        block = torch.arange(start, start + by_row.shape[0]) * slot.blocks // rows
        total.reshape(slot.blocks, -1).index_add_(0, block, by_row)
    elif slot.axis == 0:
        stop = start + elements.shape[0]
        total[start:stop] = elements.sum(others) if others else elements
    else:
        total += elements.sum(others)
