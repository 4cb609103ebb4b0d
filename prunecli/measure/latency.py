"""How long a call takes, for several ONNX files side by side.

Stage: measure. In: files that take the same inputs, one batch. Out: per file the latency and the
speed-up over the first file, each with its spread. Never measures one file after another: load
and clock speed drift within seconds, so the files take turns and are compared within one turn.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunecli.config import MeasureConfig
from prunecli.errors import ModelError
from prunecli.measure.session import Array, Executor, open_session
from prunecli.progress import Reporter, Step

ROUND_S = 0.010
"""A file's turn lasts at least about this long, so that one interrupt does not decide it."""
WARM_UP_SHARE = 0.1
"""Part of each file's time that goes into warming up."""
MIN_ROUNDS = 20
FEWEST_ROUNDS = 3
"""Even for networks so slow that the time is up: fewer say nothing about the spread."""
TIME_CAP = 3.0
"""Slow networks may take this many times the time asked for, to reach `MIN_ROUNDS`."""

Clock = Callable[[], float]
Opener = Callable[[Path, int | None], Executor]


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call: the median and the quartiles over all calls."""

    p50_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class Speedup:
    """How many times faster than the first file.

    Attributes:
        p50: median over the rounds of (first file's median call / this file's).
        low, high: 10th and 90th percentile of the same ratios.
    """

    p50: float
    low: float
    high: float


@dataclass(frozen=True)
class FileLatency:
    """What was found for one file."""

    latency: Latency
    speedup: Speedup


@dataclass(frozen=True)
class Comparison:
    """All files, and how they were measured.

    Attributes:
        files: in the order given; the first is the baseline.
        rounds: how many turns each file had.
        batch: examples per call; differs from the one asked for when a file fixes its batch.
        threads: intra-op threads.
    """

    files: Mapping[str, FileLatency]
    rounds: int
    batch: int
    threads: int


Turn = list[float]
"""Seconds of each call in one file's turn of one round."""


def compare_latency(
    files: Mapping[str, Path],
    inputs: Sequence[Array],
    config: MeasureConfig,
    reporter: Reporter,
    clock: Clock = time.perf_counter,
    open_session: Opener = open_session,
) -> Comparison:
    """Measure all files in turns; the first is what the others are compared with.

    Args:
        inputs: one array (N, ...) for each input, N at least 1; repeated or cut to the batch
            that is measured.

    Raises:
        ModelError: a file does not load or run, or the files fix different batch sizes.
    """
    executors = {name: open_session(path, config.threads) for name, path in files.items()}
    size = _common_batch(executors, config.batch)
    batch = next(iter(executors.values())).fit(inputs, size)
    budget_s = config.seconds * len(executors)
    with reporter.step("measuring latency", total=budget_s) as step:
        calls = {
            name: _warm_up(executor, batch, config.seconds * WARM_UP_SHARE, clock)
            for name, executor in executors.items()
        }
        turns = _take_turns(executors, batch, calls, budget_s, clock, step)
    baseline = next(iter(turns.values()))
    found = {
        name: FileLatency(_latency(own), _speedup(baseline, own)) for name, own in turns.items()
    }
    return Comparison(found, len(baseline), size, config.threads)


def _common_batch(executors: Mapping[str, Executor], wanted: int) -> int:
    fixed = {name: e.batch_size for name, e in executors.items() if e.batch_size is not None}
    if len(set(fixed.values())) > 1:
        raise ModelError(
            f"latency: files must take the same batch, got {fixed}",
            "give --input-shape the batch that the network needs",
        )
    return next(iter(fixed.values()), wanted)


def _warm_up(executor: Executor, batch: Sequence[Array], least_s: float, clock: Clock) -> int:
    """Call until caches, arenas and clock speed have settled; returns the calls for one turn."""
    seconds = _time_calls(executor, batch, 1, clock)
    while sum(seconds) < least_s:
        seconds += _time_calls(executor, batch, len(seconds), clock)
    return max(1, math.ceil(ROUND_S / min(seconds)))


def _take_turns(
    executors: Mapping[str, Executor],
    batch: Sequence[Array],
    calls: Mapping[str, int],
    budget_s: float,
    clock: Clock,
    step: Step,
) -> dict[str, list[Turn]]:
    names = list(executors)
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    start = clock()
    rounds, elapsed_s = 0, 0.0
    while not _is_enough(rounds, elapsed_s, budget_s):
        # Whoever goes first pays for what happened between the rounds, so that changes too.
        first = rounds % len(names)
        for name in names[first:] + names[:first]:
            turns[name].append(_time_calls(executors[name], batch, calls[name], clock))
        rounds += 1
        elapsed_s = clock() - start
        step.update(min(elapsed_s, budget_s), f"{rounds} rounds")
    return turns


def _is_enough(rounds: int, elapsed_s: float, budget_s: float) -> bool:
    if rounds < FEWEST_ROUNDS:
        return False
    if rounds < MIN_ROUNDS:
        return elapsed_s >= TIME_CAP * budget_s
    return elapsed_s >= budget_s


def _time_calls(executor: Executor, batch: Sequence[Array], calls: int, clock: Clock) -> Turn:
    seconds = []
    for _ in range(calls):
        start = clock()
        executor.run(batch)
        seconds.append(clock() - start)
    return seconds


def _latency(turns: Sequence[Turn]) -> Latency:
    milliseconds = np.concatenate([np.asarray(turn) for turn in turns]) * 1000.0
    low, median, high = np.percentile(milliseconds, (25, 50, 75))
    return Latency(float(median), float(low), float(high))


def _speedup(baseline: Sequence[Turn], own: Sequence[Turn]) -> Speedup:
    ratios = [
        float(np.median(theirs)) / float(np.median(ours))
        for theirs, ours in zip(baseline, own, strict=True)
    ]
    low, median, high = np.percentile(ratios, (10, 50, 90))
    return Speedup(float(median), float(low), float(high))
