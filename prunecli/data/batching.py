"""Batches of a split, prepared on the fly and on the device where they are used.

Stage: data. In: a split. Out: pairs of model input and targets. Never shuffles by itself: the
caller owns the order, so that a run can be repeated.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from prunecli.data.records import Split


def batches(
    split: Split,
    preprocess: Callable[[Tensor], Tensor],
    batch_size: int,
    *,
    order: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go over a split once; the last batch may be smaller.

    Stored values travel to the device as they are (uint8 for images) and are prepared there.

    Args:
        preprocess: stored batch to model input, usually the data set's `Preprocess`.
        order: int64 indices `(M,)` into the split, M examples in this order; all of them in
            stored order when left out.
    """
    count = len(split) if order is None else int(order.shape[0])
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        if order is None:
            inputs, targets = split.inputs[start:stop], split.targets[start:stop]
        else:
            rows = order[start:stop].to("cpu")
            inputs, targets = split.inputs[rows], split.targets[rows]
        yield preprocess(inputs.to(device)), targets.to(device)
