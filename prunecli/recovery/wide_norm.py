"""Batch norm over a batch that several processes share.

Stage: recovery. In: a process's part of the input. Out: what batch norm makes of it with the mean
and variance of the whole batch. Never decides who has which part.

torch.nn.SyncBatchNorm is for modules, and for GPUs only.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecli import crew

Result = tuple[Tensor, Tensor, Tensor]


def wide_batch_norm(
    inputs: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    *,
    idle: bool = False,
) -> Result:
    """Output, mean and reciprocal of the standard deviation; running statistics are updated.

    Args:
        inputs: `(N, C, ...)`. N: rows of this process, C: channels.
        idle: the rows of this process do not count.
    """
    with torch.no_grad():
        mean, variance, count = _moments(inputs.detach(), idle)
        _update(running_mean, mean, momentum)
        _update(running_var, variance * (count / (count - 1.0)), momentum)
    reciprocal = torch.rsqrt(variance + eps)
    found: Tensor = _Norm.apply(inputs, weight, bias, mean, variance, reciprocal, eps, count, idle)  # type: ignore[no-untyped-call]
    return found, mean, reciprocal


def _moments(inputs: Tensor, idle: bool) -> tuple[Tensor, Tensor, float]:
    """Mean and (biased) variance of every channel over all processes, and how many numbers each
    is taken over (Chan, Golub & LeVeque 1983)."""
    variance, mean = torch.var_mean(inputs.float(), _axes(inputs), correction=0)
    own = 0 if idle else inputs.numel() // inputs.shape[1]
    sent = torch.cat([mean.new_tensor([own]), mean, variance]).double()
    counts, moments = crew.side_by_side(sent).tensor_split([1], 1)
    means, variances = moments.chunk(2, 1)
    count = counts.sum()
    whole = (counts * means).sum(0) / count
    spread = (counts * (variances + (means - whole).square())).sum(0) / count
    return whole.to(mean.dtype), spread.to(mean.dtype), float(count)


def _update(running: Tensor | None, found: Tensor, momentum: float) -> None:
    if running is not None:
        running.mul_(1.0 - momentum).add_(found.to(running.dtype), alpha=momentum)


def _axes(inputs: Tensor) -> list[int]:
    return [axis for axis in range(inputs.dim()) if axis != 1]


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(1, -1, *(1,) * (like.dim() - 2))


class _Norm(torch.autograd.Function):
    """Forward with given moments; backward as if they had been computed here, which needs two sums
    over all processes (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        reciprocal: Tensor,
        eps: float,
        count: float,
        idle: bool,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, mean, reciprocal)
        ctx.count, ctx.idle = count, idle
        return F.batch_norm(inputs, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, reciprocal = ctx.saved_tensors
        outer = gradients[0].float()
        axes = _axes(inputs)
        normal = (inputs.float() - _along_channels(mean, inputs)) * _along_channels(
            reciprocal, inputs
        )
        own = torch.cat([outer.sum(axes), (outer * normal).sum(axes)])
        plain, along = own.chunk(2)
        if not ctx.needs_input_grad[0]:
            return None, along if weight is not None else None, plain, *(None,) * 6
        summed = crew.add_up(own.clone()) / ctx.count
        mean_plain, mean_along = (_along_channels(item, inputs) for item in summed.chunk(2))
        scale = reciprocal if weight is None else reciprocal * weight.float()
        inner = (outer - mean_plain - normal * mean_along) * _along_channels(scale, inputs)
        if ctx.idle:
            inner = torch.zeros_like(inner)
        return (
            inner.to(inputs.dtype),
            None if weight is None else along.to(weight.dtype),
            plain if ctx.needs_input_grad[2] else None,
            *(None,) * 6,
        )
