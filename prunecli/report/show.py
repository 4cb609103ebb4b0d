"""A report on a terminal, in colour, or as plain text that never wraps or loses a column.

Stage: report. In: a report, a stream. Out: text on that stream. Never decides what is said.
"""

from dataclasses import dataclass
from typing import Literal, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunecli.report.explain import explain_lines
from prunecli.report.inspection import Inspection, inspection_cells, inspection_lines
from prunecli.report.lines import dry_run_lines, result_lines
from prunecli.report.record import Report
from prunecli.report.table import Cells, plan, results, transposed

_GAP = "  "
_ANY_WIDTH = 100_000


@dataclass(frozen=True)
class _Content:
    """What is printed.

    Attributes:
        may_turn: whether the table has so few rows that it can stand on its side.
    """

    cells: Cells | None
    lines: tuple[str, ...]
    may_turn: bool


def show(report: Report | Inspection, stream: TextIO, *, explain: bool = False) -> None:
    """Print the report to `stream`: drawn when that is a terminal, plain otherwise.

    Plain text has no fixed width, whatever COLUMNS or a CI system's variables say.

    Args:
        explain: say why everything went that went, too.
    """
    if stream.isatty():
        draw(report, Console(file=stream), explain=explain)
    else:
        stream.write(to_text(report, explain=explain))


def to_text(report: Report | Inspection, *, explain: bool = False) -> str:
    """The whole report as aligned plain text, one line per fact."""
    content = _content(report, explain)
    table = [*_plain_table(content.cells), ""] if content.cells is not None else []
    parts = [*table, *content.lines]
    return "\n".join(parts) + "\n"


def draw(report: Report | Inspection, console: Console, *, explain: bool = False) -> None:
    """The report on a terminal; a table that is too wide is turned on its side."""
    content = _content(report, explain)
    if content.cells is not None:
        table = _rich_table(content.cells)
        if content.may_turn and _natural_width(table, console) > console.width:
            table = _rich_table(transposed(content.cells))
        console.print(table)
        console.print()
    for line in content.lines:
        style = "yellow" if line.startswith(("WARNING", "FAILED", "status:")) else None
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _content(report: Report | Inspection, explain: bool) -> _Content:
    if isinstance(report, Inspection):
        return _Content(inspection_cells(report), inspection_lines(report), may_turn=False)
    why = explain_lines(report.steps) if explain else ()
    if report.dry_run:
        return _Content(plan(report), (*dry_run_lines(report), *why), may_turn=False)
    return _Content(results(report), (*result_lines(report), *why), may_turn=True)


def _plain_table(cells: Cells) -> list[str]:
    table = (cells.header, *cells.rows)
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    lines = [
        _GAP.join(
            _pad(text, width, index in cells.left)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    lines.insert(1, _GAP.join("-" * width for width in widths))
    return lines


def _pad(text: str, width: int, left: bool) -> str:
    # Counted in terminal cells: a Chinese character takes two.
    space = " " * (width - cell_len(text))
    return text + space if left else space + text


def _rich_table(cells: Cells) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for index, title in enumerate(cells.header):
        side: Literal["left", "right"] = "left" if index in cells.left else "right"
        table.add_column(title, justify=side, overflow="fold")
    for row in cells.rows:
        # Text, not str: a layer called `blocks[0]` is no markup.
        table.add_row(*map(Text, row))
    return table


def _natural_width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update_width(_ANY_WIDTH)).maximum
