"""Random weights under which every part of a network matters.

What constructors leave is no fair test: branches that start at zero (the last norm of a residual
block, layer scale, heads), biases of zero, statistics of batch norms that fit no data, and
activations that vanish with depth. A wrong cut would hide there.
"""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from zoo_entry import Inputs

QUIET, LOUD = 0.3, 3.0
"""A layer whose outputs' standard deviation is outside of this is rescaled to 1."""


def liven(model: nn.Module, inputs: Inputs, generator: Generator) -> None:
    """Re-draw constant parameters, set batch-norm statistics and rescale layers, in place."""
    for parameter in model.parameters():
        _redraw(parameter.data, generator)
    norms = [item for item in model.modules() if isinstance(item, nn.modules.batchnorm._BatchNorm)]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    layers = (nn.modules.conv._ConvNd, nn.Linear)
    hooks = [
        layer.register_forward_hook(_rescale)
        for layer in model.modules()
        if isinstance(layer, layers) and isinstance(layer.weight, nn.Parameter)
    ]
    with torch.no_grad():
        call(model, inputs)
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run with positional or named inputs."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def _redraw(data: Tensor, generator: Generator) -> None:
    """A parameter of equal values: zeros become small, ones and scales vary around what they
    are, and layer scales near zero become large enough to be seen."""
    if data.numel() == 0 or not data.is_floating_point():
        return
    value = float(data.reshape(-1)[0])
    if not bool((data == value).all()):
        return
    if value == 0.0:
        # A head of zeros gets the scale of an ordinary layer.
        deviation = 0.1 if data.dim() < 2 else (data.numel() / data.shape[0]) ** -0.5
        data.normal_(0.0, deviation, generator=generator)
    else:
        size = max(abs(value), 0.1)
        data.uniform_(0.5 * size, 1.5 * size, generator=generator)
        data.mul_(1.0 if value > 0.0 else -1.0)


def _rescale(layer: Any, inputs: Any, output: Tensor) -> Tensor | None:
    deviation = float(output.std())
    if not deviation > 0.0 or QUIET <= deviation <= LOUD:
        return None
    layer.weight.data.div_(deviation)
    if layer.bias is not None:
        layer.bias.data.div_(deviation)
    # Not `output / deviation`: some layers standardise their weights before use.
    again: Tensor = layer.forward(*inputs)
    return again
