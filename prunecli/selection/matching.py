"""Matching: patterns of layer names against the layers there are.

Stage: selection. In: what the user wrote, and names. Raises where something cannot be meant.
"""

import difflib
from collections.abc import Iterable

from prunecli.errors import ConfigError
from prunecli.removal import Choosing, fits

MOST_NAMES = 5
"""Names shown in an error."""


def check_patterns(choosing: Choosing, layers: Iterable[str]) -> None:
    """Every pattern of `--layer` and `--keep` must match a layer.

    Args:
        layers: names of all layers that hold parameters.

    Raises:
        ConfigError: a pattern matches none; the hint has names that are close.
    """
    known = tuple(dict.fromkeys(layers))
    patterns = [("--layer", rule.pattern) for rule in choosing.rules]
    patterns += [("--keep", pattern) for pattern in choosing.keep]
    for flag, pattern in patterns:
        if not any(fits(pattern, layer) for layer in known):
            raise ConfigError(f"{flag}: no layer matches {pattern}", _hint(pattern, known))


def _hint(pattern: str, layers: tuple[str, ...]) -> str:
    names = dict.fromkeys(name for layer in layers for name in _with_modules(layer))
    close = difflib.get_close_matches(pattern, names, MOST_NAMES)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = " ..." if len(layers) > MOST_NAMES else ""
    return f"layers are {', '.join(layers[:MOST_NAMES])}{more}"


def _with_modules(layer: str) -> list[str]:
    """The layer and the modules that it is part of."""
    parts = layer.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
