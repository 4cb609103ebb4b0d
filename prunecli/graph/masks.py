"""Attention masks of `nn.Transformer`, as they are given.

Stage: graph, while capturing. PyTorch's transformer layers look whether a mask happens to be the
causal one, which is a question about data that `torch.export` cannot answer. The answer only
chooses between two ways to the same result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import transformer


@contextmanager
def masks_as_given() -> Iterator[None]:
    """While this is in force, a mask counts as causal only where the model says so."""
    module: Any = transformer
    original = module._detect_is_causal_mask
    module._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        module._detect_is_causal_mask = original
