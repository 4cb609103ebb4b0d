"""What is left of every value: kept indices per axis of every node's result.

Stage: surgery. In: flow, coupling and the units that stay. Used by the constant rewriter and by
the oracle. Changes nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunecli.errors import VerificationError
from prunecli.graph.cost import Keep
from prunecli.graph.coupling import Coupling
from prunecli.graph.fields import Value, labelled_axes
from prunecli.graph.walk import Flow

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """Reads the kept part of any value.

    Attributes:
        flow, coupling: the analysis.
        keep: per unit, with a last entry that stands for what always stays.
    """

    flow: Flow
    coupling: Coupling
    keep: Keep

    def axis(self, value: Value, axis: int) -> Mask:
        """Which indices of `axis` stay, shape (extent,).

        Raises:
            VerificationError: what stays is no rectangle, which no plan may cause.
        """
        axis %= len(value.shape)
        field = value.field_at(axis)
        if field is None:
            return np.ones(value.shape[axis], dtype=np.bool_)
        mask: Mask = self.keep[self.coupling.units(field)]
        others = tuple(other for other in range(mask.ndim) if other != axis)
        kept: Mask = mask.any(axis=others)
        if len(labelled_axes(field)) > 1:
            _check_rectangle(mask)
        return kept

    def extent(self, value: Value, axis: int) -> int:
        """Size of `axis` after the cut."""
        if not value.fields:
            return value.shape[axis]
        return int(self.axis(value, axis).sum())

    def shape(self, value: Value) -> tuple[int, ...]:
        """Shape after the cut, with the example's batch."""
        return tuple(self.extent(value, axis) for axis in range(len(value.shape)))

    def blocks(self, node: str) -> int | None:
        """Number of blocks (groups) of a node that stay, `None` if it has no prunable blocks."""
        rows = self.flow.notes.blocks.get(node)
        if rows is None:
            return None
        return int(self.keep[self.coupling.units(rows)].any(axis=1).sum())


def make_kept(flow: Flow, coupling: Coupling, keep: Keep) -> Kept:
    """`keep` has shape (units,)."""
    return Kept(flow, coupling, np.append(keep, True))


def _check_rectangle(mask: Mask) -> None:
    product = np.ones(mask.shape, dtype=np.bool_)
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        product &= mask.any(axis=others, keepdims=True)
    if not np.array_equal(product, mask):
        raise VerificationError(
            f"plan: what stays of a value of shape {mask.shape} is no rectangle",
            "this is a bug in prunecli: please report it with the plan file",
        )
