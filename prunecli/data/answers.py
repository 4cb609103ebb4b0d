"""Yes or no for each of several labels: columns of 0 and 1, or lists of what holds.

Stage: data. In: Arrow tables. Out: encoded targets. Never opens a file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunecli.choices import TaskName
from prunecli.data.columns import NamedTable, check_complete, is_list, is_text
from prunecli.data.source import (
    AnyArray,
    Role,
    Targets,
    class_count,
    counted,
    in_order,
    listed,
)
from prunecli.errors import DataError
from prunecli.tasks import Labels
from prunecli.tasks.task import IGNORED

_HINT = "write lists of class names or numbers, or 0 and 1 for each label"


def may_be_answers(named: NamedTable, column: str) -> bool:
    """Whether a column may hold lists of what holds."""
    return is_list(named.table.column(column).type)


def are_answers(named: NamedTable, column: str) -> bool:
    """Whether a column holds nothing but yes and no."""
    values = named.table.column(column)
    if pa.types.is_boolean(values.type):
        return True
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return False
    # A missing answer does not make it another column: that is said where it is read.
    found = set(pc.unique(values.drop_null()).to_pylist())
    return bool(found) and found <= {0, 1, IGNORED}


def encode_answers(
    tables: Mapping[Role, NamedTable], columns: tuple[str, ...], known: Sequence[str]
) -> Targets:
    """Rows of 0 and 1, one place for each label.

    Args:
        columns: one of lists, or one for each label.
        known: names of the network's outputs, in order; empty where it has none.

    Raises:
        DataError: anything else.
    """
    learn = tables.get(Role.TRAIN) or next(iter(tables.values()))
    if len(columns) == 1 and is_list(learn.table.column(columns[0]).type):
        return _lists(tables, columns[0], learn, known)
    # Columns are named, and so may the network's outputs be: then names decide.
    names = in_order(columns, known) if len(known) == len(columns) else columns
    values = {role: _columns(own, names) for role, own in tables.items()}
    note = f"target: {counted(len(names), 'label')}, each of them yes or no: {listed(names)}"
    return Targets(Labels(TaskName.MULTILABEL), values, note)


def _columns(own: NamedTable, names: Sequence[str]) -> AnyArray:
    for name in names:
        check_complete(own.where, name, own.table.column(name))
        if not are_answers(own, name):
            values = pc.unique(own.table.column(name)).to_pylist()
            odd = next(value for value in values if value not in (0, 1, IGNORED))
            raise DataError(
                f"{own.where}: column {name!r} must hold 0 and 1 only, got {odd!r}", _HINT
            )
    parts = [pc.cast(own.table.column(name), pa.float32()).to_numpy() for name in names]
    return np.stack(parts, 1)


def _lists(
    tables: Mapping[Role, NamedTable], column: str, learn: NamedTable, known: Sequence[str]
) -> Targets:
    kind = learn.table.column(column).type.value_type
    for own in tables.values():
        _check_entries(own, column, texts=is_text(kind))
    rows = {role: own.table.column(column).to_pylist() for role, own in tables.items()}
    names = learn.class_names.get(column, ())
    if is_text(kind):
        found = sorted({str(name) for row in next(iter(rows.values())) for name in row})
        names = in_order(found, known)
        places: Mapping[Any, int] = {name: place for place, name in enumerate(names)}
    else:
        if all(_is_row(own) for own in rows.values()):
            values = {role: np.array(own, dtype=np.float32) for role, own in rows.items()}
            width = next(iter(values.values())).shape[1]
            note = f"target: column {column!r}, {counted(width, 'label')}, each of them yes or no"
            return Targets(Labels(TaskName.MULTILABEL), values, note)
        largest = max((max(row, default=0) for own in rows.values() for row in own), default=0)
        width = len(names) or max(len(known), class_count(learn.where, int(largest)))
        places = {place: place for place in range(width)}
    values = {role: _marked(tables[role].where, own, places) for role, own in rows.items()}
    note = f"target: column {column!r}, lists of what holds, of {counted(len(places), 'label')}"
    return Targets(Labels(TaskName.MULTILABEL), values, note)


def _check_entries(own: NamedTable, column: str, *, texts: bool) -> None:
    """Lists of texts, or of numbers, as the training data has them; nothing missing within.

    Raises:
        DataError: anything else.
    """
    values = own.table.column(column)
    check_complete(own.where, column, values)
    if is_list(values.type):
        check_complete(own.where, column, pc.list_flatten(values))
        kind = values.type.value_type
        numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        fits = is_text(kind) if texts else numbers or pa.types.is_boolean(kind)
        if fits or pa.types.is_null(kind):
            return
    wanted = "class names" if texts else "numbers"
    raise DataError(
        f"{own.where}: column {column!r} must hold lists of {wanted}, got {values.type}", _HINT
    )


def _is_row(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether these are rows of 0 and 1, not lists of class numbers."""
    sizes = {len(row) for row in lists}
    return len(sizes) == 1 and min(sizes) > 1 and all(set(row) <= {0, 1} for row in lists)


def _marked(where: str, rows: Sequence[Sequence[Any]], places: Mapping[Any, int]) -> AnyArray:
    """1 where a label is listed."""
    marked = np.zeros((len(rows), len(places)), dtype=np.float32)
    for number, row in enumerate(rows):
        for entry in row:
            if entry not in places:
                raise DataError(
                    f"{where}: labels must be those of the training data, got {entry!r} "
                    f"(data row {number + 1})",
                    _HINT,
                )
            marked[number, places[entry]] = 1
    return marked
