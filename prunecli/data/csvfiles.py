"""CSV files: rows of numbers, or of texts.

Stage: data. In: a file, or files named after splits. Out: a source, through `tables`. Never
skips a row, never fills one in.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from prunecli.data.columns import NamedTable, is_text
from prunecli.data.source import Role, Source, by_role, judged_by, listed
from prunecli.data.tables import from_tables
from prunecli.data.wanted import Wanted
from prunecli.errors import DataError


def read_csv(path: Path, files: Sequence[Path], wanted: Wanted) -> Source:
    """Read one CSV file for each split.

    Raises:
        DataError: a file is empty or ragged, a value is missing or is not a number, or there are
            several files and none is named after a split.
    """
    return read_rows(path, files, wanted, "CSV", _read_file)


def read_rows(
    path: Path,
    files: Sequence[Path],
    wanted: Wanted,
    kind: str,
    read: Callable[[Path], Any],
) -> Source:
    """Read one file for each split.

    Args:
        kind: the format, for messages.
        read: reads one file as an Arrow table.

    Raises:
        DataError: as `read_csv`.
    """
    roles, rest = by_role(files, path)
    tables: dict[Role, NamedTable] = {}
    for role in Role:
        if role not in judged_by(roles):
            continue
        if len(roles[role]) > 1:
            end = roles[role][0].suffix
            raise DataError(
                f"data {path}: one {kind} file for each split is needed, "
                f"got {listed(file.name for file in roles[role])}",
                f"name them train{end}, validation{end} and test{end}, or give one with --data",
            )
        tables[role] = NamedTable(roles[role][0].name, read(roles[role][0]))
    source = from_tables(tables, wanted)
    unused = [f"not named after a split and not used: {listed(f.name for f in rest)}"]
    return replace(source, notes=(*source.notes, *(unused if rest else [])))


def _read_file(path: Path) -> Any:
    """One CSV file as an Arrow table; types are inferred from all rows."""
    names, separator = _first_line(path)
    if all(map(_is_number, names)) and not _counts(names):
        return _table(path, len(names), separator, skip=0)
    table = _table(path, len(names), separator, skip=1)
    if _is_a_row(names, table):
        return _table(path, len(names), separator, skip=0)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path.name}: columns must have different names, got {twice[0]!r} twice",
            "rename one of them in the first line",
        )
    return table.rename_columns(names)


def _table(path: Path, columns: int, separator: str, skip: int) -> Any:
    """The rows after the first `skip` lines; columns are called by their numbers."""
    ragged: list[tuple[int | None, int, int]] = []

    def note_ragged(row: Any) -> str:
        ragged.append((row.number, row.expected_columns, row.actual_columns))
        return "skip"

    parse = pa.csv.ParseOptions(
        delimiter=separator, invalid_row_handler=note_ragged, newlines_in_values=True
    )
    # One thread, because only then are row numbers known.
    names = [f"column {index + 1}" for index in range(columns)]
    read = pa.csv.ReadOptions(use_threads=False, column_names=names, skip_rows=skip)
    convert = pa.csv.ConvertOptions(strings_can_be_null=True)
    try:
        table = pa.csv.read_csv(path, read, parse, convert)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data {path}: it cannot be read as CSV: {' '.join(str(error).split())}",
            "commas, semicolons and tabs are understood as separators, UTF-8 as encoding",
        ) from error
    if ragged:
        number, expected, actual = ragged[0]
        raise DataError(
            f"{path.name}: every row must have {expected} columns, got {actual} (line {number})",
            "check the line for a missing or additional separator",
        )
    if table.num_rows == 0:
        raise DataError(f"data {path}: rows are needed, got an empty table", "check --data")
    return table


def _first_line(path: Path) -> tuple[list[str], str]:
    """Its entries, and the separator."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            line = stream.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data {path}: it cannot be read as CSV: {error}", "write it as UTF-8, or check --data"
        ) from error
    separator = max(",;\t", key=line.count)
    names = next(csv.reader([line], delimiter=separator), [])
    if not any(name.strip() for name in names):
        raise DataError(f"data {path}: rows are needed, got an empty file", "check --data")
    return names, separator


def _counts(names: Sequence[str]) -> bool:
    """Whether these are the numbers that programs give to columns without names: 0, 1, 2, ..."""
    return len(names) > 2 and list(names) in (
        [str(place + first) for place in range(len(names))] for first in (0, 1)
    )


def _is_a_row(names: Sequence[str], table: Any) -> bool:
    """Whether the first line is an example after all: numbers, and a class that comes again."""
    pairs = zip(names, table.columns, strict=True)
    again = (is_text(own.type) and pc.index(own, name).as_py() >= 0 for name, own in pairs)
    return any(map(_is_number, names)) and any(again)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
