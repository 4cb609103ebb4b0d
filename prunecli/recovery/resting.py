"""A pause in training: the network as it is outside of it.

Stage: recovery. In: a placed network in training mode. Out: the same network at home, in
evaluation mode and without gradients, for the length of a block. Never changes a weight; after
the block training goes on bit for bit as it would have.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.fx import GraphModule

from prunecli.recovery.mode import set_training
from prunecli.recovery.placement import Placement, at_home


@contextmanager
def at_rest(network: GraphModule, placement: Placement) -> Iterator[None]:
    """Let the block run and differentiate the network, e.g. to score its weights on data."""
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    device = placement.device
    set_training(network, False)
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            at_home(network, placement),
        ):
            yield
    finally:
        set_training(network, True)
    for parameter, gradient in gradients:
        parameter.grad = gradient
