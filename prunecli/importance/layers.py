"""Criteria of units that look at one part of what goes with them: the layer or the norm.

Stage: importance. In: a network and its coupling. Out: one number per unit; infinite where a
group has no such part.
"""

import numpy as np
import torch
from torch import Tensor

from prunecli.errors import ModelError
from prunecli.graph.capture import Captured
from prunecli.graph.coupling import Coupling, Slot, UnitArray
from prunecli.graph.fields import Value
from prunecli.graph.maskable import maskables
from prunecli.graph.nodes import argument, attribute, operator_name
from prunecli.graph.walk import Flow
from prunecli.importance.scores import Scores
from prunecli.importance.sums import coupled, per_unit
from prunecli.progress import Reporter

NORMS = frozenset(
    f"aten.{name}"
    for name in ("batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm")
)

COLUMNS = 1 << 12
"""Columns of a layer's filters that are looked at together."""


def norm_scales(captured: Captured, flow: Flow, coupling: Coupling) -> Scores:
    """Mean |gamma| of all scales of norms that go with a unit.

    Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming"
    (arXiv:1708.06519), for batch norm; layer, group, instance and RMS norms have scales too.
    """
    weights = coupled(captured.network, coupling)
    tensors = {name: (weights[name],) for name in _scales(captured, flow) if name in weights}
    count = per_unit(tensors, coupling, torch.ones_like)
    total = per_unit(tensors, coupling, torch.abs)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.inf)


def _scales(captured: Captured, flow: Flow) -> dict[str, None]:
    """Names of the parameters by which norms multiply."""
    found: dict[str, None] = {}
    for node in captured.network.graph.nodes:
        norm = node.op == "call_function" and operator_name(node) in NORMS
        weight = argument(node, "weight") if norm else None
        value = None if weight is None else flow.values.get(weight.name)
        if isinstance(value, Value) and value.parameter:
            found[value.parameter] = None
    return found


def filter_distances(
    captured: Captured, flow: Flow, coupling: Coupling, reporter: Reporter
) -> Scores:
    """Sum of the Euclidean distances of a unit's filter to those of all others of its group.

    He et al. 2019, "Filter Pruning via Geometric Median" (arXiv:1811.00250): the filter nearest
    to all others is the one that they can replace. A filter is all the weights of a layer that
    make a unit's outputs (all gates of a hidden unit, all rows of a head); where several layers
    make them, the sums of all layers are added up.

    Raises:
        ModelError: the filters of one group differ in size.
    """
    scores = np.zeros(coupling.count)
    judged = np.zeros(coupling.count, dtype=np.bool_)
    makes = {(item.name, item.output_axis) for item in maskables(captured, flow)}
    with reporter.step("distances between filters", len(coupling.groups)) as step:
        for done, group in enumerate(coupling.groups):
            for slot in (coupling.slots[place] for place in group.slots):
                if (slot.tensor, slot.axis) in makes:
                    weight: Tensor = attribute(captured.network, slot.tensor).detach()
                    scores[group.units] += distance_sums(_filters(weight, slot, group.units))
                    judged[group.units] = True
            step.update(done + 1)
    return np.where(judged, scores, np.inf)


def _filters(weight: Tensor, slot: Slot, units: UnitArray) -> Tensor:
    """One row for every unit: its entries along the slot's axis, one after another."""
    if slot.blocks > 1:
        rows = weight.shape[0] // slot.blocks
        blocks = weight.reshape(slot.blocks, rows, *weight.shape[1:]).movedim(slot.axis + 1, 1)
        entries = blocks.flatten(0, 1).flatten(1)
    else:
        entries = weight.movedim(slot.axis, 0).flatten(1)
    own = np.flatnonzero(np.isin(slot.units, units))
    order = own[np.argsort(slot.units[own], kind="stable")]
    counts = np.unique(np.unique(slot.units[own], return_counts=True)[1])
    if counts.size > 1:
        raise ModelError(
            f"{slot.tensor}: fpgm compares filters of one size, got units of "
            + " and ".join(map(str, counts.tolist())),
            "use --criterion l2",
        )
    found: Tensor = entries[torch.from_numpy(order)].reshape(units.size, -1)
    return found


def distance_sums(rows: Tensor) -> Scores:
    """For every row of (N, D), the sum of its Euclidean distances to all others; shape (N,)."""
    products = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for start in range(0, rows.shape[1], COLUMNS):
        part = rows[:, start : start + COLUMNS].double()
        products.addmm_(part, part.T)
    squares = products.diagonal()
    apart = (squares[:, None] + squares[None, :] - 2 * products).clamp_(min=0.0).sqrt_()
    found: Scores = apart.fill_diagonal_(0.0).sum(1).numpy()
    return found
