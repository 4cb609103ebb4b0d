"""A folder of images, one sub-folder for each class, with or without a level of splits above.

Stage: data. In: a folder. Out: a source whose images are paths, still unread. Never opens an
image, never decides who gets which.
"""

import os
from collections.abc import Iterator
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
    judged_by,
    listed,
)
from prunecli.errors import DataError
from prunecli.tasks import Labels

SUFFIXES = frozenset(
    f".{name}"
    for names in (
        ("jpg", "jpeg", "jpe", "jfif", "jp2", "png", "bmp", "dib", "gif", "webp", "avif"),
        ("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "ico", "tga"),
    )
    for name in names
)
"""Files taken for images; others that lie among them are left out."""

_HINT = "one sub-folder for each class is needed, named after it, with its images inside"


def holds_images(root: Path) -> bool:
    """Whether a file below `root` is named like an image."""
    return any(_is_image(name) for _, _, names in os.walk(root, followlinks=True) for name in names)


def read_folder(root: Path) -> Source:
    """Find the splits, the classes and the images.

    Classes are ordered by name, or by number if all names are numbers.

    Raises:
        DataError: no class folders, fewer than two of them, or splits that disagree on them.
    """
    folders = judged_folders(root)
    notes: list[str] = []
    learn = Role.TRAIN if Role.TRAIN in folders else next(iter(folders))
    classes = _classes_in(folders[learn])
    parts: dict[Role, Part] = {}
    for role, folder in folders.items():
        if role is Role.TEST and role is not learn and not _sub_folders(folder):
            notes.append(f"{folder.name}/ has no class sub-folders and is not used")
            continue
        parts[role] = _read_part(root, folder, classes, notes)
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


def _classes_in(folder: Path) -> tuple[str, ...]:
    names = [sub.name for sub in _sub_folders(folder)]
    if not names:
        raise DataError(f"data {folder}: images must lie in class sub-folders, got none", _HINT)
    if len(names) < 2:
        inner = [sub.name for sub in _sub_folders(folder / names[0])]
        hint = f"if the classes lie inside, use --data {folder / names[0]}" if inner else _HINT
        raise DataError(f"data {folder}: at least 2 classes are needed, got 1 ({names[0]})", hint)
    return tuple(names)


def _read_part(root: Path, folder: Path, classes: tuple[str, ...], notes: list[str]) -> Part:
    shown = str(folder) if folder == root else f"{root.name}/{folder.name}"
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
        found, ignored = _files_below(folder / name)
        paths += found
        labels += [label] * len(found)
        others += ignored
        empty += [] if found else [name]
    if not paths:
        raise DataError(f"data {folder}: images are needed, got none in its sub-folders", _HINT)
    if empty:
        notes.append(f"{shown}: no images of class {listed(empty)}")
    if others:
        notes.append(f"{shown}: {counted(others, 'file')} not named like an image left out")
    images = Blobs(_Reader(root, tuple(paths)))
    return Part(shown, (np.array(labels, dtype=np.int64),), (images,), len(labels))


class _Reader:
    """Yields paths; a class only to hold the list."""

    def __init__(self, root: Path, paths: tuple[Path, ...]) -> None:
        self.root, self.paths = root, paths

    def __call__(self, rows: Rows) -> Iterator[Blob]:
        for row in rows.tolist():
            path = self.paths[row]
            yield Blob(row, str(path.relative_to(self.root)), path)


def _files_below(folder: Path) -> tuple[list[Path], int]:
    """Images below a folder, sorted, and how many other visible files lie there."""
    images: list[Path] = []
    others = 0
    for place, subs, names in os.walk(folder, followlinks=True):
        subs[:] = sorted(sub for sub in subs if not _is_hidden(sub))
        for name in sorted(names):
            if _is_image(name):
                images.append(Path(place, name))
            elif not _is_hidden(name):
                others += 1
    return images, others


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


def _is_image(name: str) -> bool:
    return not _is_hidden(name) and os.path.splitext(name)[1].lower() in SUFFIXES
