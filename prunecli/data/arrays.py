"""NumPy arrays: `.npz` archives, or `.npy` files that belong together by name.

Stage: data. In: files. Out: a source of float32 examples, or of uint8 images. Never unpickles.
"""

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunecli.data.layout import Named, arrange, encode
from prunecli.data.source import (
    AnyArray,
    Part,
    Role,
    Source,
    folder_role,
    judged_by,
    listed,
    role_of,
    words_of,
)
from prunecli.errors import DataError

_INPUTS = frozenset(("x", "input", "inputs", "image", "images", "img", "data", "features"))
_TARGETS = frozenset(("y", "label", "labels", "target", "targets", "class", "classes"))
_NAMES = "arrays are found by name: x and y, or x_train, y_train, x_val, y_val (or images, labels)"

# What NumPy and its zip reader raise on damaged files.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    SyntaxError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class _Pair:
    where: str
    inputs: AnyArray
    targets: AnyArray


def read_arrays(path: Path, files: Sequence[Path], sample_shape: tuple[int, ...] | None) -> Source:
    """Find inputs and targets of each split, by the names of the arrays or files.

    Args:
        sample_shape: what the model takes, where known; tells channels from height and width.

    Raises:
        DataError: a file is damaged or pickled, names are missing or ambiguous, lengths differ.
    """
    pairs = _pairs(path, files)
    targets = encode({role: Named(pair.where, pair.targets) for role, pair in pairs.items()})
    notes = [targets.note]
    parts: dict[Role, Part] = {}
    for role, pair in pairs.items():
        examples, note = arrange(Named(pair.where, pair.inputs), sample_shape)
        notes += [note] if note and note not in notes else []
        parts[role] = Part(pair.where, targets.values[role], examples)
    return Source(targets.task, parts, targets.classes, targets.named, tuple(notes))


def _pairs(path: Path, files: Sequence[Path]) -> dict[Role, _Pair]:
    """Load the arrays that are needed, in the order of `Role`."""
    archives = [file for file in files if file.suffix.lower() == ".npz"]
    if archives and len(archives) < len(files):
        raise DataError(
            f"data {path}: either .npz or .npy files are needed, got both", "keep one kind"
        )
    slots: dict[tuple[Role, str], tuple[Path, str]] = {}
    seen: list[str] = []
    for file in files:
        outer = role_of(file.stem) or folder_role(file.parent.name)
        for key in _keys(file) if archives else [file.stem]:
            seen.append(key)
            kind = _kind_of(key)
            if kind is None:
                continue
            slot = (role_of(key) or outer or Role.TRAIN, kind)
            if slot in slots:
                raise DataError(
                    f"data {path}: one array of {kind} is needed for {slot[0].value}, "
                    f"got {slots[slot][1]!r} and {key!r}",
                    _NAMES,
                )
            slots[slot] = (file, key)
    roles = {role for role, _ in slots}
    if not roles:
        raise DataError(f"data {path}: inputs and targets are needed, got {listed(seen)}", _NAMES)
    pairs = {}
    for role in Role:
        if role in judged_by(roles):
            pairs[role] = _load_pair(path, role, slots, len(roles) > 1)
    return pairs


def _load_pair(
    path: Path, role: Role, slots: Mapping[tuple[Role, str], tuple[Path, str]], several: bool
) -> _Pair:
    for kind in ("inputs", "targets"):
        if (role, kind) not in slots:
            other = next(key for (r, _), (_, key) in slots.items() if r is role)
            raise DataError(
                f"data {path}: an array of {kind} is needed beside {other!r}, got none", _NAMES
            )
    file = slots[role, "inputs"][0]
    inputs, targets = _load(*slots[role, "inputs"]), _load(*slots[role, "targets"])
    name = file.name if file.suffix.lower() == ".npz" else path.name
    where = f"{name} ({role.value})" if several and role_of(name) is None else name
    counts = [array.shape[0] if array.ndim else 0 for array in (inputs, targets)]
    if counts[0] != counts[1]:
        raise DataError(
            f"{where}: inputs and targets must have the same length, got {counts[0]} and "
            f"{counts[1]}",
            "write them again, one target for each input",
        )
    if counts[0] == 0:
        raise DataError(f"{where}: examples are needed, got empty arrays", "check --data")
    return _Pair(where, inputs, targets)


def _kind_of(key: str) -> str | None:
    words = words_of(key)
    if _TARGETS.intersection(words):
        return "targets"
    return "inputs" if _INPUTS.intersection(words) else None


def _keys(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return list(archive.files)
    except _DAMAGE as error:
        raise _damaged(file, error) from error


def _load(file: Path, key: str) -> AnyArray:
    """One array; `.npy` files are mapped, so that a large one is never in memory as a whole."""
    try:
        if file.suffix.lower() == ".npy":
            return np.asarray(np.load(file, allow_pickle=False, mmap_mode="c"))
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return np.asarray(archive[key])
    except _DAMAGE as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    text = " ".join(str(error).split())
    if "Object arrays" in text:
        return DataError(
            f"data {file}: arrays of plain numbers are needed, got pickled objects",
            "save them with a numeric dtype; pickles are never opened, they can run code",
        )
    # NumPy takes any unknown content for a pickle.
    why = "its content is not NumPy's format" if "pickle" in text else text
    return DataError(
        f"data {file}: it cannot be read as NumPy arrays: {why}",
        "check the file, e.g. whether a download was cut short",
    )
