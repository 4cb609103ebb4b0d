"""The choice: which steps are taken so that the target is met.

Stage: selection. Pure: coupling, scores and a target in, a plan out. Touches no weights.
"""

from dataclasses import dataclass

import numpy as np

from prunecli.choices import Quantity
from prunecli.errors import NothingToPruneError, TargetError
from prunecli.graph.cost import Cost, CostModel, Keep
from prunecli.graph.coupling import Coupling, Group, UnitArray, layer_of
from prunecli.importance.scores import Scores
from prunecli.removal import Target
from prunecli.selection.plan import Plan, PlanGroup, kept_indices
from prunecli.selection.steps import Steps, make_steps

FLOOR_SHARE = 0.05
"""Of every axis at least this share stays. Thinner layers save little and cost accuracy."""

CLOSE_SHARE = 0.01
"""A result further below the target than this share of the original is filled up."""

GIVE_BACK_TRIES = 400
"""How many of the steps taken last are tried for giving back, to come closer to the target."""


@dataclass(frozen=True)
class _Ruler:
    """Measures a choice in the target's quantity."""

    quantity: Quantity
    model: CostModel
    original: float
    limit: float

    def amount(self, keep: Keep) -> float:
        return _amount(self.quantity, self.model, keep)

    def room(self, keep: Keep) -> float:
        """How far below the limit, as a share of the original."""
        return (self.limit - self.amount(keep)) / self.original


def _amount(quantity: Quantity, model: CostModel, keep: Keep) -> float:
    if quantity is Quantity.CHANNELS:
        return float(keep.sum())
    cost = model.evaluate(keep)
    return cost.macs if quantity is Quantity.MACS else cost.params


def select(
    coupling: Coupling,
    model: CostModel,
    scores: Scores,
    target: Target,
    criterion: str,
    seed: int,
    round_to: int = 1,
) -> Plan:
    """Take the steps with the lowest scores, network-wide, until the target is met.

    What stays is at most the target. Afterwards late steps are given back where there is room,
    and single units where whole rounding blocks leave more than `CLOSE_SHARE` of it.

    Raises:
        NothingToPruneError: no unit may go.
        TargetError: more must stay than the target allows.
    """
    fine = finest_steps(coupling, scores)
    steps = make_steps(coupling, scores, FLOOR_SHARE, round_to)
    everything = np.ones(coupling.count, dtype=np.bool_)
    original = _amount(target.quantity, model, everything)
    ruler = _Ruler(target.quantity, model, original, target.limit(original))
    _check_reachable(ruler, fine.never[fine.of_unit], target)
    if ruler.amount(steps.never[steps.of_unit]) > ruler.limit:
        steps = fine
    taken = _prefix(ruler, steps)
    keep = _give_back(ruler, steps, taken, 0.001)
    if ruler.room(keep) > CLOSE_SHARE and steps is not fine:
        keep = _fill(ruler, coupling, fine, keep)
    return _plan(coupling, model, keep, scores, target, criterion, seed)


def finest_steps(coupling: Coupling, scores: Scores) -> Steps:
    """Steps of as few units as can go at once.

    Raises:
        NothingToPruneError: no unit may go.
    """
    hint = "see the frozen layers and reasons in the report"
    if coupling.count == 0:
        raise NothingToPruneError("network: nothing can be pruned: " + _why_frozen(coupling), hint)
    steps = make_steps(coupling, scores, FLOOR_SHARE)
    if steps.never.all():
        raise NothingToPruneError(
            "network: nothing can be pruned: whatever goes would empty a layer, or break the "
            "groups of another",
            hint,
        )
    return steps


def smallest(coupling: Coupling, model: CostModel, scores: Scores) -> Cost:
    """Cost when every step that may be taken is taken."""
    steps = make_steps(coupling, scores, FLOOR_SHARE)
    return model.evaluate(steps.never[steps.of_unit])


def _in_order(steps: Steps) -> UnitArray:
    """Steps that may be taken, lowest score first."""
    order = np.flatnonzero(~steps.never)
    ordered: UnitArray = order[np.argsort(steps.scores[order], kind="stable")]
    return ordered


def _prefix(ruler: _Ruler, steps: Steps) -> UnitArray:
    """The shortest run of lowest scores that meets the limit (cost falls with every step)."""
    order = _in_order(steps)
    low, high = 0, order.size
    while low < high:
        middle = (low + high) // 2
        if ruler.amount(_without(steps, order[:middle])) <= ruler.limit:
            high = middle
        else:
            low = middle + 1
    return order[:low]


def _without(steps: Steps, taken: UnitArray) -> Keep:
    gone = np.zeros(steps.scores.size, dtype=np.bool_)
    gone[taken] = True
    keep: Keep = ~gone[steps.of_unit]
    return keep


def _give_back(ruler: _Ruler, steps: Steps, taken: UnitArray, enough: float) -> Keep:
    """Undo late steps while the limit holds and there is more than `enough` room."""
    keep = _without(steps, taken)
    for step in taken[::-1][:GIVE_BACK_TRIES]:
        if ruler.room(keep) < enough:
            break
        more = keep | (steps.of_unit == step)
        if ruler.room(more) >= 0.0:
            keep = more
    return keep


def _fill(ruler: _Ruler, coupling: Coupling, fine: Steps, keep: Keep) -> Keep:
    """Give back single units, group by group from the widest, where an odd width costs least."""
    order = _in_order(fine)
    for group in sorted(coupling.groups, key=lambda item: -int(keep[item.units].sum())):
        own = np.unique(fine.of_unit[group.units[~keep[group.units]]])
        gone = order[np.isin(order, own)]
        if gone.size:
            keep = _give_back_to(ruler, fine, keep, gone[::-1])
        if ruler.room(keep) <= CLOSE_SHARE:
            break
    return keep


def _give_back_to(ruler: _Ruler, fine: Steps, keep: Keep, gone: UnitArray) -> Keep:
    """The most of `gone`, from its start, that the limit allows."""
    low, high = 0, gone.size
    while low < high:
        middle = (low + high + 1) // 2
        more = keep | np.isin(fine.of_unit, gone[:middle])
        if ruler.room(more) >= 0.0:
            low = middle
        else:
            high = middle - 1
    back: Keep = keep | np.isin(fine.of_unit, gone[:low])
    return back


def _check_reachable(ruler: _Ruler, least_keep: Keep, target: Target) -> None:
    flag = {
        Quantity.MACS: "--target-macs",
        Quantity.PARAMS: "--target-params",
        Quantity.CHANNELS: "--channel-ratio",
    }[target.quantity]
    original = ruler.original
    if ruler.limit >= original:
        raise TargetError(
            f"{flag}: the original already meets {target.text} (it has {original:.0f})",
            "ask for less than the original has",
        )
    least = ruler.amount(least_keep)
    if least > ruler.limit:
        reach = f"{100 * least / original:.1f}% of the original ({least:.0f})"
        ratio = np.floor((1 - least / original) * 1000) / 1000
        hint = (
            f"{flag} {ratio:.3f} is the largest ratio that works"
            if target.quantity is Quantity.CHANNELS
            else f"the smallest target that works is {flag} {_up(100 * least / original)}%"
        )
        raise TargetError(f"{flag}: {target.text} cannot be reached, at least {reach} stay", hint)


def _up(percent: float) -> str:
    return f"{np.ceil(percent * 10) / 10:.1f}"


def _plan(
    coupling: Coupling,
    model: CostModel,
    keep: Keep,
    scores: Scores,
    target: Target,
    criterion: str,
    seed: int,
) -> Plan:
    return Plan(
        criterion,
        target.in_words(),
        seed,
        model.evaluate(np.ones(coupling.count, dtype=np.bool_)),
        model.evaluate(keep),
        tuple(_plan_group(coupling, group, keep, scores) for group in coupling.groups),
        kept_indices(coupling, keep),
    )


def _plan_group(coupling: Coupling, group: Group, keep: Keep, scores: Scores) -> PlanGroup:
    layers = dict.fromkeys(layer_of(coupling.slots[place].tensor) for place in group.slots)
    own = scores[group.units]
    return PlanGroup(
        group.name,
        group.kind,
        tuple(layers),
        int(keep[group.units].sum()),
        int(group.units.size),
        round(float(own.min()), 6),
        round(float(own.max()), 6),
    )


def _why_frozen(coupling: Coupling) -> str:
    reasons = [
        f"{', '.join(item.layers[:3])}: {item.why.reason}"
        + (f" ({item.why.operator})" if item.why.operator else "")
        for item in coupling.frozen
    ]
    return "; ".join(reasons[:5]) or "it has no layers with channels"
