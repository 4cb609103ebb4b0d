"""Ranges of numbers, and how a number outside of one is refused.

Stage: below all records of what the user wants. In: a flag and its value. Out: nothing, or an
error. Never imports torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from prunecli.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """Finite numbers that a flag takes.

    Attributes:
        rule: in words, for the message.
        holds: whether a finite number is one of them.
    """

    rule: str
    holds: Callable[[float], bool]


POSITIVE = Range("a positive number is needed", lambda value: value > 0)
NOT_NEGATIVE = Range("0 or more is needed", lambda value: value >= 0)
BELOW_ONE = Range("0 up to 1 is needed", lambda value: 0 <= value < 1)
SHARE = Range("a share from 0 to 1 is needed", lambda value: 0 <= value <= 1)
FACTOR = Range("more than 0 and at most 1 is needed", lambda value: 0 < value <= 1)
INSIDE = Range("between 0 and 1 is needed", lambda value: 0 < value < 1)
ALPHA = Range("from 0.01 to 100 is needed", lambda value: 0.01 <= value <= 100)
"""Of Beta(alpha, alpha): below, draws are 0 or 1 and lose their digits; above, all are a half."""

WHOLE = Range("at least 1 is needed", lambda value: value >= 1)


def check_range(flag: str, value: float | None, allowed: Range, hint: str) -> None:
    """Raise for a number outside; `None` stands for a flag that was not given.

    Raises:
        ConfigError: outside, or not finite.
    """
    if value is not None and not (math.isfinite(value) and allowed.holds(value)):
        raise ConfigError(f"{flag}: {allowed.rule}, got {value:g}", hint)
