"""Reading what torch.save, pickle or safetensors wrote, without running code.

Stage: loading. In: a path and its kind. Out: the Python object inside (tensors on the CPU).
Never builds classes from the file unless the user allows pickles, never looks for weights.
"""

import argparse
import pickle
import pickletools
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from prunecli.errors import CheckpointError, with_type
from prunecli.loading.detect import DOWNLOAD_AGAIN, FileKind
from prunecli.loading.usercode import user_code

ALLOW_HINT = "if you trust the file, add --allow-pickle: unpickling can run any code in it"

DAMAGED = (
    *(RuntimeError, ValueError, TypeError, LookupError, EOFError, OSError, AssertionError),
    *(AttributeError, ArithmeticError, MemoryError, struct.error),
)
"""What torch's readers raise on damaged files; a wrong length asks for too much memory."""

LEGACY_PICKLES = 5
"""Magic number, protocol, machine, the object, the names of its storages; then raw numbers."""

GLOBAL_NAME = re.compile(r"GLOBAL (\S+)")
PROTOCOL_OPERAND = re.compile(r"Unsupported operand (\d+)")


def read_object(path: Path, kind: FileKind, *, allow_pickle: bool) -> tuple[object, bool]:
    """Read the checkpoint.

    Args:
        path: the file.
        kind: any but `FileKind.PROGRAM`.
        allow_pickle: read what needs unpickling, which can run code.

    Returns:
        The object, and whether it had to be unpickled with code allowed.

    Raises:
        CheckpointError: damaged, or it needs classes and `allow_pickle` is off.
        ModelError: code inside the pickle raised.
    """
    if kind is FileKind.SAFETENSORS:
        try:
            return load_file(path, device="cpu"), False
        except (SafetensorError, *DAMAGED) as error:
            raise _damaged(path, error) from error
    if kind is FileKind.PICKLE:
        if not allow_pickle:
            raise CheckpointError(
                f"checkpoint {path}: must be written by torch.save, got a plain Python pickle",
                f"save the state dict with torch.save; {ALLOW_HINT}",
            )
        return _read_trusted(path, kind), True
    try:
        return _read_safely(path, kind), False
    except pickle.UnpicklingError as error:
        if allow_pickle:
            return _read_trusted(path, kind), True
        if kind is FileKind.TORCH_LEGACY and not _is_whole(path):
            raise _cut_off(path) from error
        raise _needs_code(path, str(error)) from error
    except DAMAGED as error:
        raise _damaged(path, error) from error


def _read_safely(path: Path, kind: FileKind) -> object:
    with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
        # torch warns about pickle protocols other than 2; it reads them or says that it cannot.
        warnings.simplefilter("ignore")
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=kind is FileKind.TORCH_ZIP
        )


def _harmless() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Classes beside torch's own that many checkpoints hold and that only carry values."""
    scalar: Any = np.float64(0).__reduce__()[0]
    codes = np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"
    return [
        argparse.Namespace,
        np.dtype,
        *{type(np.dtype(code)) for code in codes},
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]


def _read_trusted(path: Path, kind: FileKind) -> object:
    """Unpickle, code and all: the user said so."""
    hint = "the code in the checkpoint failed: save its state dict and give --model instead"
    with user_code(f"checkpoint {path}", (path.resolve().parent, Path.cwd()), hint):
        try:
            if kind is FileKind.PICKLE:
                with path.open("rb") as stream:
                    return pickle.load(stream)
            return torch.load(path, map_location="cpu", weights_only=False)
        except (AttributeError, ImportError) as error:
            text = " ".join(str(error).split())
            main = "__main__" in text
            raise CheckpointError(
                f"checkpoint {path}: every class in it must be importable, got {text}",
                "the class was defined in a script that ran itself: save the state dict and give "
                "--model"
                if main
                else "run from the folder that holds its source, or save the state dict and give "
                "--model",
            ) from error
        except (pickle.UnpicklingError, EOFError) as error:
            raise _damaged(path, error) from error


def _needs_code(path: Path, text: str) -> CheckpointError:
    """Say what the safe reader refused."""
    found = GLOBAL_NAME.search(text)
    operand = PROTOCOL_OPERAND.search(text)
    if found is not None:
        got = f"a pickle that uses {found.group(1)}"
    elif operand is not None:
        got = "a pickle protocol that cannot be read safely"
    elif "persistent" in text or "must be" in text or "reduce" in text or "build" in text:
        got = "a pickle that builds other objects"
    else:
        return _cut_off(path)
    return CheckpointError(
        f"checkpoint {path}: must hold only tensors and plain values, got {got}",
        f"save the state dict (torch.save(model.state_dict(), ...)); {ALLOW_HINT}",
    )


def _is_whole(path: Path) -> bool:
    """Whether the pickles of a legacy file end; one cut inside a name looks like a foreign class.

    Only reads opcodes, builds nothing.
    """
    with path.open("rb") as stream:
        try:
            for _ in range(LEGACY_PICKLES):
                for _ in pickletools.genops(stream):
                    pass
        except (ValueError, MemoryError, OverflowError):
            return False
    return True


def _cut_off(path: Path) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path}: must be complete, got a damaged pickle", DOWNLOAD_AGAIN
    )


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path}: must be complete, got {with_type(error)}", DOWNLOAD_AGAIN
    )
