"""What is done to gradients between the loss and the optimizer.

Stage: recovery. In: an optimizer whose parameters have gradients. Out: the gradients, changed in
place. Never changes a weight.
"""

import torch
from torch.nn.utils import clip_grad_norm_

from prunecli.tuning import TrainConfig


def pull(optimizer: torch.optim.Optimizer, config: TrainConfig) -> None:
    """L1 decay, then clipping of all gradients together (Pascanu et al. 2013, arXiv:1211.5063).

    L1 decay pulls weights of more than one axis, and leaves those alone that are zero.
    """
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    if config.l1:
        for parameter in parameters:
            if parameter.grad is not None and parameter.dim() > 1:
                parameter.grad.add_(parameter.detach().sign(), alpha=config.l1)
    if config.clip is not None:
        clip_grad_norm_(parameters, config.clip)
