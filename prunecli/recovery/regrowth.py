"""Regrowth: weights that matter little go, pruned ones that the gradient asks for return.

Stage: recovery. In: masks, weights, dense gradients. Out: masks of the same sparsity per tensor.
Never changes a weight, and never decides when.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from prunecli.recovery.masking import Masks


def regrown(
    masks: Masks, parameters: Iterable[tuple[str, nn.Parameter]], share: float
) -> dict[str, Tensor]:
    """`masks` after an exchange in every masked tensor that has a gradient.

    RigL (Evci et al. 2020, arXiv:1911.11134); after each further step of pruning, as in GraNet
    (Liu et al. 2021, arXiv:2106.10404).

    Args:
        parameters: by the names in `masks`; their gradients must be those of all weights, masked
            ones too.
        share: of the active weights of each tensor.
    """
    found = dict(masks)
    for name, parameter in parameters:
        if parameter.grad is not None:
            weight, gradient = parameter.detach().cpu(), parameter.grad.cpu()
            found[name] = exchange(masks[name], weight, gradient, share)
    return found


def exchange(mask: Tensor, weight: Tensor, gradient: Tensor, share: float) -> Tensor:
    """Drop a share of the active weights, the smallest; grow as many of those that were inactive,
    the ones with the largest gradients. All of one shape; a draw goes to the first.
    """
    stays, size, pull = mask.reshape(-1), weight.abs().reshape(-1), gradient.abs().reshape(-1)
    active = int(stays.sum())
    count = min(round(share * active), stays.numel() - active)
    # Those that are no candidates come last.
    dropped = size.masked_fill(~stays, torch.inf).argsort(stable=True)[:count]
    grown = pull.masked_fill(stays, -1.0).argsort(descending=True, stable=True)[:count]
    found = stays.clone()
    found[dropped] = False
    found[grown] = True
    return found.reshape(mask.shape)
