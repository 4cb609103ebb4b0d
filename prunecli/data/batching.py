"""Batches of a split, prepared on the fly and on the device where they are used.

Stage: data. In: a split. Out: pairs of model inputs and targets. Never shuffles by itself: the
caller owns the order, so that a run can be repeated.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from prunecli.data.records import Split
from prunecli.tasks import Tensors

MOST_ELEMENTS = 1 << 26
"""Numbers in the outputs of a batch that is only judged: 256 MiB in single precision."""


def fitting_batch(batch_size: int, elements: int, step: int = 1) -> int:
    """`batch_size`, or fewer examples where their outputs would take too much memory.

    Args:
        elements: of the outputs for one example.
        step: the only batch size that the network takes; then whole batches of it.
    """
    if batch_size * elements <= MOST_ELEMENTS:
        return batch_size
    return max(step, MOST_ELEMENTS // elements // step * step)


def batches(
    split: Split,
    prepare: Callable[[Tensors], Tensors],
    batch_size: int,
    *,
    order: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensors, Tensors]]:
    """Go over a split once; the last batch may be smaller.

    Stored values travel to the device as they are (uint8 for images) and are prepared there.

    Args:
        prepare: stored inputs to those of the model, usually the data set's `prepare`.
        order: int64 indices `(M,)` into the split, M examples in this order; all of them in
            stored order when left out.
    """
    count = len(split) if order is None else int(order.shape[0])
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        rows = slice(start, stop) if order is None else order[start:stop].to("cpu")
        inputs, targets = (
            tuple(item[rows].to(device) for item in items)
            for items in (split.inputs, split.targets)
        )
        yield prepare(inputs), targets
