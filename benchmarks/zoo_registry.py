"""The families of the zoo: each a module with `entries() -> list[Entry]` and one line here."""

from collections.abc import Callable

import zoo_recurrent
import zoo_segmentation
import zoo_timm
import zoo_torchvision
import zoo_transformers
from zoo_entry import Entry

FAMILIES: dict[str, Callable[[], list[Entry]]] = {
    "torchvision": zoo_torchvision.entries,
    "segmentation": zoo_segmentation.entries,
    "timm": zoo_timm.entries,
    "transformers": zoo_transformers.entries,
    "recurrent": zoo_recurrent.entries,
}


def find(family: str, name: str) -> Entry:
    """One entry.

    Raises:
        KeyError: no such family or model.
    """
    return {entry.name: entry for entry in FAMILIES[family]()}[name]
