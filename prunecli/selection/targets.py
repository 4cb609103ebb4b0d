"""Meeting a target: steps are taken in order until it is met, late ones given back where there
is room.

Stage: selection. In: steps, what is settled, a target. Out: a `Cut`. Pure.
"""

from dataclasses import dataclass

import numpy as np

from prunecli.choices import Quantity, Scope
from prunecli.errors import TargetError
from prunecli.graph.cost import CostModel, Keep
from prunecli.graph.coupling import Coupling, UnitArray
from prunecli.importance.scores import Scores
from prunecli.removal import Target
from prunecli.selection.overrides import NO_CUT, Overrides
from prunecli.selection.scope import class_of_steps, in_order
from prunecli.selection.steps import Bools, Steps

CLOSE_SHARE = 0.01
"""A result further below the target than this share of the original is filled up."""

GIVE_BACK_TRIES = 400
"""How many of the steps taken last are tried for giving back, to come closer to the target."""


@dataclass(frozen=True)
class Cut:
    """What stays, and where the line was.

    Attributes:
        keep: what stays, shape (units,).
        steps: what was taken at once.
        limits: score at or below which units were to go, shape (units,); `NO_CUT` for nowhere.
        scores: what was compared with it, shape (units,).
    """

    keep: Keep
    steps: Steps
    limits: Scores
    scores: Scores


@dataclass(frozen=True)
class Field:
    """What there is to choose from.

    Attributes:
        coupling, model: the network.
        settled: what is decided already.
        scope, class_of: who competes with whom, see `scope`.
    """

    coupling: Coupling
    model: CostModel
    settled: Overrides
    scope: Scope
    class_of: UnitArray

    def free(self, steps: Steps) -> Bools:
        """Steps that may be taken, shape (steps,)."""
        free: Bools = ~steps.never
        free[steps.of_unit[self.settled.closed]] = False
        return free

    def order(self, steps: Steps) -> UnitArray:
        """Those steps, the first to be taken first."""
        settled = self.settled
        return in_order(
            steps, self.free(steps), self.scope, self.class_of, settled.gone, settled.closed
        )

    def without(self, steps: Steps, taken: UnitArray) -> Keep:
        """What stays when these steps are taken too."""
        gone = np.zeros(steps.scores.size, dtype=np.bool_)
        gone[taken] = True
        keep: Keep = ~gone[steps.of_unit] & ~self.settled.out
        return keep

    def least(self, steps: Steps) -> Keep:
        """What stays when all are."""
        return self.without(steps, np.flatnonzero(self.free(steps)))


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


def meet(field: Field, scores: Scores, target: Target, fine: Steps, rounded: Steps) -> Cut:
    """Take steps in order until what stays is at most the target. Afterwards late ones are given
    back where there is room, and single units where whole rounding blocks leave more than
    `CLOSE_SHARE` of it.

    Raises:
        TargetError: more must stay than the target allows.
    """
    everything = np.ones(field.coupling.count, dtype=np.bool_)
    original = _amount(target.quantity, field.model, everything)
    ruler = _Ruler(target.quantity, field.model, original, target.limit(original))
    _check_reachable(ruler, field, fine, target)
    steps = rounded
    if ruler.amount(field.least(steps)) > ruler.limit:
        steps = fine
    taken = _prefix(ruler, field, steps)
    keep = _give_back(ruler, field, steps, taken, 0.001)
    if ruler.room(keep) > CLOSE_SHARE and steps is not fine:
        keep = _fill(ruler, field, fine, keep)
    return Cut(keep, steps, _limits(field, steps, taken), scores)


def _limits(field: Field, steps: Steps, taken: UnitArray) -> Scores:
    """Per unit, the highest score of a step that its class lost."""
    first = class_of_steps(steps, field.class_of)
    highest = np.full(int(field.class_of.max()) + 1, NO_CUT)
    np.maximum.at(highest, first[taken], steps.scores[taken])
    limits: Scores = highest[field.class_of]
    limits[field.settled.off_the_line] = NO_CUT
    return limits


def _prefix(ruler: _Ruler, field: Field, steps: Steps) -> UnitArray:
    """The shortest run of steps that meets the limit (cost falls with every step)."""
    order = field.order(steps)
    low, high = 0, order.size
    while low < high:
        middle = (low + high) // 2
        if ruler.amount(field.without(steps, order[:middle])) <= ruler.limit:
            high = middle
        else:
            low = middle + 1
    return order[:low]


def _give_back(ruler: _Ruler, field: Field, steps: Steps, taken: UnitArray, enough: float) -> Keep:
    """Undo late steps while the limit holds and there is more than `enough` room; one of each
    class where all are to lose the same share."""
    keep = field.without(steps, taken)
    last = taken[::-1]
    if field.scope is not Scope.GLOBAL:
        _, places = np.unique(class_of_steps(steps, field.class_of)[last], return_index=True)
        last = last[np.sort(places)]
    for step in last[:GIVE_BACK_TRIES]:
        if ruler.room(keep) < enough:
            break
        more = keep | (steps.of_unit == step)
        if ruler.room(more) >= 0.0:
            keep = more
    return keep


def _fill(ruler: _Ruler, field: Field, fine: Steps, keep: Keep) -> Keep:
    """Give back single units, group by group from the widest, where an odd width costs least;
    or in all classes alike where they are to lose the same share."""
    order = field.order(fine)
    if field.scope is not Scope.GLOBAL:
        gone = order[~keep[_first_units(fine)[order]]]
        return _give_back_to(ruler, fine, keep, gone[::-1])
    groups = field.coupling.groups
    for group in sorted(groups, key=lambda item: -int(keep[item.units].sum())):
        own = np.unique(fine.of_unit[group.units[~keep[group.units]]])
        gone = order[np.isin(order, own)]
        if gone.size:
            keep = _give_back_to(ruler, fine, keep, gone[::-1])
        if ruler.room(keep) <= CLOSE_SHARE:
            break
    return keep


def _first_units(steps: Steps) -> UnitArray:
    """One unit of every step, shape (steps,)."""
    _, first = np.unique(steps.of_unit, return_index=True)
    return first


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


def _check_reachable(ruler: _Ruler, field: Field, fine: Steps, target: Target) -> None:
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
    least = ruler.amount(field.least(fine))
    if least > ruler.limit:
        reach = f"{100 * least / original:.1f}% of the original ({least:.0f})"
        ratio = np.floor((1 - least / original) * 1000) / 1000
        hint = (
            f"{flag} {ratio:.3f} is the largest ratio that works"
            if target.quantity is Quantity.CHANNELS
            else f"the smallest target that works is {flag} {_up(100 * least / original)}%"
        )
        if (field.settled.kept | field.settled.ruled).any():
            hint += "; without --keep and --layer it may be less"
        if field.settled.silent.any():
            hint += "; with --criterion l2 it may be less"
        raise TargetError(f"{flag}: {target.text} cannot be reached, at least {reach} stay", hint)


def _up(percent: float) -> str:
    return f"{np.ceil(percent * 10) / 10:.1f}"
