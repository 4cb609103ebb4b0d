"""What all tasks over classes share: scores in rows, one label for each.

Stage: tasks. In: `(R, C)` scores and `(R,)` labels, R: rows (examples, tokens or pixels), C:
classes. Out: losses, distances, scores. Knows no shape of any network.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecli.errors import DataError
from prunecli.metric import Metric
from prunecli.tasks.task import IGNORED, Scores, Tensors

Rows = Callable[[Tensors, Tensors], tuple[Tensor, Tensor]]
"""Outputs and targets of a batch to rows."""


PIECE = 1 << 22
"""Scores that are looked at at once."""


def cross_entropy(scores: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean over the rows that count; 0 where none does, in place of 0 / 0."""
    total = F.cross_entropy(
        scores, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    return total / (labels != IGNORED).sum().clamp(min=1)


def divergence(outputs: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """`T^2 * KL(softmax(wanted / T) || softmax(outputs / T))`, the mean over rows; its gradients
    keep their size at any temperature T (Hinton, Vinyals & Dean 2015, arXiv:1503.02531)."""
    said, meant = (F.log_softmax(item / temperature, 1) for item in (outputs, wanted))
    found = F.kl_div(said, meant, log_target=True, reduction="batchmean")
    return found * temperature**2


def divergence_where(counts: Tensor, outputs: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """`divergence` of the rows that count, `(R,)` bool."""
    if not bool(counts.any()):
        return outputs.sum() * 0.0
    return divergence(outputs[counts], wanted[counts], temperature)


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise for labels that no output stands for.

    Raises:
        DataError: such a label.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"data: labels must lie in 0 to {classes - 1}, the network's outputs, "
            f"got {low if low < 0 else high}",
            "use the data set that the network was trained for (--data)",
        )


class Tally(Protocol):
    """A metric over rows: one of torchmetrics, or `Uncertainty`."""

    def to(self, device: torch.device, /) -> Any:
        """The same, for rows on that device."""

    def update(self, scores: Tensor, labels: Tensor, /) -> None:
        """Take in rows that count."""

    def compute(self) -> Any:
        """The metric of everything taken in."""


class Uncertainty:
    """Perplexity: `exp` of the mean cross entropy. Also where a label is all but impossible, whose
    probability is none in single precision; and without another copy of all scores, which are many
    (a score for every word of the vocabulary)."""

    def __init__(self) -> None:
        self._total = 0.0
        self._rows = 0

    def to(self, device: torch.device, /) -> "Uncertainty":
        """See `Tally`."""
        return self

    def update(self, scores: Tensor, labels: Tensor, /) -> None:
        """See `Tally`."""
        size = max(1, PIECE // scores.shape[1])
        for said, meant in zip(torch.split(scores, size), torch.split(labels, size), strict=True):
            exact = said.to(torch.promote_types(said.dtype, torch.float32))
            self._total += float(F.cross_entropy(exact, meant, reduction="none").double().sum())
        self._rows += len(labels)

    def compute(self) -> float:
        """See `Tally`."""
        return float(torch.tensor(self._total / self._rows, dtype=torch.float64).exp())


class RowMeter:
    """Metrics over rows, the leading one first. Labels that are `IGNORED` do not count."""

    def __init__(
        self,
        rows: Rows,
        gauges: Callable[[int], Mapping[Metric, Tally]],
        chance: Callable[[Tensor], float] | None,
        shares: frozenset[Metric],
    ) -> None:
        """
        Args:
            gauges: for a number of classes.
            chance: from how often each class occurs, shape (C,).
            shares: metrics that are a share of the rows.
        """
        self._rows, self._make, self._chance, self._shares = rows, gauges, chance, shares
        self._gauges: Mapping[Metric, Tally] = {}
        self._counts = torch.zeros(0, dtype=torch.int64)

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Take in one batch; see `Meter`."""
        scores, labels = self._rows(outputs, targets)
        counts = labels != IGNORED
        if not bool(counts.all()):
            scores, labels = scores[counts], labels[counts]
        if not len(labels):
            return
        classes = scores.shape[1]
        check_labels(labels, classes)
        if not self._gauges:
            self._gauges = {
                metric: gauge.to(scores.device) for metric, gauge in self._make(classes).items()
            }
            self._counts = torch.zeros(classes, dtype=torch.int64)
        self._counts += torch.bincount(labels.cpu(), minlength=classes)
        for gauge in self._gauges.values():
            gauge.update(scores, labels)

    def compute(self) -> Scores:
        """The scores of everything taken in; see `Meter`."""
        if not self._gauges:
            raise no_examples()
        found = [(metric, self._exact(metric, gauge)) for metric, gauge in self._gauges.items()]
        chance = None if self._chance is None else self._chance(self._counts)
        return Scores(found[0][1], chance, tuple(found[1:]))

    def _exact(self, metric: Metric, gauge: Tally) -> float:
        """A share of whole rows is known without the gauge's single-precision rounding."""
        value, number = float(gauge.compute()), int(self._counts.sum())
        return round(value * number) / number if metric in self._shares else value


def no_examples() -> DataError:
    """Nothing was judged."""
    return DataError("data: at least one example is needed to score, got 0", "check --data")


def most_common(counts: Tensor) -> float:
    """Share of the most common class: the accuracy of always saying it."""
    return float(counts.max()) / float(counts.sum())


def constant_perplexity(counts: Tensor) -> float:
    """Perplexity of saying how often each class occurs, wherever one is."""
    shares = counts[counts > 0].double() / counts.sum()
    return float((-(shares * shares.log()).sum()).exp())
