"""What a convolution reads at each of its output positions.

Stage: graph. In: a node and the value that it reads. Out: patches. Changes nothing.
"""

from typing import Any

from torch import Tensor, fx
from torch.nn import functional as F

from prunecli.graph.nodes import Shape, argument


def input_patches(node: fx.Node, weight: Shape, source: Tensor) -> Tensor:
    """Input patches (N, C * taps, positions) of a 2-d convolution, or a 1-d one as 2-d.

    Args:
        weight: shape of the weight, (O, I/groups, ...).
        source: (N, C, H, W); (N, C, 1, W) of a 1-d convolution.
    """
    kernel = weight[2:]
    stride, padding, dilation = (
        _pair(argument(node, name), len(kernel), fill)
        for name, fill in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    kernel = kernel if len(kernel) == 2 else (1, *kernel)
    return F.unfold(source, kernel, dilation, padding, stride)


def _pair(given: Any, dims: int, fill: int) -> tuple[int, int]:
    """A convolution argument as a pair; a single number in a list stands for all axes."""
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    values = values * dims if len(values) == 1 else values
    return (values[0], values[1]) if dims == 2 else (fill, values[0])
