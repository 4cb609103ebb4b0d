"""What fine-tuning minimises: the task's loss, and the distance to what the original says.

Stage: recovery. In: a batch, and what the network made of it. Out: scalars. Never changes a
network; of the original, only outputs are read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import functional as F

from prunecli.data import Task, loss_of
from prunecli.errors import ConfigError
from prunecli.recovery.placement import placed
from prunecli.recovery.precision import forward_in
from prunecli.tuning import TrainConfig

DEFAULT_SHARE = {Task.CLASSIFICATION: 0.9, Task.REGRESSION: 0.0}
"""Part of the loss that comes from the original where the user does not say."""

Teach = Callable[[Tensor], Tensor]
"""Inputs `(B, ...)` to the original's outputs."""


@dataclass(frozen=True)
class Objective:
    """`(1 - share) * loss on the targets + share * distance to the original`.

    Attributes:
        share: in 0-1.
        temperature: of the softmax in the distance, see `distance`.
        teach: the original; `None` where `share` is 0.
        smoothing: share of each label that is spread over all classes.
    """

    task: Task
    share: float
    temperature: float
    teach: Teach | None
    smoothing: float = 0.0

    def __call__(self, inputs: Tensor, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised, and the loss on the targets alone; both are means over the batch.

        Raises:
            ModelError: the outputs do not fit the task.
        """
        loss = loss_of(self.task, outputs, targets, self.smoothing)
        if self.teach is None:
            return loss, loss
        far = distance(self.task, outputs, self.teach(inputs), self.temperature)
        return (1.0 - self.share) * loss + self.share * far, loss

    @property
    def words(self) -> str | None:
        """What the report says."""
        if self.teach is None:
            return None
        return f"the loss is {self.share:.0%} distance to the original's outputs (distillation)"


def distance(task: Task, outputs: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """How far outputs `(B, ...)` are from those of the original; a mean over the batch.

    For classes `T^2 * KL(softmax(wanted / T) || softmax(outputs / T))`, whose gradients keep
    their size at any temperature T (Hinton, Vinyals & Dean 2015, arXiv:1503.02531); for numbers
    the mean squared difference.
    """
    if task is Task.REGRESSION:
        return F.mse_loss(outputs, wanted)
    said, meant = (F.log_softmax(item / temperature, 1) for item in (outputs, wanted))
    divergence = F.kl_div(said, meant, log_target=True, reduction="batchmean")
    return divergence * temperature**2


@contextmanager
def objective_for(
    task: Task, config: TrainConfig, teacher: GraphModule | None, device: torch.device
) -> Iterator[Objective]:
    """The objective; inside the block the original is on the device.

    Args:
        teacher: the original in evaluation mode, of which the network shares no memory; without
            it nothing is distilled.

    Raises:
        ConfigError: distillation was asked for and there is no original to learn from; labels
            that are numbers were to be smoothed.
    """
    if config.label_smoothing and task is Task.REGRESSION:
        raise ConfigError(
            "--label-smoothing: is for classes, got data for regression", "leave it out"
        )
    share = DEFAULT_SHARE[task] if config.distill is None else config.distill
    if teacher is None and config.distill:
        raise ConfigError("--distill: needs the original network, got none", "use --distill 0")
    if teacher is None or share == 0.0:
        yield Objective(task, 0.0, config.temperature, None, config.label_smoothing)
        return
    original = teacher
    with placed(original, device) as placement:

        def teach(inputs: Tensor) -> Tensor:
            with torch.no_grad():
                return forward_in(config.precision, original, inputs, placement)

        yield Objective(task, share, config.temperature, teach, config.label_smoothing)
