"""Labels: integers that name single indices of prunable axes, and what ties them together.

Stage: graph. In: ties, freezes and layout constraints found by the rules. Out: components of
labels that live or die together. Knows nothing of scores, budgets or networks.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LabelArray = npt.NDArray[np.int64]

FIXED = 0
"""The label of a position that can never go."""


@dataclass(frozen=True)
class Freeze:
    """Why some labels must stay.

    Attributes:
        reason: in words, for the report.
        operator: the ATen operator that caused it, or empty.
        place: the module path in which that operator stands, or empty.
        structural: true for axes nobody expects to prune (kernel height); left out of reports.
        trace: the lines of Python that called the operator, as capture noted them.
    """

    reason: str
    operator: str = ""
    place: str = ""
    structural: bool = False
    trace: str = field(default="", compare=False)


@dataclass
class Grid:
    """A value whose labels span several axes: what stays must be a product of axis subsets, or
    lose equally many along its last axis everywhere.

    Attributes:
        cells: labels, every extent over 1.
        node: the graph node that made the value.
        kinds: per axis, what a slice across it is called in reports, where known.
        presence: axis -> labels that mean "something of this slice is left". They exist for the
            axes on which something else depends; filled while walking.
    """

    cells: Tensor
    node: str
    kinds: dict[int, str] = field(default_factory=dict)
    presence: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class Labels:
    """Hands out labels and collects what the walk learns about them.

    Not frozen: it is the walk's notebook, closed by `components`.
    """

    count: int = 1
    ties: list[tuple[LabelArray, LabelArray]] = field(default_factory=list)
    freezes: list[tuple[LabelArray, Freeze]] = field(default_factory=list)
    grids: dict[tuple[bytes, tuple[int, ...]], Grid] = field(default_factory=dict)

    def new(self, number: int) -> Tensor:
        """`number` labels nobody has yet."""
        start, self.count = self.count, self.count + number
        return torch.arange(start, start + number)

    def tie(self, left: Tensor, right: Tensor, why: Freeze) -> None:
        """What is at the same place of `left` and `right` lives or dies together.

        `why` is given as the reason where one side is `FIXED`.
        """
        shape = torch.broadcast_shapes(left.shape, right.shape)  # type: ignore[no-untyped-call]
        a, b = left.expand(shape), right.expand(shape)
        one, two = a.reshape(-1).numpy(), b.reshape(-1).numpy()
        different = one != two
        if not different.any():
            return
        one, two = one[different], two[different]
        fixed = (one == FIXED) | (two == FIXED)
        if fixed.any():
            self.freezes.append((np.unique(np.maximum(one[fixed], two[fixed])), why))
        self.ties.append((one, two))

    def grid(self, labels: Tensor, node: str) -> Grid:
        """The grid of this field (extents over 1 only), one for all uses of the same labels."""
        key = (labels.contiguous().numpy().tobytes(), tuple(labels.shape))
        if key not in self.grids:
            self.grids[key] = Grid(labels, node)
        return self.grids[key]

    def presence(self, labels: Tensor, axis: int, node: str) -> Tensor:
        """Labels of the slices of a multi-axis field along `axis`: kept while anything of the
        slice is."""
        grid = self.grid(labels, node)
        if axis not in grid.presence:
            grid.presence[axis] = self.new(labels.shape[axis])
        return grid.presence[axis]

    def freeze(self, labels: Tensor, why: Freeze) -> None:
        """None of these may go."""
        self.freezes.append((np.unique(labels.numpy()), why))


def components(count: int, pairs: list[tuple[LabelArray, LabelArray]]) -> LabelArray:
    """For each of `count` labels, the smallest label it is tied to, directly or not.

    Hooking and pointer jumping (Shiloach and Vishkin 1982), vectorised: a few passes over the
    pairs whatever the network's depth.
    """
    root = np.arange(count, dtype=np.int64)
    if not pairs:
        return root
    left = np.concatenate([a for a, _ in pairs])
    right = np.concatenate([b for _, b in pairs])
    while left.size:
        a, b = root[left], root[right]
        open_ = a != b
        left, right, a, b = left[open_], right[open_], a[open_], b[open_]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while True:
            jumped = root[root]
            if np.array_equal(jumped, root):
                break
            root = jumped
    return root
