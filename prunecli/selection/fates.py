"""Fates: why every unit went, or stayed though its score was low.

Stage: selection. In: a `Cut` and what was settled before. Out: one `Fate` per unit. Pure.
"""

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from prunecli.graph.coupling import Group
from prunecli.selection.overrides import NO_CUT, Overrides
from prunecli.selection.steps import Bools, Steps
from prunecli.selection.targets import Cut
from prunecli.selection.thresholds import at_or_below


class Fate(StrEnum):
    """What became of a unit. Those that begin with `kept` stayed."""

    RANK = "rank"
    THRESHOLD = "threshold"
    RECTANGULARITY = "rectangularity"
    ROUNDING = "rounding"
    OVERRIDE = "override"
    BEFORE = "before"
    LATER = "later"
    KEPT_SCORE = "kept-score"
    KEPT_TARGET = "kept-target"
    KEPT_FLOOR = "kept-floor"
    KEPT_RECTANGULARITY = "kept-rectangularity"
    KEPT_ROUNDING = "kept-rounding"
    KEPT_OVERRIDE = "kept-override"
    KEPT_PATTERN = "kept-pattern"
    KEPT_SILENT = "kept-silent"
    KEPT_RESTORED = "kept-restored"

    @property
    def stays(self) -> bool:
        """Whether the unit is still there."""
        return self.value.startswith("kept")


IN_WORDS: Mapping[Fate, str] = {
    Fate.RANK: "scores among the lowest",
    Fate.THRESHOLD: "scores at or below the threshold",
    Fate.RECTANGULARITY: "equally many must go from every block",
    Fate.ROUNDING: "makes the width a multiple (--round-to)",
    Fate.OVERRIDE: "as --layer says",
    Fate.BEFORE: "went in an earlier round",
    Fate.LATER: "went in a later round",
    Fate.KEPT_SCORE: "scores above the threshold",
    Fate.KEPT_TARGET: "the target is met without it",
    Fate.KEPT_FLOOR: "a part of every layer stays",
    Fate.KEPT_RECTANGULARITY: "equally many must stay in every block",
    Fate.KEPT_ROUNDING: "keeps the width a multiple (--round-to)",
    Fate.KEPT_OVERRIDE: "as --layer says",
    Fate.KEPT_PATTERN: "as --keep says",
    Fate.KEPT_SILENT: "the criterion says nothing about it",
    Fate.KEPT_RESTORED: "was given back",
}

Fates = tuple[tuple[Fate, tuple[int, ...]], ...]
"""Fate -> positions within the group, in `Fate`'s order; every position once."""

_ALL = tuple(Fate)

Places = npt.NDArray[np.int64]
"""Place of each unit's fate in `Fate`, shape (units,)."""


def fates(cut: Cut, fine: Steps, settled: Overrides, *, threshold: bool) -> Places:
    """The fate of every unit.

    Args:
        fine: the finest steps, by the scores that were compared.
        threshold: the line was given, not found by rank.
    """
    own = at_or_below(cut.scores, cut.limits)
    in_fine = _per_unit(fine, cut)
    in_step = _per_unit(cut.steps, cut)
    low = Fate.THRESHOLD if threshold else Fate.RANK
    none = Fate.KEPT_SCORE if threshold else Fate.KEPT_TARGET
    never = cut.steps.never[cut.steps.of_unit]
    stays = cut.keep
    # The first that holds counts.
    cases: list[tuple[Bools, Fate]] = [
        (~stays & settled.gone, Fate.BEFORE),
        (~stays & settled.ruled, Fate.OVERRIDE),
        (~stays & own, low),
        (~stays & in_fine, Fate.RECTANGULARITY),
        (~stays, Fate.ROUNDING),
        (settled.kept, Fate.KEPT_PATTERN),
        (settled.silent, Fate.KEPT_SILENT),
        (settled.ruled, Fate.KEPT_OVERRIDE),
        (cut.limits == NO_CUT, none),
        (~own, Fate.KEPT_SCORE),
        (~in_fine | fine.uneven[fine.of_unit], Fate.KEPT_RECTANGULARITY),
        (never, Fate.KEPT_FLOOR),
        (~in_step, Fate.KEPT_ROUNDING),
    ]
    found: Places = np.select(
        [holds for holds, _ in cases],
        [_ALL.index(fate) for _, fate in cases],
        default=_ALL.index(Fate.KEPT_TARGET),
    )
    return found


def _per_unit(steps: Steps, cut: Cut) -> Bools:
    """Whether the step that a unit is part of is at or below the unit's limit."""
    return at_or_below(steps.scores[steps.of_unit], cut.limits)


def of_group(found: Places, group: Group) -> Fates:
    """The fates of one group."""
    own = found[group.units]
    return tuple(
        (_ALL[place], tuple(np.flatnonzero(own == place).tolist()))
        for place in np.unique(own).tolist()
    )


def with_change(known: Fates, kept_now: Bools) -> Fates:
    """Fates after some units were given back, or went later.

    Args:
        kept_now: shape (units of the group,).
    """
    found: dict[Fate, list[int]] = {}
    for fate, places in known:
        for place in places:
            now = fate
            if kept_now[place] != fate.stays:
                now = Fate.KEPT_RESTORED if kept_now[place] else Fate.LATER
            found.setdefault(now, []).append(place)
    return tuple((fate, tuple(sorted(found[fate]))) for fate in _ALL if fate in found)
