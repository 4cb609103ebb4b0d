"""What is left of every value: kept indices per axis of every node's result.

Stage: surgery. In: flow, coupling and the units that stay. Used by the constant rewriter and by
the oracle. Changes nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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

    def mask(self, field: Tensor) -> Mask:
        """Which labels of a field stay, in the field's shape."""
        kept: Mask = self.keep[self.coupling.units(field)]
        return kept

    def axis(self, value: Value, axis: int) -> Mask:
        """Which indices of `axis` stay, shape (extent,).

        Raises:
            VerificationError: they differ from row to row, or what stays is no rectangle.
        """
        axis %= len(value.shape)
        field = value.field_at(axis)
        if field is None:
            return np.ones(value.shape[axis], dtype=np.bool_)
        mask = self.mask(field)
        kept = _any_but(mask, axis)
        if not is_product(mask):
            if axis == labelled_axes(field)[-1] or not kept.all():
                raise no_rectangle(mask)
            row_length(mask)
        return kept

    def extent(self, value: Value, axis: int) -> int:
        """Size of `axis` after the cut."""
        axis %= max(len(value.shape), 1)
        field = value.field_at(axis)
        if field is None:
            return value.shape[axis]
        mask = self.mask(field)
        if not is_product(mask) and axis == labelled_axes(field)[-1]:
            return row_length(mask)
        return int(self.axis(value, axis).sum())

    def gather(self, value: Value, tensor: Tensor) -> Tensor:
        """What is kept of a tensor that has the value's shape, or its axes at another batch."""
        for field in value.fields:
            mask = self.mask(field)
            axes = labelled_axes(field)
            if is_product(mask):
                for axis in axes:
                    index = torch.from_numpy(np.flatnonzero(_any_but(mask, axis)))
                    tensor = tensor.index_select(axis, index)
            else:
                tensor = _gather_rows(tensor, axes, np.squeeze(mask))
        return tensor

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


def _any_but(mask: Mask, axis: int) -> Mask:
    """Per index of `axis`: is anything left at it."""
    rows = np.moveaxis(mask, axis, 0)
    return np.asarray(rows.reshape(rows.shape[0], -1).any(axis=1))


def is_product(mask: Mask) -> bool:
    """Whether what stays is a product of subsets of the axes."""
    product = np.ones(mask.shape, dtype=np.bool_)
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        product &= mask.any(axis=others, keepdims=True)
    return np.array_equal(product, mask)


def row_length(mask: Mask) -> int:
    """What stays of every row along the last labelled axis.

    Raises:
        VerificationError: rows keep different numbers.
    """
    counts = np.squeeze(mask).sum(axis=-1)
    if counts.min() != counts.max():
        raise no_rectangle(mask)
    return int(counts.flat[0])


def no_rectangle(mask: Mask) -> VerificationError:
    """The error for a plan that leaves holes."""
    return VerificationError(
        f"plan: what stays of a value of shape {mask.shape} is no rectangle",
        "this is a bug in prunecli: please report it with the plan file",
    )


def _gather_rows(tensor: Tensor, axes: tuple[int, ...], mask: Mask) -> Tensor:
    """Every row keeps its own indices of the last of `axes`."""
    length = row_length(mask)
    moved = tensor.movedim(axes, tuple(range(len(axes))))
    picked = moved[torch.from_numpy(mask)]
    picked = picked.reshape(*mask.shape[:-1], length, *moved.shape[len(axes) :])
    return picked.movedim(tuple(range(len(axes))), axes)
