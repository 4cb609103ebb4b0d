"""What could be pruned from a network: the records, and how they are said.

Stage: report. In: plain values from the pipeline. Out: records, the cells of their table and the
lines under it. Never computes a figure, never draws.
"""

from dataclasses import dataclass

from prunecli.report import units
from prunecli.report.advice import NO_RULE, advice
from prunecli.report.lines import TOP, advice_lines, cause, merged_causes
from prunecli.report.record import Checkpoint
from prunecli.report.removed import FrozenRow
from prunecli.report.table import Cells

WHAT_SHARES_MEAN = (
    "shares: of the whole network, what goes when as much of this one group as may go is removed; "
    "a layer between two groups counts for both, so they do not add up"
)


@dataclass(frozen=True)
class InspectedGroup:
    """Units (channels, heads, ...) that sit on the same layers.

    Attributes:
        size: units.
        may_go: so many of them; a part of every layer stays.
        macs_share, params_share: what goes of the whole network's MACs and parameters when
            `may_go` units of this group are removed and everything else stays.
    """

    id: str
    kind: str
    layers: tuple[str, ...]
    size: int
    may_go: int
    macs_share: float
    params_share: float


@dataclass(frozen=True)
class UnknownOperator:
    """An operator without a rule.

    Attributes:
        places: modules that call it; `""` is the network itself.
        sources: files and lines of the calls.
    """

    operator: str
    places: tuple[str, ...]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What could be pruned. MACs count one example.

    Attributes:
        macs, params: of the network as it is.
        smallest_macs, smallest_params: when everything that may go is removed.
        frozen: what stays as it is, and why.
        unknown: operators without a rule, which freeze what reaches them.
        next_command: a command line that prunes this network.
        notes: what was decided while loading and capturing.
    """

    checkpoint: Checkpoint
    macs: int
    params: int
    smallest_macs: int
    smallest_params: int
    groups: tuple[InspectedGroup, ...]
    frozen: tuple[FrozenRow, ...]
    unknown: tuple[UnknownOperator, ...]
    next_command: str
    notes: tuple[str, ...] = ()


def inspection_cells(found: Inspection) -> Cells:
    """One row for each group, then one for each cause that freezes something."""
    rows = [
        (
            group.id,
            group.kind,
            units.names(group.layers),
            str(group.size),
            str(group.may_go),
            units.percent(group.macs_share),
            units.percent(group.params_share),
            "no",
        )
        for group in found.groups
    ]
    for row in merged_causes(found.frozen):
        first = row.layers[0] if row.layers else "-"
        rows.append((first, "-", units.names(row.layers), "-", "0", "-", "-", cause(row)))
    header = (
        *("group", "kind", "layers", "size", "may go"),
        *("share of MACs", "share of parameters", "frozen"),
    )
    return Cells(header, tuple(rows), frozenset({0, 1, 2, 7}))


def inspection_lines(found: Inspection) -> tuple[str, ...]:
    """Everything under the table."""
    return (
        WHAT_SHARES_MEAN,
        _smallest("MACs", found.macs, found.smallest_macs),
        _smallest("parameters", found.params, found.smallest_params),
        *advice_lines(tuple(row for row in found.frozen if row.reason != NO_RULE)),
        *map(unknown_line, found.unknown),
        *(f"note: {note}" for note in (*found.checkpoint.notes, *found.notes)),
        f"next: {found.next_command}",
    )


def unknown_line(found: UnknownOperator) -> str:
    """`no rule for aten.foo, called in a, b and 2 more (net.py:12): what to do`."""
    places = tuple(place or TOP for place in found.places)
    lines = f" ({units.names(found.sources)})" if found.sources else ""
    return (
        f"no rule for {found.operator}, called in {units.names(places)}{lines}: {advice(NO_RULE)}"
    )


def _smallest(noun: str, before: int, after: int) -> str:
    share = f"{units.percent(after / before)} left, " if before else ""
    return f"smallest {noun}: {share}{units.count(before)} -> {units.count(after)}"
