"""Writing files so that a half-written one never has the final name.

Stage: below all others. Never decides what is written.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunecli.errors import OutputError


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A temporary sibling of `final`, renamed to it when the block ends well.

    The temporary keeps the suffix (writers look at it) and is removed on any failure.

    Raises:
        OutputError: the folder cannot be created or written.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"output folder {final.parent} cannot be created: {error.strerror}",
            "choose another place with -o",
        ) from error
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
    try:
        yield temporary
        os.replace(temporary, final)
    except PermissionError as error:
        raise OutputError(
            f"{final} cannot be written: {error.strerror}", "choose another place with -o"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    """Write `text` to `final`, atomically.

    Raises:
        OutputError: the place cannot be written.
    """
    with atomic_path(final) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(final: Path) -> None:
    """Fail now, not after an hour of training, if `final` cannot be written.

    Raises:
        OutputError: the folder cannot be created or written, or `final` is a folder.
    """
    if final.is_dir():
        raise OutputError(f"output {final} is a folder", f"name a file, e.g. -o {final}/model.onnx")
    probe = final.with_name(f".{final.stem}.{os.getpid()}.probe")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"output folder {final.parent} is not writable: {error.strerror}",
            "choose another place with -o",
        ) from error


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
