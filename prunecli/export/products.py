"""Convolutions whose number of groups is computed, in a form that ONNX has.

Stage: export. In: the arguments of such a convolution. Out: its result. Dynamic convolution gives
every example its own weights by making the batch a number of groups (Yang et al. 2019,
https://arxiv.org/abs/1904.04971). ONNX's groups are a constant; the product of every group's
windows with its weights is the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from prunecli.graph.nodes import argument

CONVOLUTIONS = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default)


def has_computed_groups(node: fx.Node) -> bool:
    """Whether `node` is one."""
    if node.target not in CONVOLUTIONS:
        return False
    return isinstance(argument(node, "groups"), fx.Node)


def multiplied_windows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: list[int] = [1],  # noqa: B006 (as in the operator's schema)
    padding: list[int] = [0],  # noqa: B006
    dilation: list[int] = [1],  # noqa: B006
    groups: int = 1,
) -> Tensor:
    """`aten.conv2d` and `aten.conv1d`, x (N, G * I, ...) and weight (G * O, I, ...)."""
    flat = x.dim() == 3
    if flat:
        x, weight = x.unsqueeze(2), weight.unsqueeze(2)
    height, width = weight.shape[-2:]
    steps, pads, gaps = (
        _pair(item, flat, rest)
        for item, rest in zip((stride, padding, dilation), (1, 0, 1), strict=True)
    )
    own = weight.shape[1]
    grouped = x.reshape(-1, own, *x.shape[2:])
    windows = F.unfold(grouped, (height, width), gaps, pads, steps)
    windows = windows.reshape(x.shape[0], groups, own * height * width, -1)
    found = weight.reshape(1, groups, -1, own * height * width) @ windows
    rows = (x.shape[-2] + 2 * pads[0] - gaps[0] * (height - 1) - 1) // steps[0] + 1
    columns = (x.shape[-1] + 2 * pads[1] - gaps[1] * (width - 1) - 1) // steps[1] + 1
    result = found.reshape(x.shape[0], weight.shape[0], rows, columns)
    if bias is not None:
        result = result + bias.reshape(1, -1, 1, 1)
    return result.squeeze(2) if flat else result


def _pair(given: list[int], flat: bool, rest: int) -> tuple[int, int]:
    if flat:
        return rest, given[0]
    return given[0], given[-1]
