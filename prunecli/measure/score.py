"""How good an ONNX file's answers are, over a whole split, in onnxruntime.

Stage: measure. In: an `.onnx` file, batches of prepared inputs and targets. Out: one score. The
network never runs in torch; torch only carries the outputs into torchmetrics.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from prunecli.compat import declare_missing_operators
from prunecli.errors import DataError, ModelError, VerificationError
from prunecli.measure.session import Array, Executor, open_session, predict
from prunecli.progress import Reporter, Step

declare_missing_operators()

from torchmetrics.classification import MulticlassAccuracy  # noqa: E402 (importable only now)
from torchmetrics.regression import MeanSquaredError, R2Score  # noqa: E402

Metric = Literal["accuracy", "mse"]
Opener = Callable[[Path, int | None], Executor]
Batches = Iterable[tuple[Array, Array]]


@dataclass(frozen=True)
class Score:
    """One file's score.

    Attributes:
        metric: `accuracy` is top-1, 0 to 1; `mse` the mean squared error over all outputs.
        examples: how many were judged.
        chance: what a constant answer reaches: for accuracy the share of the most common class,
            for the error the targets' own variance.
        r2: coefficient of determination, averaged over the outputs; regression with at least
            two examples only.
    """

    metric: Metric
    value: float
    examples: int
    higher_is_better: bool
    chance: float
    r2: float | None = None


def score_file(
    path: Path,
    batches: Batches,
    metric: Metric,
    reporter: Reporter,
    examples: int | None = None,
    threads: int | None = None,
    open_session: Opener = open_session,
) -> Score:
    """Judge `path` on everything in `batches`.

    Args:
        batches: (inputs, targets) pairs: inputs (N, ...) float32; targets (N,) class numbers, or
            (N,) or (N, outputs) values for `mse`.
        examples: how many there are, for the progress bar.
        threads: intra-op threads; `None` takes all cores.

    Raises:
        DataError: no examples, or labels beyond the network's outputs.
        ModelError: the outputs' shape does not fit the metric.
        VerificationError: an output is not a number.
    """
    executor = open_session(path, threads)
    with reporter.step(f"scoring {path.name}", total=examples) as step:
        judge = _judge_accuracy if metric == "accuracy" else _judge_error
        return judge(path, executor, batches, step)


def _judge_accuracy(path: Path, executor: Executor, batches: Batches, step: Step) -> Score:
    seen: list[Array] = []
    accuracy: MulticlassAccuracy | None = None
    for outputs, targets in _answers(path, executor, batches, step):
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise ModelError(
                f"{path}: class scores of shape (examples, classes) are needed for accuracy, "
                f"got {tuple(outputs.shape)}"
            )
        _check_labels(targets, outputs.shape[1])
        if accuracy is None:
            accuracy = MulticlassAccuracy(outputs.shape[1], average="micro", validate_args=False)
        labels = targets.astype(np.int64)
        accuracy.update(torch.from_numpy(outputs), torch.from_numpy(labels))
        seen.append(labels)
    if accuracy is None:
        raise _no_examples()
    labels = np.concatenate(seen)
    chance = float(np.bincount(labels).max()) / len(labels)
    value = _exact_share(float(accuracy.compute()), len(labels))
    return Score("accuracy", value, len(labels), True, chance)


def _judge_error(path: Path, executor: Executor, batches: Batches, step: Step) -> Score:
    # Double precision: targets far from zero (years, prices) cancel in single precision.
    error = MeanSquaredError().set_dtype(torch.float64)
    r2 = R2Score().set_dtype(torch.float64)
    seen: list[Array] = []
    for outputs, targets in _answers(path, executor, batches, step):
        if not np.isfinite(outputs).all():
            raise _not_a_number(path, "infinity")
        answers = outputs.reshape(len(outputs), -1).astype(np.float64)
        wanted = targets.reshape(len(targets), -1).astype(np.float64)
        if answers.shape != wanted.shape:
            raise ModelError(
                f"{path}: outputs must fit targets of shape {tuple(targets.shape)}, "
                f"got {tuple(outputs.shape)}"
            )
        error.update(torch.from_numpy(answers).flatten(), torch.from_numpy(wanted).flatten())
        r2.update(*(torch.from_numpy(part).squeeze(1) for part in (answers, wanted)))
        seen.append(wanted)
    if not seen:
        raise _no_examples()
    targets = np.concatenate(seen)
    chance = float(targets.var(axis=0).mean())
    share = float(r2.compute()) if len(targets) > 1 and chance > 0 else None
    return Score("mse", float(error.compute()), len(targets), False, chance, share)


def _answers(
    path: Path, executor: Executor, batches: Batches, step: Step
) -> Iterable[tuple[Array, Array]]:
    done = 0
    for inputs, targets in batches:
        if len(inputs) == 0:
            continue
        outputs = predict(executor, inputs)
        if np.isnan(outputs).any():
            raise _not_a_number(path, "NaN")
        yield outputs, targets
        done += len(inputs)
        step.update(done)


def _check_labels(targets: Array, classes: int) -> None:
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"data: labels must lie in 0 to {classes - 1}, the network's outputs, "
            f"got {low if low < 0 else high}",
            "use the data set that the network was trained for (--data)",
        )


def _not_a_number(path: Path, found: str) -> VerificationError:
    return VerificationError(
        f"{path}: outputs must be numbers, got {found}", "try a lower --lr, or --epochs 0"
    )


def _no_examples() -> DataError:
    return DataError("data: at least one example is needed to score, got 0", "check --data")


def _exact_share(value: float, examples: int) -> float:
    """A share of whole examples, without the metric's single-precision rounding."""
    return round(value * examples) / examples
