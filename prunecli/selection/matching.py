"""Patterns of layer names: each must match something.

Stage: selection. In: what the user wrote, names of layers. Out: nothing, or an error.
"""

import difflib
from collections.abc import Collection, Iterable

from prunecli.errors import ConfigError
from prunecli.removal import Choosing, fits

MOST_NAMES = 5


def check_patterns(choosing: Choosing, layers: Collection[str]) -> None:
    """Every pattern of `--layer` and `--keep` matches one of `layers`, or a module that holds it.

    Raises:
        ConfigError: one matches nothing; the hint lists names like it.
    """
    check_names("--layer", [rule.pattern for rule in choosing.rules], layers)
    check_names("--keep", choosing.keep, layers)


def check_names(flag: str, patterns: Iterable[str], layers: Collection[str]) -> None:
    """Every pattern of a flag matches one of `layers`, or a module that holds it.

    Raises:
        ConfigError: one matches nothing; the hint lists names like it.
    """
    for pattern in patterns:
        if not any(fits(pattern, layer) for layer in layers):
            raise ConfigError(
                f"{flag}: a pattern must match a layer, got {pattern!r}",
                f"name layers for {flag} like {', '.join(close_names(pattern, layers))}"
                if layers
                else f"leave out {flag}: nothing here can be pruned",
            )


def close_names(pattern: str, layers: Collection[str]) -> list[str]:
    """Names most like the pattern, or the first ones where none is."""
    names = dict.fromkeys(name for layer in layers for name in _with_owners(layer))
    plain = pattern.strip("*?.") or pattern
    close = difflib.get_close_matches(plain, names, MOST_NAMES, 0.5)
    return close or list(layers)[:MOST_NAMES]


def _with_owners(layer: str) -> list[str]:
    parts = layer.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
