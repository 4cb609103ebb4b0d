"""What all tasks over classes share: scores in rows, one label for each.

Stage: tasks. In: `(R, C)` scores and `(R,)` labels, R: rows (examples, tokens or pixels), C:
classes. Out: losses, distances, scores. Knows no shape of any network.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecli.errors import DataError
from prunecli.metric import Metric
from prunecli.tasks.gauges import Gauge
from prunecli.tasks.task import IGNORED, Scores, Tensors

Rows = Callable[[Tensors, Tensors], tuple[Tensor, Tensor]]
"""Outputs and targets of a batch to rows."""


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


class RowMeter:
    """Metrics over rows, the leading one first. Labels that are `IGNORED` do not count."""

    def __init__(
        self,
        rows: Rows,
        gauges: Callable[[int], Mapping[Metric, Gauge]],
        chance: Callable[[Tensor], float] | None,
        shares: frozenset[Metric],
        present: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """
        Args:
            gauges: for a number of classes.
            chance: from how often each class occurs, shape (C,).
            shares: metrics that are a share of the rows.
            present: rows as the gauges take them, where that is otherwise.
        """
        self._rows, self._make, self._chance, self._shares = rows, gauges, chance, shares
        self._present = present
        self._gauges: Mapping[Metric, Gauge] = {}
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
        shown = (scores, labels) if self._present is None else self._present(scores, labels)
        for gauge in self._gauges.values():
            gauge.update(*shown)

    def compute(self) -> Scores:
        """The scores of everything taken in; see `Meter`."""
        if not self._gauges:
            raise no_examples()
        found = [(metric, self._exact(metric, gauge)) for metric, gauge in self._gauges.items()]
        chance = None if self._chance is None else self._chance(self._counts)
        return Scores(found[0][1], chance, tuple(found[1:]))

    def _exact(self, metric: Metric, gauge: Gauge) -> float:
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
