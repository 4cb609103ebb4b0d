"""Shares and margins: how they are written, and which make sense.

Stage: below all records of what the user wants.
"""

import math
from dataclasses import dataclass

from prunecli.errors import ConfigError


@dataclass(frozen=True)
class Margin:
    """How far a score may be from the original's.

    Attributes:
        amount: a share of one.
        relative: of what the original scores, and not of 100%.
    """

    amount: float
    relative: bool = False

    def in_words(self) -> str:
        """As it is written on the command line: `0.3pp`, `5%`."""
        return f"{100 * self.amount:g}{'%' if self.relative else 'pp'}"


def percent(share: float) -> str:
    """A share as people write it: `12.5%`."""
    return f"{share * 100:.4g}%"


def check_share(flag: str, value: float, *, top: bool = False) -> None:
    """Raise unless `value` is in [0, 1), or [0, 1] with `top`.

    Raises:
        ConfigError: it is not.
    """
    if not (math.isfinite(value) and value >= 0 and (value < 1 or (top and value == 1))):
        raise ConfigError(
            f"{flag}: a share from 0% to {'100%' if top else 'less than 100%'} is needed, "
            f"got {percent(value)}",
            f"e.g. {flag} 50%",
        )
