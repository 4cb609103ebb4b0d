"""A task: what a network is trained for, and how it is judged.

Stage: tasks. In: nothing; plain records and contracts. Out: `Task`. One record holds everything
that depends on the task, so that nothing else asks which task it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from prunecli.choices import TaskName
from prunecli.metric import Metric

IGNORED = -100
"""Targets that do not count: padding, tokens without a label, pixels nobody marked."""

UNMARKED = 255
"""The same for pixels, as masks on disk have it (VOC, Cityscapes, ADE20K)."""

Tensors = tuple[Tensor, ...]
"""Inputs, outputs or targets of a batch, in the order of the network's inputs or outputs."""

Shape = tuple[int, ...]


def in_numbers(shape: Shape) -> str:
    """A shape as people write it: `3x32x32`."""
    return "x".join(str(extent) for extent in shape) or "a single number"


@dataclass(frozen=True)
class Labels:
    """What is known about one target of a data set.

    Attributes:
        kind: what it is a target of; `None` for numbers that only the user's own task understands.
        classes: names by index; empty for numbers.
        named: the source itself names its classes (folders, class labels, strings), so that their
            number is certain; otherwise `classes` counts up to the largest label seen.
        name: where there are several: the output, or the head, that it belongs to.
    """

    kind: TaskName | None
    classes: tuple[str, ...] = ()
    named: bool = True
    name: str = ""


@dataclass(frozen=True)
class Fit:
    """What has to fit together.

    Attributes:
        outputs: shapes of the network's outputs for a batch, batch first.
        labels: of every target.
        targets: shapes of one example's targets.
    """

    outputs: tuple[Shape, ...]
    labels: tuple[Labels, ...]
    targets: tuple[Shape, ...]


@dataclass(frozen=True)
class Scores:
    """How good a network is on a split.

    Attributes:
        value: of the leading metric, `Task.metric`.
        chance: what a constant answer reaches, where that is known.
        others: further metrics; `None` where one is not defined on these examples.
    """

    value: float
    chance: float | None = None
    others: tuple[tuple[Metric, float | None], ...] = ()


class Meter(Protocol):
    """Judges batch after batch."""

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Take in one batch. The outputs are all of the network's.

        Raises:
            ModelError: the outputs do not fit the task.
            DataError: labels beyond the network's outputs.
        """

    def compute(self) -> Scores:
        """The scores of everything taken in.

        Raises:
            DataError: nothing that counts was.
        """


def rows_that_count(targets: Tensors) -> float:
    """Labels that do not say `IGNORED`; the examples where all is numbers."""
    labels = [item for item in targets if not item.is_floating_point()]
    if not labels:
        return float(len(targets[0]))
    return float(sum(int((item != IGNORED).sum()) for item in labels))


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    Attributes:
        name: as `--task` has it.
        metric: the leading one: it chooses the epoch, bounds `--max-drop`, heads the report.
        loss: outputs, targets and the share of each label that is spread over all classes, to a
            scalar: the mean over the batch.
        distance: outputs, those of the original, targets and temperature, to a scalar: how far
            apart they are, a mean over what counts in the batch. 0 where they are equal.
        meter: makes an empty one.
        check: raises a `DataError` where data and network do not belong together.
        share: part of the loss that comes from the original where the user does not say.
        smooths: whether labels can be smoothed.
        mixes: whether two examples can be mixed, with their losses: targets are classes of whole
            examples.
        labelled: whether examples need targets. Without, the loss is the distance alone, and what
            is judged is how near the outputs are to the original's, which are the targets then.
        in_place: targets say where in an example something is, so that nothing of it must be
            moved without them: an image cropped, a word left out.
        outputs: places of the outputs that it reads; `None` for all that hold numbers.
        weight: how much the mean over a part of a batch counts in that over the whole, from its
            targets: where processes share batches.
    """

    name: str
    metric: Metric
    loss: Callable[[Tensors, Tensors, float], Tensor]
    distance: Callable[[Tensors, Tensors, Tensors, float], Tensor]
    meter: Callable[[], Meter]
    check: Callable[[Fit], None]
    share: float
    smooths: bool = False
    mixes: bool = False
    labelled: bool = True
    in_place: bool = False
    outputs: tuple[int, ...] | None = (0,)
    weight: Callable[[Tensors], float] = rows_that_count
