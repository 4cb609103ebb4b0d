"""A folder of images or sounds, one sub-folder for each class, with or without a level of splits
above.

Stage: data. In: a folder. Out: a source whose files are paths, still unread. Never opens one of
them, never decides who gets which.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunecli.choices import TaskName
from prunecli.data.source import (
    Blob,
    Blobs,
    Part,
    Role,
    Rows,
    Source,
    counted,
    folder_role,
    in_order,
    judged_by,
    listed,
)
from prunecli.data.wanted import Wanted, refuse_idle
from prunecli.errors import DataError
from prunecli.tasks import Labels

_HINT = "one sub-folder for each class is needed, named after it, with its {}s inside"


@dataclass(frozen=True)
class Kind:
    """Files that belong together.

    Attributes:
        suffixes: how their names end; others that lie among them are left out.
    """

    noun: str
    suffixes: frozenset[str]

    def is_one(self, name: str) -> bool:
        """Whether a file is called like one."""
        return not _is_hidden(name) and os.path.splitext(name)[1].lower() in self.suffixes

    @property
    def article(self) -> str:
        """`an image`, `a sound`."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    @property
    def hint(self) -> str:
        """How classes are laid out."""
        return _HINT.format(self.noun)


IMAGES = Kind(
    "image",
    frozenset(
        f".{name}"
        for names in (
            ("jpg", "jpeg", "jpe", "jfif", "jp2", "png", "bmp", "dib", "gif", "webp", "avif"),
            ("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "ico", "tga"),
        )
        for name in names
    ),
)
SOUNDS = Kind("sound", frozenset((".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")))


def holds(root: Path, kind: Kind) -> bool:
    """Whether a file below `root` is called like one of this kind."""
    return any(kind.is_one(name) for _, names in _walk(root) for name in names)


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Visible folders and the names of the files in them, sorted; a link to a folder is followed,
    but not to one that it lies in, which would never end."""
    for place, subs, names in os.walk(root, followlinks=True):
        inside = os.path.realpath(place)
        subs[:] = sorted(
            sub
            for sub in subs
            if not _is_hidden(sub) and not _holds(os.path.join(place, sub), inside)
        )
        yield place, sorted(names)


def _holds(sub: str, place: str) -> bool:
    """Whether a sub-folder is a link to a folder that holds `place`."""
    if not os.path.islink(sub):
        return False
    found = os.path.realpath(sub)
    return os.path.commonpath([found, place]) == found


def read_folder(root: Path, wanted: Wanted, kind: Kind = IMAGES) -> Source:
    """Find the splits, the classes and the files.

    Classes are in the network's order where it knows their names; else ordered by name, or by
    number if all names are numbers. Where no labels are needed, every file below counts.

    Raises:
        DataError: no class folders, fewer than two of them, or splits that disagree on them.
    """
    refuse_idle(wanted.config, "a folder of files", "--target-column", "--input-column")
    folders = judged_folders(root)
    notes: list[str] = []
    if not wanted.labelled:
        parts = {role: _all_of(root, folder, kind) for role, folder in folders.items()}
        return Source(parts, (), ())
    learn = Role.TRAIN if Role.TRAIN in folders else next(iter(folders))
    classes = in_order(_classes_in(folders[learn], kind), wanted.classes)
    parts = {}
    for role, folder in folders.items():
        if role is Role.TEST and role is not learn and not _sub_folders(folder):
            notes.append(f"{folder.name}/ has no class sub-folders and is not used")
            continue
        parts[role] = _read_part(root, folder, classes, notes, kind)
    notes.insert(0, f"{counted(len(classes), 'class')}, named by their folders: {listed(classes)}")
    return Source(parts, (Labels(TaskName.CLASSIFICATION, classes),), tuple(notes))


def judged_folders(root: Path) -> dict[Role, Path]:
    """The folder of each split that is to be read; `root` itself where it has no splits."""
    subs = _sub_folders(root)
    roles = {role: sub for sub in reversed(subs) if (role := folder_role(sub.name))}
    # A lone class may be called `test`; a split level has a training folder or nothing else.
    if Role.TRAIN not in roles and (not roles or len(roles) < len(subs)):
        return {Role.TRAIN: root}
    wanted = judged_by(roles)
    return {role: roles[role] for role in Role if role in wanted}


def _classes_in(folder: Path, kind: Kind) -> tuple[str, ...]:
    names = [sub.name for sub in _sub_folders(folder)]
    if not names:
        raise DataError(
            f"data {folder}: {kind.noun}s must lie in class sub-folders, got none",
            f"{kind.hint}; --task match needs no classes",
        )
    if len(names) < 2:
        inner = [sub.name for sub in _sub_folders(folder / names[0])]
        hint = f"if the classes lie inside, use --data {folder / names[0]}" if inner else kind.hint
        raise DataError(f"data {folder}: at least 2 classes are needed, got 1 ({names[0]})", hint)
    return tuple(names)


def _read_part(
    root: Path, folder: Path, classes: tuple[str, ...], notes: list[str], kind: Kind
) -> Part:
    shown = _shown(root, folder)
    extra = [sub.name for sub in _sub_folders(folder) if sub.name not in classes]
    if extra:
        raise DataError(
            f"data {folder}: classes must be those of the training data, got {extra[0]!r} as well",
            "the same class sub-folders are needed in every split",
        )
    paths: list[Path] = []
    labels: list[int] = []
    others = 0
    empty: list[str] = []
    for label, name in enumerate(classes):
        found, ignored = files_below(folder / name, kind)
        paths += found
        labels += [label] * len(found)
        others += ignored
        empty += [] if found else [name]
    if not paths:
        raise DataError(
            f"data {folder}: {kind.noun}s are needed, got none in its sub-folders", kind.hint
        )
    if empty:
        notes.append(f"{shown}: no {kind.noun}s of class {listed(empty)}")
    if others:
        notes.append(f"{shown}: {counted(others, 'file')} not named like {kind.article} left out")
    files = Blobs(PathReader(root, tuple(paths)))
    return Part(shown, (np.array(labels, dtype=np.int64),), (files,), len(labels))


def _all_of(root: Path, folder: Path, kind: Kind) -> Part:
    """All files below a folder, without labels."""
    paths, _ = files_below(folder, kind)
    if not paths:
        raise DataError(f"data {folder}: {kind.noun}s are needed, got none", "check --data")
    return Part(_shown(root, folder), (), (Blobs(PathReader(root, tuple(paths))),), len(paths))


def _shown(root: Path, folder: Path) -> str:
    return str(folder) if folder == root else f"{root.name}/{folder.name}"


class PathReader:
    """Yields paths; a class only to hold the list."""

    def __init__(self, root: Path, paths: tuple[Path, ...]) -> None:
        self.root, self.paths = root, paths

    def __call__(self, rows: Rows) -> Iterator[Blob]:
        for row in rows.tolist():
            path = self.paths[row]
            yield Blob(row, str(path.relative_to(self.root)), path)


def files_below(folder: Path, kind: Kind) -> tuple[list[Path], int]:
    """Files of a kind below a folder, sorted, and how many other visible ones lie there."""
    found: list[Path] = []
    others = 0
    for place, names in _walk(folder):
        for name in names:
            if kind.is_one(name):
                found.append(Path(place, name))
            elif not _is_hidden(name):
                others += 1
    return found, others


def _sub_folders(folder: Path) -> list[Path]:
    """Visible sub-folders: by number if all are numbers, else by name."""
    if not folder.is_dir():
        return []
    subs = [sub for sub in folder.iterdir() if sub.is_dir() and not _is_hidden(sub.name)]
    if all(sub.name.isdecimal() for sub in subs):
        return sorted(subs, key=lambda sub: (int(sub.name), sub.name))
    return sorted(subs, key=lambda sub: sub.name)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__"))
