"""What the original answers, as the targets of a task without labels.

Stage: pipeline. In: a data set in the network's order, and the network. Out: the data set with
targets for what is judged. Training asks the original anew, since its inputs may be changed on the
way.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from prunecli.data import DataSet, Split, batches
from prunecli.data.batching import fitting_batch
from prunecli.data.storage import allocate
from prunecli.errors import DataError
from prunecli.graph.capture import Captured
from prunecli.tasks import Tensors
from prunecli.tasks.match import answers_of, numbers_of

ANSWERING_BATCH = 64

MOST_BYTES = 4 << 30
"""What is kept of a split's answers. Examples that need more tell little that fewer would not."""


def answered(data: DataSet, captured: Captured) -> DataSet:
    """The data set with what the original says of the examples that are judged.

    Raises:
        DataError: its outputs cannot be matched, or are too many to be kept.
    """

    def of(split: Split) -> Split:
        return replace(split, targets=_answers(split, data, captured))

    return replace(data, choose=of(data.choose), validation=of(data.validation))


def _answers(split: Split, data: DataSet, captured: Captured) -> Tensors:
    """The original's outputs, in memory or in a file as examples are."""
    held: list[Tensor] = []
    size = _batch(split, data, captured)
    # A fixed batch is filled up by starting over.
    order = torch.arange(-(-len(split) // size) * size) % len(split)
    order = order[: len(split)] if captured.dynamic_batch else order
    start = 0
    for outputs, count in _said(split, data, captured, size, order):
        answers = answers_of(outputs, count)
        if not held:
            held = [
                torch.from_numpy(allocate((len(split), *item.shape[1:]), np.float32))
                for item in answers
            ]
        for own, item in zip(held, answers, strict=True):
            left = min(size, len(split) - start)
            own[start : start + left] = item[:left].float()
        start += size
    return tuple(held)


def _said(
    split: Split, data: DataSet, captured: Captured, size: int, order: Tensor
) -> Iterator[tuple[Tensors, int]]:
    """The original's outputs batch by batch, and of how many examples."""
    with torch.no_grad():
        for inputs, _ in batches(replace(split, targets=()), data.prepare, size, order=order):
            found = captured.network(*inputs)
            yield found if isinstance(found, tuple) else (found,), len(inputs[0])


def _batch(split: Split, data: DataSet, captured: Captured) -> int:
    """How many examples are asked about at once, from what the outputs of the first take.

    Raises:
        DataError: those of all would be too many to be kept.
    """
    size = 1 if captured.dynamic_batch else captured.batch
    first = torch.arange(size) % len(split)
    outputs, _ = next(_said(split, data, captured, size, first))
    needed = 4 * sum(item.numel() for item in numbers_of(outputs)) // size
    if needed * len(split) > MOST_BYTES:
        raise DataError(
            f"data: --task match keeps what the original says, at most {MOST_BYTES / 1e9:.1f} GB "
            f"of each split, got {needed * len(split) / 1e9:.1f} GB for {len(split):,} examples",
            f"read fewer: --max-samples {max(1, MOST_BYTES // needed)}",
        )
    if not captured.dynamic_batch:
        return size
    return fitting_batch(ANSWERING_BATCH, sum(item.numel() for item in outputs))
