"""How good a network is on a split.

Stage: recovery. In: a captured graph in evaluation mode and a split. Out: the task's scores. Never
changes the network, and never turns outputs that are not numbers into a score.
"""

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli.data import DataSet, Split, batches
from prunecli.errors import DataError, TrainingError
from prunecli.graph.capture import fixed_batch
from prunecli.recovery.placement import Placement, placed
from prunecli.tasks import Scores, Tensors


def score(
    network: GraphModule,
    split: Split,
    data: DataSet,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> Scores:
    """The task's scores over the whole split.

    Raises:
        ModelError: the outputs do not fit the task.
        TrainingError: an output is not finite.
    """
    with placed(network, torch.device(device)) as placement:
        return score_placed(network, split, data, batch_size, placement)


def score_placed(
    network: GraphModule, split: Split, data: DataSet, batch_size: int, placement: Placement
) -> Scores:
    """`score` for a network that is placed already."""
    if not len(split):
        raise DataError(f"score: the {split.name} split holds no examples", "check --data")
    fixed, meter = fixed_batch(network), data.task.meter()
    with torch.no_grad():
        for inputs, targets in batches(
            split, data.prepare, fixed or batch_size, device=placement.device
        ):
            count = len(inputs[0])
            filled = tuple(_filled(item, fixed) for item in inputs)
            outputs = tuple(
                _own(item, count, fixed) for item in forward(network, filled, placement)
            )
            _check_finite(data.task.outputs, outputs, split)
            meter.update(outputs, targets)
    return meter.compute()


def _check_finite(read: tuple[int, ...] | None, outputs: Tensors, split: Split) -> None:
    places = range(len(outputs)) if read is None else read
    for place in places:
        if not torch.isfinite(outputs[place]).all():
            raise TrainingError(
                f"score on {split.name}: outputs must be finite, got NaN or infinity",
                "lower --lr, or check the scale of the inputs (--mean, --std)",
            )


def forward(network: GraphModule, inputs: Tensors, placement: Placement) -> Tensors:
    """The network's outputs for `inputs`, each `(B, ...)`."""
    outputs = network(*placement.fit(inputs))
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _own(output: Tensor, count: int, fixed: int | None) -> Tensor:
    """What an output says of the `count` examples that were not added by `_filled`; one without
    examples (an auxiliary loss) as it is."""
    filled = fixed is not None and count < fixed and output.shape[:1] == (fixed,)
    return output[:count] if filled else output


def _filled(inputs: Tensor, size: int | None) -> Tensor:
    """A last, smaller batch repeated up to `size`; the caller drops what was added."""
    if size is None or len(inputs) == size:
        return inputs
    return inputs[torch.arange(size, device=inputs.device) % len(inputs)]
