"""How a command ends: its last lines on stderr, and its exit code.

Stage: endings, below the command line. In: what a command raises. Out: lines for people. Never
parses anything, never imports torch.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

import typer

from prunecli import launch
from prunecli.errors import PrunecliError

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, as shells have them."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM: the same way out as Ctrl-C, so that everything is cleaned up on it."""

    exit_code = TERMINATED


@contextlib.contextmanager
def errors_as_lines() -> Iterator[None]:
    """One line `ERROR`, one line `TIP`, and the exit code of the error's kind."""
    try:
        yield
    except PrunecliError as error:
        # Of several processes one says what went wrong; which, an error that carries it knows.
        if getattr(error, "said", not launch.is_main()):
            sys.exit(error.exit_code)
        _fail(error.message, (error.hint, *_notes(error)), error.exit_code)
    except typer.TyperException as error:
        if not launch.is_main():
            sys.exit(error.exit_code)
        hint = f"see: prunecli {_command_of(error)} --help"
        _fail(error.format_message(), (hint,), error.exit_code)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block as an error does, so that it cleans up, with one line."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        if launch.is_main():
            _say_interrupted(_notes(error))
        sys.exit(getattr(error, "exit_code", INTERRUPTED))
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _say_interrupted(notes: Sequence[str]) -> None:
    what = "no result was written" if notes else "nothing was written"
    print(f"INTERRUPTED {what}", file=sys.stderr)
    _tips(*notes)


def _fail(message: str, hints: Sequence[str | None], code: int) -> NoReturn:
    # Texts from other libraries are quoted in messages, and may have line breaks.
    print(f"ERROR {' '.join(message.split())}", file=sys.stderr)
    _tips(*hints)
    sys.exit(code)


def _tips(*hints: str | None) -> None:
    said = "; ".join(" ".join(hint.split()) for hint in hints if hint)
    if said:
        print(f"TIP {said}", file=sys.stderr)


def _notes(error: BaseException) -> list[str]:
    """What stages on the way out had to say."""
    return list(getattr(error, "__notes__", ()))


def _command_of(error: typer.TyperException) -> str:
    """The command whose flags are wrong; the usual one where even that is not known."""
    context = getattr(error, "ctx", None)
    if context is None or context.parent is None:
        return "prune"
    return str(context.info_name)
