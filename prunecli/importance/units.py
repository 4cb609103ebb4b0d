"""Scores of units: what goes with a unit, judged together.

Stage: importance. In: a network, its coupling, and a criterion or a mixture of them. Out:
`UnitScores`; larger means more important. Never decides what goes.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from prunecli.choices import CRITERIA, Criterion, Strategy
from prunecli.errors import ConfigError
from prunecli.graph.capture import Captured
from prunecli.graph.coupling import Coupling
from prunecli.graph.walk import Flow
from prunecli.importance.activations import NEURONS, score_neurons
from prunecli.importance.calibration import Calibration
from prunecli.importance.criteria import ELEMENTS, lamp
from prunecli.importance.evidence import Evidence
from prunecli.importance.gradients import at_least_single, each_gradient
from prunecli.importance.layers import filter_distances, norm_scales
from prunecli.importance.mixing import mixed_units
from prunecli.importance.restorable import errors_without
from prunecli.importance.scores import Scores, UnitScores
from prunecli.importance.sums import coupled, largest_per_unit, per_unit
from prunecli.progress import Reporter
from prunecli.removal import Mixture

UnitCriterion = Callable[[Evidence, Flow, Coupling], Scores]


def score_units(
    captured: Captured,
    flow: Flow,
    coupling: Coupling,
    strategy: Strategy,
    mixture: Mixture,
    calibration: Calibration | None,
    seed: int,
    reporter: Reporter,
) -> UnitScores:
    """Score of every unit.

    Where a criterion says nothing about a group (`bn-scale` of a layer without norm), its scores
    are infinite: its units must stay. A warning names it.

    Args:
        strategy: `structured` or `neuron`.
        calibration: may be `None` for criteria of weights alone.

    Raises:
        ConfigError: the criterion needs calibration examples, or says nothing about any unit.
        ModelError: the network's outputs do not fit the examples.
        TrainingError: a loss or a gradient on the examples is not finite.
    """
    if not coupling.count:
        return UnitScores(np.zeros(0), np.zeros(0))
    evidence = Evidence(captured, calibration, seed, reporter)
    table = UNITS[strategy]
    parts = []
    for criterion, weight in mixture.parts:
        raw = table[criterion](evidence, flow, coupling)
        _check_judged(criterion, raw, coupling, reporter)
        parts.append((raw, weight))
    return mixed_units(parts, coupling)


def _check_judged(
    criterion: Criterion, raw: Scores, coupling: Coupling, reporter: Reporter
) -> None:
    """Say which groups a criterion says nothing about.

    Raises:
        ConfigError: it says nothing about any.
    """
    silent = [group.name for group in coupling.groups if np.isinf(raw[group.units]).any()]
    if not silent:
        return
    what = MISSING[criterion]
    if np.isinf(raw).all():
        raise ConfigError(
            f"--criterion: {criterion.value} judges {what}, and no unit of this network has any",
            "use --criterion l2",
        )
    reporter.warn(
        f"{criterion.value} judges {what}: without any, these stay as they are: "
        + ", ".join(silent)
    )


def _summed(criterion: Criterion, evidence: Evidence, _: Flow, coupling: Coupling) -> Scores:
    """The criterion of single weights, summed over all that go with a unit."""
    element = ELEMENTS[criterion]
    weights = coupled(evidence.captured.network, coupling)
    found = element.statistic(evidence, list(weights)) if element.statistic else None
    tensors = {
        name: (weight,) if found is None else (weight, found[name])
        for name, weight in weights.items()
    }
    scores = per_unit(tensors, coupling, element.formula)
    if element.shared:
        total = sum(float(element.formula(*own).double().sum()) for own in tensors.values())
        scores = scores / total if total > 0 else scores
    return scores


def _l2(evidence: Evidence, flow: Flow, coupling: Coupling) -> Scores:
    """The norm of everything that goes with a unit."""
    return np.sqrt(_summed(Criterion.L2, evidence, flow, coupling))


def _linf(evidence: Evidence, _: Flow, coupling: Coupling) -> Scores:
    return largest_per_unit(coupled(evidence.captured.network, coupling), coupling)


def _random(evidence: Evidence, _: Flow, coupling: Coupling) -> Scores:
    return np.random.default_rng(evidence.seed).random(coupling.count)


def _variance(evidence: Evidence, _: Flow, coupling: Coupling) -> Scores:
    """Variance of the weights that go with a unit (of all of them, not of a sample).

    Sun et al. 2019, "Pruning filters with L1-norm and standard deviation for CNN compression"
    (doi:10.1117/12.2523246): the spread stands for what a filter has learnt to tell apart.
    """
    weights = coupled(evidence.captured.network, coupling)
    tensors = {name: (weight,) for name, weight in weights.items()}
    count = np.maximum(per_unit(tensors, coupling, torch.ones_like), 1.0)
    mean = per_unit(tensors, coupling, lambda w: w.double()) / count
    square = per_unit(tensors, coupling, lambda w: w.double().square()) / count
    return np.maximum(square - mean**2, 0.0)


def _taylor(evidence: Evidence, _: Flow, coupling: Coupling) -> Scores:
    """Mean over batches of (sum of g w over all that goes with a unit)^2.

    Molchanov et al. 2019 (arXiv:1906.10771), the score of a structure as if one gate multiplied
    all of it.
    """
    weights = coupled(evidence.captured.network, coupling)
    cuts = evidence.cuts()
    total = np.zeros(coupling.count)
    for found in each_gradient(evidence, list(weights), cuts):
        tensors = {name: (weight, found[name]) for name, weight in weights.items()}
        total += per_unit(tensors, coupling, lambda w, g: at_least_single(w) * g) ** 2
    return total / len(cuts)


def _lamp(evidence: Evidence, flow: Flow, coupling: Coupling) -> Scores:
    """LAMP over the squared norms of a group's units, see `criteria.lamp`."""
    squares = _summed(Criterion.L2, evidence, flow, coupling)
    scores = np.zeros_like(squares)
    for group in coupling.groups:
        scores[group.units] = lamp(torch.from_numpy(squares[group.units])).numpy()
    return scores


def _bn_scale(evidence: Evidence, flow: Flow, coupling: Coupling) -> Scores:
    return norm_scales(evidence.captured, flow, coupling)


def _fpgm(evidence: Evidence, flow: Flow, coupling: Coupling) -> Scores:
    return filter_distances(evidence.captured, flow, coupling, evidence.reporter)


def _reconstruction(evidence: Evidence, flow: Flow, coupling: Coupling) -> Scores:
    """The norms of a group's units, given out anew: the smallest to the unit that the rest can
    restore best. So l2 says how many of a group go, and `restorable` which.

    The errors themselves compare groups badly: on ResNet-20 at half the MACs, without training,
    80.5 to 81.1% by their roots alone (divided by a group's largest, mean or 90% quantile), 82.3%
    like this. A group that no layer tells anything of keeps the order of l2.
    """
    errors, norms = errors_without(evidence, coupling), _l2(evidence, flow, coupling)
    if np.isinf(errors).all():
        return errors
    for group in coupling.groups:
        if np.isfinite(errors[group.units]).all():
            order = np.argsort(errors[group.units], kind="stable")
            norms[group.units[order]] = np.sort(norms[group.units])
    return norms


_OF_UNITS: Mapping[Criterion, UnitCriterion] = {
    Criterion.L2: _l2,
    Criterion.LINF: _linf,
    Criterion.RANDOM: _random,
    Criterion.VARIANCE: _variance,
    Criterion.BN_SCALE: _bn_scale,
    Criterion.FPGM: _fpgm,
    Criterion.LAMP: _lamp,
    Criterion.TAYLOR: _taylor,
    Criterion.RECONSTRUCTION: _reconstruction,
}
"""What is more than a sum over weights."""

UNITS: Mapping[Strategy, Mapping[Criterion, UnitCriterion]] = {
    Strategy.STRUCTURED: {
        criterion: _OF_UNITS.get(criterion) or partial(_summed, criterion)
        for criterion in CRITERIA[Strategy.STRUCTURED]
    },
    Strategy.NEURON: {
        Criterion.RANDOM: _random,
        **{criterion: partial(score_neurons, criterion) for criterion in NEURONS},
    },
}

_VALUES = "values that something reads"
MISSING: Mapping[Criterion, str] = {
    Criterion.BN_SCALE: "the scales of normalisations",
    Criterion.FPGM: "filters of layers",
    Criterion.RECONSTRUCTION: "what linear layers and convolutions read",
    **dict.fromkeys(NEURONS, _VALUES),
}
"""What a criterion looks at that a group may lack."""
