"""The numbers that training computes with.

Stage: recovery. In: a placed network, inputs, a precision. Out: outputs. Weights, gradients and
the optimizer stay in single precision.
"""

import torch
from torch.fx import GraphModule

from prunecli.choices import Precision
from prunecli.recovery.placement import Placement
from prunecli.recovery.scoring import forward
from prunecli.tasks import Tensors


def forward_in(
    precision: Precision, network: GraphModule, inputs: Tensors, placement: Placement
) -> Tensors:
    """`forward`, with outputs in at least single precision.

    With bf16, operators that gain from it run in bfloat16; those that need digits (norms, sums,
    losses) do not. bfloat16 has the range of float32, so that gradients need no scaling
    (Kalamkar et al. 2019, arXiv:1905.12322).
    """
    reduced = precision is Precision.BF16
    with torch.autocast(placement.device.type, torch.bfloat16, enabled=reduced):
        outputs = forward(network, inputs, placement)
    return tuple(
        item.to(torch.promote_types(item.dtype, torch.float32))
        if item.is_floating_point()
        else item
        for item in outputs
    )
