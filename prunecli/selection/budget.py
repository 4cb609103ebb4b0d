"""The choice: which steps are taken so that the target is met.

Stage: selection. Pure: coupling, scores and a target in, a plan out. Touches no weights.
"""

from dataclasses import dataclass

import numpy as np

from prunecli.config import Quantity, Target
from prunecli.errors import NothingToPruneError, TargetError
from prunecli.graph.cost import Cost, CostModel, Keep
from prunecli.graph.coupling import Coupling, Group, layer_of
from prunecli.importance.criteria import Scores
from prunecli.selection.plan import Plan, PlanGroup, kept_indices
from prunecli.selection.steps import Steps, make_steps

FLOOR_SHARE = 0.05
"""Of every axis at least this share stays. Thinner layers save little and cost accuracy."""

GIVE_BACK_TRIES = 400
"""How many of the steps taken last are tried for giving back, to come closer to the target."""


@dataclass(frozen=True)
class _Ruler:
    """Measures a choice in the target's quantity."""

    quantity: Quantity
    model: CostModel
    steps: Steps

    def amount(self, taken: Keep) -> float:
        keep = ~taken[self.steps.of_unit]
        if self.quantity is Quantity.CHANNELS:
            return float(keep.sum())
        cost = self.model.evaluate(keep)
        return cost.macs if self.quantity is Quantity.MACS else cost.params


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

    The target is never overshot by more than one step: afterwards the last steps are tried in
    reverse and given back where the target allows.

    Raises:
        NothingToPruneError: no unit may go.
        TargetError: more must stay than the target allows.
    """
    if coupling.count == 0:
        raise NothingToPruneError(
            "network: nothing can be pruned: " + _why_frozen(coupling),
            "see the frozen layers and reasons in the report",
        )
    steps = make_steps(coupling, scores, FLOOR_SHARE, round_to)
    ruler = _Ruler(target.quantity, model, steps)
    order = np.flatnonzero(~steps.never)
    order = order[np.argsort(steps.scores[order], kind="stable")]
    none = np.zeros(steps.scores.size, dtype=np.bool_)
    original = ruler.amount(none)
    limit = target.limit(original)
    _check_reachable(ruler, none, order, original, limit, target)
    taken = _prefix(ruler, none, order, limit)
    taken = _give_back(ruler, taken, order, limit, original)
    return _plan(coupling, model, steps, taken, scores, target, criterion, seed)


def smallest(coupling: Coupling, model: CostModel, scores: Scores) -> Cost:
    """Cost when every step that may be taken is taken."""
    steps = make_steps(coupling, scores, FLOOR_SHARE)
    return model.evaluate(steps.never[steps.of_unit])


def _prefix(ruler: _Ruler, none: Keep, order: np.ndarray, limit: float) -> Keep:
    """The shortest run of lowest scores that meets the limit (cost falls with every step)."""
    low, high = 0, order.size
    while low < high:
        middle = (low + high) // 2
        taken = none.copy()
        taken[order[:middle]] = True
        if ruler.amount(taken) <= limit:
            high = middle
        else:
            low = middle + 1
    taken = none.copy()
    taken[order[:low]] = True
    return taken


def _give_back(
    ruler: _Ruler, taken: Keep, order: np.ndarray, limit: float, original: float
) -> Keep:
    """Undo late steps while the limit holds and there is room worth filling."""
    done = order[taken[order]][::-1]
    for step in done[:GIVE_BACK_TRIES]:
        if limit - ruler.amount(taken) < 0.001 * original:
            break
        taken[step] = False
        if ruler.amount(taken) > limit:
            taken[step] = True
    return taken


def _check_reachable(
    ruler: _Ruler, none: Keep, order: np.ndarray, original: float, limit: float, target: Target
) -> None:
    flag = {
        Quantity.MACS: "--target-macs",
        Quantity.PARAMS: "--target-params",
        Quantity.CHANNELS: "--channel-ratio",
    }[target.quantity]
    if limit >= original:
        raise TargetError(
            f"{flag}: the original already meets {target.text} (it has {original:.6g})",
            "ask for less than the original has",
        )
    everything = none.copy()
    everything[order] = True
    least = ruler.amount(everything)
    if least > limit:
        reach = f"{100 * least / original:.1f}% of the original ({least:.6g})"
        hint = (
            f"the largest ratio that works is {flag} {_down(1 - least / original)}"
            if target.quantity is Quantity.CHANNELS
            else f"the smallest target that works is {flag} {_up(100 * least / original)}%"
        )
        raise TargetError(f"{flag}: {target.text} cannot be reached, at least {reach} stay", hint)


def _up(percent: float) -> str:
    return f"{np.ceil(percent * 10) / 10:.1f}"


def _down(ratio: float) -> str:
    return f"{np.floor(ratio * 100) / 100:.2f}"


def _plan(
    coupling: Coupling,
    model: CostModel,
    steps: Steps,
    taken: Keep,
    scores: Scores,
    target: Target,
    criterion: str,
    seed: int,
) -> Plan:
    keep: Keep = ~taken[steps.of_unit]
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
