"""Criteria: how important a unit is, from its weights.

Stage: importance. In: the network and its coupling. Out: one score per unit, comparable across
groups; larger means more important. Never decides what goes.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from prunecli.config import Criterion
from prunecli.graph.coupling import STAYS, Coupling, Slot
from prunecli.graph.walk import attribute

Scores = npt.NDArray[np.float64]

SliceSize = Callable[[Tensor], Tensor]


def score_units(
    network: fx.GraphModule, coupling: Coupling, criterion: Criterion, seed: int
) -> Scores:
    """Score of every unit, shape (units,), divided by the mean of its group.

    The mean makes groups of different widths and scales comparable, so that one threshold can
    serve the whole network.
    """
    if criterion is Criterion.RANDOM:
        raw = np.random.default_rng(seed).random(coupling.count)
    else:
        raw = _magnitude(network, coupling, _ELEMENT[criterion])
        if criterion is Criterion.L2:
            raw = np.sqrt(raw)
    return normalised(raw, coupling)


def normalised(raw: Scores, coupling: Coupling) -> Scores:
    """Scores divided by their group's mean; a group of zeros stays zero."""
    scores = raw.copy()
    for group in coupling.groups:
        mean = float(raw[group.units].mean())
        if mean > 0.0:
            scores[group.units] = raw[group.units] / mean
    return scores


# L1 and L2 norms of filters: Li et al. 2017, "Pruning Filters for Efficient ConvNets"
# (arXiv:1608.08710); summed over everything that goes with the filter, as in Fang et al. 2023,
# "DepGraph: Towards Any Structural Pruning" (arXiv:2301.12900).
_ELEMENT: dict[Criterion, SliceSize] = {
    Criterion.L1: torch.abs,
    Criterion.L2: torch.square,
}


def _magnitude(network: fx.GraphModule, coupling: Coupling, element: SliceSize) -> Scores:
    total = np.zeros(coupling.count, dtype=np.float64)
    for slot in coupling.slots:
        tensor = attribute(network, slot.tensor)
        if not isinstance(tensor, nn.Parameter):
            continue
        sizes = per_index(element(tensor.detach().double()), slot)
        live = slot.units != STAYS
        np.add.at(total, slot.units[live], sizes[live])
    return total


def per_index(elements: Tensor, slot: Slot) -> Scores:
    """Sum over everything but the slot's axis: one number per entry of `slot.units`."""
    if slot.blocks > 1:
        rows = elements.reshape(slot.blocks, -1, *elements.shape[1:]).movedim(slot.axis + 1, 1)
        summed: Scores = rows.reshape(slot.blocks, rows.shape[1], -1).sum(2).reshape(-1).numpy()
        return summed
    summed = elements.movedim(slot.axis, 0).reshape(elements.shape[slot.axis], -1).sum(1).numpy()
    return summed
