"""Scores of single weights.

Stage: importance. In: a network, the parameters that masks may sit on, and a criterion or a
mixture of them. Out: per parameter, one score for each element; larger means more important.
Never decides what goes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from prunecli.choices import CRITERIA, Criterion, Strategy
from prunecli.graph.capture import Captured
from prunecli.graph.maskable import Maskable
from prunecli.graph.nodes import attribute
from prunecli.importance.calibration import Calibration
from prunecli.importance.criteria import ELEMENTS, lamp
from prunecli.importance.evidence import Evidence
from prunecli.importance.mixing import mixed_weights
from prunecli.importance.wanda import input_norms
from prunecli.progress import Reporter
from prunecli.removal import Mixture

WeightScores = Mapping[str, Tensor]
WeightCriterion = Callable[[Evidence, Sequence[Maskable]], WeightScores]


def score_weights(
    captured: Captured,
    maskables: Sequence[Maskable],
    mixture: Mixture,
    calibration: Calibration | None,
    seed: int,
    reporter: Reporter,
) -> WeightScores:
    """Score of every single weight, by parameter, in the parameter's shape.

    A single criterion's scores are on its own scale, those of a mixture are sums of normalised
    ones. All are at least 0 but those of `movement` and `weight-change`, which are negative where
    a weight moves towards zero.

    Args:
        calibration: may be `None` for criteria of weights alone.

    Raises:
        ConfigError: the criterion needs calibration examples.
        ModelError: the network's outputs do not fit the examples; `wanda` cannot see an input.
        TrainingError: a loss or a gradient on the examples is not finite.
    """
    if not maskables:
        return {}
    evidence = Evidence(captured, calibration, seed, reporter)
    parts = [
        (WEIGHTS[criterion](evidence, maskables), weight) for criterion, weight in mixture.parts
    ]
    return mixed_weights(parts)


def _values(evidence: Evidence, maskables: Sequence[Maskable]) -> dict[str, Tensor]:
    network = evidence.captured.network
    return {item.name: attribute(network, item.name).detach() for item in maskables}


def _by_element(
    criterion: Criterion, evidence: Evidence, maskables: Sequence[Maskable]
) -> WeightScores:
    """Each weight by the formula of `criteria`."""
    element = ELEMENTS[criterion]
    weights = _values(evidence, maskables)
    if element.statistic is None:
        return {name: element.formula(weight) for name, weight in weights.items()}
    found = element.statistic(evidence, list(weights))
    scores = {name: element.formula(weight, found[name]) for name, weight in weights.items()}
    if element.shared:
        total = sum(float(item.double().sum()) for item in scores.values())
        scores = {name: item / (total or 1.0) for name, item in scores.items()}
    return scores


def _random(evidence: Evidence, maskables: Sequence[Maskable]) -> WeightScores:
    generator = torch.Generator().manual_seed(evidence.seed)
    return {item.name: torch.rand(item.shape, generator=generator) for item in maskables}


def _lamp(evidence: Evidence, maskables: Sequence[Maskable]) -> WeightScores:
    """LAMP over the squares of each parameter's weights, see `criteria.lamp`."""
    weights = _values(evidence, maskables)
    return {name: lamp(weight.double().square()) for name, weight in weights.items()}


def _wanda(evidence: Evidence, maskables: Sequence[Maskable]) -> WeightScores:
    """|w| times the norm of what it multiplies, see `wanda`."""
    norms = input_norms(evidence, maskables)
    weights = _values(evidence, maskables)
    return {name: weight.abs() * norms[name] for name, weight in weights.items()}


_OF_WEIGHTS: Mapping[Criterion, WeightCriterion] = {
    Criterion.RANDOM: _random,
    Criterion.LAMP: _lamp,
    Criterion.WANDA: _wanda,
}
"""What is more than a formula over each weight."""

WEIGHTS: Mapping[Criterion, WeightCriterion] = {
    criterion: _OF_WEIGHTS.get(criterion) or partial(_by_element, criterion)
    for criterion in CRITERIA[Strategy.WEIGHT]
}
