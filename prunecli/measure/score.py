"""How good an ONNX file's answers are, over a whole split, in onnxruntime.

Stage: measure. In: an `.onnx` file, batches of prepared inputs and targets, the task. Out: its
scores. The network never runs in torch; torch only carries the outputs into the task's metrics,
the same ones that choose the best epoch.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prunecli.data.batching import fitting_batch
from prunecli.errors import DataError, VerificationError
from prunecli.measure.session import Array, Executor, open_session, predict
from prunecli.metric import Metric
from prunecli.progress import Reporter
from prunecli.tasks import Task

Opener = Callable[[Path, int | None], Executor]
Arrays = tuple[Array, ...]
Batches = Iterable[tuple[Arrays, Arrays]]


@dataclass(frozen=True)
class Score:
    """One file's scores.

    Attributes:
        metric: the task's leading one.
        value: a share of one where the metric is a percentage.
        examples: how many were judged.
        chance: what a constant answer reaches; `None` where that is not known.
        others: further metrics; `None` where one is not defined on these examples.
    """

    metric: Metric
    value: float
    examples: int
    chance: float | None = None
    others: tuple[tuple[Metric, float | None], ...] = ()


def score_file(
    path: Path,
    batches: Batches,
    task: Task,
    reporter: Reporter,
    examples: int | None = None,
    threads: int | None = None,
    open_session: Opener = open_session,
) -> Score:
    """Judge `path` on everything in `batches`.

    Args:
        batches: (inputs, targets) pairs, one array (N, ...) for each input and for each target.
        examples: how many there are, for the progress bar.
        threads: intra-op threads; `None` takes all cores.

    Raises:
        DataError: no examples, or labels beyond the network's outputs.
        ModelError: the outputs' shape does not fit the task.
        VerificationError: an output is not a number.
    """
    executor, meter, done = open_session(path, threads), task.meter(), 0
    with reporter.step(f"scoring {path.name}", total=examples) as step:
        for inputs, targets in _small_enough(executor, batches):
            outputs = predict(executor, inputs)
            _check_numbers(path, task.outputs, outputs)
            meter.update(_tensors(outputs), _tensors(targets))
            done += len(inputs[0])
            step.update(done)
    if not done:
        raise DataError("data: at least one example is needed to score, got 0", "check --data")
    found = meter.compute()
    if not math.isfinite(found.value):
        raise _not_a_number(path, "infinity")
    return Score(task.metric, found.value, done, found.chance, found.others)


def _small_enough(executor: Executor, batches: Batches) -> Iterator[tuple[Arrays, Arrays]]:
    """The batches, cut where their outputs (a score for each of 50,000 words at each of 1,000
    tokens) would not fit the memory. The first example tells how large its outputs are."""
    step, elements = executor.batch_size or 1, 0
    for inputs, targets in batches:
        count = len(inputs[0])
        if count > step and not elements:
            first = tuple(item[:1] for item in inputs)
            elements = max(1, sum(item.size for item in predict(executor, first)))
        size = fitting_batch(max(count, 1), elements, step)
        for start in range(0, count, size):
            rows = slice(start, start + size)
            yield tuple(item[rows] for item in inputs), tuple(item[rows] for item in targets)


def _tensors(arrays: Arrays) -> tuple[torch.Tensor, ...]:
    return tuple(map(torch.from_numpy, arrays))


def _check_numbers(path: Path, read: tuple[int, ...] | None, outputs: Arrays) -> None:
    places = range(len(outputs)) if read is None else read
    for place in places:
        if outputs[place].dtype.kind == "f" and np.isnan(outputs[place]).any():
            raise _not_a_number(path, "NaN")


def _not_a_number(path: Path, found: str) -> VerificationError:
    return VerificationError(
        f"{path}: outputs must be numbers, got {found}", "try a lower --lr, or --epochs 0"
    )
