"""A tag for each word: which classes there are, and which word has which.

Stage: data. In: a column of tags beside the words of each example. Out: class numbers by place of
the word. Never opens a file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from prunecli.choices import TaskName
from prunecli.data.columns import NamedTable, check_complete, is_list, is_text
from prunecli.data.source import AnyArray, Role, in_order, numbered_classes
from prunecli.errors import DataError
from prunecli.tasks import Labels
from prunecli.tasks.task import IGNORED

_NUMBER = re.compile(r"-?[0-9]{1,18}")
"""A tag that is a number; longer ones fit no class, nor 64 bits."""


@dataclass(frozen=True)
class Tags:
    """Class numbers of the words of each example."""

    rows: list[AnyArray]

    def at(self, places: AnyArray) -> AnyArray:
        """Class numbers `(N, T)` of the words at `places`; where there is none, `IGNORED`."""
        made = np.full(places.shape, IGNORED, dtype=np.int64)
        for row, (own, found) in enumerate(zip(self.rows, places, strict=True)):
            begins = found >= 0
            made[row, begins] = own[found[begins]]
        return made


def encode_tags(
    tables: Mapping[Role, NamedTable],
    column: str,
    words: Mapping[Role, Sequence[Sequence[str]]],
    known: Sequence[str],
) -> tuple[Labels, dict[Role, Tags]]:
    """The tags of all parts.

    Args:
        words: of each part's examples.
        known: names of the network's outputs, in order; empty where it has none.

    Raises:
        DataError: not one tag for each word, or tags that are no classes.
    """
    rows = {role: _rows(own, column) for role, own in tables.items()}
    for role, own in tables.items():
        _check_lengths(own.where, column, rows[role], words[role])
    learn = next(iter(tables))
    names = tables[learn].class_names.get(column, ())
    if _are_names(rows[learn]):
        classes = in_order(sorted({str(tag) for row in rows[learn] for tag in row}), known)
        index = {name: place for place, name in enumerate(classes)}
        made = {role: _indexed(tables[role].where, own, index) for role, own in rows.items()}
        return Labels(TaskName.TOKEN_CLASSIFICATION, classes), made
    for role, found in rows.items():
        if _are_names(found):
            raise DataError(
                f"{tables[role].where}: tags must be numbers like those of the training data, got "
                "names",
                "the same tags are needed in every split",
            )
    made = {
        role: Tags([_numbers(tables[role].where, row) for row in own]) for role, own in rows.items()
    }
    counting = [row[row != IGNORED] for own in made.values() for row in own.rows]
    classes = numbered_classes(tables[learn].where, counting)
    largest = len(classes) - 1
    if names:
        if largest >= len(names):
            raise DataError(
                f"{tables[learn].where}: tags must be below {len(names)}, the number of class "
                f"names in the file, got {largest}",
                "write the file again with the right class names",
            )
        return Labels(TaskName.TOKEN_CLASSIFICATION, names), made
    return Labels(TaskName.TOKEN_CLASSIFICATION, classes, named=False), made


def _are_names(rows: Sequence[Sequence[int | str]]) -> bool:
    """Whether classes are called, not numbered."""
    return any(isinstance(tag, str) for row in rows for tag in row)


def _rows(own: NamedTable, column: str) -> list[list[int | str]]:
    """Tags of each example; of a text, its words."""
    values = own.table.column(column)
    check_complete(own.where, column, values)
    if is_text(values.type):
        rows = [str(text).split() for text in values.to_pylist()]
        whole = all(_NUMBER.fullmatch(tag) for row in rows for tag in row)
        return [[int(tag) for tag in row] if whole else list(row) for row in rows]
    if is_list(values.type) and (
        is_text(values.type.value_type) or pa.types.is_integer(values.type.value_type)
    ):
        found: list[list[int | str]] = values.to_pylist()
        return found
    raise DataError(
        f"{own.where}: column {column!r} must hold a tag for each word, got {values.type}",
        "write lists of tags, or texts with spaces between them; --target-column names the column",
    )


def _check_lengths(
    where: str,
    column: str,
    rows: Sequence[Sequence[int | str]],
    words: Sequence[Sequence[str]],
) -> None:
    for number, (tags, own) in enumerate(zip(rows, words, strict=True), start=1):
        if len(tags) != len(own) or None in tags:
            raise DataError(
                f"{where}: a tag in {column!r} for each of {len(own)} words is needed, "
                f"got {len(tags)} (data row {number})",
                "write as many tags as words",
            )


def _indexed(where: str, rows: Sequence[Sequence[int | str]], index: Mapping[str, int]) -> Tags:
    for number, row in enumerate(rows, start=1):
        for tag in row:
            if str(tag) not in index:
                raise DataError(
                    f"{where}: tags must be those of the training data, got {tag!r} "
                    f"(data row {number})",
                    "the same tags are needed in every split",
                )
    return Tags([np.array([index[str(tag)] for tag in row], dtype=np.int64) for row in rows])


def _numbers(where: str, row: Sequence[int | str]) -> AnyArray:
    found = np.array(row, dtype=np.int64)
    wrong = found[(found < 0) & (found != IGNORED)]
    if len(wrong):
        raise DataError(
            f"{where}: tags must count from 0, got {int(wrong[0])}",
            f"number the classes from 0; {IGNORED} says that a word does not count",
        )
    return found
