"""What units do on data: activations, where something reads them.

Stage: importance. In: `Evidence` and the coupling. Out: one number per unit; infinite for units
that show in no value. The network runs in evaluation mode and stays as it is.

A unit's activations are the values that contractions (convolutions, linear layers, matrix
products, recurrent layers) sum over, past activation functions and norms; each such value counts
once, however many read it, and a unit's score is the mean over them. Units that no contraction
reads are looked at in the first value that shows them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.choices import Criterion
from prunecli.errors import ModelError
from prunecli.graph.coupling import STAYS, Coupling, UnitArray
from prunecli.graph.fields import Value
from prunecli.graph.nodes import argument, operator_name
from prunecli.graph.stepping import Stepper, at_least_single
from prunecli.graph.walk import Flow
from prunecli.importance.evidence import Evidence
from prunecli.importance.gradients import checked_loss
from prunecli.importance.scores import Scores
from prunecli.tasks import Tensors

RECURRENT = frozenset(f"aten.{name}" for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"))


@dataclass(frozen=True)
class Site:
    """A value in which units show.

    Attributes:
        node: that makes the value.
        units: unit of its elements, broadcasting to it; `STAYS` for those of no interest.
    """

    node: str
    units: UnitArray

    def entries(self, values: Tensor) -> Tensor:
        """Mean over what `units` does not tell apart, in the shape of `units`; double."""
        plain = [axis for axis, extent in enumerate(self.units.shape) if extent == 1]
        values = values.double()
        return values.mean(plain, keepdim=True) if plain else values

    def per_unit(self, entries: Tensor, count: int) -> Scores:
        """Mean over each unit's entries, shape (count,); zero for units that do not show."""
        live = self.units != STAYS
        members = np.maximum(np.bincount(self.units[live], minlength=count), 1)
        return np.bincount(self.units[live], entries.numpy()[live], count) / members


@dataclass(frozen=True)
class _Measure:
    """Means over examples and positions, and what is made of them.

    Attributes:
        pieces: values -> what is averaged.
        score: the averages -> the score of each entry.
    """

    pieces: Callable[[Tensor], tuple[Tensor, ...]]
    score: Callable[..., Tensor]


_MEASURES: Mapping[Criterion, _Measure] = {
    # Mean |a|. Mean activations: Molchanov et al. 2017, "Pruning Convolutional Neural Networks
    # for Resource Efficient Inference" (arXiv:1611.06440).
    Criterion.ACTIVATION: _Measure(lambda a: (a.abs(),), lambda mean: mean),
    # 1 - the average share of zeros (APoZ): Hu et al. 2016, "Network Trimming" (arXiv:1607.03250).
    Criterion.APOZ: _Measure(lambda a: (a != 0,), lambda mean: mean),
    # Variance over examples and positions; of a unit with several channels, the mean of theirs:
    # Berisha et al. 2025, "Variance-Based Pruning for Accelerating and Compressing Trained
    # Networks" (arXiv:2507.12988). What never varies is a constant, which a bias can take over.
    Criterion.ACTIVATION_VARIANCE: _Measure(
        lambda a: (a.double(), a.double().square()),
        lambda mean, square: (square - mean.square()).clamp(min=0.0),
    ),
}

NEURONS = (*_MEASURES, Criterion.TAYLOR)
"""Criteria of this module."""


def score_neurons(
    criterion: Criterion, evidence: Evidence, flow: Flow, coupling: Coupling
) -> Scores:
    """Score of every unit, shape (units,).

    Raises:
        ConfigError: no calibration examples.
        ModelError: the values are overwritten before they can be judged, or the outputs do not
            fit the task.
        TrainingError: the loss is not finite.
    """
    places = sites(evidence.captured.network, flow, coupling)
    measure = _MEASURES.get(criterion)
    if measure is None:
        scores = _taylor(evidence, places, coupling.count)
    else:
        scores = _measured(evidence, places, measure, coupling.count)
    shown = np.zeros(coupling.count)
    for site in places:
        shown[np.unique(site.units[site.units != STAYS])] += 1
    return np.where(shown > 0, sum(scores, np.zeros(coupling.count)) / np.maximum(shown, 1), np.inf)


def _measured(
    evidence: Evidence, places: Sequence[Site], measure: _Measure, count: int
) -> list[Scores]:
    """Per site, the scores of the units that show there."""
    totals: dict[Site | int, list[Tensor]] = {}
    examples = 0
    cuts = evidence.cuts(rest=True)
    with torch.no_grad():
        for inputs, _ in evidence.batches("activations", cuts):
            found, _ = observe(evidence.captured.network, inputs, places)
            batch = len(inputs[0])
            examples += batch
            for place, site in enumerate(places):
                pieces = [site.entries(item) * batch for item in measure.pieces(found[site.node])]
                known = totals.get(place, [torch.zeros(())] * len(pieces))
                totals[place] = [a + b for a, b in zip(known, pieces, strict=True)]
    return [
        site.per_unit(measure.score(*(item / examples for item in totals[place])), count)
        for place, site in enumerate(places)
    ]


def _taylor(evidence: Evidence, places: Sequence[Site], count: int) -> list[Scores]:
    """Mean over examples of |mean over a unit's elements of a * dL/da|; L: the example's loss.

    Molchanov et al. 2017 (arXiv:1611.06440). Examples go one by one (where the graph fixes its
    batch, that many count as one example).
    """
    totals = [np.zeros(count) for _ in places]
    network, task = evidence.captured.network, evidence.examples().task
    cuts = evidence.cuts(1)
    for inputs, targets in evidence.batches("activations and gradients of examples", cuts):
        with torch.enable_grad():
            found, outputs = observe(network, tuple(map(tracked, inputs)), places)
            loss = checked_loss(task, outputs, targets)
            # Of indices and of what is computed from them alone there are none.
            moving = {name: value for name, value in found.items() if value.requires_grad}
            slopes = torch.autograd.grad(loss, list(moving.values()), allow_unused=True)
        known = dict(zip(moving, slopes, strict=True))
        products = {name: _product(value, known.get(name)) for name, value in found.items()}
        for site, total in zip(places, totals, strict=True):
            total += np.abs(site.per_unit(site.entries(products[site.node]), count))
    return [total / len(cuts) for total in totals]


def _product(value: Tensor, slope: Tensor | None) -> Tensor:
    return torch.zeros_like(value) if slope is None else value.detach() * slope


def tracked(inputs: Tensor) -> Tensor:
    """An input that everything made of it has gradients of. Not the leaf itself, which could not
    be worked on in place."""
    return inputs.requires_grad_().clone() if inputs.is_floating_point() else inputs


def observe(
    network: fx.GraphModule, inputs: Tensors, places: Sequence[Site]
) -> tuple[dict[str, Tensor], Tensors]:
    """Run the network on one batch; returns the values at `places` and the outputs.

    Raises:
        ModelError: a value is overwritten later.
    """
    wanted = {site.node for site in places}
    stepper = Stepper(network, at_least_single(inputs))
    given_inputs = iter(inputs)
    found: dict[str, Tensor] = {}
    versions: dict[str, int] = {}
    result: Any = None
    for node in network.graph.nodes:
        result = stepper.run_one(node, given_inputs)
        if node.name in wanted:
            found[node.name], versions[node.name] = result, result._version
    changed = next((name for name in found if found[name]._version != versions[name]), None)
    if changed is not None:
        raise ModelError(
            f"network: {changed} is overwritten after it was read, its activations cannot be seen",
            "use --strategy structured, or a network that does not work in place there",
        )
    return found, result if isinstance(result, tuple) else (result,)


def sites(network: fx.GraphModule, flow: Flow, coupling: Coupling) -> tuple[Site, ...]:
    """Where every unit shows, in graph order of the readers; see above."""
    nodes = {node.name: node for node in network.graph.nodes}
    driven = _driven(network)
    found: dict[tuple[str, bytes], Site] = {}
    seen = np.zeros(coupling.count + 1, dtype=np.bool_)  # STAYS counts in the last place
    for item in flow.notes.contractions:
        if item.contracted is None:
            continue
        summed = np.zeros(coupling.count + 1, dtype=np.bool_)
        summed[coupling.units(item.contracted)] = True
        for source in _sources(nodes[item.node]):
            if source.name in driven:
                _add(found, seen, source, flow, coupling, summed)
    unseen = ~seen
    for node in network.graph.nodes:
        if node.name in driven and node.op == "call_function" and unseen[:-1].any():
            before = seen.copy()
            _add(found, seen, node, flow, coupling, unseen)
            unseen &= ~seen | before
    return tuple(found.values())


def _add(
    found: dict[tuple[str, bytes], Site],
    seen: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    node: fx.Node,
    flow: Flow,
    coupling: Coupling,
    wanted: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
) -> None:
    """Note a value's fields that show units of interest."""
    for units in _shown(node, flow.values.get(node.name), coupling):
        live = wanted[units] & (units != STAYS)
        if live.any():
            own = np.where(live, units, STAYS)
            found.setdefault((node.name, own.tobytes()), Site(node.name, own))
            seen[own[live]] = True


def _shown(node: fx.Node, value: object, coupling: Coupling) -> Iterator[UnitArray]:
    """Units of a value's fields, where they do not depend on the batch."""
    val = node.meta.get("val")
    if not isinstance(value, Value) or not isinstance(val, Tensor) or not val.is_floating_point():
        return
    for field in value.fields:
        sizes = [val.shape[axis] for axis, extent in enumerate(field.shape) if extent > 1]
        if all(map(_fixed, sizes)):
            yield coupling.units(field)


def _fixed(size: int | torch.SymInt) -> bool:
    return isinstance(size, int) or size.node.maybe_as_int() is not None


def _sources(node: fx.Node) -> list[fx.Node]:
    """The operands that a contraction sums over. A recurrent layer's initial states say nothing
    about its hidden units."""
    if operator_name(node) in RECURRENT:
        source = argument(node, "input")
        return [argument(node, "data") if source is None else source]
    return list(node.all_input_nodes)


def _driven(network: fx.GraphModule) -> set[str]:
    """Names of the nodes whose values depend on the network's input."""
    found: set[str] = set()
    for node in network.graph.nodes:
        if node.op == "placeholder" or any(item.name in found for item in node.all_input_nodes):
            found.add(node.name)
    return found
