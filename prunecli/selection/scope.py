"""Scope: which units compete with each other, and the order in which steps are taken.

Stage: selection. In: coupling and steps. Out: classes of units, orders of steps. Pure.
"""

import numpy as np

from prunecli.choices import Scope
from prunecli.graph.coupling import Coupling, Group, UnitArray
from prunecli.selection.steps import Bools, Steps

Topology = tuple[str, tuple[str, ...]]


def classes(coupling: Coupling, parts: UnitArray, scope: Scope) -> UnitArray:
    """Class of every unit, shape (units,): units are ranked within their class, and every class
    loses the same share.

    `global`: one class, so that scores alone decide. `local`: a class per group, as in Li et al.
    2017 (arXiv:1608.08710). `isomorphic`: groups of the same topology are a class, Fang et al.
    2024, "Isomorphic Pruning for Vision Models" (arXiv:2407.04616).

    Args:
        parts: groups that lose equally many units, see `linked`; they share a class.
    """
    if scope is Scope.GLOBAL:
        return np.zeros(coupling.count, dtype=np.int64)
    if scope is Scope.LOCAL:
        return parts
    members: dict[int, list[Topology]] = {}
    for group in coupling.groups:
        members.setdefault(int(parts[group.units[0]]), []).append(topology(coupling, group))
    number: dict[tuple[Topology, ...], int] = {}
    class_of = {
        part: number.setdefault(tuple(sorted(found)), len(number))
        for part, found in members.items()
    }
    return np.array([class_of[part] for part in parts.tolist()], dtype=np.int64)


def topology(coupling: Coupling, group: Group) -> Topology:
    """What a group is, whatever its width: the kind of its units, and what every axis that they
    sit on is to the operators that read it."""
    roles = (coupling.slots[place].role.signature for place in group.slots)
    return group.kind, tuple(sorted(roles))


def in_order(
    steps: Steps, free: Bools, scope: Scope, class_of: UnitArray, gone: Bools, closed: Bools
) -> UnitArray:
    """The free steps in the order in which they are taken.

    By score where all compete. Otherwise by the share of its class that is gone once half of
    the step is: whatever prefix is taken, every class has lost the same share, but for less than
    half a step.

    Args:
        free: steps that may be taken, shape (steps,).
        class_of: class of every unit, shape (units,).
        gone: units that went before, shape (units,).
        closed: units that do not take part, shape (units,).
    """
    order = np.flatnonzero(free)
    order = order[np.argsort(steps.scores[order], kind="stable")]
    if scope is Scope.GLOBAL:
        return order
    size = np.bincount(steps.of_unit, minlength=steps.scores.size)
    keys = np.zeros(steps.scores.size)
    first = class_of_steps(steps, class_of)
    for number in np.unique(class_of):
        own = order[first[order] == number]
        members = class_of == number
        before = int((members & gone).sum())
        total = max(int((members & ~(closed & ~gone)).sum()), 1)
        keys[own] = (before + np.cumsum(size[own]) - size[own] / 2) / total
    return order[np.argsort(keys[order], kind="stable")]


def class_of_steps(steps: Steps, class_of: UnitArray) -> UnitArray:
    """Class of every step, shape (steps,); all units of a step are of one."""
    found = np.zeros(steps.scores.size, dtype=np.int64)
    found[steps.of_unit] = class_of
    return found
