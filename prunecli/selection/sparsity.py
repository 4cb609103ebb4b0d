"""Sparsity: a share of all weights goes, by rank.

Stage: selection. In: items, the share, and what is decided already. Out: `Decided` per tensor.
Touches no weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prunecli.choices import Scope
from prunecli.errors import ConfigError, TargetError
from prunecli.selection.maskplan import Decided, Masks, Why, decided
from prunecli.selection.patterns import Items
from prunecli.selection.ranking import best_score, best_size, largest_of, lowest
from prunecli.shares import percent


@dataclass(frozen=True)
class Budget:
    """How many weights go.

    Attributes:
        sparsity: share of `total`.
        total: elements of all maskable tensors.
        fixed: elements that are gone from tensors on which something else decided.
        tensors: how many tensors there are.
        by_rules: whether rules decided on some.
    """

    sparsity: float
    total: int
    fixed: int
    tensors: int
    by_rules: bool

    @property
    def amount(self) -> float:
        """What is left to go."""
        return self.sparsity * self.total - self.fixed


def by_sparsity(
    free: Sequence[Items], budget: Budget, scope: Scope, before: Masks
) -> dict[str, Decided]:
    """The free tensors lose what the budget asks for: by one ranking, each the same share, or
    each class of tensors the same share.

    Raises:
        ConfigError: rules took more than the sparsity.
        TargetError: more must stay.
    """
    _check_possible(free, budget)
    rest = sum(items.of.size for items in free)
    share = budget.sparsity if rest == budget.total else budget.amount / max(rest, 1)
    found: dict[str, Decided] = {}
    for members in _classes(free, scope):
        size = sum(items.of.size for items in members)
        found.update(by_rank(members, max(share, 0.0) * size, before, Why.RANK))
    return found


def by_rank(members: Sequence[Items], amount: float, before: Masks, why: Why) -> dict[str, Decided]:
    """Of tensors that are ranked together, `amount` weights go. The highest score that went is
    the threshold of them all."""
    pairs = list(zip(members, lowest(members, amount), strict=True))
    highest = [score for pair in pairs if (score := largest_of(*pair)) is not None]
    limit = max(highest, default=None)
    most = sum(items.of.size - best_size(items) for items in members)
    found = {}
    for items, goes in pairs:
        alone = int((~goes).sum()) == 1
        below = limit is not None and best_score(items) < limit
        floor = alone and (below or round(amount) > most)
        found[items.of.name] = decided(items, goes, before, Why.FLOOR if floor else why, limit)
    return found


def _check_possible(free: Sequence[Items], budget: Budget) -> None:
    # Only whole weights and blocks go, so that each tensor may be off by a part of one.
    slack = budget.tensors * max(
        (1 if items.sizes is None else int(items.sizes.max()) for items in free), default=1
    )
    wanted = percent(budget.sparsity)
    if budget.amount < -slack and budget.by_rules:
        raise ConfigError(
            f"--layer: the rules take {percent(budget.fixed / budget.total)} of all weights, more "
            f"than --weight-sparsity {wanted}",
            "ask for less with --layer, or for more with --weight-sparsity",
        )
    most = sum(items.of.size - best_size(items) for items in free)
    if budget.amount > most + slack:
        could = math.floor((budget.fixed + most) / budget.total * 1000) / 10
        raise TargetError(
            f"--weight-sparsity: {wanted} of all weights cannot go, at most {could:g}% can",
            "ask for less, or let more go with --layer and --keep",
        )


def _classes(free: Sequence[Items], scope: Scope) -> list[list[Items]]:
    """Tensors whose scores are ranked with one another."""
    found: dict[object, list[Items]] = {}
    for items in free:
        of = items.of
        kernel = tuple(
            extent
            for axis, extent in enumerate(of.shape)
            if axis not in (of.input_axis, of.output_axis)
        )
        key: dict[Scope, object] = {
            Scope.GLOBAL: None,
            Scope.LOCAL: of.name,
            Scope.ISOMORPHIC: (of.kind, kernel),
        }
        found.setdefault(key[scope], []).append(items)
    return list(found.values())
