"""Targets of a task that the user named: encoded as it needs them, or refused.

Stage: data. In: arrays of targets and what they are targets of. Out: encoded targets. Never
guesses what they mean; that is `layout`'s, where the user says nothing.
"""

from collections.abc import Callable, Mapping

import numpy as np

from prunecli.choices import TaskName
from prunecli.data.layout import Named, encode, finite, squeezed
from prunecli.data.source import AnyArray, Role, Targets, numbered_classes
from prunecli.errors import DataError
from prunecli.tasks import Labels
from prunecli.tasks.task import IGNORED, UNMARKED

Arrays = Mapping[Role, Named]


def encode_for(kind: TaskName | None, targets: Arrays, name: str = "") -> Targets:
    """Encode the targets of a task; those of the user's own (`None`) as they are.

    Args:
        name: of the head, where there are several.

    Raises:
        DataError: the numbers are no targets of that task.
    """
    found = _raw(targets) if kind is None else _FORMS[kind](targets)
    labels = Labels(kind, found.labels.classes, found.labels.named, name)
    note = found.note.replace("targets:", f"target {name}:", 1) if name else found.note
    return Targets(labels, found.values, note)


def _classes(targets: Arrays) -> Targets:
    found = encode(targets)
    if found.labels.kind is not TaskName.CLASSIFICATION:
        raise _unfit(targets, "classification", "one class for each example")
    return found


def _numbers(targets: Arrays) -> Targets:
    values = {}
    for role, named in targets.items():
        if named.array.dtype.kind not in "iubf":
            raise _unfit(targets, "regression", "numbers")
        values[role] = squeezed(named.array).astype(np.float32)
        finite(named.where, values[role])
    return Targets(Labels(TaskName.REGRESSION), values, "targets: numbers (regression)")


def _answers(targets: Arrays) -> Targets:
    values = {}
    for role, named in targets.items():
        array = named.array
        if array.ndim != 2 or not np.isin(array, (0, 1, IGNORED)).all():
            raise _unfit(targets, "multilabel", "a row of 0 and 1 for each example")
        values[role] = array.astype(np.float32)
    width = next(iter(values.values())).shape[1]
    return Targets(
        Labels(TaskName.MULTILABEL), values, f"targets: {width} labels, each of them yes or no"
    )


def _places(axes: int, what: str) -> Callable[[Arrays], Targets]:
    """Class numbers for every token or pixel, with `axes` axes for each example."""

    def encoded(targets: Arrays) -> Targets:
        values = {}
        for role, named in targets.items():
            array = named.array
            if array.dtype.kind not in "iub" or array.ndim != axes + 1:
                raise _unfit(targets, what, f"integers with {axes} axes for each example")
            # Masks may be large: bytes stay bytes.
            small = axes == 2 and array.dtype == np.uint8
            values[role] = array if small else array.astype(np.int64)
            _check_places(named.where, values[role])
        without = (IGNORED, UNMARKED) if axes == 2 else (IGNORED,)
        named = next(iter(targets.values()))
        counting = (array[~np.isin(array, without)] for array in values.values())
        classes = numbered_classes(named.where, counting)
        note = f"targets: class numbers up to {len(classes) - 1} ({what})"
        return Targets(Labels(None, classes, named=False), values, note)

    return encoded


def _check_places(where: str, values: AnyArray) -> None:
    wrong = values[(values < 0) & (values != IGNORED)]
    if wrong.size:
        raise DataError(
            f"{where}: labels must count from 0, got {int(wrong.flat[0])}",
            f"number the classes from 0; {IGNORED} says that a place does not count",
        )


def _raw(targets: Arrays) -> Targets:
    """Whole numbers as int64, others as float32."""
    values = {}
    for role, named in targets.items():
        kind = named.array.dtype.kind
        if kind not in "iubf":
            raise _unfit(targets, "of your own", "numbers")
        values[role] = named.array.astype(np.float32 if kind == "f" else np.int64)
    return Targets(Labels(None), values, "targets: as they are stored")


def _unfit(targets: Arrays, task: str, needed: str) -> DataError:
    named = next(iter(targets.values()))
    got = f"{named.array.dtype} of shape {tuple(named.array.shape)}"
    return DataError(
        f"{named.where}: --task {task} needs {needed} as targets, got {got}",
        "check --task, or write the targets in that form",
    )


_FORMS: Mapping[TaskName, Callable[[Arrays], Targets]] = {
    TaskName.CLASSIFICATION: _classes,
    TaskName.REGRESSION: _numbers,
    TaskName.MULTILABEL: _answers,
    TaskName.SEGMENTATION: _places(2, "segmentation"),
    TaskName.TOKEN_CLASSIFICATION: _places(1, "token-classification"),
    TaskName.LANGUAGE_MODELLING: _places(1, "language-modelling"),
    TaskName.MASKED_LANGUAGE_MODELLING: _places(1, "masked-language-modelling"),
}
