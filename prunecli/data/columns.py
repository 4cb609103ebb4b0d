"""Single columns: their values as numbers, or as the classes that they name.

Stage: data. In: Arrow tables that a reader has opened. Out: arrays, or encoded targets. Rows in
messages count from 1, without a header. Never opens a file, never guesses a missing value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunecli.choices import TaskName
from prunecli.data.source import (
    AnyArray,
    Role,
    Targets,
    check_labels,
    counted,
    in_order,
    listed,
    names_to_labels,
    numbered_classes,
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


def encode_targets(
    tables: Mapping[Role, NamedTable],
    target: str,
    *,
    integers_are_classes: bool = False,
    known: Sequence[str] = (),
) -> Targets:
    """Encode the target column: classes for texts and for few integers, else numbers.

    The training table decides; the others must agree with it.

    Args:
        integers_are_classes: however many different ones there are.
        known: names of the network's outputs, in order; empty where it has none.

    Raises:
        DataError: a value is missing or has another type.
    """
    columns = {role: named.table.column(target) for role, named in tables.items()}
    for role, column in columns.items():
        check_complete(tables[role].where, target, column)
    learn = Role.TRAIN if Role.TRAIN in columns else next(iter(columns))
    kind, where = columns[learn].type, tables[learn].where
    if is_text(kind):
        return _named_targets(tables, columns, learn, target, known)
    if pa.types.is_boolean(kind):
        columns = {role: _as_number(column) for role, column in columns.items()}
        kind = pa.int64()
    names = tables[learn].class_names.get(target, ())
    if pa.types.is_integer(kind) and (names or integers_are_classes or _few_values(columns[learn])):
        return _numbered_targets(tables, columns, target, names, known)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(
            f"{where}: target column {target!r} must hold classes or numbers, got {kind}",
            "call the target column 'label'",
        )
    values = {role: numbers_of(tables[role].where, target, c) for role, c in columns.items()}
    note = f"target: column {target!r}, numbers (regression)"
    return Targets(Labels(TaskName.REGRESSION), values, note)


def _as_number(column: Any) -> Any:
    """Yes and no as 1 and 0; any other column as it is, to be judged like one."""
    return pc.cast(column, pa.int64()) if pa.types.is_boolean(column.type) else column


def _named_targets(
    tables: Mapping[Role, NamedTable],
    columns: Mapping[Role, Any],
    learn: Role,
    target: str,
    known: Sequence[str],
) -> Targets:
    found = sorted(pc.unique(columns[learn]).to_pylist())
    rows = len(columns[learn])
    if len(found) > max(2, rows // 2):
        raise DataError(
            f"{tables[learn].where}: target column {target!r} must hold classes or numbers, got "
            f"{len(found)} different texts in {counted(rows, 'row')}, e.g. {found[0]!r}",
            "call the target column 'label', make it the last one, or say --target-column",
        )
    classes = in_order(found, known)
    for role, column in columns.items():
        if pa.types.is_nested(column.type):
            raise DataError(
                f"{tables[role].where}: target column {target!r} must hold texts like the training "
                f"data, got {column.type}",
                "write the targets of all splits in the same way",
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
    known: Sequence[str],
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
        classes = in_order(names, known)
        places = np.array([classes.index(name) for name in names], dtype=np.int64)
        values = {role: places[labels] for role, labels in values.items()}
        names = classes
        note = f"target: column {target!r}, {counted(len(names), 'class')}: {listed(names)}"
        return Targets(Labels(TaskName.CLASSIFICATION, names), values, note)
    where = next(iter(tables.values())).where
    classes = numbered_classes(where, values.values())
    note = f"target: column {target!r}, class numbers up to {len(classes) - 1}"
    return Targets(Labels(TaskName.CLASSIFICATION, classes, named=False), values, note)


def is_text(kind: Any) -> bool:
    """Whether a column of this type holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: Any) -> bool:
    """Whether each entry of a column of this type is a list."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _few_values(column: Any) -> bool:
    distinct = len(pc.unique(column))
    return distinct <= min(FEW_CLASSES, max(2, len(column) // 2))


def numbers_of(where: str, name: str, column: Any) -> AnyArray:
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
            "encode it as numbers, or remove the column; texts need a network with a tokenizer "
            "(a Hugging Face folder, or --processor FOLDER)",
        )
    check_complete(where, name, column)
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


def check_complete(where: str, name: str, column: Any) -> None:
    missing = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
    row = pc.index(missing, True).as_py()
    if row >= 0:
        raise DataError(
            f"{where}: column {name!r} must be complete, got no value (data row {row + 1})",
            "fill in or remove such rows; in CSV, NA, null and the like are no values either",
        )
