"""What the rest cannot restore: the error that least squares leaves where units are gone.

Stage: importance. In: `Evidence` and the coupling. Out: one number per unit. The network runs in
evaluation mode and stays as it is.

Of every layer that reads a unit, the outputs without it, with the other weights solved for anew,
miss `w^T (H^-1 on the unit)^-1 w` of the original's (Hassibi & Stork 1993, "Optimal Brain
Surgeon", for a block of weights as in Frantar & Alistarh 2022, arXiv:2208.11580); H: second moment
of what the layer reads. An output's error counts as much as the loss depends on it, by the square
of its gradient (Theis et al. 2018, arXiv:1801.05787); without labels, as a share of the output's
variance. Units of a group go one after the other, the cheapest first, each time from what is left
then; a unit's error is that of its turn.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.graph.coupling import STAYS, Coupling, UnitArray
from prunecli.graph.nodes import argument, attribute, operator_name
from prunecli.graph.patches import input_patches
from prunecli.graph.stepping import Stepper, at_least_single
from prunecli.importance.activations import tracked
from prunecli.importance.evidence import Evidence
from prunecli.importance.gradients import checked_loss, not_finite
from prunecli.importance.scores import Scores
from prunecli.tasks import Tensors

ROWS = 40_000
"""Positions that the moments are taken over, at least 8 per weight of an output."""

MOST_INPUTS = 10_000
"""Layers with more weights per output are not looked at: their moments take too much memory."""

LARGEST_PATCHES = 1 << 25
"""Numbers in the patches that are made at once, if that is more than one example's."""

RIDGE = 1e-3
"""Relative to the mean square of the inputs, as in reconstruction."""

TURNS = 64
"""Units of a large group go in so many portions."""


@dataclass
class _Reader:
    """A layer that reads units, as far as they are left.

    Attributes:
        weight: (O, U), float64.
        inverse: (U, U) of the inputs' second moment about their mean.
        scale: (O,), what an error of one counts for.
        units: read here, each at as many inputs as all others, (units,).
        columns: where, (units, inputs).
    """

    weight: Tensor
    inverse: Tensor
    scale: Tensor
    units: UnitArray
    columns: Tensor

    def errors(self, rows: Tensor) -> Tensor:
        """What each of the units at `rows` costs now."""
        columns = self.columns[rows]
        own = self.inverse[columns[:, :, None], columns[:, None, :]]
        weight = self.weight[:, columns].permute(1, 2, 0)
        lost: Tensor = (weight * torch.linalg.solve(own, weight)).sum(1)
        return lost @ self.scale

    def remove(self, rows: Tensor) -> None:
        """The best weights and moments without those units."""
        gone = self.columns[rows].reshape(-1)
        between = torch.linalg.solve(self.inverse[gone][:, gone], self.inverse[gone])
        self.weight -= self.weight[:, gone] @ between
        self.inverse -= self.inverse[:, gone] @ between
        self.weight[:, gone] = 0.0


def errors_without(evidence: Evidence, coupling: Coupling) -> Scores:
    """Error of every unit at its turn, shape (units,); infinite where no layer tells.

    Raises:
        TrainingError: what the layers read, or the loss, is not finite.
    """
    found = np.full(coupling.count, np.inf)
    places = _places(evidence.captured.network, coupling)
    if not places:
        return found
    moments = _moments(evidence, places)
    slopes = _slopes(evidence, places) if evidence.examples().task.labelled else None
    with evidence.reporter.step("what the rest cannot restore", len(coupling.groups)) as step:
        for done, group in enumerate(coupling.groups):
            # Made for each group: a layer may read several, each of which is judged by itself.
            own = [
                _reader(place, moments[node], None if slopes is None else slopes[node])
                for node, place in places.items()
                if np.isin(place[1], group.units).any()
            ]
            if own:
                found[group.units] = _turns(group.units, own)
            step.update(done + 1, group.name)
    return found


def _turns(units: UnitArray, readers: list[_Reader]) -> Scores:
    """Errors of the units of one group; changes the readers.

    Raises:
        TrainingError: what the layers read is not finite.
    """
    row_of = [{int(unit): row for row, unit in enumerate(item.units)} for item in readers]
    left = [int(unit) for unit in units]
    errors, highest, portion = dict.fromkeys(left, 0.0), 0.0, math.ceil(len(left) / TURNS)
    while left:
        cost = torch.zeros(len(left), dtype=torch.float64)
        for reader, rows in zip(readers, row_of, strict=True):
            shown = [place for place, unit in enumerate(left) if unit in rows]
            if shown:
                own = torch.tensor([rows[left[place]] for place in shown])
                cost[torch.tensor(shown)] += reader.errors(own)
        if not bool(torch.isfinite(cost).all()):
            raise not_finite("what layers read")
        first = torch.argsort(cost, stable=True)[:portion].tolist()
        going = [left[place] for place in first]
        # Rounding must not turn the order round.
        highest = max(highest, float(cost[first].mean()))
        errors.update(dict.fromkeys(going, highest))
        for reader, rows in zip(readers, row_of, strict=True):
            own_rows = [rows[unit] for unit in going if unit in rows]
            if own_rows:
                reader.remove(torch.tensor(own_rows))
        left = [unit for unit in left if unit not in going]
    return np.array([errors[int(unit)] for unit in units])


Place = tuple[nn.Parameter, UnitArray, Tensor]
"""A layer's weight, the units that it reads and at which inputs."""

Places = dict[fx.Node, Place]


def _places(network: fx.GraphModule, coupling: Coupling) -> Places:
    slots = {(slot.tensor, slot.axis): slot for slot in coupling.slots if slot.blocks == 1}
    found: Places = {}
    for node in network.graph.nodes:
        if operator_name(node) not in ("aten.linear", "aten.conv1d", "aten.conv2d"):
            continue
        source = argument(node, "weight")
        slot = slots.get((str(source.target), 1))
        weight = attribute(network, str(source.target)) if source.op == "get_attr" else None
        if slot is None or not isinstance(weight, nn.Parameter):
            continue
        taps = math.prod(weight.shape[2:])
        text = isinstance(argument(node, "padding"), str)
        if text or (argument(node, "groups") or 1) > 1 or weight[0].numel() > MOST_INPUTS:
            continue
        units, columns = _columns(slot.units, taps)
        if units.size:
            found[node] = (weight, units, columns)
    return found


def _columns(units: UnitArray, taps: int) -> tuple[UnitArray, Tensor]:
    """Units that stand at equally many inputs, and at which; none where they differ."""
    shown, counts = np.unique(units[units != STAYS], return_counts=True)
    if not shown.size or (counts != counts[0]).any():
        return shown[:0], torch.zeros(0, 0, dtype=torch.int64)
    order = np.argsort(units, kind="stable")[(units == STAYS).sum() :]
    inputs = torch.from_numpy(order.reshape(shown.size, -1))
    columns = inputs[:, :, None] * taps + torch.arange(taps)
    return shown, columns.reshape(shown.size, -1)


def _reader(place: Place, total: Tensor, scale: Tensor | None) -> _Reader:
    parameter, units, columns = place
    mean = total[-1:, :-1] / total[-1, -1]
    second = total[:-1, :-1] / total[-1, -1] - mean.T @ mean
    weight = parameter.detach().double().flatten(1)
    size = second.diagonal().mean().clamp_min(1e-12)
    inverse = torch.linalg.inv(second + RIDGE * size * torch.eye(len(second)))
    if scale is None:
        variance = ((weight @ second) * weight).sum(1)
        scale = 1.0 / (variance + RIDGE * variance.mean() + 1e-30) / len(variance)
    return _Reader(weight.clone(), inverse, scale, units, columns)


def _moments(evidence: Evidence, places: Places) -> dict[fx.Node, Tensor]:
    """Sums of products of all inputs (and of one) with each other, (U + 1, U + 1)."""
    sums: dict[fx.Node, Tensor] = {}
    generator = torch.Generator().manual_seed(evidence.seed)
    network, number = evidence.captured.network, len(evidence.examples())
    with torch.no_grad():
        for inputs, _ in evidence.batches("what layers read", evidence.cuts(rest=True)):
            stepper, given = Stepper(network, at_least_single(inputs)), iter(inputs)
            for node in network.graph.nodes:
                if node in places:
                    weight = places[node][0]
                    enough = max(ROWS, 8 * weight[0].numel()) * len(inputs[0]) / number
                    for rows in _rows(node, weight, stepper.env[node.args[0]], enough, generator):
                        chosen = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
                        own = (chosen.T @ chosen).double()
                        sums[node] = sums[node] + own if node in sums else own
                stepper.run_one(node, given)
    return sums


def _slopes(evidence: Evidence, places: Places) -> dict[fx.Node, Tensor]:
    """Mean over examples of the squared gradient of the loss, summed over positions, (O,). Zero
    where the loss does not depend on a layer: one of an output that is not trained."""
    sums = {
        node: torch.zeros(weight.shape[0], dtype=torch.float64)
        for node, (weight, _, _) in places.items()
    }
    network, task = evidence.captured.network, evidence.examples().task
    examples = 0
    for inputs, targets in evidence.batches("what outputs count for", evidence.cuts(rest=True)):
        with torch.enable_grad():
            found, outputs = _outputs(network, tuple(map(tracked, inputs)), places)
            # Of the sum over the batch: every example's own gradient.
            loss = checked_loss(task, outputs, targets) * len(inputs[0])
            if not found:
                break
            gradients = torch.autograd.grad(loss, list(found.values()), allow_unused=True)
        examples += len(inputs[0])
        for node, gradient in zip(found, gradients, strict=True):
            if gradient is not None:
                channels = -1 if operator_name(node) == "aten.linear" else 1
                own = gradient.double().square().movedim(channels, 0).flatten(1).sum(1)
                sums[node] += own
    return {node: own / max(examples, 1) for node, own in sums.items()}


def _outputs(
    network: fx.GraphModule, inputs: Tensors, places: Places
) -> tuple[dict[fx.Node, Tensor], Tensors]:
    """What the layers say, and the network's outputs. What comes after a layer works on a copy: it
    may do so in place."""
    stepper, given = Stepper(network, at_least_single(inputs)), iter(inputs)
    found: dict[fx.Node, Tensor] = {}
    result: Any = None
    for node in network.graph.nodes:
        result = stepper.run_one(node, given)
        if node in places and result.requires_grad:
            found[node] = result
            stepper.env[node] = result.clone()
    return found, result if isinstance(result, tuple) else (result,)


def _rows(
    node: fx.Node,
    weight: nn.Parameter,
    source: Tensor,
    enough: float,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """What the layer reads at about `enough` of its positions, (positions, U), in portions: all
    patches of a batch of large images together may not fit the memory."""
    if operator_name(node) == "aten.linear":
        rows = source.reshape(-1, source.shape[-1])
        yield rows[torch.randperm(len(rows), generator=generator)[: math.ceil(enough)]]
        return
    source = source.unsqueeze(2) if source.dim() == 3 else source
    each = source[0].numel() * math.prod(weight.shape[2:])
    for part in torch.split(source, max(1, LARGEST_PATCHES // each)):
        patches = input_patches(node, weight.shape, part)
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
        picked = torch.randperm(len(rows), generator=generator)
        yield rows[picked[: math.ceil(enough * len(part) / len(source))]]
