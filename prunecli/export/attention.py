"""Attention over more than four axes, in a form that ONNX has.

Stage: export. In: the arguments of such attention. Out: its result.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from prunecli.graph.nodes import argument

AXES = 4
"""Batch, heads, tokens, width."""


def has_more_axes(node: fx.Node) -> bool:
    """Whether `node` is one. Where the mask has these axes too, it is left as it is."""
    if node.target is not torch.ops.aten.scaled_dot_product_attention.default:
        return False
    query, mask = (argument(node, name) for name in ("query", "attn_mask"))
    return bool(_rank(query) > AXES and _rank(mask) <= 2)


def with_four_axes(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> Tensor:
    """`aten.scaled_dot_product_attention`: all axes before the last three become one."""
    lead = query.shape[:-3]
    query, key, value = (item.flatten(0, -AXES) for item in (query, key, value))
    found = F.scaled_dot_product_attention(query, key, value, *rest, **more)
    return torch.unflatten(found, 0, lead)


def _rank(item: Any) -> int:
    val = item.meta.get("val") if isinstance(item, fx.Node) else None
    return val.dim() if isinstance(val, Tensor) else 0
