"""Several tasks at once, one for each of some outputs, with weighted losses.

Stage: tasks. In: tasks, their weights, and which output each reads. Out: one `Task`. The first
one's metric leads; those of the others are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunecli.errors import ConfigError
from prunecli.metric import Metric
from prunecli.tasks.task import Fit, Meter, Scores, Task, Tensors


@dataclass(frozen=True)
class Head:
    """One of the tasks.

    Attributes:
        name: of the output that it reads, and of its target.
        weight: of its loss in the sum.
        output: the output's place among those of the network.
    """

    name: str
    task: Task
    weight: float
    output: int


def combined(heads: Sequence[Head]) -> Task:
    """All of them as one task. Targets come in the order of the heads."""

    def loss(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
        parts = [
            head.weight * head.task.loss((outputs[head.output],), (target,), smoothing)
            for head, target in zip(heads, targets, strict=True)
        ]
        return torch.stack(parts).sum()

    def distance(outputs: Tensors, wanted: Tensors, targets: Tensors, temperature: float) -> Tensor:
        parts = [
            head.weight
            * head.task.distance(
                (outputs[head.output],), (wanted[head.output],), (target,), temperature
            )
            for head, target in zip(heads, targets, strict=True)
        ]
        return torch.stack(parts).sum()

    weights = sum(head.weight for head in heads)
    return Task(
        ",".join(f"{head.name}={head.task.name}:{head.weight:g}" for head in heads),
        _named(heads[0], heads[0].task.metric),
        loss,
        distance,
        lambda: _HeadsMeter(heads),
        lambda fit: _check(heads, fit),
        share=sum(head.weight * head.task.share for head in heads) / weights,
        smooths=any(head.task.smooths for head in heads),
        mixes=all(head.task.mixes for head in heads),
        in_place=any(head.task.in_place for head in heads),
        outputs=tuple(head.output for head in heads),
    )


def _named(head: Head, metric: Metric) -> Metric:
    """A metric with the head's name before its own."""
    return replace(metric, name=f"{head.name}.{metric.name}", title=f"{head.name} {metric.title}")


class _HeadsMeter:
    """One meter for each head."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self._heads: list[tuple[Head, Meter]] = [(head, head.task.meter()) for head in heads]

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Take in one batch; see `Meter`."""
        for (head, meter), target in zip(self._heads, targets, strict=True):
            meter.update((outputs[head.output],), (target,))

    def compute(self) -> Scores:
        """The first head's scores lead; see `Meter`."""
        found = [(head, meter.compute()) for head, meter in self._heads]
        others: list[tuple[Metric, float | None]] = []
        for place, (head, scores) in enumerate(found):
            leading = [(head.task.metric, scores.value)] if place else []
            others += [(_named(head, metric), value) for metric, value in leading]
            others += [(_named(head, metric), value) for metric, value in scores.others]
        return Scores(found[0][1].value, found[0][1].chance, tuple(others))


def _check(heads: Sequence[Head], fit: Fit) -> None:
    parts = zip(heads, fit.labels, fit.targets, strict=True)
    for head, labels, target in parts:
        head.task.check(Fit((fit.outputs[head.output],), (labels,), (target,)))


def place_of(name: str, outputs: Sequence[str]) -> int:
    """The place of an output.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in outputs:
        raise ConfigError(
            f"--task: must name outputs of the network, got {name!r}",
            f"its outputs are {', '.join(outputs)}",
        )
    return outputs.index(name)
