"""Conditions under which a network is trained: repeatable, and within the memory there is.

Stage: recovery. In: a seed, a device. Out: context managers. Never trains.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prunecli.errors import ConfigError


@contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators inside the block only, and let cuDNN choose no faster sums."""
    forked = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=forked),
        torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True
        ),
    ):
        torch.manual_seed(seed)
        yield


@contextmanager
def gradients_for(network: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside the block there are gradients for what the optimizer changes; after it, none."""
    changed = {item for group in optimizer.param_groups for item in group["params"]}
    frozen = [item for item in network.parameters() if item.requires_grad and item not in changed]
    for item in frozen:
        item.requires_grad_(False)
    try:
        yield
    finally:
        for item in frozen:
            item.requires_grad_(True)
        network.zero_grad()


@contextmanager
def within_memory(what: str, device: torch.device) -> Iterator[None]:
    """Say what does not fit, and what to do about it.

    Raises:
        ConfigError: the memory of the device ran out inside the block.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"{what} does not fit the memory of {device}",
            "lower --batch-size, or use --device cpu",
        ) from error
