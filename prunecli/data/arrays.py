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

from prunecli.config import TaskConfig
from prunecli.data.encoding import encode_for
from prunecli.data.layout import Named, arrange, encode
from prunecli.data.source import (
    AnyArray,
    Part,
    Role,
    Source,
    Targets,
    folder_role,
    judged_by,
    listed,
    role_of,
    words_of,
)
from prunecli.errors import DataError

_INPUTS = frozenset(("x", "input", "inputs", "image", "images", "img", "data", "features"))
_TARGETS = frozenset(("y", "label", "labels", "target", "targets", "class", "classes"))
_NAMES = (
    "arrays are found by name: x and y, or x_train, y_train, x_val, y_val (or images, labels); "
    "several inputs or targets by the names of the network's inputs and of the heads in --task"
)

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


Slots = dict[tuple[Role, str, str], tuple[Path, str]]
"""Split, `inputs` or `targets`, and name -> file and array; no name where it does not matter."""


@dataclass(frozen=True)
class Names:
    """Names that arrays may have besides the usual ones.

    Attributes:
        inputs: of the network.
        heads: of the outputs that have targets of their own.
    """

    inputs: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Set:
    """Everything of one split, by name."""

    where: str
    inputs: Mapping[str, AnyArray]
    targets: Mapping[str, AnyArray]


def read_arrays(
    path: Path,
    files: Sequence[Path],
    sample_shape: tuple[int, ...] | None,
    task: TaskConfig | None = None,
    inputs: tuple[str, ...] = (),
) -> Source:
    """Find inputs and targets of each split, by the names of the arrays or files.

    Args:
        sample_shape: what the model takes, where known; tells channels from height and width.
        task: what the targets are; `None`: what they look like.
        inputs: names of the network's inputs, where they are known.

    Raises:
        DataError: a file is damaged or pickled, names are missing or ambiguous, lengths differ.
    """
    heads = tuple(head.name for head in task.heads) if task is not None else ()
    sets = _sets(path, files, Names(inputs, heads), task is None or task.labelled)
    encoded = _encoded(sets, task)
    notes = [item.note for item in encoded]
    named = next(iter(sets.values())).inputs
    # In the network's order, as far as that is known.
    order = sorted(named, key=lambda name: inputs.index(name) if name in inputs else 0)
    parts: dict[Role, Part] = {}
    for role, own in sets.items():
        examples = []
        for name in order:
            found, note = arrange(Named(own.where, own.inputs[name]), sample_shape)
            notes += [note] if note and note not in notes else []
            examples.append(found)
        targets = tuple(item.values[role] for item in encoded)
        parts[role] = Part(own.where, targets, tuple(examples), len(examples[0]))
    names = tuple(order) if len(order) > 1 else ()
    return Source(parts, tuple(item.labels for item in encoded), tuple(notes), names)


def _encoded(sets: Mapping[Role, _Set], task: TaskConfig | None) -> list[Targets]:
    """All targets, in the task's order."""

    def of(name: str) -> dict[Role, Named]:
        return {role: Named(own.where, own.targets[name]) for role, own in sets.items()}

    if task is None:
        return [encode(of(""))]
    if not task.labelled:
        return []
    if task.heads:
        return [encode_for(head.task, of(head.name), head.name) for head in task.heads]
    return [encode_for(task.name, of(""))]


def _sets(path: Path, files: Sequence[Path], names: Names, targets: bool) -> dict[Role, _Set]:
    """Load the arrays that are needed, in the order of `Role`."""
    archives = [file for file in files if file.suffix.lower() == ".npz"]
    if archives and len(archives) < len(files):
        raise DataError(
            f"data {path}: either .npz or .npy files are needed, got both", "keep one kind"
        )
    slots: Slots = {}
    seen: list[str] = []
    for file in files:
        outer = role_of(file.stem) or folder_role(file.parent.name)
        for key in _keys(file) if archives else [file.stem]:
            seen.append(key)
            kind, name = _kind_of(key, names)
            if not kind or (kind == "targets" and not targets):
                continue
            slot = (role_of(key) or outer or Role.TRAIN, kind, name)
            if slot in slots:
                raise DataError(
                    f"data {path}: one array of {kind} is needed for {slot[0].value}, "
                    f"got {slots[slot][1]!r} and {key!r}",
                    _NAMES,
                )
            slots[slot] = (file, key)
    roles = {role for role, _, _ in slots}
    if not roles:
        raise DataError(f"data {path}: inputs and targets are needed, got {listed(seen)}", _NAMES)
    wanted = (names.heads or ("",)) if targets else ()
    return {
        role: _load_set(path, role, slots, wanted, len(roles) > 1)
        for role in Role
        if role in judged_by(roles)
    }


def _load_set(path: Path, role: Role, slots: Slots, wanted: tuple[str, ...], several: bool) -> _Set:
    """Args: wanted: names of the targets."""
    own = {(kind, name): found for (r, kind, name), found in slots.items() if r is role}
    known = _inputs_of(path, role, slots)
    missing = [("targets", name) for name in wanted if ("targets", name) not in own]
    missing += [("inputs", name) for name in known if ("inputs", name) not in own]
    if not known:
        missing.insert(0, ("inputs", ""))
    for kind, name in missing:
        other = next(key for _, key in own.values())
        detail = f" {name!r}" if name else ""
        raise DataError(
            f"data {path}: an array of {kind}{detail} is needed beside {other!r}, got none",
            _NAMES,
        )
    file = own["inputs", known[0]][0]
    inputs = {name: _load(*own["inputs", name]) for name in known}
    targets = {name: _load(*own["targets", name]) for name in wanted}
    name = file.name if file.suffix.lower() == ".npz" else path.name
    where = f"{name} ({role.value})" if several and role_of(name) is None else name
    _check_lengths(where, [*inputs.values(), *targets.values()])
    return _Set(where, inputs, targets)


def _inputs_of(path: Path, role: Role, slots: Slots) -> list[str]:
    """Names of the inputs, the same in every split.

    Raises:
        DataError: an array beside named ones that may or may not be an input.
    """
    found = list(dict.fromkeys(name for _, kind, name in slots if kind == "inputs"))
    if "" in found and len(found) > 1:
        keys = [key for (_, kind, _), (_, key) in slots.items() if kind == "inputs"]
        raise DataError(
            f"data {path}: one array of inputs is needed for {role.value}, got "
            f"{keys[0]!r} and {keys[1]!r}",
            _NAMES,
        )
    return found


def _check_lengths(where: str, arrays: Sequence[AnyArray]) -> None:
    counts = [array.shape[0] if array.ndim else 0 for array in arrays]
    if len(set(counts)) > 1:
        raise DataError(
            f"{where}: inputs and targets must have the same length, got "
            f"{' and '.join(map(str, dict.fromkeys(counts)))}",
            "write them again, one target for each input",
        )
    if counts[0] == 0:
        raise DataError(f"{where}: examples are needed, got empty arrays", "check --data")


def _kind_of(key: str, names: Names) -> tuple[str, str]:
    """What an array is, by its name without the split: a head's target, one of the network's
    inputs, or by the usual words; empty where it is neither."""
    words = words_of(key)
    bare = "_".join(word for word in words if role_of(word) is None)
    for kind, known in (("targets", names.heads), ("inputs", names.inputs)):
        for name in known:
            if bare == "_".join(words_of(name)):
                # Where a network has one input, its array may be called anything.
                return kind, "" if kind == "inputs" and len(known) == 1 else name
    if _TARGETS.intersection(words):
        return ("targets", "") if not names.heads else ("", "")
    return ("inputs", "") if _INPUTS.intersection(words) else ("", "")


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
