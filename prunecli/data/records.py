"""What the data stage hands on: a data set of three splits, and how a batch of it is prepared.

Stage: data. In: nothing; these are plain records. Never reads a file, never decides a split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunecli.data.contents import Content
from prunecli.tasks import Labels, Task, Tensors, in_numbers


@dataclass(frozen=True)
class Preprocess:
    """What happens to a batch of one stored input, on the fly.

    Attributes:
        image: the stored examples are `uint8` images, scaled to 0-1 first.
        mean, std: empty (nothing is done), one number, or one for each channel; the channel axis
            is the first one after the batch, in tables the column.
        resized: height and width, where at least one image had to be resized while reading.
        example_shape: the shape each example gets in the end, where it is not the stored one
            (a network of linear layers that takes images flat).
        dtype: of the network's input. Whole numbers (indices, masks, lengths) are handed on as
            they are stored, whatever else stands here.
    """

    image: bool
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resized: tuple[int, int] | None = None
    example_shape: tuple[int, ...] | None = None
    dtype: torch.dtype = torch.float32

    def __call__(self, batch: Tensor) -> Tensor:
        """Stored examples `(B, C, ...)` to the model's input, on the same device."""
        if not self.dtype.is_floating_point:
            return batch.to(self.dtype, copy=True)
        values = batch.to(torch.float32, copy=True)
        if self.image:
            values.div_(255.0)
        if self.mean:
            values.sub_(_along_channels(self.mean, values))
        if self.std:
            values.div_(_along_channels(self.std, values))
        if self.example_shape is not None:
            values = values.reshape(values.shape[0], *self.example_shape)
        return values.to(self.dtype)

    def in_words(self) -> str:
        """The steps as the report states them."""
        if not self.dtype.is_floating_point:
            return "used as stored"
        parts = []
        if self.resized is not None:
            parts.append(f"resized to {self.resized[0]}x{self.resized[1]}")
        if self.image:
            parts.append("scaled to 0-1")
        if self.mean:
            parts.append("mean " + ",".join(f"{value:g}" for value in self.mean))
        if self.std:
            parts.append("std " + ",".join(f"{value:g}" for value in self.std))
        if self.example_shape is not None:
            parts.append("reshaped to " + in_numbers(self.example_shape))
        return ", ".join(parts) or "used as stored"


@dataclass(frozen=True)
class Split:
    """Examples that are used for one purpose.

    Attributes:
        name: `train`, `choose` (picks the best epoch) or `validation` (judges).
        inputs: in the network's order, each `(N, ...)`: uint8 for images, whole numbers as they
            are, float32 otherwise; may be mapped from a file. N: examples.
        targets: in the task's order, each `(N, ...)`: int64 for classes, float32 for numbers.
            None where the task needs none.
    """

    name: str
    inputs: Tensors
    targets: Tensors

    def __len__(self) -> int:
        return int(self.inputs[0].shape[0])


@dataclass(frozen=True)
class DataSet:
    """Everything the later stages know about the data.

    Attributes:
        preprocess: of each input.
        labels: what is known about each target.
        notes: what was decided while reading, in words.
        skipped: broken examples that were left out, `path: why`.
        names: of the inputs, where the source has several; empty for one.
        contents: of the inputs; empty where nothing is known about any.
    """

    task: Task
    train: Split
    choose: Split
    validation: Split
    preprocess: tuple[Preprocess, ...]
    labels: tuple[Labels, ...]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    names: tuple[str, ...] = ()
    contents: tuple[Content, ...] = ()

    def prepare(self, stored: Sequence[Tensor]) -> Tensors:
        """A batch of stored inputs as the network takes them; always copies."""
        return tuple(own(item) for own, item in zip(self.preprocess, stored, strict=True))

    def preprocess_in_words(self) -> str:
        """What is done to the inputs, as the report states it."""
        if len(self.preprocess) == 1:
            return self.preprocess[0].in_words()
        pairs = zip(self.names, self.preprocess, strict=True)
        return "; ".join(f"{name} {own.in_words()}" for name, own in pairs)


def _along_channels(numbers: tuple[float, ...], values: Tensor) -> Tensor:
    """Numbers shaped to broadcast over axis 1 of `values`."""
    tensor = torch.tensor(numbers, dtype=values.dtype, device=values.device)
    return tensor.reshape(1, -1, *(1,) * (values.dim() - 2)) if values.dim() > 1 else tensor
