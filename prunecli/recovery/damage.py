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
    apart = sum(float((a - b).square().sum()) for a, b in zip(now, before, strict=True))
    spread = sum(float((b - b.mean(0, keepdim=True)).square().sum()) for b in before)
    return apart / spread if spread > 0 else 1.0


def _outputs(found: Tensor | Tensors) -> list[Tensor]:
    """Those that are numbers, in double precision."""
    items = found if isinstance(found, tuple) else (found,)
    return [item.double() for item in items if item.is_floating_point() and item.dim()]
