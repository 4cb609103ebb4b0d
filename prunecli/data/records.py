"""What the data stage hands on: a data set of three splits, and how a batch of it is prepared.

Stage: data. In: nothing; these are plain records. Never reads a file, never decides a split.
"""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


class Task(StrEnum):
    """What the targets are."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True)
class Preprocess:
    """What happens to a batch of stored examples, on the fly.

    Attributes:
        image: the stored examples are `uint8` images, scaled to 0-1 first.
        mean, std: empty (nothing is done), one number, or one for each channel; the channel axis
            is the first one after the batch, in tables the column.
        resized: height and width, where at least one image had to be resized while reading.
        example_shape: the shape each example gets in the end, where it is not the stored one
            (a network of linear layers that takes images flat).
    """

    image: bool
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resized: tuple[int, int] | None = None
    example_shape: tuple[int, ...] | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        """Stored examples `(B, C, ...)` to the model's input, float32, on the same device."""
        values = batch.to(torch.float32, copy=True)
        if self.image:
            values.div_(255.0)
        if self.mean:
            values.sub_(_along_channels(self.mean, values))
        if self.std:
            values.div_(_along_channels(self.std, values))
        if self.example_shape is not None:
            values = values.reshape(values.shape[0], *self.example_shape)
        return values

    def in_words(self) -> str:
        """The steps as the report states them."""
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
        inputs: `(N, C, H, W)` uint8 for images, `(N, ...)` float32 otherwise; may be mapped from
            a file. N: examples, C: channels, H: height, W: width.
        targets: `(N,)` int64 classes; for regression `(N,)` or `(N, K)` float32, K: targets.
    """

    name: str
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return int(self.targets.shape[0])


@dataclass(frozen=True)
class DataSet:
    """Everything the later stages know about the data.

    Attributes:
        classes: names by output index; empty for regression.
        notes: what was decided while reading, in words.
        skipped: broken examples that were left out, `path: why`.
        named: the source itself names its classes (folders, class labels, strings), so that
            their number is certain; otherwise `classes` counts up to the largest label seen.
    """

    task: Task
    train: Split
    choose: Split
    validation: Split
    preprocess: Preprocess
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    named: bool = True


def in_numbers(shape: tuple[int, ...]) -> str:
    """A shape as people write it: `3x32x32`."""
    return "x".join(str(extent) for extent in shape) or "a single number"


def _along_channels(numbers: tuple[float, ...], values: Tensor) -> Tensor:
    """Numbers shaped to broadcast over axis 1 of `values`."""
    tensor = torch.tensor(numbers, dtype=values.dtype, device=values.device)
    return tensor.reshape(1, -1, *(1,) * (values.dim() - 2)) if values.dim() > 1 else tensor
