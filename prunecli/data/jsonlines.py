"""JSON lines: one object for each example.

Stage: data. In: a file, or files named after splits. Out: a source, through `tables`. Never skips
a line, never fills one in.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from prunecli.data.csvfiles import read_rows
from prunecli.data.source import Source
from prunecli.data.wanted import Wanted
from prunecli.errors import DataError

_HINT = 'one object is needed on each line: {"text": "...", "label": 1}'


def read_json(path: Path, files: Sequence[Path], wanted: Wanted) -> Source:
    """Read one file for each split.

    Raises:
        DataError: a file is damaged, or columns are not what the task needs.
    """
    return read_rows(path, files, wanted, "JSON", _read_file)


def _read_file(path: Path) -> Any:
    """One file as an Arrow table; a single array of objects is read as well."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            first = stream.read(1)
            if first == "[":
                table = pa.Table.from_pylist(json.loads(first + stream.read()))
            else:
                table = pa.json.read_json(path, pa.json.ReadOptions(block_size=_block(path)))
    # Brackets within brackets without end are a `RecursionError`.
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise DataError(
            f"data {path}: it cannot be read as JSON lines: {' '.join(str(error).split())}", _HINT
        ) from error
    if table.num_rows == 0 or not table.column_names:
        raise DataError(f"data {path}: rows are needed, got an empty file", _HINT)
    return table


def _block(path: Path) -> int:
    """No line may be longer than a block."""
    return max(1 << 20, min(path.stat().st_size + 1, (1 << 31) - 1))
