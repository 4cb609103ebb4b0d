"""Tasks whose targets are numbers: quantities, and yes or no for several labels at once.

Stage: tasks. In: nothing. Out: one `Task` for each.

Shapes. B: batch, K: labels.
"""

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecli.choices import TaskName
from prunecli.errors import DataError, ModelError
from prunecli.metric import Metric
from prunecli.tasks.gauges import (
    MeanSquaredError,
    MultilabelAveragePrecision,
    MultilabelF1Score,
    R2Score,
)
from prunecli.tasks.rows import no_examples
from prunecli.tasks.task import IGNORED, Fit, Scores, Task, Tensors, in_numbers

MSE = Metric("mse", "MSE", False, False, "", "the mean scores")
R2 = Metric("r2", "R2", False, True)
F1 = Metric("f1", "F1", True, True, "over all labels", "always yes scores")
AVERAGE_PRECISION = Metric("map", "mAP", True, True)

MULTILABEL_DISTILLED = 0.9


def fitted(outputs: Tensors, targets: Tensors) -> Tensor:
    """Targets in the shape that the outputs have.

    Raises:
        ModelError: no such shape.
    """
    found, wanted = outputs[0], targets[0]
    if found.numel() != wanted.numel():
        raise ModelError(
            f"network: regression needs outputs of the targets' shape {tuple(wanted.shape)}, "
            f"got {tuple(found.shape)}",
            "check that --data belongs to this network",
        )
    return wanted.reshape(found.shape)


def _squared_error(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
    return F.mse_loss(outputs[0], fitted(outputs, targets))


def _squared_distance(
    outputs: Tensors, wanted: Tensors, targets: Tensors, temperature: float
) -> Tensor:
    return F.mse_loss(outputs[0], wanted[0])


class _Spread:
    """Variances of columns, from batch to batch (Chan, Golub & LeVeque 1983, "Algorithms for
    computing the sample variance")."""

    def __init__(self) -> None:
        self.count = 0
        self._first = self._mean = self._squares = torch.zeros(())

    def update(self, rows: Tensor) -> None:
        """Take in `(N, K)` numbers in double precision, N at least 1."""
        if not self.count:
            self._first = rows[0].clone()
            self._mean = self._squares = torch.zeros_like(self._first)
        # As seen from the first row, so that numbers that are all the same vary by exactly 0.
        rows = rows - self._first
        mean, total = rows.mean(0), self.count + len(rows)
        apart = mean - self._mean
        own = (rows - mean).square().sum(0)
        self._squares = self._squares + own + apart.square() * (self.count * len(rows) / total)
        self._mean = self._mean + apart * (len(rows) / total)
        self.count = total

    def variance(self) -> float:
        """The mean over columns."""
        return float((self._squares / self.count).mean())


class _NumberMeter:
    """Squared error and R2 over all examples."""

    def __init__(self) -> None:
        # Double precision: targets far from zero (years, prices) cancel in single precision.
        self._error = MeanSquaredError().set_dtype(torch.float64)
        self._r2 = R2Score().set_dtype(torch.float64)
        self._spread = _Spread()

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Take in one batch; see `Meter`."""
        wanted = fitted(outputs, targets)
        if not len(wanted):
            return
        answers, meant = (
            item.detach().cpu().double().reshape(len(item), -1) for item in (outputs[0], wanted)
        )
        self._error.update(answers.flatten(), meant.flatten())
        self._r2.update(answers.squeeze(1), meant.squeeze(1))
        self._spread.update(meant)

    def compute(self) -> Scores:
        """The scores of everything taken in; see `Meter`."""
        if not self._spread.count:
            raise no_examples()
        chance = self._spread.variance()
        r2 = float(self._r2.compute()) if self._spread.count > 1 and chance > 0 else None
        return Scores(float(self._error.compute()), chance, ((R2, r2),))


def _check_numbers(fit: Fit) -> None:
    outputs, targets = fit.outputs[0][1:], fit.targets[0]
    if outputs == targets or (targets == () and outputs == (1,)):
        return
    raise DataError(
        f"data: regression targets must match the model's outputs, got "
        f"{in_numbers(targets or (1,))} in the data, {in_numbers(outputs or (1,))} from the model",
        "for classes, write the labels as integers; check that --data and the checkpoint "
        "belong together",
    )


def _answers(outputs: Tensors, targets: Tensors) -> tuple[Tensor, Tensor]:
    """(B, K) scores and targets.

    Raises:
        ModelError: other shapes.
    """
    scores, wanted = outputs[0], targets[0]
    if scores.dim() != 2 or scores.shape != wanted.shape:
        raise ModelError(
            f"network: multilabel needs outputs of the targets' shape {tuple(wanted.shape)}, "
            f"got {tuple(scores.shape)}",
            "check that --data and --task belong to this network",
        )
    return scores, wanted


def _binary_cross_entropy(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
    scores, wanted = _answers(outputs, targets)
    counts = wanted != IGNORED
    if not bool(counts.any()):
        return scores.sum() * 0.0
    return F.binary_cross_entropy_with_logits(scores[counts], wanted[counts].to(scores.dtype))


def _binary_divergence(
    outputs: Tensors, wanted: Tensors, targets: Tensors, temperature: float
) -> Tensor:
    """T^2 times the mean divergence of what is said of each label, as for classes."""
    said, meant = outputs[0] / temperature, wanted[0] / temperature
    known = meant.sigmoid()
    across = F.binary_cross_entropy_with_logits(said, known)
    own = F.binary_cross_entropy_with_logits(meant, known)
    return (across - own) * temperature**2


class _LabelMeter:
    """F1 over all answers at a probability of one half, and the mean average precision."""

    def __init__(self) -> None:
        self._f1: MultilabelF1Score | None = None
        self._precision: MultilabelAveragePrecision | None = None
        self._yes = self._all = 0

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Take in one batch; see `Meter`."""
        scores, wanted = _answers(outputs, targets)
        if not len(wanted):
            return
        labels = wanted.detach().cpu().long()
        if self._f1 is None or self._precision is None:
            number = scores.shape[1]
            self._f1 = MultilabelF1Score(
                number, average="micro", ignore_index=IGNORED, validate_args=False
            )
            self._precision = MultilabelAveragePrecision(
                number, average="macro", ignore_index=IGNORED, validate_args=False
            )
        # Probabilities: whether numbers are scores would else be guessed batch by batch.
        answers = scores.detach().cpu().double().sigmoid()
        self._f1.update(answers, labels)
        self._precision.update(answers, labels)
        self._yes += int((labels == 1).sum())
        self._all += int((labels != IGNORED).sum())

    def compute(self) -> Scores:
        """The scores of everything taken in; see `Meter`."""
        if self._f1 is None or self._precision is None or not self._all:
            raise no_examples()
        with warnings.catch_warnings():
            # Labels that never occur have no precision, and are left out of the mean.
            warnings.simplefilter("ignore")
            precision = float(self._precision.compute()) if self._yes else None
        always = 2 * self._yes / (self._all + self._yes)
        found = float(self._f1.compute())
        return Scores(found, always, ((AVERAGE_PRECISION, precision),))


def _check_labels(fit: Fit) -> None:
    outputs, targets = fit.outputs[0][1:], fit.targets[0]
    if len(outputs) != 1 or outputs != targets:
        raise DataError(
            f"data: --task multilabel needs one output for each label, got "
            f"{in_numbers(targets)} in the data, {in_numbers(outputs)} from the model",
            "write one column of 0 and 1 for each label",
        )


REGRESSION = Task(
    TaskName.REGRESSION,
    MSE,
    _squared_error,
    _squared_distance,
    _NumberMeter,
    _check_numbers,
    share=0.0,
)
MULTILABEL = Task(
    TaskName.MULTILABEL,
    F1,
    _binary_cross_entropy,
    _binary_divergence,
    _LabelMeter,
    _check_labels,
    share=MULTILABEL_DISTILLED,
    mixes=True,
)
