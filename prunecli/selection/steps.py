"""Steps: the smallest removals that keep every tensor rectangular.

Stage: selection. In: coupling and scores. Out: `Steps`. Touches no weights.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunecli.graph.coupling import STAYS, Coupling, Group, UnitArray
from prunecli.importance.scores import Scores


@dataclass(frozen=True)
class Steps:
    """A partition of the units.

    Attributes:
        of_unit: step of every unit, shape (units,).
        scores: mean score of every step's units, shape (steps,).
        never: steps that may not be taken, shape (steps,).
    """

    of_unit: UnitArray
    scores: Scores
    never: npt.NDArray[np.bool_]


def make_steps(coupling: Coupling, scores: Scores, floor_share: float, round_to: int = 1) -> Steps:
    """One step per unit, except where several must go at once: equally many from several
    blocks, or as many as keep a width on a multiple of `round_to`.

    Args:
        round_to: widths stay on multiples of this where a group is wide enough. Runtimes work
            on blocks of channels, and a block that is not full costs as much as a full one.
        floor_share: of every axis of every tensor at least this share of its prunable entries
            stays, and always at least one, so that no layer vanishes.
    """
    step = np.arange(coupling.count, dtype=np.int64)
    forbidden: list[int] = []
    for block in coupling.rank_blocks:
        forbidden.extend(_by_rank(block.units, scores, step))
    _round(coupling, scores, step, round_to)
    _, of_unit = np.unique(step, return_inverse=True)
    number = int(of_unit.max()) + 1 if of_unit.size else 0
    members = np.maximum(np.bincount(of_unit, minlength=number), 1)
    means = np.bincount(of_unit, weights=scores, minlength=number) / members
    never = np.zeros(number, dtype=np.bool_)
    never[of_unit[forbidden]] = True
    for slot in coupling.slots:
        never[_floor(slot.units, of_unit, means, floor_share)] = True
    for units in coupling.parts:
        never[_floor(units, of_unit, means, 0.0)] = True
    return Steps(of_unit, means, never)


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


def _round(coupling: Coupling, scores: Scores, step: UnitArray, round_to: int) -> None:
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
        # What is beyond a multiple goes first; after that, whole blocks.
        cuts = np.arange(ranked.size % block or block, ranked.size, block)
        for members in np.split(ranked, cuts):
            step[members] = members.min()


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
