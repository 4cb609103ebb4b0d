"""One row of the zoo's result: what was measured, and whether it is what it must be."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

TOLERANCE = 1e-4
"""Largest relative difference of outputs that is rounding."""

SHARE, WITHIN = 0.5, 0.02
"""The share of MACs that may stay, and how far below it the result may lie."""

COUNTED_WITHIN = 0.005
"""How far the engine's share of MACs may be from the one that PyTorch counts."""

Status = Literal["ok", "part", "FAIL"]


@dataclass(frozen=True)
class Row:
    """What is known of one model; `None` where it did not get that far.

    Attributes:
        stage: the last one begun.
        captured: whether it became a graph.
        dynamic_batch: whether that graph's batch is free.
        prunable: share of MACs that can go at most.
        macs, params: of the original, for one example.
        macs_share, params_share: what is left of them.
        flops_share: what is left of the work that PyTorch's own counter counts while both run.
        target: share of MACs that was asked for; above `SHARE` only if that cannot be reached.
        oracle: relative difference of outputs, compact against masked graph.
        oracle_inside: the same, largest over all intermediate values.
        eager: relative difference, compact graph against the model itself with zeroed
            parameters; `None` too where a norm over a pruned axis makes the two differ.
        onnx: relative difference of onnxruntime and the compact graph, at `batches`.
        same_shape: whether the output keeps its shape.
        seconds: processor time per stage.
        model_bytes: parameters and buffers.
        peak_bytes: per stage, resident memory above that before the model was built.
        frozen: reasons why parts stay, with an example of a layer.
        unknown: operators without a rule.
        why: what is wrong, in words.
    """

    family: str
    name: str
    stage: str = "start"
    captured: bool = False
    dynamic_batch: bool | None = None
    prunable: float | None = None
    macs: float | None = None
    params: float | None = None
    target: float | None = None
    macs_share: float | None = None
    params_share: float | None = None
    flops_share: float | None = None
    oracle: float | None = None
    oracle_inside: float | None = None
    oracle_precision: str | None = None
    eager: float | None = None
    onnx: float | None = None
    batches: tuple[int, ...] = ()
    same_shape: bool | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    model_bytes: int | None = None
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    why: str = ""
    details: str = ""

    @property
    def finished(self) -> bool:
        """Whether every stage was run."""
        return self.stage == "done"

    @property
    def status(self) -> Status:
        """`part` where everything is right but less than half could go."""
        if not self.finished or faults(self):
            return "FAIL"
        return "ok" if self.target == SHARE else "part"

    def to_json(self) -> dict[str, Any]:
        """The row as JSON holds it, with its status."""
        return {"status": self.status, **asdict(self)}


def faults(row: Row) -> list[str]:
    """What of a finished row is not as it must be."""
    found = []
    target = row.target or SHARE
    if row.macs_share is None or not target - WITHIN <= row.macs_share <= target:
        found.append(f"{_percent(row.macs_share)} of MACs left, {_percent(target)} asked for")
    for name, value in (("oracle", row.oracle), ("inside", row.oracle_inside), ("onnx", row.onnx)):
        if value is None or not value <= TOLERANCE:
            found.append(f"{name} differs by {value}")
    if row.eager is not None and not row.eager <= TOLERANCE:
        found.append(f"the model with zeroed parameters differs by {row.eager:.1e}")
    if row.flops_share is None or abs(row.flops_share - (row.macs_share or 0.0)) > COUNTED_WITHIN:
        found.append(f"PyTorch counts {_percent(row.flops_share)} of the work left")
    if not row.same_shape:
        found.append("the output's shape has changed")
    return found


def write(row: Row, path: Path) -> None:
    """Store what is known so far; a reader never sees half of it."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(row.to_json()), encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> Row:
    """What `write` stored."""
    return from_json(json.loads(path.read_text(encoding="utf-8")))


def from_json(record: Mapping[str, Any]) -> Row:
    """What `Row.to_json` made."""
    known = {item.name for item in fields(Row)}
    lists = ("batches", "frozen", "unknown")
    values: dict[str, Any] = {key: value for key, value in record.items() if key in known}
    return Row(**{**values, **{key: tuple(values[key]) for key in lists}})


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"
