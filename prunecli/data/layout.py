"""What the numbers of an array mean: classes or quantities, images or features, which axis is what.

Stage: data. In: arrays of inputs and targets. Out: encoded targets, and inputs whose channels
come first. Never opens a file, never copies an array of inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunecli.choices import TaskName
from prunecli.data.source import (
    AnyArray,
    Role,
    Targets,
    check_labels,
    counted,
    listed,
    names_to_labels,
    numbered_classes,
)
from prunecli.errors import DataError
from prunecli.tasks import Labels, in_numbers

_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Named:
    """An array and what a message calls it."""

    where: str
    array: AnyArray


def encode(targets: Mapping[Role, Named]) -> Targets:
    """Encode targets: integers, texts and one-hot rows are classes, floats are quantities.

    Args:
        targets: of each part, the training part first.

    Raises:
        DataError: the parts disagree, or the numbers fit neither meaning.
    """
    arrays = {role: squeezed(named.array) for role, named in targets.items()}
    wheres = {role: named.where for role, named in targets.items()}
    first = next(iter(arrays))
    kinds = {array.dtype.kind.replace("u", "i") for array in arrays.values()}
    if len(kinds) > 1:
        raise DataError(
            f"{wheres[first]}: targets of all splits must have one type, got "
            f"{listed(array.dtype for array in arrays.values())}",
            "integers are classes, floats are regression targets",
        )
    kind, axes = kinds.pop(), {array.ndim for array in arrays.values()}
    if kind in "US" and axes == {1}:
        return _texts(arrays, wheres, first)
    if all(_is_one_hot(array) for array in arrays.values()):
        return _one_hot(arrays, wheres, first)
    if kind in "ib" and axes == {1}:
        labels = {role: check_labels(wheres[role], array) for role, array in arrays.items()}
        classes = numbered_classes(wheres[first], labels.values())
        note = f"targets: integers, class numbers up to {len(classes) - 1}"
        return Targets(Labels(TaskName.CLASSIFICATION, classes, named=False), labels, note)
    if kind == "f" and axes <= {1, 2} and len(axes) == 1:
        numbers = {role: array.astype(np.float32) for role, array in arrays.items()}
        for role, values in numbers.items():
            finite(wheres[role], values)
        return Targets(Labels(TaskName.REGRESSION), numbers, "targets: floats (regression)")
    raise DataError(
        f"{wheres[first]}: targets must be one class, or some floats, for each example, got "
        f"{in_numbers(arrays[first].shape[1:])} of {arrays[first].dtype}",
        "integers are classes, floats are regression targets; for anything else say --task",
    )


def arrange(named: Named, sample_shape: tuple[int, ...] | None) -> tuple[AnyArray, str]:
    """Inputs as `(N, C, H, W)` uint8 if they are images, else as they are, and a note.

    Args:
        sample_shape: what the model takes, without the batch, where known.

    Raises:
        DataError: not numbers, or an image's channels cannot be told from its height and width.
    """
    values = named.array
    if values.dtype.kind not in "iubf":
        raise DataError(
            f"{named.where}: inputs must be numbers, got {values.dtype}",
            "save them with a numeric dtype",
        )
    if values.dtype != np.uint8:
        return values, ""
    if values.ndim == 2 and sample_shape is not None and len(sample_shape) == 3:
        if int(np.prod(sample_shape)) == values.shape[1]:
            note = f"rows of {values.shape[1]} bytes are images of {in_numbers(sample_shape)}"
            return values.reshape(-1, *sample_shape), note
    elif values.ndim == 3:
        return values[:, None], ""
    elif values.ndim == 4:
        if _channels_last(named, sample_shape):
            return np.moveaxis(values, -1, 1), "images: stored with channels last"
        return values, ""
    return values, "bytes are used as numbers, not scaled (--std 255 would scale them to 0-1)"


def _channels_last(named: Named, sample_shape: tuple[int, ...] | None) -> bool:
    a, b, c = named.array.shape[1:]
    if sample_shape == (a, b, c):
        return False
    if sample_shape == (c, a, b):
        return True
    if a in _CHANNELS or c in _CHANNELS:
        return a not in _CHANNELS
    raise DataError(
        f"{named.where}: images need an axis of 1 or 3 channels, got {in_numbers((a, b, c))}",
        f"if the channels come first: --input-shape 1,{a},{b},{c}",
    )


def squeezed(array: AnyArray) -> AnyArray:
    """Targets without an axis of one entry: `(N, 1)` as `(N,)`."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _texts(arrays: Mapping[Role, AnyArray], wheres: Mapping[Role, str], first: Role) -> Targets:
    try:
        texts = {role: array.astype(str) for role, array in arrays.items()}
    except UnicodeDecodeError as error:
        raise DataError(
            f"{wheres[first]}: targets that are texts must be ASCII or str, got {error.object!r}",
            "write them as str, or number the classes",
        ) from error
    classes = tuple(sorted(set(texts[first].tolist())))
    labels = {role: names_to_labels(wheres[role], text, classes) for role, text in texts.items()}
    note = f"targets: texts, {counted(len(classes), 'class')}: {listed(classes)}"
    return Targets(Labels(TaskName.CLASSIFICATION, classes), labels, note)


def _is_one_hot(array: AnyArray) -> bool:
    if array.ndim != 2 or array.dtype.kind not in "iubf":
        return False
    return bool(np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all())


def _one_hot(arrays: Mapping[Role, AnyArray], wheres: Mapping[Role, str], first: Role) -> Targets:
    width = arrays[first].shape[1]
    for role, array in arrays.items():
        if array.shape[1] != width:
            raise DataError(
                f"{wheres[role]}: classes must be those of the training data, {width}, "
                f"got {array.shape[1]}",
                "the same classes are needed in every split",
            )
    labels = {role: array.argmax(axis=1).astype(np.int64) for role, array in arrays.items()}
    names = tuple(str(index) for index in range(width))
    note = f"targets: one-hot, {counted(width, 'class')}"
    return Targets(Labels(TaskName.CLASSIFICATION, names), labels, note)


def finite(where: str, values: AnyArray) -> None:
    """Raise for targets that are no numbers.

    Raises:
        DataError: such a target.
    """
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise DataError(
            f"{where}: targets must be finite numbers, got {values[int(np.argmax(bad))]} "
            f"(row {int(np.argmax(bad)) + 1})",
            "fill in or remove such examples",
        )
