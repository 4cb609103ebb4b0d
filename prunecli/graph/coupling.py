"""Coupling: from labels to units (what goes together) and groups (units of one kind).

Stage: graph. In: the walk's `Flow`. Out: `Coupling`. Knows no scores and no budgets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from prunecli.graph.fields import labelled_axes
from prunecli.graph.labels import FIXED, Freeze, LabelArray, components
from prunecli.graph.layout import settle
from prunecli.graph.roles import UNKNOWN, Role, role_of
from prunecli.graph.walk import Flow

UnitArray = npt.NDArray[np.int64]

MOST_MAKERS = 2
"""A gated feed-forward part has two layers that make its width, a residual stream more."""

STAYS = -1
"""Unit number of positions that must stay."""


@dataclass(frozen=True)
class Slot:
    """One prunable axis of one tensor.

    Attributes:
        tensor: name of the parameter, buffer or constant.
        axis: its axis.
        units: unit of every index, `STAYS` where it must stay. For an axis that restarts per
            block of axis 0 (a grouped convolution's inputs), one entry per block and index.
        blocks: number of such blocks; 1 for an ordinary axis.
        role: what the axis is to those who read the tensor.
    """

    tensor: str
    axis: int
    units: UnitArray
    blocks: int = 1
    role: Role = UNKNOWN


@dataclass(frozen=True)
class RankBlock:
    """Units of which equally many must go from every row; which ones is free.

    Attributes:
        units: (blocks, units per block).
    """

    units: UnitArray


@dataclass(frozen=True)
class Group:
    """Units that sit on the same axes of the same tensors.

    Attributes:
        name: of its first layer, for people.
        kind: what a unit is, see `KINDS`.
        units: unit numbers, ascending.
        slots: places in `Coupling.slots`.
    """

    name: str
    kind: str
    units: UnitArray
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Frozen:
    """A part that stays, and why.

    Attributes:
        layers: tensors concerned.
        why: the reason, operator and place.
    """

    layers: tuple[str, ...]
    why: Freeze


@dataclass(frozen=True)
class Coupling:
    """What can be removed from a network.

    Attributes:
        unit_of: label -> unit, `STAYS` for what must stay.
        count: number of units.
        slots: every axis of every tensor on which a unit sits.
        groups: all units, grouped.
        rank_blocks: constraints that need scores to be resolved.
        parts: units of values that are a part of some axis (one half of a split); not all of
            them may go, since operators reject values without elements.
        frozen: what stays and why.
    """

    unit_of: UnitArray
    count: int
    slots: tuple[Slot, ...]
    groups: tuple[Group, ...]
    rank_blocks: tuple[RankBlock, ...]
    parts: tuple[UnitArray, ...]
    frozen: tuple[Frozen, ...]

    def units(self, field: Tensor) -> UnitArray:
        """Units of a label field, in the same shape."""
        found: UnitArray = self.unit_of[field.numpy()]
        return found


def couple(flow: Flow) -> Coupling:
    """Resolve ties, layout constraints and freezes into units and groups."""
    labels = flow.labels
    root = components(labels.count, labels.ties)
    frozen_roots = _frozen_roots(root, labels.freezes)
    layout = settle(root, frozen_roots, list(labels.grids.values()))
    unsettled = Freeze("an axis that keeps its size because another one is cut", structural=True)
    freezes = [*labels.freezes, *((item, unsettled) for item in layout.freezes)]
    if layout.ties or layout.freezes:
        root = components(labels.count, [*labels.ties, *layout.ties])
        frozen_roots = _frozen_roots(root, freezes)
    slot_labels = _slot_labels(flow)
    unit_of = _number(root, frozen_roots, slot_labels)
    slots = tuple(
        Slot(name, axis, unit_of[found].reshape(-1), blocks, _role(flow, name, axis, blocks))
        for (name, axis), (found, blocks) in slot_labels.items()
        if (unit_of[found] != STAYS).any()
    )
    count = int(unit_of.max()) + 1
    rank_blocks = tuple(RankBlock(unit_of[rows]) for rows in layout.rank_rows)
    named = {kind: [item.numpy() for item in own] for kind, own in flow.notes.kinds.items()}
    kinds = _kinds(count, unit_of, [_inner_widths(flow, unit_of), named, layout.kinds])
    groups = _groups(count, slots, kinds)
    parts = _parts(flow, unit_of, slots)
    frozen = _reasons(root, freezes, slot_labels)
    return Coupling(unit_of, count, slots, groups, rank_blocks, parts, frozen)


KINDS = ("channels", "groups", "ffn", "hidden", "head_dim", "heads")
"""What a unit can be; where several apply, the last one names it."""


def _kinds(
    count: int, unit_of: UnitArray, found: Sequence[Mapping[str, list[LabelArray]]]
) -> list[str]:
    """Kind of every unit."""
    kinds = ["channels"] * count
    for kind in KINDS:
        for labels in (item for source in found for item in source.get(kind, ())):
            for unit in np.unique(unit_of[labels]).tolist():
                if unit != STAYS:
                    kinds[unit] = kind
    return kinds


def _inner_widths(flow: Flow, unit_of: UnitArray) -> dict[str, list[LabelArray]]:
    """Labels that matrix products make and a single one reads: the feed-forward width in a
    network of tokens, hidden units in one of vectors."""
    makers = np.zeros(unit_of.max() + 2, dtype=np.int64)  # STAYS counts in the last place
    readers, products = makers.copy(), makers.copy()
    made: list[tuple[int, LabelArray]] = []
    for item in flow.notes.contractions:
        if item.contracted is not None and item.blocks is None:
            units = np.unique(unit_of[item.contracted.numpy()])
            readers[units] += 1
            products[units] += item.out.field_at(-1) is not None
        last = item.out.field_at(-1)
        if last is not None and len(labelled_axes(last)) == 1:
            made.append((len(item.out.shape), last.reshape(-1).numpy()))
            makers[np.unique(unit_of[made[-1][1]])] += 1
    found: dict[str, list[LabelArray]] = {}
    for rank, labels in made:
        units = unit_of[labels]
        inner = (units != STAYS) & (readers[units] == 1) & (products[units] == 1)
        if inner.all() and (makers[units] <= MOST_MAKERS).all():
            found.setdefault("ffn" if rank > 2 else "hidden", []).append(labels)
    return found


def _parts(flow: Flow, unit_of: UnitArray, slots: tuple[Slot, ...]) -> tuple[UnitArray, ...]:
    """Units of every value that nothing keeps from vanishing as a whole."""
    known = {np.unique(slot.units).tobytes() for slot in slots}
    found: dict[bytes, UnitArray] = {}
    seen: set[tuple[int, ...]] = set()
    for result in flow.values.values():
        for value in result if isinstance(result, tuple) else (result,):
            for field in value.fields if value is not None else ():
                # Most operators hand their labels on as they are.
                same = (field.data_ptr(), *field.shape, *field.stride())
                if same in seen:
                    continue
                seen.add(same)
                units = np.unique(unit_of[field.numpy()])
                if units[0] != STAYS and units.tobytes() not in known:
                    found.setdefault(units.tobytes(), units)
    return tuple(found.values())


def _frozen_roots(
    root: LabelArray, freezes: list[tuple[LabelArray, Freeze]]
) -> npt.NDArray[np.bool_]:
    frozen = np.zeros(root.size, dtype=np.bool_)
    frozen[root[FIXED]] = True
    for labels, _ in freezes:
        frozen[root[labels]] = True
    return frozen


def _slot_labels(flow: Flow) -> dict[tuple[str, int], tuple[LabelArray, int]]:
    """(tensor, axis) -> labels and number of blocks, in graph order."""
    found: dict[tuple[str, int], tuple[LabelArray, int]] = {}
    for name, value in flow.parameters.items():
        for axis, extent in enumerate(value.shape):
            block = flow.notes.block_axes.get((name, axis))
            field = value.field_at(axis)
            if block is not None:
                found[name, axis] = (block.labels.reshape(-1).numpy(), block.labels.shape[0])
            elif field is not None and extent > 1:
                found[name, axis] = (field.reshape(-1).numpy(), 1)
    return found


def _role(flow: Flow, name: str, axis: int, blocks: int) -> Role:
    return role_of(flow.notes.readers.get(name, ()), flow.parameters[name].shape, axis, blocks)


def _number(
    root: LabelArray,
    frozen: npt.NDArray[np.bool_],
    slots: Mapping[tuple[str, int], tuple[LabelArray, int]],
) -> UnitArray:
    """Consecutive unit numbers for live roots that sit on some tensor, in order of label."""
    live = ~frozen[root]
    present = np.zeros(root.size, dtype=np.bool_)
    for found, _ in slots.values():
        present[root[found]] = True
    roots = np.unique(root[live & present[root]])
    unit = np.full(root.size, STAYS, dtype=np.int64)
    unit[roots] = np.arange(roots.size)
    numbered: UnitArray = unit[root]
    return numbered


def _groups(count: int, slots: tuple[Slot, ...], kinds: list[str]) -> tuple[Group, ...]:
    """Units with the same set of slots form a group; a random hash per slot tells sets apart."""
    generator = np.random.default_rng(0)
    signature = np.zeros(count, dtype=np.uint64)
    for slot in slots:
        present = np.unique(slot.units[slot.units != STAYS])
        signature[present] += generator.integers(1, 2**63, dtype=np.uint64)
    order: dict[int, list[int]] = {}
    for unit, key in enumerate(signature.tolist()):
        order.setdefault(key, []).append(unit)
    member = np.empty(count, dtype=np.int64)
    for place, units in enumerate(order.values()):
        member[units] = place
    on: list[list[int]] = [[] for _ in order]
    for place, slot in enumerate(slots):
        for group in np.unique(member[slot.units[slot.units != STAYS]]).tolist():
            on[group].append(place)
    return tuple(
        Group(
            layer_of(slots[places[0]].tensor),
            kinds[units[0]],
            np.array(units, dtype=np.int64),
            tuple(places),
        )
        for units, places in zip(order.values(), on, strict=True)
    )


def _reasons(
    root: LabelArray,
    freezes: list[tuple[LabelArray, Freeze]],
    slots: Mapping[tuple[str, int], tuple[LabelArray, int]],
) -> tuple[Frozen, ...]:
    """For every non-structural freeze, the tensors that it reaches first."""
    first: dict[int, Freeze] = {}
    for labels, why in freezes:
        for item in np.unique(root[labels]).tolist():
            first.setdefault(item, why)
    first = {item: why for item, why in first.items() if not why.structural}
    reached: dict[Freeze, list[str]] = {}
    for (name, _), (found, _) in slots.items():
        for item in np.unique(root[found]).tolist():
            if item in first:
                layers = reached.setdefault(first[item], [])
                if layer_of(name) not in layers:
                    layers.append(layer_of(name))
    return tuple(Frozen(tuple(layers), why) for why, layers in reached.items())


def layer_of(tensor: str) -> str:
    """Module path of a parameter name; the name itself for a parameter used raw."""
    head, dot, last = tensor.rpartition(".")
    leaf = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return head if dot and last in leaf else tensor
