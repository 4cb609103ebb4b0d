"""Parquet files in the Hugging Face layout: images with labels, or a table of numbers.

Stage: data. In: files of one or more splits. Out: a source whose images are read row group by row
group when they are asked for. Column types come from the `datasets` schema in the files where
there is one. Never downloads, never writes a cache: files are read where they lie.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from prunecli.data.source import (
    TARGET_NAMES,
    Blob,
    Blobs,
    Role,
    Rows,
    Source,
    by_role,
    judged_by,
    listed,
    single,
)
from prunecli.data.tables import NamedTable, encode_targets, from_tables
from prunecli.errors import DataError

BATCH = 256
"""Encoded images held at a time."""

_IMAGE_NAMES = ("image", "img", "images", "picture", "pixel_values")

# What Arrow raises on damaged files; names in them may be no text.
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True)
class _Columns:
    """The columns that count."""

    image: str | None
    label: str | None
    class_names: Mapping[str, tuple[str, ...]]


def read_parquet(path: Path, files: Sequence[Path]) -> Source:
    """Sort files into splits and find the image and the label column by their types.

    Raises:
        DataError: a file is damaged, files differ in their columns, or there is no label.
    """
    roles, rest = by_role(files, path)
    wanted = judged_by(roles)
    shards = {role: roles[role] for role in Role if role in wanted}
    learn = Role.TRAIN if Role.TRAIN in shards else next(iter(shards))
    first = shards[learn][0]
    columns = _find_columns(first.name, _open(first).schema_arrow)
    if columns.image is None:
        source = _table_source(path, shards, columns)
    else:
        source = _image_source(path, shards, columns.image, _label_of(first.name, columns), columns)
    notes = source.notes
    if rest:
        notes = (*notes, f"not named after a split and not used: {listed(f.name for f in rest)}")
    return replace(source, notes=notes)


def _image_source(
    path: Path, shards: Mapping[Role, list[Path]], image: str, label: str, columns: _Columns
) -> Source:
    tables = {}
    for role, files in shards.items():
        where = _where(path, role, files)
        tables[role] = NamedTable(where, _read_columns(files, [label]), columns.class_names)
    targets = encode_targets(tables, label, integers_are_classes=True)
    parts = {
        role: (tables[role].where, Blobs(_Reader(tuple(files), image)))
        for role, files in shards.items()
    }
    notes = (f"images: column {image!r}", targets.note)
    return single(parts, targets, notes)


def _table_source(path: Path, shards: Mapping[Role, list[Path]], columns: _Columns) -> Source:
    tables = {
        role: NamedTable(_where(path, role, files), _read_columns(files, None), columns.class_names)
        for role, files in shards.items()
    }
    return from_tables(tables, target=columns.label)


def _where(path: Path, role: Role, files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{path.name} ({role.value})"


def _find_columns(where: str, schema: Any) -> _Columns:
    """Find the image column by type, the label column by type, then by name."""
    class_names = _class_names(schema)
    images = [field.name for field in schema if _may_hold_images(field.type)]
    named = [name for name in images if name.lower() in _IMAGE_NAMES]
    if len(images) > 1 and len(named) != 1:
        raise DataError(
            f"{where}: one image column is needed, got {listed(images)}",
            "call the one to use 'image'",
        )
    image = (named or images or [None])[0]
    plain = [field for field in schema if field.name not in images]
    by_name = [field.name for name in TARGET_NAMES for field in plain if field.name.lower() == name]
    integers = [field.name for field in plain if pa.types.is_integer(field.type)]
    choices = by_name or list(class_names) or (integers if image and len(integers) == 1 else [])
    return _Columns(image, choices[0] if choices else None, class_names)


def _label_of(where: str, columns: _Columns) -> str:
    if columns.label is None:
        raise DataError(
            f"{where}: a label column is needed beside the images, got none",
            "an integer column called 'label' holds the class of each image",
        )
    return columns.label


def _may_hold_images(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Class names by column, from the schema that `datasets` writes into its files."""
    try:
        features = Features.from_arrow_schema(schema)
    except (ValueError, TypeError, LookupError, AttributeError):
        return {}  # written by something else; the Arrow types say enough
    return {
        name: tuple(feature.names)
        for name, feature in features.items()
        if isinstance(feature, ClassLabel) and feature.names
    }


def _open(file: Path) -> Any:
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


def _read_columns(files: Sequence[Path], columns: list[str] | None) -> Any:
    """Columns of all shards as one table, dictionaries resolved."""
    tables = []
    for file in files:
        opened = _open(file)
        missing = set(columns or ()) - set(opened.schema_arrow.names)
        if missing:
            raise DataError(
                f"{file.name}: columns must be the first file's, {min(missing)!r} is missing",
                "all files of a data set must have the same columns",
            )
        try:
            tables.append(opened.read(columns=columns).replace_schema_metadata(None))
        except _DAMAGE as error:
            raise _damaged(file, error) from error
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise _damaged(files[0], error) from error
    for position, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(position).cast(field.type.value_type)
            table = table.set_column(position, field.name, plain)
    return table


class _Reader:
    """Yields encoded images of the wanted rows; a class only to hold the files."""

    def __init__(self, files: tuple[Path, ...], column: str) -> None:
        self.files, self.column = files, column

    def __call__(self, rows: Rows) -> Iterator[Blob]:
        start = 0
        for file in self.files:
            opened = _open(file)
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
        return Blob(row, where, entry.as_py())
    content = entry["bytes"].as_py()
    if content is None and "path" in entry:
        try:
            path = file.parent / str(entry["path"].as_py())
        except UnicodeDecodeError:
            return Blob(row, where, None)
        return Blob(row, where, path if path.is_file() else None)
    return Blob(row, where, content if isinstance(content, bytes) else None)
