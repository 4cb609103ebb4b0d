"""Rows and columns: which column is the target, and the others as numbers.

Stage: data. In: Arrow tables that a reader has opened. Out: a source with float32 features.
Rows in messages count from 1, without a header. Never opens a file, never guesses a missing
value, never encodes a feature that is not a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunecli.choices import TaskName
from prunecli.data.source import (
    TARGET_NAMES,
    AnyArray,
    Role,
    Source,
    Targets,
    check_labels,
    counted,
    listed,
    names_to_labels,
    numbered_classes,
    single,
)
from prunecli.errors import DataError
from prunecli.tasks import Labels

FEW_CLASSES = 100
"""Integer targets with more distinct values than this are quantities, not classes."""


@dataclass(frozen=True)
class NamedTable:
    """An Arrow table, what a message calls it, and class names of columns that have them."""

    where: str
    table: Any
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def from_tables(tables: Mapping[Role, NamedTable], target: str | None = None) -> Source:
    """Turn tables into features and targets.

    Args:
        target: the column of targets; found by name, else the last one, when left out.

    Raises:
        DataError: a value is missing or not a number, or the tables' columns differ.
    """
    learn = tables.get(Role.TRAIN) or next(iter(tables.values()))
    target = target or _target_column(learn)
    features = [name for name in learn.table.column_names if name != target]
    if not features:
        raise DataError(
            f"{learn.where}: feature columns are needed besides the target, got {target!r} only",
            "check the separator: commas, semicolons and tabs are understood",
        )
    notes: list[str] = []
    used = {}
    for role, named in tables.items():
        if role is Role.TEST and named is not learn and target not in named.table.column_names:
            notes.append(f"{named.where} has no column {target!r} and is not used")
            continue
        _check_columns(named, learn)
        used[role] = named
    targets = encode_targets(used, target)
    parts = {role: (named.where, _features(named, features)) for role, named in used.items()}
    notes = [targets.note, f"{counted(len(features), 'feature')}: {listed(features)}", *notes]
    return single(parts, targets, tuple(notes))


def encode_targets(
    tables: Mapping[Role, NamedTable], target: str, *, integers_are_classes: bool = False
) -> Targets:
    """Encode the target column: classes for texts and for few integers, else numbers.

    The training table decides; the others must agree with it.

    Args:
        integers_are_classes: however many different ones there are.

    Raises:
        DataError: a value is missing or has another type.
    """
    columns = {role: named.table.column(target) for role, named in tables.items()}
    for role, column in columns.items():
        _check_complete(tables[role].where, target, column)
    learn = Role.TRAIN if Role.TRAIN in columns else next(iter(columns))
    kind, where = columns[learn].type, tables[learn].where
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _named_targets(tables, columns, columns[learn], where, target)
    if pa.types.is_boolean(kind):
        columns = {role: pc.cast(column, pa.int64()) for role, column in columns.items()}
        kind = pa.int64()
    names = tables[learn].class_names.get(target, ())
    if pa.types.is_integer(kind) and (names or integers_are_classes or _few_values(columns[learn])):
        return _numbered_targets(tables, columns, target, names)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(
            f"{where}: target column {target!r} must hold classes or numbers, got {kind}",
            "call the target column 'label'",
        )
    values = {role: _numbers(tables[role].where, target, c) for role, c in columns.items()}
    note = f"target: column {target!r}, numbers (regression)"
    return Targets(Labels(TaskName.REGRESSION), values, note)


def _named_targets(
    tables: Mapping[Role, NamedTable],
    columns: Mapping[Role, Any],
    learn: Any,
    where: str,
    target: str,
) -> Targets:
    classes = tuple(sorted(pc.unique(learn).to_pylist()))
    if len(classes) > max(2, len(learn) // 2):
        raise DataError(
            f"{where}: target column {target!r} must hold classes or numbers, got "
            f"{len(classes)} different texts in {counted(len(learn), 'row')}, e.g. {classes[0]!r}",
            "call the target column 'label', or make it the last one",
        )
    values = {
        role: names_to_labels(
            tables[role].where,
            np.array(pc.cast(column, pa.string()).to_pylist(), dtype=object),
            classes,
        )
        for role, column in columns.items()
    }
    note = f"target: column {target!r}, {counted(len(classes), 'class')}: {listed(classes)}"
    return Targets(Labels(TaskName.CLASSIFICATION, classes), values, note)


def _numbered_targets(
    tables: Mapping[Role, NamedTable],
    columns: Mapping[Role, Any],
    target: str,
    names: tuple[str, ...],
) -> Targets:
    values: dict[Role, AnyArray] = {}
    for role, column in columns.items():
        where = tables[role].where
        if not pa.types.is_integer(column.type):
            raise DataError(
                f"{where}: target column {target!r} must hold integers like the training data, "
                f"got {column.type}",
                "write the targets of all splits in the same way",
            )
        values[role] = check_labels(where, column.to_numpy())
        if names and len(column) and values[role].max() >= len(names):
            raise DataError(
                f"{where}: labels must be below {len(names)}, the number of class names in the "
                f"file, got {values[role].max()}",
                "write the file again with the right class names",
            )
    if names:
        note = f"target: column {target!r}, {counted(len(names), 'class')}: {listed(names)}"
        return Targets(Labels(TaskName.CLASSIFICATION, names), values, note)
    classes = numbered_classes(values.values())
    note = f"target: column {target!r}, class numbers up to {len(classes) - 1}"
    return Targets(Labels(TaskName.CLASSIFICATION, classes, named=False), values, note)


def _few_values(column: Any) -> bool:
    distinct = len(pc.unique(column))
    return distinct <= min(FEW_CLASSES, max(2, len(column) // 2))


def _target_column(named: NamedTable) -> str:
    names = named.table.column_names
    for wanted in TARGET_NAMES:
        for name in names:
            if name.strip().lower() == wanted:
                return str(name)
    return str(names[-1])


def _check_columns(named: NamedTable, learn: NamedTable) -> None:
    ours, theirs = set(named.table.column_names), set(learn.table.column_names)
    if ours != theirs:
        odd = sorted(ours ^ theirs)
        raise DataError(
            f"{named.where}: columns must be those of {learn.where}, got a difference in "
            f"{listed(repr(name) for name in odd)}",
            "the same columns are needed in every split",
        )


def _features(named: NamedTable, features: list[str]) -> AnyArray:
    """`(N, F)` float32, in the training table's order of columns."""
    values = np.empty((named.table.num_rows, len(features)), dtype=np.float32)
    for position, name in enumerate(features):
        values[:, position] = _numbers(named.where, name, named.table.column(name))
    return values


def _numbers(where: str, name: str, column: Any) -> AnyArray:
    """A column as float32.

    Raises:
        DataError: a value is missing, infinite or not a number.
    """
    kind = column.type
    numeric = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )
    if not numeric and not pa.types.is_null(kind):
        row, value = _first_text(column)
        raise DataError(
            f"{where}: column {name!r} must hold numbers, got {value!r} (data row {row})",
            "encode it as numbers, or remove the column",
        )
    _check_complete(where, name, column)
    with np.errstate(over="ignore"):
        values: AnyArray = pc.cast(column, pa.float64(), safe=False).to_numpy().astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{where}: column {name!r} must hold finite numbers, got {column[row].as_py()} "
            f"(data row {row + 1})",
            "fill in or remove such rows",
        )
    return values


def _first_text(column: Any) -> tuple[int, object]:
    """Row, counted from 1, and value of the first entry that is not a number."""
    for row, value in enumerate(column.to_pylist(), start=1):
        try:
            float(value)
        except (TypeError, ValueError):
            if value is not None:
                return row, value if isinstance(value, str) else str(value)
    return 1, str(column.type)


def _check_complete(where: str, name: str, column: Any) -> None:
    missing = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
    row = pc.index(missing, True).as_py()
    if row >= 0:
        raise DataError(
            f"{where}: column {name!r} must be complete, got no value (data row {row + 1})",
            "fill in or remove such rows",
        )
