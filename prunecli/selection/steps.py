"""Steps: the smallest removals that keep every tensor rectangular.

Stage: selection. In: coupling and scores. Out: `Steps`. Touches no weights.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunecli.errors import NothingToPruneError
from prunecli.graph.cost import Keep
from prunecli.graph.coupling import STAYS, Coupling, Group, UnitArray
from prunecli.graph.labels import components
from prunecli.importance.scores import Scores

Bools = npt.NDArray[np.bool_]

FLOOR_SHARE = 0.05
"""Of every axis at least this share stays. Thinner layers save little and cost accuracy."""


@dataclass(frozen=True)
class Steps:
    """A partition of the units.

    Attributes:
        of_unit: step of every unit, shape (units,).
        scores: mean score of every step's units, shape (steps,).
        never: steps that may not be taken, shape (steps,).
        uneven: those of them that no other row has a partner for, shape (steps,).
    """

    of_unit: UnitArray
    scores: Scores
    never: Bools
    uneven: Bools


def make_steps(
    coupling: Coupling,
    scores: Scores,
    floor_share: float = FLOOR_SHARE,
    round_to: int = 1,
    gone: Bools | None = None,
) -> Steps:
    """One step per unit, except where several must go at once: equally many from several
    blocks, or as many as keep a width on a multiple of `round_to`.

    Args:
        round_to: widths stay on multiples of this where a group is wide enough. Runtimes work
            on blocks of channels, and a block that is not full costs as much as a full one.
        floor_share: of every axis of every tensor at least this share of its prunable entries
            stays, and always at least one, so that no layer vanishes.
        gone: units that went before, shape (units,). They rank below all others, and share no
            step with those as long as what went before left rectangles.
    """
    if gone is None:
        gone = np.zeros(coupling.count, dtype=np.bool_)
    if gone.any():
        scores = np.where(gone, scores.min() - 1.0, scores)
    step = np.arange(coupling.count, dtype=np.int64)
    forbidden: list[int] = []
    for block in coupling.rank_blocks:
        forbidden.extend(_by_rank(block.units, scores, step))
    _round(coupling, scores, step, round_to, gone)
    _, of_unit = np.unique(step, return_inverse=True)
    number = int(of_unit.max()) + 1 if of_unit.size else 0
    members = np.maximum(np.bincount(of_unit, minlength=number), 1)
    means = np.bincount(of_unit, weights=scores, minlength=number) / members
    uneven = np.zeros(number, dtype=np.bool_)
    uneven[of_unit[forbidden]] = True
    never = uneven.copy()
    for slot in coupling.slots:
        never[_floor(slot.units, of_unit, means, floor_share)] = True
    for units in coupling.parts:
        never[_floor(units, of_unit, means, 0.0)] = True
    return Steps(of_unit, means, never, uneven)


def finest_steps(coupling: Coupling, scores: Scores, gone: Keep | None = None) -> Steps:
    """Steps of as few units as can go at once.

    Raises:
        NothingToPruneError: no unit may go.
    """
    hint = "see the frozen layers and reasons in the report"
    if coupling.count == 0:
        raise NothingToPruneError("network: nothing can be pruned: " + _why_frozen(coupling), hint)
    steps = make_steps(coupling, scores, gone=gone)
    if steps.never.all():
        raise NothingToPruneError(
            "network: nothing can be pruned: whatever goes would empty a layer, or break the "
            "groups of another",
            hint,
        )
    return steps


def linked(coupling: Coupling) -> UnitArray:
    """For every unit the first of the groups that lose equally many as its own, shape (units,)."""
    group_of = np.zeros(coupling.count, dtype=np.int64)
    for place, group in enumerate(coupling.groups):
        group_of[group.units] = place
    pairs = []
    for block in coupling.rank_blocks:
        on = np.unique(group_of[block.units[block.units != STAYS]])
        if not on.size:
            continue  # all of it must stay
        pairs.append((on, np.full(on.size, on[0])))
    first: UnitArray = components(len(coupling.groups), pairs)[group_of]
    return first


def _by_rank(rows: UnitArray, scores: Scores, step: UnitArray) -> list[int]:
    """Give the same step to the units of equal rank in every row; returns units left over."""
    ranked = [
        row[row != STAYS][np.argsort(scores[row[row != STAYS]], kind="stable")] for row in rows
    ]
    shortest = min(row.size for row in ranked)
    for rank in range(shortest):
        members = np.array([row[rank] for row in ranked])
        step[members] = step[members].min()
    return [int(unit) for row in ranked for unit in row[shortest:]]


def _round(coupling: Coupling, scores: Scores, step: UnitArray, round_to: int, gone: Bools) -> None:
    """Join consecutive ranks of a group, lowest scores first, into steps of whole blocks."""
    # Rows that lose equally many may belong to different groups (keys here, values there).
    joined = np.bincount(step, minlength=step.size)[step] > 1
    for group in coupling.groups:
        if joined[group.units].any():
            continue
        block = block_of(group.units.size, _channels_per_unit(coupling, group), round_to)
        if block == 1:
            continue
        ranked = group.units[np.argsort(scores[group.units], kind="stable")]
        before = int(gone[group.units].sum())
        # What is beyond a multiple goes first; after that, whole blocks.
        first = before + ((ranked.size - before) % block or block)
        cuts = [*range(0, before, block), before, *range(first, ranked.size, block), ranked.size]
        for start, stop in itertools.pairwise(cuts):
            if start < stop:
                step[ranked[start:stop]] = ranked[start:stop].min()


def in_whole_blocks(coupling: Coupling, gone: Bools, round_to: int) -> Bools:
    """The part of `gone` (units,) after which widths are on multiples of `round_to`, where a group
    is wide enough."""
    fewer = gone.copy()
    for group in coupling.groups:
        own = group.units[gone[group.units]]
        block = block_of(group.units.size, _channels_per_unit(coupling, group), round_to)
        left = group.units.size - own.size
        width = min(-(-left // block) * block, group.units.size)
        fewer[own[group.units.size - width :]] = False
    return fewer


def block_of(pieces: int, channels_per_unit: int, round_to: int) -> int:
    """Units that make up one rounding block; narrow groups are given finer ones."""
    block = round_to // math.gcd(round_to, channels_per_unit)
    while block > 1 and pieces < 4 * block:
        block //= 2
    return max(block, 1)


def _channels_per_unit(coupling: Coupling, group: Group) -> int:
    """Indices that one unit takes on the first tensor that produces it."""
    slot = coupling.slots[group.slots[0]]
    return int((slot.units == group.units[0]).sum()) or 1


def _floor(units: UnitArray, of_unit: UnitArray, means: Scores, share: float) -> UnitArray:
    """The best steps of one axis, which must stay."""
    steps = np.unique(of_unit[units[units != STAYS]])
    count = max(1, int(np.ceil(share * steps.size)))
    order = np.argsort(means[steps], kind="stable")
    return steps[order[-count:]]


def _why_frozen(coupling: Coupling) -> str:
    reasons = [
        f"{', '.join(item.layers[:3])}: {item.why.reason}"
        + (f" ({item.why.operator})" if item.why.operator else "")
        for item in coupling.frozen
    ]
    return "; ".join(reasons[:5]) or "it has no layers with channels"
