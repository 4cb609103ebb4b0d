"""Reading a `.pt2` archive into an exported program.

Stage: loading. In: a path. Out: a `torch.export.ExportedProgram` on the CPU in float32. Never
runs it, never lets the archive run code unless the user allows pickles (see `pt2_guard`).
"""

import json
import logging
import pickle
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch._export.verifier import SpecViolationError
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader

# Not torch.export.load: that falls back, on any RuntimeError, to an older format which is read
# with another zip reader and unpickled freely.
from torch.export.pt2_archive._package import load_pt2

from prunecli.errors import CheckpointError, with_type
from prunecli.loading.finite import check_finite
from prunecli.loading.pt2_guard import CONSTANTS, MODEL, WEIGHTS, check_archive
from prunecli.loading.usercode import user_code

MALFORMED = (
    *(RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError),
    *(ArithmeticError, OSError, EOFError, SyntaxError, pickle.UnpicklingError),
    *(SpecViolationError, struct.error),
)
"""What torch raises on a damaged archive: its readers check little, so nearly anything."""

EXPORT_AGAIN = "export the model again with torch.export.export and torch.export.save"


def load_program(path: Path, *, allow_pickle: bool) -> ExportedProgram:
    """Read and check the program in `path`.

    Raises:
        CheckpointError: damaged, not a program of tensors in float32 on the CPU, holding NaN or
            infinite weights, or (without `allow_pickle`) able to run code.
    """
    with path.open("rb") as stream:
        try:
            # One open file for checking and loading: nobody can swap the file in between.
            reader = PT2ArchiveReader(stream)
            names = reader.get_file_names()
            if MODEL in names:
                if not allow_pickle:
                    check_archive(path, reader)
                _check_device(path, reader, names)
        except MALFORMED as error:
            raise _damaged(path, error) from error
        if MODEL not in names:
            raise CheckpointError(
                f"checkpoint {path}: must hold an exported program named 'model', "
                f"got {_held(names)}",
                EXPORT_AGAIN,
            )
        stream.seek(0)
        try:
            with _quiet("torch.export", "torch._export"), _guarded(path, allow_pickle):
                program = load_pt2(stream).exported_programs["model"]
        except MALFORMED as error:
            raise _damaged(path, error) from error
    _check_weights(path, program)
    return program


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path}: must be a readable exported program, got {with_type(error)}",
        f"the file is damaged or was saved by another torch version: {EXPORT_AGAIN} "
        f"(torch {torch.__version__} is reading)",
    )


def _held(names: list[str]) -> str:
    if any(name.startswith("data/aotinductor/") for name in names):
        return "only compiled code (AOTInductor)"
    models = [Path(name).stem for name in names if name.startswith("models/")]
    return f"programs named {', '.join(models[:3])}" if models else "none"


def _check_device(path: Path, reader: PT2ArchiveReader, names: list[str]) -> None:
    for record in (WEIGHTS, CONSTANTS):
        if record not in names:
            continue
        for name, payload in json.loads(reader.read_string(record))["config"].items():
            device = ((payload.get("tensor_meta") or {}).get("device") or {}).get("type", "cpu")
            if device != "cpu":
                raise CheckpointError(
                    f"checkpoint {path}: must be exported on the CPU, got {name} on {device}",
                    "move it with torch.export.passes.move_to_device_pass(program, 'cpu') "
                    "and save it again",
                )


def _check_weights(path: Path, program: ExportedProgram) -> None:
    parameters = dict(program.named_parameters())
    for name, tensor in parameters.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"checkpoint {path}: weights must be float32, got {kind} in {name}",
                "call model.float() before torch.export.export",
            )
    check_finite(path, parameters, dict(program.named_buffers()))


def _guarded(path: Path, allow_pickle: bool) -> AbstractContextManager[None]:
    """Around an archive whose code the user allowed: it may raise anything, or print."""
    if not allow_pickle:
        return nullcontext()
    hint = "the code in the archive failed: export the model again in this environment"
    return user_code(f"checkpoint {path}", (), hint)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep torch from logging tracebacks for what becomes one clear error here."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
