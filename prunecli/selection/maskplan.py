"""The plan of single weights: masks, and per tensor what decided. Frozen records.

Stage: selection. Touches no weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from prunecli.graph.maskable import Maskable
from prunecli.selection.patterns import Items
from prunecli.selection.ranking import largest_of, smallest_of

Masks = Mapping[str, Tensor]
"""Parameter -> bool tensor of its shape, True where a weight stays; absent where all stay."""


class Why(StrEnum):
    """What decided about a tensor."""

    RANK = "rank"
    THRESHOLD = "threshold"
    PATTERN = "pattern"
    OVERRIDE = "override"
    KEPT = "kept"
    FLOOR = "floor"
    TOO_SHORT = "too short for the pattern"


@dataclass(frozen=True)
class MaskRow:
    """What happens to one tensor.

    Attributes:
        name: of the parameter.
        layer: see `Maskable`.
        kept, total: elements.
        threshold: what scores were compared with: the given one, or the highest score that went
            among all that this tensor's scores were ranked with; `None` where neither decided.
        lowest_kept, highest_removed: scores of weights (of blocks: their means); `None` where
            there are none. What was masked before counts as neither.
        why: what decided; `FLOOR` where all would have gone and the best stays.
    """

    name: str
    layer: str
    kept: int
    total: int
    threshold: float | None
    lowest_kept: float | None
    highest_removed: float | None
    why: Why


@dataclass(frozen=True)
class MaskPlan:
    """Which weights stay.

    Attributes:
        masks: tensors that lose nothing are absent.
        rows: one per maskable tensor, in their order.
    """

    masks: Masks
    rows: tuple[MaskRow, ...]

    @property
    def sparsity(self) -> float:
        """Share of all maskable weights that goes."""
        total = sum(row.total for row in self.rows)
        return 1 - sum(row.kept for row in self.rows) / total if total else 0.0


@dataclass(frozen=True)
class Decided:
    """A tensor's mask with what belongs into its row."""

    mask: Tensor
    row: MaskRow


def decided(
    items: Items, goes: Tensor, before: Masks, why: Why, threshold: float | None = None
) -> Decided:
    """`goes` (I,) says which items go. What is masked already stays masked."""
    mask = items.mask(goes)
    so_far = before.get(items.of.name)
    mask = mask if so_far is None else mask & so_far
    scores = (smallest_of(items, goes), largest_of(items, goes))
    row = MaskRow(
        items.of.name, items.of.layer, int(mask.sum()), items.of.size, threshold, *scores, why
    )
    return Decided(mask, row)


def untouched(of: Maskable, before: Masks, why: Why) -> Decided:
    """Nothing more goes."""
    found = before.get(of.name)
    mask = torch.ones(of.shape, dtype=torch.bool) if found is None else found.clone()
    return Decided(
        mask, MaskRow(of.name, of.layer, int(mask.sum()), of.size, None, None, None, why)
    )
