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

from prunecli.errors import ConfigError
from prunecli.recovery.placement import placed
from prunecli.recovery.precision import forward_in
from prunecli.tasks import Task, Tensors
from prunecli.tuning import TrainConfig

Teach = Callable[[Tensors], Tensors]
"""Inputs to the original's outputs."""


@dataclass(frozen=True)
class Objective:
    """`(1 - share) * loss on the targets + share * distance to the original`.

    Attributes:
        share: in 0-1.
        temperature: of the softmax in the distance, see `Task.distance`.
        teach: the original; `None` where `share` is 0.
        smoothing: share of each label that is spread over all classes.
    """

    task: Task
    share: float
    temperature: float
    teach: Teach | None
    smoothing: float = 0.0

    def __call__(
        self,
        inputs: Tensors,
        outputs: Tensors,
        targets: Tensors,
        others: Tensors | None = None,
        own: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """What is minimised, and the loss on the targets alone (without targets, the distance);
        both are means over the batch.

        Args:
            inputs: as the network saw them.
            targets: of the examples as they were before they were mixed.
            others, own: targets of what they were mixed with, and the share that is theirs.

        Raises:
            ModelError: the outputs do not fit the task.
        """
        if self.teach is None:
            loss = self._loss(outputs, targets, others, own)
            return loss, loss
        if not self.task.labelled:
            far = self.task.distance(outputs, self.teach(inputs), targets, self.temperature)
            return far, far
        loss = self._loss(outputs, targets, others, own)
        far = self.task.distance(outputs, self.teach(inputs), targets, self.temperature)
        return (1.0 - self.share) * loss + self.share * far, loss

    def _loss(
        self, outputs: Tensors, targets: Tensors, others: Tensors | None, share: float
    ) -> Tensor:
        """On the targets; of mixed examples the mean over both, which for classes is the loss on
        mixed labels."""
        own = self.task.loss(outputs, targets, self.smoothing)
        if others is None:
            return own
        return share * own + (1.0 - share) * self.task.loss(outputs, others, self.smoothing)

    @property
    def words(self) -> str | None:
        """What the report says."""
        if self.teach is None:
            return None
        if not self.task.labelled:
            return "the loss is the distance to the original's outputs; no labels were used"
        return f"the loss is {self.share:.0%} distance to the original's outputs (distillation)"


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
            that are numbers, or none, were to be smoothed.
    """
    check_objective(task, config)
    share = task.share if config.distill is None else config.distill
    if teacher is None and (config.distill or not task.labelled):
        flag = "--distill" if task.labelled else f"--task {task.name}"
        raise ConfigError(f"{flag}: needs the original network, got none", "use --distill 0")
    if teacher is None or share == 0.0:
        yield Objective(task, 0.0, config.temperature, None, config.label_smoothing)
        return
    original = teacher
    with placed(original, device) as placement:

        def teach(inputs: Tensors) -> Tensors:
            with torch.no_grad():
                return forward_in(config.precision, original, inputs, placement)

        yield Objective(task, share, config.temperature, teach, config.label_smoothing)


def check_objective(task: Task, config: TrainConfig) -> None:
    """Refuse what would have no effect on this task.

    Raises:
        ConfigError: such a wish.
    """
    if config.label_smoothing and not task.smooths:
        raise ConfigError(
            f"--label-smoothing: is for classes, got data for {task.name}", "leave it out"
        )
    if config.distill is not None and not task.labelled:
        raise ConfigError(
            f"--distill: has no effect with --task {task.name}, whose whole loss is the distance",
            "leave it out",
        )
