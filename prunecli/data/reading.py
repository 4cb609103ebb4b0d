"""Rows of one part as arrays in the model's shape: decoded, resized, converted, checked.

Stage: data. In: one input of a part, the rows of each split, what the user and the model want.
Out: one array for each split: uint8 images, whole numbers, or float32. Never decides who gets
which row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prunecli.config import DataConfig
from prunecli.data.images import choose_frame, decode
from prunecli.data.pixels import Frame
from prunecli.data.preparing import check_normalisation
from prunecli.data.source import AnyArray, Blob, Blobs, Deferred, Examples, Rows
from prunecli.data.storage import COPY_ROWS, take
from prunecli.errors import DataError
from prunecli.progress import Reporter
from prunecli.tasks import in_numbers

Shape = tuple[int, ...]

_WHOLE: dict[str, np.dtype[Any]] = {
    "u2": np.dtype(np.int32),
    "u4": np.dtype(np.int64),
    "u8": np.dtype(np.int64),
}
"""Types that PyTorch does not compute with, and those that hold the same numbers."""


@dataclass(frozen=True)
class Read:
    """What came of reading one input of a part.

    Attributes:
        groups: for each split its examples and the rows that they are.
        image: the examples are uint8 images.
        frame: what images were decoded to, where they were decoded.
        example_shape: what `Preprocess.example_shape` must be.
        note: how the examples were brought into the model's shape.
    """

    groups: tuple[tuple[AnyArray, Rows], ...]
    image: bool
    frame: Frame | None = None
    example_shape: Shape | None = None
    skipped: tuple[str, ...] = ()
    resized: bool = False
    note: str = ""

    @property
    def stored_shape(self) -> Shape:
        return self.groups[0][0].shape[1:]


def read_input(
    where: str,
    examples: Examples,
    groups: Sequence[Rows],
    config: DataConfig,
    sample_shape: Shape | None,
    reporter: Reporter,
    frame: Frame | None = None,
) -> Read:
    """Read the rows of all groups, each example once.

    Args:
        where: how messages name the part.
        sample_shape: what the model takes, without the batch, where known.
        frame: the training part's, so that all parts get the same.

    Raises:
        DataError: examples do not have the model's shape, are not finite, or too many are broken.
    """
    if isinstance(examples, Deferred):
        return _read_deferred(where, examples, groups, config, sample_shape, reporter)
    if isinstance(examples, np.ndarray):
        if not may_be_image(examples):
            return _read_numbers(where, examples, groups, config, sample_shape)
        if _fits(examples.shape[1:], config, sample_shape):
            check_normalisation(config, True, examples.shape[1])
            taken = tuple((take(examples, rows, np.uint8), rows) for rows in groups)
            shape, _ = reshaped(where, examples.shape[1:], sample_shape)
            return Read(taken, True, example_shape=shape)
        examples = Blobs(_ArrayImages(examples))
    if frame is None:
        images = examples.read(groups[0])
        frame = choose_frame(images, sample_shape, config.image_size, where)
    check_normalisation(config, True, frame.channels)
    decoded = decode(examples, groups, frame, reporter, where)
    shape, _ = reshaped(where, decoded.frame.shape, sample_shape)
    return Read(
        decoded.groups,
        True,
        # A later part follows this one, whatever colours it has.
        replace(decoded.frame, convert=True),
        shape,
        decoded.skipped,
        decoded.resized,
    )


def may_be_image(examples: Examples) -> bool:
    """Whether these are images; of arrays, bytes with four axes."""
    if not isinstance(examples, np.ndarray):
        return isinstance(examples, Blobs)
    return bool(examples.dtype == np.uint8 and examples.ndim == 4)


def reshaped(where: str, own: Shape, sample: Shape | None) -> tuple[Shape | None, Shape | None]:
    """How examples of shape `own` become the model's: the shape after, or before, preparing.

    Images or signals that a model takes flat are flattened after they were normalised by
    channel; flat rows that a model takes as images are given their shape while they are read.

    Returns:
        At most one shape: for `Preprocess.example_shape`, or for storing.

    Raises:
        DataError: the shapes have nothing to do with each other.
    """
    if sample is None or own == sample:
        return None, None
    if np.prod(own, dtype=np.int64) == np.prod(sample, dtype=np.int64):
        bare, bare_sample = _squeezed(own), _squeezed(sample)
        if bare == bare_sample or len(bare) <= 1:
            return None, sample
        if len(bare_sample) <= 1:
            return sample, None
    raise DataError(
        f"{where}: examples must have the model's input shape {_in_words(sample)}, "
        f"got {_in_words(own)}",
        "check --data, or give the input's shape with --input-shape",
    )


def _fits(own: Shape, config: DataConfig, sample: Shape | None) -> bool:
    """Whether stored images can be used as they are."""
    if config.image_size is not None and own[1:] != (config.image_size, config.image_size):
        return False
    return sample is None or len(sample) != 3 or own == sample


def _read_numbers(
    where: str,
    examples: AnyArray,
    groups: Sequence[Rows],
    config: DataConfig,
    sample: Shape | None,
) -> Read:
    """Anything that is not an image: whole numbers as they are, others as float32."""
    note = ""
    own = examples.shape[1:]
    if sample is not None and len(own) == 3 and own != sample and (own[2], *own[:2]) == sample:
        examples = np.moveaxis(examples, -1, 1)
        note = "inputs: channels moved from the last to the first axis"
    example_shape, stored_shape = reshaped(where, examples.shape[1:], sample)
    if stored_shape is not None:
        examples = examples.reshape(-1, *stored_shape)
        note = f"inputs: {in_numbers(own)} as {in_numbers(stored_shape)}"
    check_normalisation(config, False, examples.shape[1] if examples.ndim > 1 else 1)
    taken = []
    kind = np.dtype(np.float32)
    if examples.dtype.kind in "iub":
        kind = _WHOLE.get(examples.dtype.str[1:], examples.dtype)
    for rows in groups:
        with np.errstate(over="ignore"):
            values = take(examples, rows, kind)
        if kind == np.float32:
            _check_finite(where, values, rows)
        taken.append((values, rows))
    return Read(tuple(taken), False, example_shape=example_shape, note=note)


def _read_deferred(
    where: str,
    examples: Deferred,
    groups: Sequence[Rows],
    config: DataConfig,
    sample: Shape | None,
    reporter: Reporter,
) -> Read:
    """What is made now, a group at a time."""
    taken, note, example_shape, done = [], "", None, 0
    with reporter.step(f"Reading {where}", sum(map(len, groups))) as step:
        for rows in groups:
            values = examples.read(rows)
            own = values.shape[1:]
            example_shape, stored_shape = reshaped(where, own, sample)
            if stored_shape is not None:
                values = values.reshape(-1, *stored_shape)
                note = f"inputs: {in_numbers(own)} as {in_numbers(stored_shape)}"
            _check_finite(where, values, rows)
            taken.append((values, rows))
            done += len(rows)
            step.update(done)
    check_normalisation(config, False, values.shape[1] if values.ndim > 1 else 1)
    return Read(tuple(taken), False, example_shape=example_shape, note=note)


def _check_finite(where: str, values: AnyArray, rows: Rows) -> None:
    for start in range(0, len(values), COPY_ROWS):
        block = values[start : start + COPY_ROWS]
        good = np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if not good.all():
            row = int(rows[start + int(np.argmin(good))]) + 1
            raise DataError(
                f"{where}: inputs must be finite numbers, got NaN or infinity (row {row})",
                "fill in or remove such examples",
            )


def _squeezed(shape: Shape) -> Shape:
    return tuple(extent for extent in shape if extent != 1)


def _in_words(shape: Shape) -> str:
    return f"{shape[0]} values" if len(shape) == 1 else in_numbers(shape)


class _ArrayImages:
    """Yields images `(N, C, H, W)` one by one, to be resized; a class only to hold the array."""

    def __init__(self, images: AnyArray) -> None:
        self.images = images

    def __call__(self, rows: Rows) -> Iterator[Blob]:
        for row in rows.tolist():
            pixels = np.moveaxis(self.images[row], 0, -1)
            yield Blob(row, f"row {row + 1}", pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
