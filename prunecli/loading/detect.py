"""What kind of file a checkpoint is, judged by its content and never by its suffix alone.

Stage: loading. In: a path. Out: a `FileKind`, or an error that says what the file really is.
Never unpickles, never reads more than the head of the file and a zip archive's directory.
"""

import re
import zipfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from prunecli.errors import CheckpointError

HEAD_BYTES = 1024
"""Enough for every signature below."""

TORCH_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The number that opens files of torch.save before 1.6, as pickle writes it."""

SHARD = re.compile(r"-(\d+)-of-(\d+)\.")
"""How the parts of a checkpoint are called that is too large for one file."""

TAR_MARK_OFFSET = 257
"""Where a tar archive says `ustar`."""

DOWNLOAD_AGAIN = "the file is cut off or damaged: download or copy it again"
NOT_WEIGHTS = "name a .pt, .pth, .safetensors or .pt2 file"


class FileKind(StrEnum):
    """Checkpoint formats that can be read."""

    TORCH_ZIP = "torch zip archive"
    TORCH_LEGACY = "torch legacy file"
    PICKLE = "plain Python pickle"
    SAFETENSORS = "safetensors file"
    PROGRAM = "exported program"


def detect(path: Path) -> FileKind:
    """The format of `path`.

    Raises:
        CheckpointError: missing, a folder, empty, or not a checkpoint; says what it is instead.
    """
    head, size_bytes = _read_head(path)
    shard = SHARD.search(path.name)
    if shard is not None and int(shard.group(2)) > 1:
        raise CheckpointError(
            f"checkpoint {path}: must hold all weights, got part {int(shard.group(1))} of "
            f"{int(shard.group(2))}",
            "name the folder with its config.json, or save the joined state dict in one file",
        )
    if head.startswith(b"PK\x03\x04"):
        return _detect_zip(path)
    if TORCH_MAGIC in head[:64]:
        return FileKind.TORCH_LEGACY
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return FileKind.PICKLE
    if _is_safetensors(head):
        header_bytes = int.from_bytes(head[:8], "little")
        if 8 + header_bytes > size_bytes:
            raise CheckpointError(
                f"checkpoint {path}: must be complete, got a truncated safetensors file",
                DOWNLOAD_AGAIN,
            )
        return FileKind.SAFETENSORS
    for recognise, got, hint in IMPOSTORS:
        if recognise(head):
            raise CheckpointError(f"checkpoint {path}: must be a checkpoint, got {got}", hint)
    if _is_text(head):
        start = " ".join(head[:60].decode("utf-8", "replace").split())[:40]
        raise CheckpointError(
            f"checkpoint {path}: must be a checkpoint, got a text file that starts with {start!r}",
            NOT_WEIGHTS,
        )
    raise CheckpointError(
        f"checkpoint {path}: must be a checkpoint, got an unknown binary format", NOT_WEIGHTS
    )


def _read_head(path: Path) -> tuple[bytes, int]:
    if path.is_dir():
        raise CheckpointError(
            f"checkpoint {path}: must be a file or hold config.json, got a folder without one",
            "name the checkpoint file inside it",
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        size_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError(
            f"checkpoint {path}: must exist, got no such file", _similar_files(path)
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path}: must be readable, got {error.strerror}",
            "check the path and its permissions",
        ) from error
    if not head:
        raise CheckpointError(
            f"checkpoint {path}: must hold weights, got an empty file",
            "the download or the save was interrupted: repeat it",
        )
    return head, size_bytes


def _similar_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist: check the path"
    suffixes = (".pt", ".pth", ".th", ".pt2", ".safetensors", ".ckpt", ".bin")
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in suffixes)
    if not names:
        return f"{path.parent} holds no checkpoint: check the path"
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{path.parent} holds {shown}"


def _detect_zip(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"checkpoint {path}: must be complete, got a truncated or damaged zip archive",
            DOWNLOAD_AGAIN,
        ) from error
    # Everything lies in one top folder, whose name differs from file to file.
    inner = [name.partition("/")[2] for name in names]
    if "archive_format" in inner or "archive_format" in names:
        return FileKind.PROGRAM
    if "serialized_exported_program.json" in names:
        raise CheckpointError(
            f"checkpoint {path}: must be a program saved by torch 2.8 or later, got an older one",
            "export the model again with torch.export.export and torch.export.save",
        )
    if "data.pkl" not in inner:
        shown = ", ".join(names[:3]) or "nothing"
        raise CheckpointError(
            f"checkpoint {path}: must be a checkpoint, got a zip archive that holds {shown}",
            "if the checkpoint lies inside, unpack it first",
        )
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise CheckpointError(
            f"checkpoint {path}: must be a state dict or an exported program, "
            "got a TorchScript archive",
            "export the Python model with torch.export.export, or give its state dict and --model",
        )
    return FileKind.TORCH_ZIP


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _is_html(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--"))


def _is_text(head: bytes) -> bool:
    # The cut after HEAD_BYTES may split a character, so undecodable bytes at the end pass.
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) >= len(head) - 3 and all(
        char.isprintable() or char in "\r\n\t\f\v\ufeff" for char in text
    )


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


def _is_tar(head: bytes) -> bool:
    return head[TAR_MARK_OFFSET : TAR_MARK_OFFSET + 5] == b"ustar"


IMPOSTORS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (
        _begins(b"version https://git-lfs.github.com/spec/"),
        "a Git LFS pointer",
        "fetch the real file: git lfs pull",
    ),
    (
        _is_html,
        "an HTML page",
        "the download saved a web page (a login or an error page): download the file itself",
    ),
    (
        _begins(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"),
        "a compressed file",
        "unpack it first",
    ),
    (_begins(b"7z\xbc\xaf\x27\x1c", b"Rar!"), "a compressed archive", "unpack it first"),
    (_is_tar, "a tar archive", "unpack it first and name the checkpoint inside"),
    (_begins(b"PK\x05\x06"), "an empty zip archive", "the save was interrupted: repeat it"),
    (_begins(b"\x89HDF"), "an HDF5 file (Keras)", "only PyTorch checkpoints can be read"),
    (_begins(b"\x93NUMPY"), "a NumPy array", "only PyTorch checkpoints can be read"),
)
"""What people pass by mistake: how to tell, what to call it, what to do."""
