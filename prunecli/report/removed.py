"""What was removed and why, and what stays as it is: records.

Stage: report. Plain values, from the plans of all steps. Computes nothing.
"""

from dataclasses import dataclass

from prunecli.choices import Strategy


@dataclass(frozen=True)
class Fate:
    """Units of one group with the same fate.

    Attributes:
        why: `rank`, `threshold`, ... for what went; for what stays below the cut, why it does.
        units: positions within the group.
        score_low, score_high: of these units.
    """

    went: bool
    why: str
    units: tuple[int, ...]
    score_low: float
    score_high: float


@dataclass(frozen=True)
class GroupRow:
    """One group of coupled channels in the plan; scores are the group's own, low to high.

    Attributes:
        threshold: where the cut fell, on the scale of the scores.
        fates: what became of its units, and why.
    """

    id: str
    kind: str
    layers: tuple[str, ...]
    kept: int
    total: int
    score_low: float | None = None
    score_high: float | None = None
    threshold: float | None = None
    fates: tuple[Fate, ...] = ()


@dataclass(frozen=True)
class LayerRow:
    """One residual block, or transformer layer."""

    name: str
    params: int
    score: float
    dropped: bool
    why: str


@dataclass(frozen=True)
class WeightRow:
    """The mask of one tensor.

    Attributes:
        threshold: largest score that went.
        why: what decided.
    """

    name: str
    kept: int
    total: int
    threshold: float | None
    why: str


@dataclass(frozen=True)
class StepRow:
    """One strategy, applied once.

    Attributes:
        round: from 1.
        words: what was aimed at in this round.
        groups, layers, weights: what the strategy looked at, whichever it is.
        taken_back: why it does not count; `None` where it does.
    """

    round: int
    strategy: Strategy
    criterion: str
    words: str
    groups: tuple[GroupRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    weights: tuple[WeightRow, ...] = ()
    taken_back: str | None = None


@dataclass(frozen=True)
class FrozenRow:
    """Layers that were left as they are.

    Attributes:
        operator: what caused it, where one did.
        place: the module that calls it.
        source: file and line of that call.
        advice: what could be done about it.
    """

    layers: tuple[str, ...]
    reason: str
    operator: str | None = None
    place: str | None = None
    source: str | None = None
    advice: str | None = None
