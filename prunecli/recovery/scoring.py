"""How good a network is on a split.

Stage: recovery. In: a captured graph in evaluation mode and a split. Out: one number. Never
changes the network, and never turns outputs that are not numbers into a score.

The two metrics are written out here: torchmetrics imports torchvision whenever that is
installed, and fails with it where its build does not match PyTorch's.
"""

from enum import StrEnum

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli.data import DataSet, Split, Task, batches, fitted_targets
from prunecli.errors import DataError, TrainingError
from prunecli.graph.capture import fixed_batch
from prunecli.recovery.placement import Placement, placed


class MetricName(StrEnum):
    """What a score is."""

    ACCURACY = "accuracy"
    MSE = "mse"


def metric_for(task: Task) -> MetricName:
    """Accuracy (more is better) for classes, mean squared error (less is better) for numbers."""
    return MetricName.MSE if task is Task.REGRESSION else MetricName.ACCURACY


def at_least_as_good(metric: MetricName, new: float, old: float) -> bool:
    """Whether `new` is no worse than `old`."""
    return new <= old if metric is MetricName.MSE else new >= old


def score(
    network: GraphModule,
    split: Split,
    data: DataSet,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> float:
    """Accuracy in 0-1, or the mean squared error for regression, over the whole split.

    Raises:
        ModelError: the output does not fit the task.
        TrainingError: an output is not finite.
    """
    with placed(network, torch.device(device)) as placement:
        return score_placed(network, split, data, batch_size, placement)


def score_placed(
    network: GraphModule, split: Split, data: DataSet, batch_size: int, placement: Placement
) -> float:
    """`score` for a network that is placed already."""
    fixed = fixed_batch(network)
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in batches(
            split, data.preprocess, fixed or batch_size, device=placement.device
        ):
            outputs = forward(network, _filled(inputs, fixed), placement)[: len(targets)]
            if not torch.isfinite(outputs).all():
                raise TrainingError(
                    f"score on {split.name}: outputs must be finite, got NaN or infinity",
                    "lower --lr, or check the scale of the inputs (--mean, --std)",
                )
            wanted = fitted_targets(data.task, outputs, targets)
            total += _sum_of_scores(data.task, outputs, wanted)
            count += wanted.numel()
    if not count:
        raise DataError(f"score: the {split.name} split holds no examples", "check --data")
    return total / count


def _sum_of_scores(task: Task, outputs: Tensor, wanted: Tensor) -> float:
    """How many classes are right, or the sum of squared errors (in double precision)."""
    if task is Task.CLASSIFICATION:
        return float((outputs.argmax(1) == wanted).sum())
    return float((outputs.double() - wanted.double()).square().sum())


def forward(network: GraphModule, inputs: Tensor, placement: Placement) -> Tensor:
    """The network's (first) output for `inputs` `(B, ...)`: `(B, classes)` or `(B, targets)`."""
    outputs = network(placement.fit(inputs))
    found = outputs[0] if isinstance(outputs, tuple) else outputs
    assert isinstance(found, Tensor)
    return found


def _filled(inputs: Tensor, size: int | None) -> Tensor:
    """A last, smaller batch repeated up to `size`; the caller drops what was added."""
    if size is None or len(inputs) == size:
        return inputs
    return inputs[torch.arange(size, device=inputs.device) % len(inputs)]
