"""What can go wrong, as types: each error is one line for the user plus a hint.

Stage: below everything. The command line turns these into `ERROR`/`TIP` lines and an exit
code; nothing else in the package prints or exits.
"""

from typing import ClassVar

LONGEST = 300
"""Characters of somebody else's message that are passed on."""


class PrunecliError(Exception):
    """A failure the user can act on.

    Args:
        message: one line, `<where>: <rule>, got <value>`.
        hint: one line that says what to do, naming a flag where there is one.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PrunecliError):
    """A flag or a combination of flags that makes no sense."""


class CheckpointError(PrunecliError):
    """The checkpoint cannot be read, or does not fit the model."""


class ModelError(PrunecliError):
    """The model cannot be built, captured or run on the given input."""


class DataError(PrunecliError):
    """The data set is missing, empty, broken, or does not fit the model."""


class OutputError(PrunecliError):
    """A result cannot be written."""


class StateError(PrunecliError):
    """What an unfinished run left is damaged, in use, or no longer fits what it began with."""


class TargetError(PrunecliError):
    """The requested size cannot be reached."""


class MissingExtraError(PrunecliError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed", f"install it with: pip install 'prunecli[{extra}]'"
        )


class NothingToPruneError(PrunecliError):
    """Every part of the network is frozen; the message carries the reasons."""

    exit_code = 1


class VerificationError(PrunecliError):
    """The result does not compute what it must; nothing was shipped."""

    exit_code = 1


class TrainingError(PrunecliError):
    """Fine-tuning or scoring ran into numbers that are not finite."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What went wrong in somebody else's code, in one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:LONGEST] if lines else type(error).__name__


def with_type(error: BaseException) -> str:
    """The same after the error's type: `KeyError: 'weights'`."""
    name, said = type(error).__name__, first_line(error)
    return name if said == name else f"{name}: {said}"
