"""Columns of a table as the targets of a task: which they are, and what they come to.

Stage: data. In: Arrow tables and what the user says of the task. Out: encoded targets. Never
opens a file; single columns are understood in `columns`, lists in `answers`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from prunecli.choices import TaskName
from prunecli.data.answers import are_answers, encode_answers, may_be_answers
from prunecli.data.columns import NamedTable, encode_targets, is_list, numbers_of
from prunecli.data.encoding import encode_for
from prunecli.data.layout import Named
from prunecli.data.source import TARGET_NAMES, AnyArray, Role, Targets, listed
from prunecli.data.wanted import Wanted
from prunecli.errors import ConfigError, DataError

_COLUMN_HINT = "say which columns hold the targets: --target-column NAME,NAME"


@dataclass(frozen=True)
class Aim:
    """One target and the columns that hold it.

    Attributes:
        kind: what it is a target of; `None`: what it looks like.
        name: of the head, where there are several.
    """

    kind: TaskName | None
    columns: tuple[str, ...]
    name: str = ""


def aims(
    learn: NamedTable, wanted: Wanted, likely: str | None, inputs: Sequence[str] | None
) -> tuple[Aim, ...]:
    """Which columns hold the targets; none where the task needs none.

    Args:
        learn: the training table.
        likely: the column to take for a single target where the user says nothing.
        inputs: columns of the inputs, where they are known; the others may be targets.

    Raises:
        ConfigError: `--target-column` does not fit `--task`.
        DataError: there is no such column.
    """
    given, task = wanted.config.target_columns, wanted.task
    names = [str(name) for name in learn.table.column_names]
    _check_there(learn, given, "--target-column")
    if not wanted.labelled:
        return ()
    if task is not None and task.heads:
        return _of_heads(learn, wanted)
    if task is not None and task.custom is not None and len(given) > 1:
        return tuple(Aim(None, (name,), name) for name in given)
    kind = None if task is None else task.name
    if kind is TaskName.MULTILABEL and not given:
        others = [name for name in names if inputs is not None and name not in inputs]
        return (Aim(kind, _answers(learn, likely, others)),)
    if len(given) > 1 and kind not in (TaskName.MULTILABEL, TaskName.REGRESSION):
        got = "without --task" if task is None else f"with --task {task.in_words()}"
        raise ConfigError(
            f"--target-column: several columns are for multilabel, regression or several outputs, "
            f"got {listed(given)} {got}",
            "say what they are, e.g. --task multilabel or --task 'digit=classification,...'",
        )
    columns = given or ((likely,) if likely is not None else ())
    if not columns:
        raise DataError(
            f"{learn.where}: a column of targets is needed, got {listed(map(repr, names))}",
            f"call it 'label', or {_COLUMN_HINT}",
        )
    return (Aim(kind, columns),)


def by_name(names: Sequence[str]) -> str | None:
    """The column that is called like a target."""
    for wanted in TARGET_NAMES:
        for name in names:
            if name.strip().lower() == wanted:
                return name
    return None


def encode_aims(
    tables: Mapping[Role, NamedTable],
    found: Sequence[Aim],
    wanted: Wanted,
    *,
    integers_are_classes: bool = False,
) -> tuple[Targets, ...]:
    """All targets, encoded.

    Raises:
        DataError: the columns hold none of that kind.
    """
    made = []
    for aim in found:
        targets = _encoded(tables, aim, wanted, integers_are_classes)
        labels = replace(targets.labels, name=aim.name)
        note = targets.note
        if aim.name:
            note = note.replace("target:", f"target {aim.name}:", 1)
        made.append(Targets(labels, targets.values, note))
    return tuple(made)


def _of_heads(learn: NamedTable, wanted: Wanted) -> tuple[Aim, ...]:
    given, task = wanted.config.target_columns, wanted.task
    assert task is not None
    if given and len(given) != len(task.heads):
        raise ConfigError(
            f"--target-column: one column for each of {len(task.heads)} outputs is needed, "
            f"got {listed(given)}",
            "write them in the order of --task, or call the columns like the outputs",
        )
    columns = given or tuple(head.name for head in task.heads)
    for name in columns:
        if name not in learn.table.column_names:
            raise DataError(
                f"{learn.where}: a column {name!r} of targets is needed, "
                f"got {listed(map(repr, learn.table.column_names))}",
                "call the columns like the outputs in --task, or name them: --target-column",
            )
    pairs = zip(task.heads, columns, strict=True)
    return tuple(Aim(head.task, (column,), head.name) for head, column in pairs)


def _answers(learn: NamedTable, likely: str | None, others: Sequence[str]) -> tuple[str, ...]:
    """The list that is called like a target, or else all columns of yes and no."""
    if likely is not None and may_be_answers(learn, likely):
        return (likely,)
    columns = tuple(name for name in others if are_answers(learn, name))
    if not columns:
        raise DataError(
            f"{learn.where}: --task multilabel needs a list of labels, or a column of 0 and 1 for "
            f"each label, got {listed(map(repr, learn.table.column_names))}",
            _COLUMN_HINT,
        )
    return columns


def _encoded(
    tables: Mapping[Role, NamedTable], aim: Aim, wanted: Wanted, integers_are_classes: bool
) -> Targets:
    if aim.kind is TaskName.MULTILABEL:
        return encode_answers(tables, aim.columns, wanted.classes)
    if aim.kind is TaskName.REGRESSION:
        return _numbers(tables, aim.columns)
    if aim.kind in (None, TaskName.CLASSIFICATION):
        sure = integers_are_classes or aim.kind is not None
        (column,) = aim.columns
        found = encode_targets(tables, column, integers_are_classes=sure, known=wanted.classes)
        if aim.kind is None or found.labels.kind is aim.kind:
            return found
    own = next(iter(tables.values()))
    kind = listed(own.table.column(name).type for name in aim.columns)
    needs = {
        TaskName.CLASSIFICATION: "one class for each example",
        TaskName.SEGMENTATION: "images with masks",
    }.get(aim.kind or TaskName.CLASSIFICATION, "texts and a network with a tokenizer")
    raise DataError(
        f"{own.where}: --task {aim.kind} needs {needs}, "
        f"got column {listed(map(repr, aim.columns))} of type {kind}",
        "write classes as whole numbers or names, or check --task"
        if aim.kind is TaskName.CLASSIFICATION
        else "check --task and --data, or write inputs and targets as .npz",
    )


def _numbers(tables: Mapping[Role, NamedTable], columns: tuple[str, ...]) -> Targets:
    arrays = {role: Named(own.where, _stacked(own, columns)) for role, own in tables.items()}
    found = encode_for(TaskName.REGRESSION, arrays)
    note = f"target: column {listed(map(repr, columns))}, numbers (regression)"
    return Targets(found.labels, found.values, note)


def _stacked(own: NamedTable, columns: tuple[str, ...]) -> AnyArray:
    """`(N,)` of one column, `(N, K)` of several, or of lists of K numbers."""
    if len(columns) == 1 and is_list(own.table.column(columns[0]).type):
        return list_numbers(own, columns[0])
    parts = [numbers_of(own.where, name, own.table.column(name)) for name in columns]
    return parts[0] if len(parts) == 1 else np.stack(parts, 1)


def list_numbers(own: NamedTable, name: str) -> AnyArray:
    """A column of lists of numbers, all of one length, as `(N, K)`.

    Raises:
        DataError: lengths differ, or entries are no numbers.
    """
    column: Any = own.table.column(name).combine_chunks()
    lengths = column.value_lengths() if len(column) else pa.array([1])
    sizes = set(lengths.to_pylist())
    if len(sizes) != 1 or None in sizes:
        raise DataError(
            f"{own.where}: lists of one length are needed in column {name!r}, got lengths "
            f"{listed(sorted(size or 0 for size in sizes))}",
            "write as many numbers in every row",
        )
    values = numbers_of(own.where, name, column.flatten())
    return values.reshape(len(column), -1)


def _check_there(learn: NamedTable, names: Sequence[str], flag: str) -> None:
    for name in names:
        if name not in learn.table.column_names:
            raise DataError(
                f"{flag}: must name columns of {learn.where}, got {name!r}",
                f"its columns are {listed(learn.table.column_names, 12)}",
            )


def check_there(learn: NamedTable, names: Sequence[str]) -> None:
    """Raise for columns of `--input-column` that do not exist.

    Raises:
        DataError: such a column.
    """
    _check_there(learn, names, "--input-column")
