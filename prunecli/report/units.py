"""Numbers as people read them: three significant digits and a unit, decimal prefixes.

Stage: report. In: numbers. Out: strings. Never rounds what is stored, only what is shown.
"""

import math

from prunecli.metric import Metric

_PREFIXES = ("", "k", "M", "G", "T", "P")


def significant(value: float, digits: int = 3) -> str:
    """`value` with so many significant digits, never in exponent form: 0.731, 12.3, 123."""
    return f"{value:.{decimals_of(value, digits)}f}"


def decimals_of(value: float, digits: int = 3) -> int:
    """Decimals that show `digits` significant digits of `value` after rounding."""
    if value == 0 or not math.isfinite(value):
        return 0
    exponent = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])
    return max(0, digits - 1 - exponent)


def count(value: int) -> str:
    """A count: 999, 12.3 k, 1.23 M, 40.6 M. Thousands and more lose their tail."""
    return _with_prefix(value, "")


def size(size_bytes: int) -> str:
    """Bytes, decimal: 999 B, 12.3 kB, 1.10 MB."""
    return _with_prefix(size_bytes, "B")


def milliseconds(value: float) -> str:
    """Milliseconds: 0.731 ms, 12.3 ms."""
    return f"{significant(value)} ms"


def factor(value: float) -> str:
    """How many times: 1.83x, 12.3x."""
    return f"{value:.{2 if abs(value) < 9.995 else 1}f}x"


def percent(share: float, decimals: int = 1) -> str:
    """A share of one as a percentage: 49.3%."""
    return f"{share * 100:.{decimals}f}%"


def score(metric: Metric, value: float, digits: int | None = None) -> str:
    """A score with its unit: 98.12%, or 0.5123.

    Args:
        digits: decimals of a percentage (2), significant digits of a number (4).
    """
    if metric.percent:
        return percent(value, 2 if digits is None else digits)
    return significant(value, 4 if digits is None else digits)


def tolerance(value: float) -> str:
    """A small difference: 3.1e-06, 0."""
    return f"{value:.2g}"


def plural(number: int, noun: str) -> str:
    """`1 layer`, `3 layers`, `5,000 examples`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def names(found: tuple[str, ...], shown: int = 3) -> str:
    """Up to `shown` names and a count of the others: `a, b, c and 4 more`."""
    listed = ", ".join(found[:shown])
    return listed if len(found) <= shown else f"{listed} and {len(found) - shown} more"


def _with_prefix(value: int, unit: str) -> str:
    if abs(value) < 1000:
        return f"{value} {unit}".strip()
    # Rounded first: 999,999 is 1.00 M, not 1000 k.
    rounded = float(f"{value:.2e}")
    step = min(int(math.log10(abs(rounded)) // 3), len(_PREFIXES) - 1)
    return f"{significant(rounded / 1000**step)} {_PREFIXES[step]}{unit}"
