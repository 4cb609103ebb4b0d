"""Layout constraints: choose, where several cuts keep a rectangle, the finest one.

Stage: graph. In: roots of labels, grids and blocks. Out: further ties, and what only scores
can resolve. A grid (heads, head dimension) may be cut along any of its axes; blocks (a grouped
convolution) may go as wholes, or lose equally many indices each. Constraints that share labels
are settled together. Cutting by more constraints at once is always legal (a union of whole rows
that is also a union of whole columns satisfies both), only coarser.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from prunecli.graph.labels import Blocks, Grid, LabelArray, components

Pairs = list[tuple[LabelArray, LabelArray]]

MOST_COMBINATIONS = 64
"""Clusters with more combinations of choices are settled with the same choice throughout."""


@dataclass(frozen=True)
class Layout:
    """The choices made.

    Attributes:
        ties: labels that must now go together.
        rank_blocks: label matrices (blocks, indices) of which equally many go per row.
        whole: labels of blocks that go as wholes.
    """

    ties: Pairs
    rank_blocks: tuple[Tensor, ...]
    whole: tuple[LabelArray, ...]


Constraint = Grid | Blocks


def settle(
    root: LabelArray,
    frozen: npt.NDArray[np.bool_],
    grids: list[Grid],
    blocks: list[Blocks],
) -> Layout:
    """Choose a cut for every constraint."""
    constraints: list[Constraint] = [*grids, *blocks]
    ties: Pairs = []
    rank: list[Tensor] = []
    whole: list[LabelArray] = []
    for cluster in _clusters(root, constraints):
        choice = _choose(root, frozen, cluster)
        counted = []
        for constraint, option in zip(cluster, choice, strict=True):
            ties.extend(_ties(constraint, option))
            if isinstance(constraint, Blocks):
                if option == 0:
                    whole.extend(matrix.reshape(-1).numpy() for matrix in constraint.matrices)
                else:
                    counted.extend(constraint.matrices)
        free, tied = _rankable(components(root.size, [(np.arange(root.size), root), *ties]), counted)
        rank.extend(free)
        ties.extend(tied)
    return Layout(ties, tuple(rank), tuple(whole))


def _clusters(root: LabelArray, constraints: list[Constraint]) -> list[list[Constraint]]:
    """Constraints that share roots, directly or through others."""
    owner: dict[int, int] = {}
    parent = list(range(len(constraints)))

    def find(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for place, constraint in enumerate(constraints):
        for item in np.unique(root[_labels(constraint)]).tolist():
            other = owner.setdefault(item, place)
            parent[find(place)] = find(other)
    found: dict[int, list[Constraint]] = {}
    for place, constraint in enumerate(constraints):
        found.setdefault(find(place), []).append(constraint)
    return list(found.values())


def _labels(constraint: Constraint) -> LabelArray:
    if isinstance(constraint, Grid):
        return np.unique(constraint.field.numpy())
    return np.unique(np.concatenate([item.reshape(-1).numpy() for item in constraint.matrices]))


def _options(constraint: Constraint) -> int:
    return constraint.field.dim() if isinstance(constraint, Grid) else 2


def _ties(constraint: Constraint, option: int) -> Pairs:
    """What goes together when `constraint` is cut as `option` says.

    Grid: cut along axis `option`. Blocks: 0 cuts whole blocks, 1 equal counts (no ties).
    """
    if isinstance(constraint, Grid):
        rows = constraint.field.movedim(option, 0)
        rows = rows.reshape(rows.shape[0], -1)
        return [_row_ties(rows, rows)]
    if option == 1:
        return []
    return [_row_ties(matrix, constraint.matrices[0]) for matrix in constraint.matrices]


def _row_ties(rows: Tensor, heads: Tensor) -> tuple[LabelArray, LabelArray]:
    first = heads[:, :1].expand(rows.shape).reshape(-1).numpy()
    return rows.reshape(-1).numpy(), first


def _choose(
    root: LabelArray, frozen: npt.NDArray[np.bool_], cluster: list[Constraint]
) -> tuple[int, ...]:
    """The combination of cuts that leaves the most removable pieces."""
    counts = [_options(constraint) for constraint in cluster]
    product = int(np.prod(counts, dtype=np.float64))
    if product <= MOST_COMBINATIONS:
        candidates = list(itertools.product(*(range(count) for count in counts)))
    else:
        candidates = [
            tuple(min(option, count - 1) for count in counts) for option in range(max(counts))
        ]
    own = np.unique(np.concatenate([root[_labels(constraint)] for constraint in cluster]))
    local = np.full(root.size, -1, dtype=np.int64)
    local[own] = np.arange(own.size)
    return max(candidates, key=lambda choice: _pieces(local[root], own, frozen, cluster, choice))


def _pieces(
    local: LabelArray,
    own: LabelArray,
    frozen: npt.NDArray[np.bool_],
    cluster: list[Constraint],
    choice: tuple[int, ...],
) -> int:
    """Number of pieces that could go one by one under `choice`."""
    pairs = [
        (local[left], local[right])
        for constraint, option in zip(cluster, choice, strict=True)
        for left, right in _ties(constraint, option)
    ]
    root = components(own.size, pairs)
    dead = np.zeros(own.size, dtype=np.bool_)
    dead[root[frozen[own]]] = True
    live = np.unique(root[~dead[root]])
    pieces = int(live.size)
    for constraint, option in zip(cluster, choice, strict=True):
        if isinstance(constraint, Blocks) and option == 1:
            for matrix in constraint.matrices:
                # Equal counts: one index of every block goes at a time.
                pieces -= matrix.numel() - matrix.shape[1]
    return pieces


def _rankable(root: LabelArray, matrices: list[Tensor]) -> tuple[list[Tensor], Pairs]:
    """Split counted blocks into those free to choose by rank and ties for the others.

    A matrix is free if its labels are all different and every other matrix that shares labels
    with it has the same rows; otherwise equal columns are tied, which always keeps counts equal.
    """
    free: dict[bytes, Tensor] = {}
    keys = [np.sort(root[matrix.numpy()], axis=1).tobytes() for matrix in matrices]
    owners: dict[int, set[bytes]] = {}
    for key, matrix in zip(keys, matrices, strict=True):
        for item in np.unique(root[matrix.numpy()]).tolist():
            owners.setdefault(item, set()).add(key)
    ties: Pairs = []
    for key, matrix in zip(keys, matrices, strict=True):
        found = root[matrix.numpy()]
        alone = all(len(owners[item]) == 1 for item in np.unique(found).tolist())
        if alone and np.unique(found).size == found.size:
            free.setdefault(key, matrix)
        else:
            ties.append(
                (
                    matrix.reshape(-1).numpy(),
                    matrix[:1].expand(matrix.shape).reshape(-1).numpy(),
                )
            )
    return list(free.values()), ties
