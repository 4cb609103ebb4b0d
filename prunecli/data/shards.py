"""Parquet files: opened, their columns read, their encoded images or sounds yielded.

Stage: data. In: the files of a part. Out: Arrow tables, or bytes row by row, read row group by row
group. Never downloads, never writes a cache: files are read where they lie.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunecli.data.source import Blob, Rows
from prunecli.errors import DataError

BATCH = 256
"""Encoded images held at a time."""

# What Arrow raises on damaged files; names in them may be no text.
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)


def open_shard(file: Path) -> Any:
    """A file, of which only the schema is read.

    Raises:
        DataError: it is damaged.
    """
    try:
        return pq.ParquetFile(file)
    except _DAMAGE as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    why = " ".join(str(error).split())[:200]
    return DataError(
        f"data {file}: it cannot be read as parquet: {why}",
        "check the file, e.g. whether a download was cut short or left a Git LFS pointer",
    )


def read_columns(files: Sequence[Path], columns: list[str] | None) -> Any:
    """Columns of all shards as one table, dictionaries resolved.

    Raises:
        DataError: a file is damaged, or has other columns.
    """
    tables = []
    for file in files:
        opened = open_shard(file)
        _check_columns(opened, file, columns or ())
        try:
            tables.append(opened.read(columns=columns).replace_schema_metadata(None))
        except _DAMAGE as error:
            raise _damaged(file, error) from error
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise _damaged(files[0], error) from error
    for position, field in enumerate(table.schema):
        plain = _plain(field.type)
        if plain is not None:
            values = table.column(position).cast(plain)
            table = table.set_column(position, field.name, values)
    return table


def _plain(kind: Any) -> Any:
    """The type that holds the same, where this is only another way to store it."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.string() if pa.types.is_string_view(kind) else None


def _check_columns(opened: Any, file: Path, columns: Iterable[str]) -> None:
    missing = set(columns) - set(opened.schema_arrow.names)
    if missing:
        raise DataError(
            f"{file.name}: columns must be the first file's, {min(missing)!r} is missing",
            "all files of a data set must have the same columns",
        )


class ShardReader:
    """Yields encoded entries of the wanted rows; a class only to hold the files."""

    def __init__(self, files: tuple[Path, ...], column: str) -> None:
        self.files, self.column = files, column

    def __call__(self, rows: Rows) -> Iterator[Blob]:
        start = 0
        for file in self.files:
            opened = open_shard(file)
            _check_columns(opened, file, [self.column])
            before = start
            for group in range(opened.num_row_groups):
                stop = start + opened.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows, (start, stop))
                if high > low:
                    for row, entry in self._group(opened, file, group, start, rows[low:high]):
                        yield _blob(row, f"{file.name} row {row - before + 1}", entry, file)
                start = stop

    def _group(
        self, opened: Any, file: Path, group: int, first: int, rows: Rows
    ) -> Iterator[tuple[int, Any]]:
        """Entries of one row group, a batch at a time; the part's row `first` begins it."""
        batches = opened.iter_batches(batch_size=BATCH, row_groups=[group], columns=[self.column])
        while True:
            try:
                batch = next(batches, None)
            except _DAMAGE as error:
                raise _damaged(file, error) from error
            if batch is None:
                return
            low, high = np.searchsorted(rows, (first, first + batch.num_rows))
            for row in rows[low:high].tolist():
                yield row, batch.column(0)[row - first]
            first += batch.num_rows


def _blob(row: int, where: str, entry: Any, file: Path) -> Blob:
    """An entry: encoded bytes, or a struct of bytes and a path beside the file."""
    if not entry.is_valid:
        return Blob(row, where, None)
    if not isinstance(entry, pa.StructScalar):
        stored = entry.as_py()
        # A text there is no image, nor the name of one.
        return Blob(row, where, stored if isinstance(stored, bytes) else None)
    content = entry["bytes"].as_py()
    if content is None and "path" in entry:
        try:
            path = file.parent / str(entry["path"].as_py())
        except UnicodeDecodeError:
            return Blob(row, where, None)
        return Blob(row, where, path if path.is_file() else None)
    return Blob(row, where, content if isinstance(content, bytes) else None)
