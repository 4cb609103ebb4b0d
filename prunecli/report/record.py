"""Everything that a run can report, as one tree of frozen records.

Stage: report. In: plain values that the pipeline hands over, stage by stage. Out: records. Never
computes from weights and imports nothing heavy. Nearly everything is optional: the report is
written before and after each stage, so a run that dies leaves what was known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from prunecli.choices import Criterion, Quantity, Strategy

SCHEMA_VERSION = 1
"""Raised whenever a field of the JSON report goes, moves or changes its meaning."""

Metric = Literal["accuracy", "mse"]


class RowName(StrEnum):
    """Which network a row of the table is about."""

    ORIGINAL = "original"
    PRUNED = "pruned"
    FINE_TUNED = "fine-tuned"


@dataclass(frozen=True)
class Versions:
    """What ran."""

    prunecli: str
    python: str
    torch: str
    onnx: str
    onnxruntime: str


@dataclass(frozen=True)
class Checkpoint:
    """Where the network came from; `notes` say how it was read."""

    path: str
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """One part of the data, e.g. `train`, `held out`, `validation`."""

    name: str
    examples: int


@dataclass(frozen=True)
class Data:
    """What was trained and judged on.

    Attributes:
        task: `classification` or `regression`.
        preprocess: what is done to an example, in words.
        skipped: examples that could not be read.
    """

    path: str
    task: str
    preprocess: str
    splits: tuple[Split, ...] = ()
    skipped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requested:
    """What the user asked for.

    Attributes:
        words: the target as a sentence fragment: `keep at most 50% of the MACs`.
        value: as the user wrote it: `50%`, `20M`, `0.3`.
    """

    words: str
    quantity: Quantity
    value: str
    criterion: Criterion
    strategy: Strategy
    seed: int


@dataclass(frozen=True)
class Achieved:
    """What the plan comes to. Shares of MACs and parameters say what is left; that of the
    channels says what went. MACs count one example. Build it with `compute_achieved`."""

    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    channels_before: int
    channels_after: int
    macs_share: float
    params_share: float
    channels_removed_share: float


@dataclass(frozen=True)
class GroupRow:
    """One group of coupled channels in the plan; scores are the group's own, low to high."""

    id: str
    kind: str
    layers: tuple[str, ...]
    kept: int
    total: int
    score_low: float | None = None
    score_high: float | None = None


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


@dataclass(frozen=True)
class Checks:
    """What was verified. Differences are relative to the larger of 1 and the largest output.

    Attributes:
        oracle_difference: pruned network against the original with the removed channels zeroed.
        onnx_difference: onnxruntime against PyTorch, on batches of the sizes `onnx_batches`.
        initializer_bytes_before, initializer_bytes_after: weights inside the ONNX files.
    """

    oracle_difference: float | None = None
    oracle_tolerance: float | None = None
    onnx_difference: float | None = None
    onnx_tolerance: float | None = None
    onnx_batches: tuple[int, ...] = ()
    initializer_bytes_before: int | None = None
    initializer_bytes_after: int | None = None


@dataclass(frozen=True)
class EpochRow:
    """One epoch of fine-tuning; `score` is that of the part held out for choosing."""

    epoch: int
    train_loss: float
    score: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class Spread:
    """A median and the range around it."""

    low: float
    p50: float
    high: float


@dataclass(frozen=True)
class Row:
    """One line of the table: the facts of one ONNX file.

    Attributes:
        macs: for one example.
        latency_ms: quartiles over the calls.
        speedup: over the original; 10th to 90th percentile of the paired rounds.
        score: accuracy as a share of one, or the mean squared error.
        score_difference: this score minus the original's; see `with_differences`.
        r2: for regression.
    """

    name: RowName
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    params: int | None = None
    macs: int | None = None
    latency_ms: Spread | None = None
    speedup: Spread | None = None
    score: float | None = None
    score_difference: float | None = None
    r2: float | None = None


@dataclass(frozen=True)
class LatencySetup:
    """How latency was measured."""

    threads: int
    batch: int
    rounds: int


@dataclass(frozen=True)
class Scoring:
    """What the rows' scores are.

    Attributes:
        split: the part of the data that was judged: `validation` or `test`.
        chance: what a constant answer reaches.
    """

    metric: Metric
    split: str
    examples: int
    higher_is_better: bool
    chance: float | None = None


@dataclass(frozen=True)
class Stage:
    """How long a finished stage took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        command: the command line.
        status: `running: export`, `ok` or `failed: ...`.
        files: what was written, kind -> path: `onnx`, `pt2`, `plan`, `report`.
        best_epoch: the epoch whose weights are in the file, from 1.
    """

    command: str
    status: str = "running"
    dry_run: bool = False
    versions: Versions | None = None
    checkpoint: Checkpoint | None = None
    data: Data | None = None
    requested: Requested | None = None
    achieved: Achieved | None = None
    rows: tuple[Row, ...] = ()
    scoring: Scoring | None = None
    latency: LatencySetup | None = None
    groups: tuple[GroupRow, ...] = ()
    frozen: tuple[FrozenRow, ...] = ()
    checks: Checks = field(default_factory=Checks)
    training: tuple[EpochRow, ...] = ()
    best_epoch: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()


def compute_achieved(
    macs: tuple[int, int], params: tuple[int, int], channels: tuple[int, int]
) -> Achieved:
    """The shares for (before, after) pairs.

    Args:
        channels: prunable channels (heads, units) over all groups, each counted once.

    Raises:
        ZeroDivisionError: something was 0 before; such a network has nothing to prune.
    """
    return Achieved(
        macs_before=macs[0],
        macs_after=macs[1],
        params_before=params[0],
        params_after=params[1],
        channels_before=channels[0],
        channels_after=channels[1],
        macs_share=macs[1] / macs[0],
        params_share=params[1] / params[0],
        channels_removed_share=(channels[0] - channels[1]) / channels[0],
    )


def with_differences(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with `score_difference` set to each score minus the original's."""
    original = next((row.score for row in rows if row.name is RowName.ORIGINAL), None)
    if original is None:
        return tuple(replace(row, score_difference=None) for row in rows)
    return tuple(
        replace(row, score_difference=None if row.score is None else row.score - original)
        for row in rows
    )
