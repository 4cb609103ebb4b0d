"""Memory for examples: ordinary memory while it is plentiful, an anonymous file when it is not.

Stage: data. In: the shape and type of a split. Out: an array to fill. Never reads a data set.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecli.errors import DataError

AnyArray = npt.NDArray[Any]

MEMORY_SHARE = 0.5
"""A buffer that needs more than this share of the available memory goes to a file."""

COPY_ROWS = 4096
"""Rows copied at a time, so that a copy never doubles a large array."""


def allocate(shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
    """An uninitialised array, in memory or mapped from a temporary file without a name.

    The file disappears with the array, or with the process however it ends.

    Raises:
        DataError: neither memory nor the temporary folder can hold it.
    """
    needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if needed <= MEMORY_SHARE * available_bytes():
        return np.empty(shape, dtype)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    # Writing a mapped page that the disk cannot hold kills the process, so ask before.
    if needed > free:
        raise DataError(
            f"data: {needed / 1e9:.1f} GB of decoded examples fit neither in memory nor in "
            f"{tempfile.gettempdir()} ({free / 1e9:.1f} GB free)",
            "read fewer with --max-samples, make images smaller with --image-size, or set TMPDIR",
        )
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=np.dtype(dtype), mode="w+", shape=shape)


def take(values: AnyArray, rows: npt.NDArray[np.int64], dtype: npt.DTypeLike) -> AnyArray:
    """Copy `values[rows]` as `dtype`, a block at a time."""
    taken = allocate((len(rows), *values.shape[1:]), dtype)
    for start in range(0, len(rows), COPY_ROWS):
        block = slice(start, min(start + COPY_ROWS, len(rows)))
        taken[block] = values[rows[block]]
    return taken


def drop_rows(values: AnyArray, start: int, stop: int, bad: set[int]) -> AnyArray:
    """The rows `start..stop` without the `bad` ones, moved together in place."""
    free = start
    for row in range(start, stop):
        if row not in bad:
            if free != row:
                values[free] = values[row]
            free += 1
    return values[start:free]


def available_bytes() -> int:
    """Memory that can be had without swapping, within the limits of a container."""
    candidates = [_from_meminfo(), _from_cgroup()]
    known = [value for value in candidates if value is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 << 30  # nothing says how much there is; a modest machine's worth


def _from_meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _from_cgroup() -> int | None:
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = (group / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return max(int(limit) - int(used), 0) if limit.isdigit() and used.isdigit() else None
