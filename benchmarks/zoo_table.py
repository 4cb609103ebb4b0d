"""Rows as an aligned plain table, and their totals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zoo_row import Row

MEBI = 1 << 20

ENGINE = ("capture", "analysis", "plan", "oracle")
"""The stages whose memory must stay small against the model's."""

SHIPPING = (*ENGINE, "export")
"""All stages but those that are the zoo's own: building the model, and its comparisons."""


@dataclass(frozen=True)
class _Column:
    """A heading, the width below it, and what stands there."""

    heading: str
    width: int
    text: Callable[[Row], str]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}%"


def _difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def _amount(value: float | None) -> str:
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value / 1e3:.3g}K"


def _seconds(*stages: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        known = [row.seconds[stage] for stage in stages if stage in row.seconds]
        return f"{sum(known):.2f}" if len(known) == len(stages) else "-"

    return text


def _memory(row: Row, stages: Sequence[str]) -> int | None:
    known = [peak for stage, peak in row.peak_bytes.items() if stage in stages]
    return max(known, default=None)


def _mebi(row: Row) -> str:
    found = _memory(row, SHIPPING)
    return "-" if found is None else f"{found / MEBI:.0f}"


def _times(stages: Sequence[str]) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        found = _memory(row, stages)
        return "-" if found is None or not row.model_bytes else f"{found / row.model_bytes:.1f}"

    return text


def _captured(row: Row) -> str:
    if not row.captured:
        return "no"
    return "yes" if row.dynamic_batch else "fixed"


def columns(name_width: int) -> tuple[_Column, ...]:
    """The table's columns; see `LEGEND`."""
    return (
        _Column("model", -name_width, lambda row: row.name),
        _Column("", -4, lambda row: row.status),
        _Column("captured", -8, _captured),
        _Column("params", 6, lambda row: _amount(row.params)),
        _Column("MACs", 6, lambda row: _amount(row.macs)),
        _Column("prunable", 8, lambda row: _share(row.prunable)),
        _Column("achieved", 8, lambda row: _share(row.macs_share)),
        _Column("oracle", 6, lambda row: _difference(row.oracle)),
        _Column("eager", 6, lambda row: _difference(row.eager)),
        _Column("onnx", 6, lambda row: _difference(row.onnx)),
        _Column("capture", 7, _seconds("capture")),
        _Column("analyse", 7, _seconds("analysis")),
        _Column("plan", 6, _seconds("plan")),
        _Column("export", 6, _seconds("export")),
        _Column("MiB", 6, _mebi),
        _Column("x", 5, _times(SHIPPING)),
        _Column("engine", 6, _times(ENGINE)),
        _Column("why", 0, lambda row: row.why),
    )


LEGEND = """\
captured: `fixed` means with a fixed batch. params, MACs: of the original, one example.
prunable: share of the MACs that can go at most. achieved: share of the MACs that is left.
oracle: relative difference of outputs, compact graph against masked graph.
eager: the same against the model itself with zeroed parameters; `-` where a norm was cut.
onnx: relative difference of onnxruntime and the compact graph, at two batch sizes.
capture, analyse, plan, export: seconds of processor time; `plan` includes scoring and compaction.
MiB: largest resident memory in any of the engine's stages, above that before the model was built;
x: the same over the size of the model's parameters and buffers; engine: x, without the export."""


def heading(name_width: int) -> str:
    """The first line."""
    return _joined(_fit(item.heading, item.width) for item in columns(name_width))


def line(row: Row, name_width: int) -> str:
    """One row."""
    return _joined(_fit(item.text(row), item.width) for item in columns(name_width))


def totals(rows: Sequence[Row]) -> list[str]:
    """What the rows amount to."""
    good = [row for row in rows if row.status == "ok"]
    part = [row for row in rows if row.status == "part"]
    lines = [
        f"{len(rows)} models: {len(good)} at half of their MACs, {len(part)} in part, "
        f"{len(rows) - len(good) - len(part)} failed; "
        f"{sum(row.captured for row in rows)} captured"
    ]
    checked = [row for row in rows if row.onnx is not None]
    if checked:
        worst = {
            "oracle": max(row.oracle or 0.0 for row in checked),
            "eager": max(row.eager or 0.0 for row in checked),
            "onnx": max(row.onnx or 0.0 for row in checked),
        }
        lines.append("largest differences: " + ", ".join(f"{k} {v:.0e}" for k, v in worst.items()))
    spent = {
        stage: sum(row.seconds.get(stage, 0.0) for row in rows)
        for stage in ("capture", "analysis", "plan", "export")
    }
    lines.append("seconds: " + ", ".join(f"{stage} {value:.0f}" for stage, value in spent.items()))
    return lines


def _fit(text: str, width: int) -> str:
    return text.ljust(-width) if width <= 0 else text.rjust(width)


def _joined(cells: Iterable[str]) -> str:
    return "  ".join(cells).rstrip()
