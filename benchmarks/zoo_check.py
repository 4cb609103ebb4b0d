"""Comparisons that do not use the engine's own: the pruned graph against the model itself with
zeroed parameters, and onnxruntime against the pruned graph."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from zoo_entry import Inputs

Kept = Mapping[str, Mapping[int, Sequence[int]]]
"""tensor -> axis -> original indices that stay, as a plan has it."""


def leaves(outputs: Any) -> list[Tensor]:
    """All tensors of an output, in order."""
    flat = torch.utils._pytree.tree_leaves(outputs)
    return [item for item in flat if isinstance(item, Tensor)]


def apart(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Largest absolute difference over the largest absolute expected value, per output; the
    largest of these. Another shape, or what is not a number, is infinitely far."""
    worst = 0.0
    for one, two in zip(expected, found, strict=True):
        if one.shape != two.shape or not bool(torch.isfinite(two).all()):
            return float("inf")
        if one.numel():
            scale = float(one.double().abs().max()) or 1.0
            worst = max(worst, float((one.double() - two.double()).abs().max()) / scale)
    return worst


def zero(model: nn.Module, kept: Kept) -> None:
    """Set every entry of a parameter that does not stay to zero, in place."""
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, axes in kept.items():
        if name in named:
            data = named[name].data
            for axis, indices in axes.items():
                data.mul_(_mask(data, axis, indices, _blocks(model, name, axis)))


def _blocks(model: nn.Module, parameter: str, axis: int) -> int:
    """Into how many blocks axis 0 falls, each with indices of its own on `axis`."""
    layer = model.get_submodule(parameter.rpartition(".")[0])
    return layer.groups if axis == 1 and isinstance(layer, nn.modules.conv._ConvNd) else 1


def _mask(data: Tensor, axis: int, indices: Sequence[int], blocks: int) -> Tensor:
    """Ones where `axis` stays; indices count through all blocks."""
    extent = data.shape[axis]
    mask = torch.zeros(blocks * extent, dtype=data.dtype)
    mask[list(indices)] = 1.0
    if blocks == 1:
        return mask.reshape([-1 if place == axis else 1 for place in range(data.dim())])
    rows = mask.reshape(blocks, extent).repeat_interleave(data.shape[0] // blocks, 0)
    return rows.reshape(*rows.shape, *([1] * (data.dim() - 2)))


def onnx_outputs(path: Path, inputs: Inputs) -> list[Tensor]:
    """What onnxruntime computes, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    values = [inputs[name] for name in names] if isinstance(inputs, dict) else list(inputs)
    feed = {name: value.numpy() for name, value in zip(names, values, strict=True)}
    return [torch.from_numpy(np.asarray(item)) for item in session.run(None, feed)]
