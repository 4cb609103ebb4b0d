"""How far a network is from the original, before it is trained.

Stage: recovery. In: both networks and unlabelled examples. Out: one number. Changes nothing.
"""

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli.tasks import Tensors


def damage(network: GraphModule, original: GraphModule, examples: Tensors) -> float:
    """Mean squared difference of the outputs over their variance among the examples: 0 for the
    original itself, about 1 for one that says the same of every example.

    Args:
        examples: prepared inputs, each (N, ...).
    """
    with torch.no_grad():
        now, before = (
            _outputs(each(*(x.clone() for x in examples))) for each in (network, original)
        )
    apart = sum(_size(a - b) for a, b in zip(now, before, strict=True))
    spread = sum(_size(b - b.mean(0, keepdim=True)) for b in before)
    return apart / spread if spread > 0 else 1.0


def _size(differences: Tensor) -> float:
    return float(differences.square().sum(dtype=torch.float64))


def _outputs(found: Tensor | Tensors) -> list[Tensor]:
    """Those that are numbers for each example."""
    items = found if isinstance(found, tuple) else (found,)
    return [item for item in items if item.is_floating_point() and item.dim()]
