"""Everything that a run can report, as one tree of frozen records.

Stage: report. In: plain values that the pipeline hands over, stage by stage. Out: records. Never
computes from weights and imports nothing heavy. Nearly everything is optional: the report is
written before and after each stage, so a run that dies leaves what was known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from prunecli.choices import Quantity, Strategy
from prunecli.metric import Metric
from prunecli.report.removed import FrozenRow, GroupRow, StepRow

SCHEMA_VERSION = 2
"""Raised whenever a field of the JSON report goes, moves or changes its meaning."""


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
        task: as `--task` has it.
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
class Asked:
    """What the user asked of one strategy.

    Attributes:
        criterion: as it is written on the command line.
        words: what was asked, as a sentence fragment: `keep at most 50% of the MACs`.
        quantity: what a target of units counts; `None` for everything else.
    """

    strategy: Strategy
    criterion: str
    words: str
    quantity: Quantity | None = None


@dataclass(frozen=True)
class Requested:
    """What the user asked for.

    Attributes:
        parts: one for each strategy, in their order.
        schedule: in words: `one-shot`, `iterative, 3 rounds`.
    """

    parts: tuple[Asked, ...]
    schedule: str
    seed: int


@dataclass(frozen=True)
class Achieved:
    """What the plan comes to. Shares of MACs and parameters say what is left; the others say what
    went. MACs count one example. Build it with `compute_achieved`.

    Attributes:
        channels_before: prunable channels (heads, units) over all groups, each counted once.
        layers_before: residual blocks that could go.
        weights_before: single weights that masks may remove.
    """

    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    macs_share: float
    params_share: float
    channels_before: int | None = None
    channels_after: int | None = None
    channels_removed_share: float | None = None
    layers_before: int | None = None
    layers_after: int | None = None
    weights_before: int | None = None
    weights_after: int | None = None
    weights_removed_share: float | None = None


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
    """One epoch of training; `score` is that of the part held out for choosing.

    Attributes:
        epoch: from 1, through all phases.
        phase: `fine-tuning`, `sparse training`, `round 2`, ...
    """

    epoch: int
    train_loss: float
    score: float | None
    lr: float
    seconds: float
    phase: str = "fine-tuning"


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
        nonzero: weights in the file that are not zero, where masks were used.
        macs: for one example.
        latency_ms: quartiles over the calls.
        speedup: over the original; 10th to 90th percentile of the paired rounds.
        score: of the leading metric; percentages as a share of one.
        score_difference: this score minus the original's; see `with_differences`.
        r2: for regression; also among `others`.
        others: further metrics by name; null where one is not defined on these examples.
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
    nonzero: int | None = None
    others: Mapping[str, float | None] = field(default_factory=dict)


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
        metric: name of the leading one.
        split: the part of the data that was judged: `validation` or `test`.
        chance: what a constant answer reaches.
        leading: all about the leading metric.
        others: those whose values are in `Row.others`.
    """

    metric: str
    split: str
    examples: int
    higher_is_better: bool
    chance: float | None
    leading: Metric
    others: tuple[Metric, ...] = ()


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
        steps: what was removed, in order, and why.
        missed: what the result falls short of; the files are written, but they are not good enough.
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
    steps: tuple[StepRow, ...] = ()
    missed: tuple[str, ...] = ()
    frozen: tuple[FrozenRow, ...] = ()
    checks: Checks = field(default_factory=Checks)
    training: tuple[EpochRow, ...] = ()
    best_epoch: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()


Pair = tuple[int, int]


def compute_achieved(
    macs: Pair,
    params: Pair,
    channels: Pair | None = None,
    layers: Pair | None = None,
    weights: Pair | None = None,
) -> Achieved:
    """The shares for (before, after) pairs; see `Achieved`.

    Raises:
        ZeroDivisionError: something was 0 before; such a network has nothing to prune.
    """
    unknown = (None, None)
    units_before, units_after = channels or unknown
    layers_before, layers_after = layers or unknown
    weights_before, weights_after = weights or unknown
    return Achieved(
        macs_before=macs[0],
        macs_after=macs[1],
        params_before=params[0],
        params_after=params[1],
        macs_share=macs[1] / macs[0],
        params_share=params[1] / params[0],
        channels_before=units_before,
        channels_after=units_after,
        channels_removed_share=_gone(channels),
        layers_before=layers_before,
        layers_after=layers_after,
        weights_before=weights_before,
        weights_after=weights_after,
        weights_removed_share=_gone(weights),
    )


def _gone(pair: Pair | None) -> float | None:
    return None if pair is None else (pair[0] - pair[1]) / pair[0]


def with_differences(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with `score_difference` set to each score minus the original's."""
    original = next((row.score for row in rows if row.name is RowName.ORIGINAL), None)
    if original is None:
        return tuple(replace(row, score_difference=None) for row in rows)
    return tuple(
        replace(row, score_difference=None if row.score is None else row.score - original)
        for row in rows
    )
