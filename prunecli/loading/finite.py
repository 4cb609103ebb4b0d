"""Refusing weights that are not numbers.

Stage: loading. In: named tensors. Out: nothing, or a `CheckpointError` that names the tensor.
Never changes a value.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from prunecli.errors import CheckpointError


def check_finite(
    path: Path, parameters: Mapping[str, torch.Tensor], buffers: Mapping[str, torch.Tensor]
) -> None:
    """Check every value.

    Args:
        path: for the message.
        parameters: must be finite.
        buffers: must be finite too, except that -inf is allowed (attention masks hold it).

    Raises:
        CheckpointError: NaN or an infinite value.
    """
    for named, masks_allowed in ((parameters, False), (buffers, True)):
        for name, tensor in named.items():
            if not tensor.is_floating_point() or tensor.is_meta:
                continue
            # What holds a byte is not compared as it is.
            values = tensor.detach().float() if tensor.itemsize == 1 else tensor.detach()
            bad = ~torch.isfinite(values)
            if masks_allowed:
                bad &= values != -torch.inf
            count = int(bad.sum())
            if count:
                kind = "NaN" if bool(values.isnan().any()) else "infinite values"
                raise CheckpointError(
                    f"checkpoint {path}: weights must be finite, got {kind} in {name} "
                    f"({count} of {tensor.numel()})",
                    "the training diverged before this was saved: use an earlier checkpoint",
                )
