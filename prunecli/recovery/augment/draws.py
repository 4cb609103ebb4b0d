"""Random numbers for changes.

Stage: recovery. In: a shape, a device. Out: numbers from PyTorch's global generator on the CPU, so
that every device is given the same ones. Never seeds it.
"""

import torch
from torch import Tensor


def evenly(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Float32 in [0, 1), where `like` is."""
    return torch.rand(shape).to(like.device)


def between(low: float, high: float, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Float32 in [low, high), where `like` is."""
    return low + (high - low) * evenly(shape, like)


def noise(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Normally distributed float32 of variance 1, where `like` is."""
    return torch.randn(shape).to(like.device)
