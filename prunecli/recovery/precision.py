"""The numbers that training computes with.

Stage: recovery. In: a placed network, inputs, a precision. Out: outputs. Weights, gradients and
the optimizer stay in single precision.
"""

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli.choices import Precision
from prunecli.recovery.placement import Placement
from prunecli.recovery.scoring import forward


def forward_in(
    precision: Precision, network: GraphModule, inputs: Tensor, placement: Placement
) -> Tensor:
    """`forward`, with outputs in at least single precision.

    With bf16, operators that gain from it run in bfloat16; those that need digits (norms, sums,
    losses) do not. bfloat16 has the range of float32, so that gradients need no scaling
    (Kalamkar et al. 2019, arXiv:1905.12322).
    """
    reduced = precision is Precision.BF16
    with torch.autocast(placement.device.type, torch.bfloat16, enabled=reduced):
        outputs = forward(network, inputs, placement)
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
