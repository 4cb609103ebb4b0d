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

REDUCED = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def forward_in(
    precision: Precision, network: GraphModule, inputs: Tensors, placement: Placement
) -> Tensors:
    """`forward`, with outputs in at least single precision.

    With bf16 and fp16, operators that gain from it run in these; those that need digits (norms,
    sums, losses) do not. bfloat16 has the range of float32, so that gradients need no scaling
    (Kalamkar et al. 2019, arXiv:1905.12322); those of float16 are scaled (Micikevicius et al. 2018,
    arXiv:1710.03740), see `driving`.
    """
    reduced = REDUCED.get(precision)
    with torch.autocast(placement.device.type, reduced, enabled=reduced is not None):
        outputs = forward(network, inputs, placement)
    return tuple(
        item.to(torch.promote_types(item.dtype, torch.float32))
        if item.is_floating_point()
        else item
        for item in outputs
    )
