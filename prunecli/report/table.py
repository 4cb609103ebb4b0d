"""A report's tables, as cells.

Stage: report. In: a report. Out: headers and rows of strings, the same for the terminal and for
plain text. Never decides how a table is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from prunecli.metric import Metric
from prunecli.report import units
from prunecli.report.record import Report, Row, RowName, Scoring, Spread
from prunecli.report.removed import GroupRow

UNKNOWN = "-"

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Cells:
    """A table: every row has one cell per header; columns in `left` are text, others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Row], str]


def results(report: Report) -> Cells | None:
    """The table of the three networks; `None` before anything was measured.

    Columns of scores are left out while there are none.
    """
    if not report.rows:
        return None
    columns = [
        _Column("size on disk", lambda row: _optional(row.size_bytes, units.size)),
        _Column("compressed", lambda row: _optional(row.compressed_bytes, units.size)),
        _Column("parameters", lambda row: _optional(row.params, units.count)),
        *_nonzero(report),
        _Column("MACs", lambda row: _optional(row.macs, units.count)),
        _Column("latency p50 (25-75%)", lambda row: _latency(row.latency_ms)),
        _Column("speed-up (10-90%)", _speedup),
    ]
    if report.scoring is not None and any(row.score is not None for row in report.rows):
        columns += _score_columns(report.scoring)
    names = {row.name for row in report.rows}
    return Cells(
        ("network", *(column.title for column in columns)),
        tuple(
            (_label(row.name, RowName.FINE_TUNED in names), *(c.cell(row) for c in columns))
            for row in report.rows
        ),
    )


def _nonzero(report: Report) -> list[_Column]:
    """Only where masks were used: elsewhere it says the same as the parameters."""
    if all(row.nonzero is None for row in report.rows):
        return []
    return [_Column("non-zero", lambda row: _optional(row.nonzero, units.count))]


def plan(report: Report) -> Cells | None:
    """The plan group by group, with a total; `None` before there is one."""
    if not report.groups:
        return None
    rows = [
        (
            group.id,
            group.kind,
            units.names(group.layers),
            f"{group.kept}/{group.total}",
            units.percent(group.kept / group.total),
            _score_range(group),
        )
        for group in report.groups
    ]
    kept, total = (sum(g.kept for g in report.groups), sum(g.total for g in report.groups))
    rows.append(("all", "", "", f"{kept}/{total}", units.percent(kept / total), ""))
    header = ("group", "kind", "layers", "kept/total", "kept", "scores")
    return Cells(header, tuple(rows), frozenset({0, 1, 2}))


def transposed(cells: Cells) -> Cells:
    """The same table with one column per row, for narrow terminals."""
    header, *rows = zip(cells.header, *cells.rows, strict=True)
    return Cells(tuple(header), tuple(rows))


def _label(name: RowName, fine_tuned: bool) -> str:
    if name is RowName.FINE_TUNED:
        return "final"
    if name is RowName.PRUNED and fine_tuned:
        return "pruned, before fine-tuning"
    return name.value


def _score_columns(scoring: Scoring) -> list[_Column]:
    leading = scoring.leading
    difference = "difference (points)" if leading.percent else "difference"
    return [
        _Column(leading.title, lambda row: _optional(row.score, partial(units.score, leading))),
        _Column(
            difference,
            lambda row: _optional(row.score_difference, partial(_difference, leading)),
        ),
        *(_Column(metric.title, partial(_other, metric)) for metric in scoring.others),
    ]


def _other(metric: Metric, row: Row) -> str:
    return _optional(row.others.get(metric.name), partial(units.score, metric))


def _optional(value: Number | None, show: Callable[[Number], str]) -> str:
    return UNKNOWN if value is None else show(value)


def _difference(metric: Metric, value: float) -> str:
    if not metric.percent:
        return ("+" if value > 0 else "") + units.score(metric, value)
    # Rounded first, so that a loss of nothing is not shown as -0.00.
    points = round(value * 100, 2)
    return f"{points:+.2f}" if points else "0.00"


def _latency(spread: Spread | None) -> str:
    if spread is None:
        return UNKNOWN
    decimals = units.decimals_of(spread.p50)
    low, high = (f"{value:.{decimals}f}" for value in (spread.low, spread.high))
    return f"{units.milliseconds(spread.p50)} ({low}-{high})"


def _speedup(row: Row) -> str:
    if row.speedup is None:
        return UNKNOWN
    if row.name is RowName.ORIGINAL:
        return units.factor(1.0)
    low, high = (units.factor(value)[:-1] for value in (row.speedup.low, row.speedup.high))
    return f"{units.factor(row.speedup.p50)} ({low}-{high})"


def _score_range(group: GroupRow) -> str:
    if group.score_low is None or group.score_high is None:
        return UNKNOWN
    return f"{group.score_low:.3g} to {group.score_high:.3g}"
