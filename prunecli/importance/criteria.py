"""Criteria of single weights: a formula over the weight and one number that data says about it.

Stage: importance. In: nothing; formulas. Single weights are scored by them as they are
(`weights`); units by the sum over all weights that go with them (`units`), as in Fang et al. 2023,
"DepGraph: Towards Any Structural Pruning" (arXiv:2301.12900).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunecli.choices import Criterion
from prunecli.importance import gradients, trajectory
from prunecli.importance.evidence import Evidence
from prunecli.importance.gradients import Statistics

Formula = Callable[..., Tensor]
"""Weights of any shape, and statistics of that shape where there are any -> scores."""


@dataclass(frozen=True)
class Element:
    """How a single weight w is judged.

    Attributes:
        formula: of w, or of w and its statistic.
        statistic: what is measured on data, per element; `None` where w alone is judged.
        shared: scores are divided by the sum over everything that is judged.
    """

    formula: Formula
    statistic: Callable[[Evidence, Sequence[str]], Statistics] | None = None
    shared: bool = False


def _statistic(_: Tensor, statistic: Tensor) -> Tensor:
    return statistic


ELEMENTS: Mapping[Criterion, Element] = {
    # |w|: Han et al. 2015 (arXiv:1506.02626); of filters: Li et al. 2017, "Pruning Filters for
    # Efficient ConvNets" (arXiv:1608.08710).
    Criterion.L1: Element(torch.abs),
    # w^2, so that sums over a block or a unit are squared norms; ranks single weights as |w| does.
    Criterion.L2: Element(torch.square),
    # The largest |w|: of a single weight, its own.
    Criterion.LINF: Element(torch.abs),
    # Mean over batches of |g|.
    Criterion.GRADIENT: Element(_statistic, gradients.mean_magnitude),
    # Mean over batches of (g w)^2, the squared first-order change of the loss without w:
    # Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"
    # (arXiv:1906.10771). Of units: see `units`.
    Criterion.TAYLOR: Element(lambda w, square: w.square() * square, gradients.mean_square),
    # h w^2 / 2: LeCun et al. 1989, "Optimal Brain Damage"; the diagonal of the Hessian, h, is
    # that of the empirical Fisher matrix, the mean over examples of g^2: Theis et al. 2018,
    # "Faster gaze prediction with dense networks and Fisher pruning" (arXiv:1801.05787).
    Criterion.FISHER: Element(
        lambda w, square: 0.5 * w.square() * square, gradients.mean_square_of_examples
    ),
    # |sum over batches of g w|, over the sum of that for all weights: Lee et al. 2019, "SNIP:
    # Single-shot Network Pruning based on Connection Sensitivity" (arXiv:1810.02340).
    Criterion.SNIP: Element(lambda w, g: (w * g).abs(), gradients.mean_gradient, shared=True),
    # Minus the sum over steps of g w: Sanh et al. 2020, "Movement Pruning: Adaptive Sparsity by
    # Fine-Tuning" (arXiv:2005.07683). Negative where a weight moves towards zero.
    Criterion.MOVEMENT: Element(_statistic, trajectory.movement),
    # |w| after training minus |w| before ("magnitude increase"): Zhou et al. 2019,
    # "Deconstructing Lottery Tickets" (arXiv:1905.01067). Can be negative.
    Criterion.WEIGHT_CHANGE: Element(_statistic, trajectory.change),
    # Of a single weight: over the steps of a training run. Of a unit: see `units`.
    Criterion.VARIANCE: Element(_statistic, trajectory.spread),
}


def lamp(values: Tensor) -> Tensor:
    """Each square over the sum of all that are at least as large: in (0, 1], the largest has 1.

    Lee et al. 2021, "Layer-adaptive sparsity for the Magnitude-based Pruning"
    (arXiv:2010.07611). Of equal squares, the one that comes later counts as the larger.

    Args:
        values: squares w^2 of a layer, or squared norms of units, of any shape.
    """
    flat = values.reshape(-1).double()
    order = torch.argsort(flat, stable=True)
    ranked = flat[order]
    at_least = ranked.flip(0).cumsum(0).flip(0)
    found = torch.empty_like(flat)
    found[order] = torch.where(at_least > 0, ranked / at_least, at_least)
    return found.reshape(values.shape)
