"""Writing files so that a half-written one never has the final name.

Stage: below all others. Never decides what is written.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prunecli.errors import OutputError

WORKSPACE = ".prunecli-"
TEMPORARY, PROBE = "tmp", "probe"

ELSEWHERE = "choose another place with -o or --report"


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A temporary sibling of `final`, renamed to it when the block ends well.

    The temporary keeps the suffix (writers look at it) and is removed on any failure.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = _sibling(final, TEMPORARY)
    with writing(final):
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Around anything that writes `what`: the system's refusals (a full disk, a read-only
    folder) become one line.

    Raises:
        OutputError: the system refused.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {_why(error)}", ELSEWHERE) from error


def write_text(final: Path, text: str) -> None:
    """Write `text` to `final`, atomically.

    Raises:
        OutputError: the place cannot be written.
    """
    with atomic_path(final) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(final: Path) -> None:
    """Fail now, not after an hour of training, if `final` cannot be written. Its folder exists.

    Raises:
        OutputError: the folder cannot be written, or `final` is a folder.
    """
    if final.is_dir():
        raise OutputError(
            f"output {final} is a folder", "give a file's name, inside it or beside it"
        )
    probe = _sibling(final, PROBE)
    try:
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"output folder {final.parent} is not writable: {_why(error)}", ELSEWHERE
        ) from error


@contextmanager
def folders_for(files: Sequence[Path]) -> Iterator[None]:
    """The folders of `files`, created where missing; those created here go again when the block
    fails and left nothing in them.

    Raises:
        OutputError: a folder cannot be created.
    """
    created: list[Path] = []
    try:
        for file in files:
            _create(file.parent, created)
        yield
    except BaseException:
        for folder in reversed(created):
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


@contextmanager
def workspace(near: Path) -> Iterator[Path]:
    """A temporary folder beside `near` (so that renaming from it to there works), gone after the
    block whatever happens."""
    with tempfile.TemporaryDirectory(dir=near.parent, prefix=WORKSPACE) as folder:
        yield Path(folder)


def sweep(near: Path, finals: Iterable[Path] = ()) -> None:
    """Remove what killed processes left, where no other can be at work: workspaces beside `near`,
    and beside `finals` what was to become one of them."""
    for folder in near.parent.glob(f"{WORKSPACE}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for final in finals:
        half = re.compile(
            rf"\.{re.escape(final.stem)}\.\d+\.({TEMPORARY}|{PROBE}){re.escape(final.suffix)}"
        )
        for file in final.parent.glob(".*"):
            if half.fullmatch(file.name):
                file.unlink(missing_ok=True)


def rename_together(renames: Sequence[tuple[Path, Path]]) -> None:
    """Give every (temporary, final) its final name; where one fails, take all back.

    Raises:
        OutputError: a name cannot be given.
    """
    done: list[Path] = []
    try:
        for temporary, final in renames:
            with writing(final):
                os.replace(temporary, final)
            done.append(final)
    except BaseException:
        for final in done:
            final.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _sibling(final: Path, kind: str) -> Path:
    return final.with_name(f".{final.stem}.{os.getpid()}.{kind}{final.suffix}")


def _create(folder: Path, created: list[Path]) -> None:
    """Create `folder` and what is missing above it, and note each as it comes into being."""
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            place.mkdir()
            created.append(place)
    except OSError as error:
        raise OutputError(
            f"output folder {folder} cannot be created: {_why(error)}", ELSEWHERE
        ) from error


def _why(error: OSError) -> str:
    return error.strerror or str(error)
