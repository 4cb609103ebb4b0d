"""Overrides: what is settled before anything is chosen by score alone.

Stage: selection. In: what the user says about single layers, and what went in earlier rounds.
Out: `Overrides`. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunecli.errors import ConfigError, NothingToPruneError, TargetError
from prunecli.graph.coupling import Coupling, Group, UnitArray, layer_of
from prunecli.importance.scores import Scores
from prunecli.removal import Choosing, LayerRule
from prunecli.selection.steps import Bools, Steps
from prunecli.shares import percent

NO_RULE = -1

NO_CUT = -np.inf
"""The score at which nothing was cut."""


@dataclass(frozen=True)
class Overrides:
    """What is settled, all of shape (units,).

    Attributes:
        kept: stays because of `--keep`.
        ruled: of layers for which `--layer` says how much goes.
        gone: went before.
        silent: stays because the criterion says nothing about it.
        out: goes: what went before, and what the rules take.
        limits: score of the last that a rule took; `NO_CUT` elsewhere.
    """

    kept: Bools
    ruled: Bools
    gone: Bools
    silent: Bools
    out: Bools
    limits: Scores

    @property
    def off_the_line(self) -> Bools:
        """What no score decides about, in this round or in any."""
        return self.kept | self.ruled | self.silent

    @property
    def closed(self) -> Bools:
        """What nothing is chosen from any more."""
        return self.off_the_line | self.gone


def settle(
    coupling: Coupling,
    parts: UnitArray,
    fine: Steps,
    rounded: Steps,
    choosing: Choosing,
    gone: Bools | None,
    silent: Bools | None = None,
) -> Overrides:
    """Carry out `--keep` and `--layer`.

    A layer that is kept stays as it is: every group with an axis of one of its tensors stays
    whole. A rule speaks of what a layer makes; the last one that matches any of the layers that
    make a group counts. Groups that lose equally many share their fate.

    Args:
        silent: units that the criterion says nothing about, shape (units,).

    Raises:
        ConfigError: a rule matches nothing that could go, or only what is kept.
        NothingToPruneError: everything is kept.
        TargetError: a rule asks for more than may go.
    """
    before = np.zeros(coupling.count, dtype=np.bool_)
    if gone is not None:
        # What goes with them went too.
        before = np.isin(fine.of_unit, fine.of_unit[gone])
    kept = _kept(coupling, parts, choosing) & ~before
    if kept.all():
        raise NothingToPruneError(
            "network: nothing can be pruned: --keep leaves nothing to choose from",
            f"give fewer layers than --keep {' --keep '.join(choosing.keep)}",
        )
    mute = np.zeros_like(before) if silent is None else np.isin(parts, parts[silent]) & ~before
    rule_of = _rules(coupling, parts, choosing, kept, mute)
    out, limits = before.copy(), np.full(coupling.count, NO_CUT)
    for part in np.unique(parts[rule_of != NO_RULE]):
        own = parts == part
        rule = choosing.rules[rule_of[own][0]]
        steps, taken = _take(rule, own, rounded, fine)
        out |= np.isin(steps.of_unit, taken)
        limits[own] = steps.scores[taken].max(initial=NO_CUT)
    return Overrides(kept, rule_of != NO_RULE, before, mute, out, limits)


def layers_of(coupling: Coupling, group: Group) -> tuple[str, ...]:
    """All layers that a group runs through."""
    found = (layer_of(coupling.slots[place].tensor) for place in group.slots)
    return tuple(dict.fromkeys(found))


def makers_of(coupling: Coupling, group: Group) -> tuple[str, ...]:
    """Those of them that make the group's values, rather than only read them."""
    slots = [coupling.slots[place] for place in group.slots]
    found = dict.fromkeys(layer_of(slot.tensor) for slot in slots if slot.role.makes)
    return tuple(found) or layers_of(coupling, group)


def idle_rules(coupling: Coupling, choosing: Choosing) -> tuple[LayerRule, ...]:
    """Rules none of whose layers makes anything that could go."""
    makers = {layer for group in coupling.groups for layer in makers_of(coupling, group)}
    return tuple(rule for rule in choosing.rules if not any(map(rule.fits, makers)))


def _kept(coupling: Coupling, parts: UnitArray, choosing: Choosing) -> Bools:
    own = [
        group.units[0]
        for group in coupling.groups
        if any(choosing.kept(layer) for layer in layers_of(coupling, group))
    ]
    return np.isin(parts, parts[own]) if own else np.zeros(coupling.count, dtype=np.bool_)


def _rules(
    coupling: Coupling, parts: UnitArray, choosing: Choosing, kept: Bools, silent: Bools
) -> UnitArray:
    """Place of every unit's rule, `NO_RULE` for none."""
    for rule in idle_rules(coupling, choosing):
        raise ConfigError(
            f"--layer: {rule.pattern}={percent(rule.share)} matches no layer whose outputs can "
            "be pruned",
            f"such layers are {', '.join(_some(coupling))}",
        )
    found = np.full(coupling.count, NO_RULE, dtype=np.int64)
    for place, rule in enumerate(choosing.rules):
        own = parts[[group.units[0] for group in _made_by(coupling, rule)]]
        if kept[np.isin(parts, own)].all():
            raise ConfigError(
                f"--layer: what {rule.pattern}={percent(rule.share)} matches stays as it is "
                f"because of --keep {' --keep '.join(choosing.keep)}",
                "give a layer to --layer or to --keep, not to both",
            )
        if silent[np.isin(parts, own)].all():
            raise ConfigError(
                f"--layer: the criterion says nothing about what {rule.pattern}="
                f"{percent(rule.share)} matches",
                "use --criterion l2",
            )
        found[np.isin(parts, own) & ~np.isin(parts, parts[kept | silent])] = place
    return found


def _made_by(coupling: Coupling, rule: LayerRule) -> Iterator[Group]:
    for group in coupling.groups:
        if any(map(rule.fits, makers_of(coupling, group))):
            yield group


def _some(coupling: Coupling) -> list[str]:
    return [group.name for group in coupling.groups][:5]


def _take(rule: LayerRule, own: Bools, rounded: Steps, fine: Steps) -> tuple[Steps, UnitArray]:
    """The steps that leave closest to what the rule says; single units where whole blocks would
    be further off than half a block.

    Args:
        own: the units that it speaks of, shape (units,).
    """
    wanted = rule.share * int(own.sum())
    for steps in (rounded, fine):
        size = np.bincount(steps.of_unit, minlength=steps.scores.size)
        every = np.unique(steps.of_unit[own])
        open_ = every[~steps.never[every]]
        open_ = open_[np.argsort(steps.scores[open_], kind="stable")]
        sums = np.concatenate([[0], np.cumsum(size[open_])])
        nearest = int(np.abs(sums - wanted).argmin())
        if abs(float(sums[nearest]) - wanted) <= size[every].max() / 2 + 1e-6:
            return steps, open_[:nearest]
    most = float(sums[-1]) / float(own.sum())
    if not most:
        raise TargetError(
            f"--layer: {rule.pattern}={percent(rule.share)} cannot be reached, nothing of what it "
            "matches can go",
            f"leave out --layer '{rule.pattern}'",
        )
    raise TargetError(
        f"--layer: {rule.pattern}={percent(rule.share)} cannot be reached, at most "
        f"{percent(most)} of what it matches can go",
        f"the largest share that works is --layer '{rule.pattern}={_down(most)}'",
    )


def _down(share: float) -> str:
    return f"{np.floor(1000 * share) / 10:g}%"
