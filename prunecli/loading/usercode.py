"""Running the user's own Python (factory, pickled classes) without letting it break the tool.

Stage: loading. In: a block that runs the user's code. Out: its effect, or one `ModelError` with
the exception's type, text and place. Never lets the user's prints reach stdout (that is the
result's), never leaves `sys.path` changed, never writes `__pycache__` beside the user's files.
"""

import contextlib
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from prunecli.errors import ModelError, PrunecliError

TEXT_LIMIT = 300
"""Longer exception texts are cut: the message is one line."""


@contextlib.contextmanager
def user_code(doing: str, folders: tuple[Path, ...], hint: str) -> Iterator[None]:
    """Run the block with `folders` importable.

    Args:
        doing: start of the error message, e.g. `--model net.py:build`.
        folders: put first on `sys.path` for the time of the block.
        hint: what to do when the block raises.

    Raises:
        ModelError: the block raised anything but an error of this package.
    """
    entries = [str(folder) for folder in folders]
    wrote_bytecode = sys.dont_write_bytecode
    sys.path[:0] = entries
    sys.dont_write_bytecode = True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except PrunecliError:
        raise
    # The only broad handler of the package. A factory is the user's code and may raise anything,
    # SystemExit included (a script without a main guard); it is never swallowed: it becomes one
    # line that says what was raised and where.
    except (Exception, SystemExit) as error:
        raise ModelError(f"{doing}: raised {describe(error)}", _hint(error) or hint) from error
    finally:
        sys.dont_write_bytecode = wrote_bytecode
        for entry in entries:
            # The user's code may have changed sys.path itself: only our entries go.
            with contextlib.suppress(ValueError):
                sys.path.remove(entry)


def _hint(error: BaseException) -> str | None:
    """For the two mistakes that say themselves what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {error.name.partition('.')[0]}, or run from the folder that holds it"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "the file belongs to a package: give --model package.module:factory instead"
    return None


def describe(error: BaseException) -> str:
    """`ValueError: text (net.py:12)` on one line."""
    text = " ".join(str(error).split())
    if len(text) > TEXT_LIMIT:
        text = text[:TEXT_LIMIT] + "..."
    name = type(error).__name__
    place = _place(error)
    return f"{name}: {text} ({place})" if text else f"{name} ({place})"


def _place(error: BaseException) -> str:
    """File and line of the innermost frame that is neither ours nor a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    last = (own or list(frames))[-1]
    return f"{last.filename}:{last.lineno}"


def _is_library(filename: str) -> bool:
    paths = sysconfig.get_paths()
    roots = (paths["stdlib"], paths["purelib"], paths["platlib"], str(Path(__file__).parents[1]))
    return filename.startswith((*roots, "<frozen"))
