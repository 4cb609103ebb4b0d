"""The choice of single weights: which of them stay.

Stage: selection. Pure: scores in, masks and their reasons out. Touches no weights.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunecli.errors import ConfigError, TrainingError
from prunecli.graph.maskable import Maskable
from prunecli.removal import Choosing, Pattern, PatternKind, WeightsWanted
from prunecli.selection.maskplan import Decided, MaskPlan, Masks, Why, decided, untouched
from prunecli.selection.matching import check_patterns
from prunecli.selection.patterns import Items, items_of, n_of_m
from prunecli.selection.ranking import at_or_below, best_score, lowest_of
from prunecli.selection.sparsity import Budget, by_rank, by_sparsity
from prunecli.shares import percent


@dataclass(frozen=True)
class _Asked:
    """The arguments of `choose_masks`, which see."""

    scores: Mapping[str, Tensor]
    maskables: Sequence[Maskable]
    wanted: WeightsWanted
    choosing: Choosing
    before: Masks
    deviations: Mapping[str, float]
    progress: float

    def items(self, of: Maskable, pattern: Pattern) -> Items:
        """What of a tensor is ranked."""
        return items_of(of, self.scores[of.name], pattern, self.before.get(of.name))


def choose_masks(
    scores: Mapping[str, Tensor],
    maskables: Sequence[Maskable],
    wanted: WeightsWanted,
    choosing: Choosing,
    current: Masks | None = None,
    *,
    deviations: Mapping[str, float] | None = None,
    layers: Collection[str] | None = None,
    progress: float = 1.0,
) -> MaskPlan:
    """Decide which weights stay.

    With a sparsity, that share of all maskable weights goes, those of `--keep` counted: with
    global scope the lowest scores of all; with local scope the same share of every tensor; with
    isomorphic scope the same share of every class of tensors that are read by the same kind of
    operator with the same kernel (Fang et al. 2024, arXiv:2407.04616). Layers with a rule lose
    their share, `--keep` loses nothing, the rest makes up for both. Without a sparsity the
    pattern n:m decides, or else the threshold, or else the rules alone.

    At least one weight (block) of every tensor stays.

    Args:
        scores: per maskable, of its shape; larger is more important.
        maskables: what may be masked.
        wanted, choosing: what the user asked for.
        current: masks so far; what is masked stays masked and counts as having gone.
        deviations: standard deviation of every maskable's weights, for a dynamic threshold.
        layers: names that patterns must match; not looked at if not given, since a pattern may
            be meant for what another strategy removes, or has removed.
        progress: the part of everything asked for that goes by now, in [0, 1]: of the sparsity
            and of the rules' shares, or of what threshold and pattern would take from each
            tensor, the lowest scores first.

    Raises:
        ConfigError: a pattern matches nothing, flags contradict each other, or rules alone take
            more than the sparsity.
        TargetError: more must stay than the sparsity allows.
        TrainingError: a score is not a number.
    """
    if layers is not None:
        check_patterns(choosing, layers)
    asked = _Asked(scores, maskables, wanted, choosing, current or {}, deviations or {}, progress)
    for item in maskables:
        if bool(scores[item.name].isnan().any()):
            raise TrainingError(
                f"scores: every weight needs a number, got some of {item.name} that are none",
                "choose another --criterion",
            )
    by_pattern = wanted.pattern.kind is PatternKind.N_OF_M
    found = _by_pattern(asked) if by_pattern else _by_score(asked)
    masks = {name: item.mask for name, item in found.items() if not bool(item.mask.all())}
    return MaskPlan(masks, tuple(found[item.name].row for item in maskables))


def _by_pattern(asked: _Asked) -> dict[str, Decided]:
    """n:m: the pattern says how many go."""
    pattern, choosing = asked.wanted.pattern, asked.choosing
    if asked.wanted.sparsity is not None:
        raise ConfigError(
            f"--weight-sparsity: the pattern {pattern.in_words()} decides how many weights go, "
            f"got {percent(asked.wanted.sparsity)} as well",
            "leave out --weight-sparsity, or use --pattern unstructured",
        )
    if choosing.rules:
        raise ConfigError(
            f"--layer: the pattern {pattern.in_words()} decides how many weights of a layer go, "
            f"got {choosing.rules[0].pattern}={percent(choosing.rules[0].share)} as well",
            "use --keep for layers that are to stay as they are",
        )
    found = {}
    for of in asked.maskables:
        mask = n_of_m(of, asked.scores[of.name], pattern, asked.before.get(of.name))
        if choosing.kept(of.layer):
            found[of.name] = untouched(of, asked.before, Why.KEPT)
        elif mask is None:
            found[of.name] = untouched(of, asked.before, Why.TOO_SHORT)
        else:
            items = asked.items(of, Pattern())
            goes = lowest_of(items, ~mask.reshape(-1), asked.progress)
            found[of.name] = decided(items, goes, asked.before, Why.PATTERN)
    return found


def _by_score(asked: _Asked) -> dict[str, Decided]:
    """Single weights or blocks, by rules, then by sparsity or threshold."""
    wanted, choosing, before = asked.wanted, asked.choosing, asked.before
    found: dict[str, Decided] = {}
    free: list[Items] = []
    for of in asked.maskables:
        share = choosing.share(of.layer)
        items = asked.items(of, wanted.pattern)
        if choosing.kept(of.layer):
            found[of.name] = untouched(of, before, Why.KEPT)
        elif share is not None:
            amount = share * asked.progress * of.size
            found.update(by_rank([items], amount, before, Why.OVERRIDE))
        else:
            free.append(items)
    if wanted.sparsity is not None:
        fixed = sum(item.row.total - item.row.kept for item in found.values())
        total = sum(of.size for of in asked.maskables)
        share = wanted.sparsity * asked.progress
        budget = Budget(share, total, fixed, len(asked.maskables), bool(choosing.rules))
        found.update(by_sparsity(free, budget, choosing.scope, before))
    elif choosing.threshold is not None:
        found.update({items.of.name: _below(items, asked) for items in free})
    elif choosing.rules:
        found.update({items.of.name: untouched(items.of, before, Why.KEPT) for items in free})
    else:
        raise ConfigError(
            "--weight-sparsity: it must be said how many weights go, got nothing",
            "give --weight-sparsity 80%, --threshold 0.01, --layer or --pattern 2:4",
        )
    return found


def _below(items: Items, asked: _Asked) -> Decided:
    """What is at or below the threshold goes. Dynamic: so many standard deviations of the layer's
    weights (Han et al. 2015, arXiv:1506.02626)."""
    threshold = asked.choosing.threshold
    assert threshold is not None
    limit = threshold.value
    if threshold.dynamic:
        limit *= asked.deviations[items.of.name]
    limit = float(torch.tensor(limit, dtype=items.scores.dtype))
    goes = lowest_of(items, at_or_below(items, limit), asked.progress)
    floor = best_score(items) <= limit
    return decided(items, goes, asked.before, Why.FLOOR if floor else Why.THRESHOLD, limit)
