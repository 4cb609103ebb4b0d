"""Files that hold what a run has done so far: tensors and plain values.

Stage: pipeline. In: values. Out: a file that is there as a whole or not at all, and values again.
Reading executes nothing that is in the file.
"""

import os
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prunecli.errors import StateError
from prunecli.files import atomic_path

DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, pickle.UnpicklingError),
)
"""What readers raise on files that are not what was written."""


def write_state(path: Path, values: Mapping[str, Any]) -> None:
    """Write values, and have them on the disk before they take the place of earlier ones.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(dict(values), stream)
        stream.flush()
        os.fsync(stream.fileno())


def read_state(path: Path) -> dict[str, Any]:
    """Values as they were written.

    Raises:
        StateError: the file is damaged, cut off, or holds more than values.
    """
    try:
        # PyTorch checks no sums when it reads: a changed byte would become a changed weight.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"wrong sum of {broken}")
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, dict):
            raise TypeError("no dictionary")
    except DAMAGED as error:
        raise damaged(path) from error
    return found


def damaged(path: Path) -> StateError:
    """What to say about a file that is not what was written."""
    return StateError(f"state {path}: is damaged", "prune again: a new run starts over")
