"""Layout constraints: where several cuts keep a rectangle, choose the finest.

Stage: graph. In: roots of labels, and grids. Out: further ties and freezes, and what only scores
can resolve. A grid (heads x head dimension, blocks x channels per block) is cut across one of its
axes in whole slices, or loses equally many along its last axis in every row, each row its own.
Grids that share labels are settled together.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunecli.graph.labels import Grid, LabelArray, components

Pairs = list[tuple[LabelArray, LabelArray]]
Bools = npt.NDArray[np.bool_]

MOST_COMBINATIONS = 81
"""Clusters with more combinations of cuts are settled with the same cut throughout."""

RANKED = -1
"""The cut that takes equally many from every row."""


@dataclass(frozen=True)
class Layout:
    """The choices made.

    Attributes:
        ties: labels that must now go together.
        freezes: labels that must now stay.
        rank_rows: label matrices (rows, indices) of which equally many go per row.
        kinds: per kind of unit, labels that are cut that way.
    """

    ties: Pairs = field(default_factory=list)
    freezes: list[LabelArray] = field(default_factory=list)
    rank_rows: list[LabelArray] = field(default_factory=list)
    kinds: dict[str, list[LabelArray]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Shape:
    """Grids with the same roots at the same places are one.

    Attributes:
        roots: as the fields.
        presence: per axis, the label arrays that stand for its slices.
        kinds: per axis, the name of a slice.
    """

    roots: LabelArray
    presence: dict[int, list[LabelArray]]
    kinds: dict[int, str]

    def cuts(self) -> tuple[int, ...]:
        """Possible cuts: across the last axis, the one before it, and so on, then ranked."""
        last = self.roots.ndim - 1
        # Where something hangs on whole columns, every row must lose the same ones.
        ranked = () if last in self.presence else (RANKED,)
        return (*reversed(range(last + 1)), *ranked)


def settle(root: LabelArray, frozen: Bools, grids: list[Grid]) -> Layout:
    """Choose a cut for every grid."""
    layout = Layout()
    shapes, frozen = _movable(root, frozen, _merged(root, grids), layout)
    ranked: list[_Shape] = []
    for cluster in _clusters(root, shapes):
        choice = _choose(root, frozen, cluster)
        for shape, cut in zip(cluster, choice, strict=True):
            ties, freezes = _consequences(shape, cut)
            layout.ties.extend(ties)
            layout.freezes.extend(freezes)
            kind = shape.kinds.get(shape.roots.ndim - 1 if cut == RANKED else cut)
            if kind is not None:
                layout.kinds.setdefault(kind, []).append(np.unique(shape.roots))
            if cut == RANKED:
                ranked.append(shape)
    after = components(root.size, [(np.arange(root.size), root), *layout.ties])
    rows, ties = _rank_classes(after, ranked)
    layout.rank_rows.extend(rows)
    layout.ties.extend(ties)
    return layout


def _movable(
    root: LabelArray, frozen: Bools, shapes: list[_Shape], layout: Layout
) -> tuple[list[_Shape], Bools]:
    """Sort out shapes of which nothing can go: their slices stay, however they are cut.

    Tables of positions are large and frozen, and choices among their cuts would take long.
    """
    frozen = frozen.copy()
    open_ = shapes
    while True:
        still = [shape for shape in open_ if not frozen[shape.roots].all()]
        if len(still) == len(open_):
            return still, frozen
        for shape in open_:
            if frozen[shape.roots].all():
                stays = [labels for known in shape.presence.values() for labels in known]
                layout.freezes.extend(stays)
                for labels in stays:
                    frozen[root[labels]] = True
        open_ = still


def _merged(root: LabelArray, grids: list[Grid]) -> list[_Shape]:
    found: dict[tuple[bytes, tuple[int, ...]], _Shape] = {}
    for grid in grids:
        roots = root[grid.cells.numpy()]
        key = (roots.tobytes(), roots.shape)
        shape = found.setdefault(key, _Shape(roots, {}, {}))
        for axis, labels in grid.presence.items():
            shape.presence.setdefault(axis, []).append(labels.numpy())
        shape.kinds.update(grid.kinds)
    return list(found.values())


def _clusters(root: LabelArray, shapes: list[_Shape]) -> list[list[_Shape]]:
    """Shapes that share roots, in their fields or in what depends on their slices."""
    pairs: Pairs = []
    for place, shape in enumerate(shapes):
        touched = [shape.roots.reshape(-1)]
        touched += [root[labels] for known in shape.presence.values() for labels in known]
        own = np.concatenate(touched)
        pairs.append((own, np.full(own.size, root.size + place)))
    owner = components(root.size + len(shapes), pairs)
    found: dict[int, list[_Shape]] = {}
    for place, shape in enumerate(shapes):
        found.setdefault(int(owner[root.size + place]), []).append(shape)
    return list(found.values())


def _consequences(shape: _Shape, cut: int) -> tuple[Pairs, list[LabelArray]]:
    """What goes together, and what must stay, when `shape` is cut across axis `cut`.

    What depends on slices across the other axes must stay, since those axes keep their size.
    """
    ties: Pairs = []
    freezes = [labels for axis, known in shape.presence.items() if axis != cut for labels in known]
    if cut != RANKED:
        rows = np.moveaxis(shape.roots, cut, 0)
        rows = rows.reshape(rows.shape[0], -1)
        heads = np.repeat(rows[:, :1], rows.shape[1], 1)
        ties.append((rows.reshape(-1), heads.reshape(-1)))
        ties.extend((labels, rows[:, 0]) for labels in shape.presence.get(cut, ()))
    return ties, freezes


def _choose(root: LabelArray, frozen: Bools, cluster: list[_Shape]) -> tuple[int, ...]:
    """The combination of cuts that leaves the most removable pieces."""
    counts = [len(shape.cuts()) for shape in cluster]
    if np.prod(counts, dtype=np.float64) <= MOST_COMBINATIONS:
        places = list(itertools.product(*(range(count) for count in counts)))
    else:
        most = range(max(counts))
        places = [tuple(min(place, count - 1) for count in counts) for place in most]
    candidates = [
        tuple(shape.cuts()[place] for shape, place in zip(cluster, item, strict=True))
        for item in places
    ]
    touched = [shape.roots.reshape(-1) for shape in cluster]
    touched += [
        root[labels] for shape in cluster for known in shape.presence.values() for labels in known
    ]
    own = np.unique(np.concatenate(touched))
    return max(
        candidates,
        key=lambda item: (_pieces(root, own, frozen, cluster, item), _preference(cluster, item)),
    )


def _preference(cluster: list[_Shape], choice: tuple[int, ...]) -> int:
    """Among equally fine cuts: whole blocks (exact even for group norm), then ranked rows (each
    chooses its own), then columns."""
    rank = {RANKED: 1}
    return sum(
        rank.get(cut, 0 if cut == shape.roots.ndim - 1 else 2)
        for shape, cut in zip(cluster, choice, strict=True)
    )


def _pieces(
    root: LabelArray,
    own: LabelArray,
    frozen: Bools,
    cluster: list[_Shape],
    choice: tuple[int, ...],
) -> int:
    """Number of pieces that could go one by one under `choice`."""

    def local(labels: LabelArray) -> LabelArray:
        found: LabelArray = np.searchsorted(own, root[labels])
        return found

    pairs: Pairs = []
    still: list[LabelArray] = [np.flatnonzero(frozen[own])]
    for shape, cut in zip(cluster, choice, strict=True):
        ties, freezes = _consequences(shape, cut)
        pairs.extend((local(left), local(right)) for left, right in ties)
        still.extend(local(labels) for labels in freezes)
    ranked = [shape for shape, cut in zip(cluster, choice, strict=True) if cut == RANKED]
    joined = components(own.size, pairs)
    places = [_Shape(local(shape.roots), {}, {}) for shape in ranked]
    rows, ties = _rank_classes(joined, places)
    joined = components(own.size, [*pairs, *ties])
    dead = np.zeros(own.size, dtype=np.bool_)
    dead[joined[np.concatenate(still)]] = True
    pieces = int(np.unique(joined[~dead[joined]]).size)
    for matrix in rows:
        live = ~dead[joined[matrix]]
        pieces += int(live.sum(axis=1).min()) - int(live.sum())
    return pieces


def _rank_classes(root: LabelArray, shapes: list[_Shape]) -> tuple[list[LabelArray], Pairs]:
    """Rows that must keep equal counts, each class as one matrix of distinct rows.

    A row is a set of roots; two different rows that share a root cannot be ranked independently,
    so in their classes equal columns are tied instead, which always keeps counts equal.
    """
    matrices = [root[shape.roots].reshape(-1, shape.roots.shape[-1]) for shape in shapes]
    number: dict[bytes, int] = {}
    content: list[LabelArray] = []
    pairs: Pairs = []
    rows_of: list[list[int]] = []
    for matrix in matrices:
        own = []
        for row in np.sort(matrix, axis=1):
            key = row.tobytes()
            if key not in number:
                number[key] = len(content)
                content.append(row)
            own.append(number[key])
        rows_of.append(own)
        pairs.append((np.array(own), np.full(len(own), own[0])))
    classes = components(len(content), pairs)
    bad = _overlapping(content, classes)
    ties: Pairs = []
    found: dict[int, LabelArray] = {}
    for matrix, own in zip(matrices, rows_of, strict=True):
        group = int(classes[own[0]])
        if group in bad:
            ties.append((matrix.reshape(-1), np.tile(matrix[0], matrix.shape[0])))
        else:
            members = [content[place] for place in np.flatnonzero(classes == group)]
            found.setdefault(group, np.stack(members))
    return list(found.values()), ties


def _overlapping(rows: list[LabelArray], classes: LabelArray) -> set[int]:
    """Classes in which a root stands twice in a row, or in two rows."""
    bad: set[int] = set()
    owner: dict[int, int] = {}
    for place, row in enumerate(rows):
        for item in row.tolist():
            other = owner.setdefault(item, place)
            if other != place:
                bad |= {int(classes[place]), int(classes[other])}
        if np.unique(row).size < row.size:
            bad.add(int(classes[place]))
    return bad
