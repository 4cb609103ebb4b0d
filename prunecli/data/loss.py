"""What a task asks for: targets in the shape of the outputs, and the loss.

Stage: data. In: outputs of a network and targets of a batch. Out: tensors. Never trains.
"""

from torch import Tensor
from torch.nn import functional as F

from prunecli.data.records import Task
from prunecli.errors import ModelError


def loss_of(task: Task, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy over `(B, classes)` and `(B,)`, or mean squared error. A scalar.

    Args:
        smoothing: share of each label that is spread over all classes (Szegedy et al. 2016,
            arXiv:1512.00567); means nothing to numbers.

    Raises:
        ModelError: the outputs do not fit the task.
    """
    wanted = fitted_targets(task, outputs, targets)
    if task is Task.REGRESSION:
        return F.mse_loss(outputs, wanted)
    return F.cross_entropy(outputs, wanted, label_smoothing=smoothing)


def fitted_targets(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Targets in the shape that the outputs have: `(B,)` classes, or numbers like `outputs`.

    Raises:
        ModelError: no such shape.
    """
    if task is Task.CLASSIFICATION:
        if outputs.dim() != 2:
            raise ModelError(
                "network: classification needs outputs of shape (batch, classes), "
                f"got {tuple(outputs.shape)}",
                "check that --data belongs to this network",
            )
        return targets
    if outputs.numel() != targets.numel():
        raise ModelError(
            f"network: regression needs outputs of the targets' shape {tuple(targets.shape)}, "
            f"got {tuple(outputs.shape)}",
            "check that --data belongs to this network",
        )
    return targets.reshape(outputs.shape)
