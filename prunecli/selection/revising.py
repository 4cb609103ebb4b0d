"""Revising: two plans one after the other as one, and groups given back.

Stage: selection. In: plans. Out: plans and indices. Touches no weights.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from prunecli.errors import ConfigError, VerificationError
from prunecli.graph.cost import CostModel, Keep
from prunecli.graph.coupling import Coupling
from prunecli.removal import fits
from prunecli.selection.fates import with_change
from prunecli.selection.overrides import layers_of
from prunecli.selection.plan import Plan, Tensors, kept_indices, kept_units
from prunecli.selection.steps import linked


def compose(first: Tensors, second: Tensors) -> dict[str, dict[int, tuple[int, ...]]]:
    """Kept original indices when `second` is carried out on what `first` left.

    The smaller network holds what is kept in the original's order, also on axes that restart per
    block, where indices count through all blocks: its index `i` is the `i`-th that was kept.

    Raises:
        VerificationError: `second` keeps what `first` did not leave.
    """
    names = dict.fromkeys((*first, *second))
    return {
        name: {
            axis: _through(first.get(name, {}).get(axis), second.get(name, {}).get(axis), name)
            for axis in sorted({*first.get(name, {}), *second.get(name, {})})
        }
        for name in names
    }


def _through(
    first: tuple[int, ...] | None, second: tuple[int, ...] | None, name: str
) -> tuple[int, ...]:
    if first is None or second is None:
        return first or second or ()
    if second and not 0 <= min(second) <= max(second) < len(first):
        raise VerificationError(
            f"plan: a later one keeps index {max(second)} of {name}, of which an earlier one left "
            f"{len(first)}",
            "use plans of one run, in their order",
        )
    return tuple(first[place] for place in second)


def revised(plan: Plan, coupling: Coupling, model: CostModel, keep: Keep) -> Plan:
    """The plan with another choice: what it took and is kept now was given back, what it kept and
    is gone now went later.

    Args:
        coupling, model: of the network that the plan is for.
        keep: shape (units,).
    """
    groups = tuple(
        dataclasses.replace(
            row,
            kept=int(keep[group.units].sum()),
            fates=with_change(row.fates, keep[group.units]),
        )
        for row, group in zip(plan.groups, coupling.groups, strict=True)
    )
    tensors = kept_indices(coupling, keep)
    return dataclasses.replace(plan, groups=groups, tensors=tensors, after=model.evaluate(keep))


def without(plan: Plan, coupling: Coupling, model: CostModel, patterns: Sequence[str]) -> Plan:
    """The plan with every group that has a layer matching a pattern whole again, and every group
    that loses equally many.

    Args:
        coupling, model: of the network that the plan is for.

    Raises:
        ConfigError: a pattern matches no layer, or only layers that lost nothing.
    """
    keep = kept_units(plan, coupling)
    parts = linked(coupling)
    back = keep.copy()
    for pattern in patterns:
        own = [
            group.units[0]
            for group in coupling.groups
            if any(fits(pattern, layer) for layer in layers_of(coupling, group))
        ]
        matched = np.isin(parts, parts[own]) if own else np.zeros_like(keep)
        if not matched.any() or keep[matched].all():
            said = "matches only layers that lost nothing" if own else "matches no pruned layer"
            lost = [row.name for row in plan.groups if row.kept < row.total]
            raise ConfigError(
                f"--layer: {pattern} {said}", f"what was pruned: {', '.join(lost) or 'nothing'}"
            )
        back |= matched
    return revised(plan, coupling, model, back)
