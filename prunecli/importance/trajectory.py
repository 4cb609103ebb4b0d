"""How weights move in a short training run, on a copy.

Stage: importance. In: `Evidence`. Out: per parameter, one number for each element. The network
itself stays as it is.

The run: plain SGD from the network's weights, `STEPS` steps over the calibration batches in their
order, again and again, at the rate `RATE`, in evaluation mode (batch norms keep their statistics).
A gradient of all parameters that is longer than `LONGEST` is shortened to it (Pascanu et al. 2013,
"On the difficulty of training recurrent neural networks", arXiv:1211.5063), so that the run stays
near the network whatever the scale of its loss.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prunecli.importance.evidence import Evidence
from prunecli.importance.gradients import Statistics, at_least_single, gradients, leaves

STEPS = 32
RATE = 0.01
LONGEST = 1.0

Visit = Callable[[str, Tensor, Tensor], None]
"""Called with a name, its weight and its gradient (shortened) before every step."""


def movement(evidence: Evidence, names: Sequence[str]) -> Statistics:
    """Minus the sum over steps of g * w: positive where a weight moves away from zero."""
    total: dict[str, Tensor] = {}

    def visit(name: str, weight: Tensor, gradient: Tensor) -> None:
        piece = at_least_single(weight) * gradient
        total[name] = total[name].sub_(piece) if name in total else piece.neg_()

    _train(evidence, names, visit)
    return total


def change(evidence: Evidence, names: Sequence[str]) -> Statistics:
    """|w| after the run minus |w| before it."""
    before = leaves(evidence.captured.network)
    after = _train(evidence, names, lambda *_: None)
    return {name: (after[name].abs() - before[name].abs()).detach() for name in names}


def spread(evidence: Evidence, names: Sequence[str]) -> Statistics:
    """Variance of a weight over the points of the run, the first and the last among them."""
    start = leaves(evidence.captured.network)
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}

    def visit(name: str, weight: Tensor, _: Tensor) -> None:
        # Away from the start the numbers are small, so that squares lose nothing.
        away = at_least_single(weight) - start[name].detach()
        sums[name] = sums[name].add_(away) if name in sums else away.clone()
        away = away.square_()
        squares[name] = squares[name].add_(away) if name in squares else away

    end = _train(evidence, names, visit)
    for name in names:
        visit(name, end[name].detach(), end[name])
    points = STEPS + 1
    return {
        name: squares[name].div_(points).sub_(sums[name].div_(points).square_()).clamp_(min=0.0)
        for name in names
    }


def _train(evidence: Evidence, names: Sequence[str], visit: Visit) -> dict[str, Tensor]:
    """The run; the weights at its end."""
    network = evidence.captured.network
    weights = leaves(network, copied=True)
    moving = _each_once(weights)
    cuts = evidence.cuts()
    repeats = -(-STEPS // len(cuts))
    batches = evidence.batches(f"{STEPS} training steps on a copy", (cuts * repeats)[:STEPS])
    task = evidence.examples().task
    own = {name: next(x for x in moving if weights[x] is weights[name]) for name in names}
    for batch in batches:
        found = gradients(network, weights, moving, batch, task)
        found = _shortened(found)
        with torch.no_grad():
            for name in names:
                visit(name, weights[name].detach(), found[own[name]])
            for name in moving:
                weights[name].sub_(found[name], alpha=RATE)
    return weights


def _each_once(weights: dict[str, Tensor]) -> list[str]:
    """One name of every parameter that can move."""
    known: dict[int, str] = {}
    for name, tensor in weights.items():
        if tensor.requires_grad:
            known.setdefault(id(tensor), name)
    return list(known.values())


def _shortened(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients scaled so that all of them together are at most `LONGEST` long."""
    norms = (torch.linalg.vector_norm(item, dtype=torch.float64) for item in found.values())
    length = math.hypot(*(float(norm) for norm in norms))
    if length <= LONGEST:
        return found
    # Not in place: autograd may hand out one tensor as the gradient of several weights.
    return {name: item * (LONGEST / length) for name, item in found.items()}
