"""One step of training: forward, backward, update.

Stage: recovery. In: batches that all processes have drawn alike. Out: the loss, and changed
weights. Knows no epochs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli import crew
from prunecli.data import DataSet
from prunecli.errors import ModelError
from prunecli.progress import Reporter
from prunecli.recovery.applying import Changes
from prunecli.recovery.companion import Companion
from prunecli.recovery.driving import Driver
from prunecli.recovery.objective import Objective
from prunecli.recovery.pace import Pace
from prunecli.recovery.parts import add_up_losses, part_of, share_of
from prunecli.recovery.placement import Placement
from prunecli.recovery.precision import forward_in
from prunecli.recovery.pulls import pull
from prunecli.recovery.resuming import Keeper
from prunecli.recovery.watching import Watch
from prunecli.tasks import Tensors
from prunecli.tuning import TrainConfig


@dataclass(frozen=True)
class Training:
    """Everything that stays the same during a run.

    Attributes:
        title: what is being done, for progress and errors.
    """

    network: GraphModule
    data: DataSet
    config: TrainConfig
    reporter: Reporter
    placement: Placement
    driver: Driver
    changes: Changes
    pace: Pace
    objective: Objective
    companion: Companion
    title: str
    keeper: Keeper | None
    watch: Watch

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What the driver steps with."""
        return self.driver.optimizer


@dataclass(frozen=True)
class _Size:
    """How large a step is.

    Attributes:
        examples: of all its batches.
        counting: what of them counts for the task; `None` where they are one batch.
    """

    examples: int
    counting: float | None


def take_step(
    job: Training, step: int, group: Iterable[tuple[Tensors, Tensors]], rows: Tensor
) -> float:
    """One update; returns the loss on the targets before it.

    Args:
        group: the batches of the training examples `rows`, of which this process takes its part.
    """
    job.optimizer.zero_grad()
    size = _size(job, rows)
    losses: list[Tensor] = []
    for inputs, targets in group:
        losses.append(_pass(job, inputs, targets, size, first=not losses))
    job.driver.gather()
    job.companion.before_step(step, job.pace.steps)
    pull(job.optimizer, job.config)
    job.driver.step()
    job.companion.after_step(step, job.pace.steps)
    loss, total = add_up_losses(losses)
    return loss if math.isfinite(total) else math.nan


def _size(job: Training, rows: Tensor) -> _Size:
    if job.pace.accumulate == 1:
        return _Size(len(rows), None)
    targets = tuple(item[rows] for item in job.data.train.targets)
    return _Size(len(rows), _counting(job, targets, len(rows)))


def _counting(job: Training, targets: Tensors, examples: int) -> float:
    return job.data.task.weight(targets) if targets else float(examples)


def _pass(job: Training, inputs: Tensors, targets: Tensors, size: _Size, *, first: bool) -> Tensor:
    """Forward and backward; this process's share of the loss, and of all that is minimised.

    Both are means over what counts in the step (with texts of different lengths, not every batch
    has as much of it), so that what processes and batches come to adds up to what one batch of
    them all would.

    Raises:
        ModelError: what is minimised does not depend on the weights.
    """
    part = part_of(len(inputs[0]))
    share = share_of(part, targets, job.data.task.weight)
    if size.counting is not None:
        mine = _counting(job, targets, part.total)
        share *= mine / size.counting if size.counting else 0.0
    # Examples are mixed with any of the whole batch, not of a process's part of it.
    mixed = None if job.changes.mixing is None else job.changes.mixing(inputs)
    others = None if mixed is None else tuple(map(part.of, mixed.others(targets)))
    inputs = tuple(map(part.of, inputs if mixed is None else mixed.inputs))
    targets = tuple(map(part.of, targets))
    with job.driver.passing(part):
        outputs = forward_in(job.config.precision, job.network, inputs, job.placement)
    own = 1.0 if mixed is None else mixed.share
    losses = job.objective(inputs, outputs, targets, others, own)
    total = losses.wanted * share
    if losses.features is not None:
        total = total + losses.features * (part.count / size.examples)
    penalty = job.companion.penalty() if first else None
    if penalty is not None:
        total = total + penalty / crew.size()
    if not total.requires_grad:
        raise ModelError(
            f"{job.title}: the loss must change with the weights, got one without gradients "
            f"(--task {job.data.task.name})",
            "compute it from the outputs as they are: no .item(), .detach(), argmax or integers",
        )
    job.driver.backward(total)
    return torch.stack([losses.own.detach() * share, total.detach()])
