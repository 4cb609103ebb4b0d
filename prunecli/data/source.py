"""What a reader hands to the rest of the data stage: parts with targets, examples still unread.

Stage: data. In: nothing; plain records and the names that splits go by. Never opens a file,
never decides which part judges.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecli.choices import TaskName
from prunecli.data.contents import Content
from prunecli.errors import DataError
from prunecli.tasks import Labels

AnyArray = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


class Role(StrEnum):
    """What a part of the source is called there."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Blob:
    """One image or sound as stored.

    Attributes:
        row: its index in the part.
        where: how a message names it.
        content: a file, its bytes, or pixels `(H, W)` or `(H, W, C)` uint8; `None` where
            the source holds nothing.
    """

    row: int
    where: str
    content: Path | bytes | AnyArray | None


@dataclass(frozen=True)
class Blobs:
    """Images or sounds that are decoded later. `read` yields the given rows, which ascend."""

    read: Callable[[Rows], Iterator[Blob]]


@dataclass(frozen=True)
class Deferred:
    """Numbers that are made later. `read` returns those of the given rows, `(n, ...)` float32."""

    read: Callable[[Rows], AnyArray]


Examples = AnyArray | Blobs | Deferred
"""One input of all examples of a part."""


@dataclass(frozen=True)
class Part:
    """One part of the source.

    Attributes:
        where: how a message names it.
        targets: one array for each target, `(N, ...)`, int64 for classes, else float32.
        examples: one for each input: `(N, ...)` numbers, images, or what is made later.
        count: N, which is not known from images alone.
    """

    where: str
    targets: tuple[AnyArray, ...]
    examples: tuple[Examples, ...]
    count: int


@dataclass(frozen=True)
class Source:
    """A source that has been understood but not yet read.

    Attributes:
        labels: of each target; empty where the task needs none.
        names: of the inputs, where there are several.
        contents: of the inputs; empty where nothing is known about any.
    """

    parts: Mapping[Role, Part]
    labels: tuple[Labels, ...]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    contents: tuple[Content, ...] = ()

    def classes_of(self, part: Part) -> Rows | None:
        """The class of every example, where each has one."""
        for labels, targets in zip(self.labels, part.targets, strict=True):
            if labels.kind is TaskName.CLASSIFICATION:
                return targets
        return None


@dataclass(frozen=True)
class Targets:
    """One target of every part, encoded, and how it was understood."""

    labels: Labels
    values: Mapping[Role, AnyArray]
    note: str


def single(
    parts: Mapping[Role, tuple[str, Examples]],
    targets: Targets,
    notes: tuple[str, ...] = (),
) -> Source:
    """A source with one input and one target.

    Args:
        parts: what messages name each part, and its examples.
    """
    made = {
        role: Part(where, (targets.values[role],), (examples,), len(targets.values[role]))
        for role, (where, examples) in parts.items()
    }
    return Source(made, (targets.labels,), notes)


_ROLE_WORDS = {
    "train": Role.TRAIN,
    "training": Role.TRAIN,
    "validation": Role.VALIDATION,
    "valid": Role.VALIDATION,
    "val": Role.VALIDATION,
    "dev": Role.VALIDATION,
    "test": Role.TEST,
    "testing": Role.TEST,
}

MOST_CLASSES = 1 << 22
"""More than any network tells apart; names for a number of this size would fill the memory."""

TARGET_NAMES = ("label", "labels", "target", "targets", "class", "y")
"""Names a column of targets goes by, the likeliest first."""


def words_of(name: str) -> list[str]:
    """`x_Train-00` as `["x", "train", "00"]`."""
    return [word for word in re.split(r"[^0-9a-z]+", name.lower()) if word]


def role_of(name: str) -> Role | None:
    """The split that a file, folder or array is named after."""
    return next((_ROLE_WORDS[word] for word in words_of(name) if word in _ROLE_WORDS), None)


def folder_role(name: str) -> Role | None:
    """The same for a folder whose whole name must be the split's (`test`, not `test tubes`)."""
    return _ROLE_WORDS.get(name.lower())


def by_role(files: Iterable[Path], root: Path) -> tuple[dict[Role, list[Path]], list[Path]]:
    """Sort files into splits by their names, or those of the folders between them and `root`.

    Returns:
        The files of each split, and the rest. Where no file names a split, all are training data.
    """
    found: dict[Role, list[Path]] = {}
    rest: list[Path] = []
    for file in sorted(files):
        parts = file.relative_to(root).parts if file != root else ()
        role = role_of(file.stem) or next(
            (role for folder in reversed(parts[:-1]) if (role := folder_role(folder))), None
        )
        if role is None:
            rest.append(file)
        else:
            found.setdefault(role, []).append(file)
    return (found, rest) if found else ({Role.TRAIN: rest}, [])


def judged_by(roles: Iterable[Role]) -> set[Role]:
    """The parts worth reading: a test part is left alone where a validation part exists."""
    present = set(roles)
    return present - {Role.TEST} if Role.VALIDATION in present else present


def check_labels(where: str, labels: AnyArray) -> Rows:
    """Integer labels as int64.

    Raises:
        DataError: a negative label.
    """
    if labels.dtype.kind == "u" and len(labels) and labels.max() > np.iinfo(np.int64).max:
        class_count(where, int(labels.max()))
    if len(labels) and labels.min() < 0:
        row = int(np.argmax(labels < 0)) + 1
        raise DataError(
            f"{where}: labels must count from 0, got {int(labels.min())} (row {row})",
            "number the classes from 0; write regression targets with a decimal point (3.0)",
        )
    return labels.astype(np.int64)


def numbered_classes(where: str, label_arrays: Iterable[AnyArray]) -> tuple[str, ...]:
    """Class names for labels that come without: the numbers up to the largest.

    Raises:
        DataError: a number that counts no classes, or no label at all.
    """
    largest = max((int(labels.max()) for labels in label_arrays if labels.size), default=-1)
    if largest < 0:
        raise DataError(
            f"{where}: targets that count are needed, got none", "check the labels in --data"
        )
    return tuple(str(index) for index in range(class_count(where, largest)))


def class_count(where: str, largest: int) -> int:
    """How many classes there are, by the largest class number.

    Raises:
        DataError: more than any network has outputs for: numbers that name something.
    """
    if largest >= MOST_CLASSES:
        raise DataError(
            f"{where}: class numbers must be below {MOST_CLASSES:,}, got {largest}",
            "number the classes from 0, or write them as texts; quantities are --task regression",
        )
    return largest + 1


def names_to_labels(where: str, values: AnyArray, classes: tuple[str, ...]) -> Rows:
    """Class names as indices into `classes`.

    Raises:
        DataError: a name that is not among them.
    """
    index = {name: position for position, name in enumerate(classes)}
    unknown = sorted({str(value) for value in values} - index.keys())
    if unknown:
        raise DataError(
            f"{where}: classes must be those of the training data, got {unknown[0]!r} as well",
            "the same classes are needed in every split",
        )
    return np.array([index[str(value)] for value in values], dtype=np.int64)


def in_order(found: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as the network counts them, where it knows all of them; else as found."""
    return tuple(known if found and set(found) <= set(known) else found)


def listed(names: Iterable[object], most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    items = [str(name) for name in names]
    shown = ", ".join(items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown


def counted(number: int, noun: str) -> str:
    """`1 image`, `1,200 images`."""
    plural = noun if number == 1 else noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {plural}"
