"""Fine-tuning of a captured graph.

Stage: recovery. In: the pruned graph in evaluation mode, the data, the training configuration,
and what accompanies the training (masks, schedules, penalties: `companion`).
Out: the same graph, in place, with the weights of the best epoch, and the curve. Never looks at
the validation split: the best epoch is chosen on `data.choose`. Never changes the structure.

A run repeats bit for bit on the same machine: the order of the examples comes from its own
generator, augmentation and dropout from the global one, seeded inside a fork. Where somebody keeps
its memory (`resuming`), it goes on at the epoch that was saved last.
"""

import itertools
import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli import crew
from prunecli.data import DataSet, batches
from prunecli.errors import ConfigError, TrainingError
from prunecli.progress import Reporter
from prunecli.recovery.augment import Augmentation, augmentation_for
from prunecli.recovery.companion import Companion, Setting, chain
from prunecli.recovery.conditions import gradients_for, repeatable, within_memory
from prunecli.recovery.driving import Driver, driver_for
from prunecli.recovery.mode import training_mode
from prunecli.recovery.objective import Objective, objective_for
from prunecli.recovery.optimizer import check_training, make_optimizer, set_lr
from prunecli.recovery.pace import Pace, pace_of
from prunecli.recovery.parts import add_up_losses, part_of, share_of, share_weights, shareable
from prunecli.recovery.placement import Placement, choose_device, placed
from prunecli.recovery.precision import forward_in
from prunecli.recovery.pulls import pull
from prunecli.recovery.rates import rates_of
from prunecli.recovery.records import Epoch, TrainResult, epoch_line
from prunecli.recovery.resting import at_rest
from prunecli.recovery.resuming import (
    Best,
    Keeper,
    Moving,
    Progress,
    put_weights,
    random_states,
    recall,
    remembered,
    weights_of,
)
from prunecli.recovery.scoring import score_placed
from prunecli.tasks import Tensors
from prunecli.tuning import TrainConfig


@dataclass(frozen=True)
class _Job:
    """Everything that stays the same during a run.

    Attributes:
        title: what is being done, for progress and errors.
    """

    network: GraphModule
    data: DataSet
    config: TrainConfig
    reporter: Reporter
    placement: Placement
    optimizer: torch.optim.Optimizer
    driver: Driver
    augmentation: Augmentation | None
    pace: Pace
    objective: Objective
    companion: Companion
    title: str
    keeper: Keeper | None

    def prepare(self, stored: Tensors) -> Tensors:
        """A stored training batch as model inputs, changed at random on the way."""
        change = self.augmentation
        return self.data.prepare(stored if change is None else change.change(stored))


def finetune(
    network: GraphModule,
    data: DataSet,
    config: TrainConfig,
    reporter: Reporter,
    *,
    teacher: GraphModule | None = None,
    only: Collection[str] | None = None,
    companion: Companion | None = None,
    epochs: float | None = None,
    seed_offset: int = 0,
    title: str = "fine-tuning",
    keeper: Keeper | None = None,
) -> TrainResult:
    """Train `network` in place; it ends in evaluation mode with the best weights seen.

    Args:
        teacher: the original, to learn from (see `objective`); shares no memory with `network`.
        only: names of the parameters that change; all others stay as they are.
        companion: what accompanies every step. The best are among what it counts, or the last.
        epochs: instead of `config.epochs`; may end within an epoch (see `pace_of`).
        seed_offset: tells the rounds of an iterative run apart.
        title: what is being done, in progress and errors.
        keeper: of the main process; gets each epoch's memory, and what it has is gone on from.

    Raises:
        ConfigError: numbers or a device that cannot be trained with.
        ModelError: the output does not fit the task.
        TrainingError: the loss or the outputs are no longer finite.
        StateError: what `keeper` has belongs to another training.
    """
    epochs = check_training(config, epochs)
    if epochs == 0:
        return _untrained(data, companion, title)
    config = replace(config, seed=(config.seed + seed_offset) % 2**32)
    device = choose_device(config.device)
    pace = shareable(pace_of(network, data, config, epochs), network)
    with (
        placed(network, device) as placement,
        repeatable(config.seed, device),
        within_memory(f"{title}: a batch of {pace.batch}", device),
        objective_for(data.task, config, teacher, device) as objective,
    ):
        optimizer = make_optimizer(network, config, only)
        job = _Job(
            network=network,
            data=data,
            config=config,
            reporter=reporter,
            placement=placement,
            optimizer=optimizer,
            driver=driver_for(config, optimizer, device),
            augmentation=augmentation_for(data),
            pace=pace,
            objective=objective,
            companion=chain() if companion is None else companion,
            title=title,
            keeper=keeper,
        )
        return _run(job)


def _run(job: _Job) -> TrainResult:
    with gradients_for(job.network, job.optimizer):
        progress = _trained(job)
    curve, best = progress.curve, progress.best
    if best is not None:
        put_weights(job.network, best.weights)
        job.companion.restore(best.state)
    kept = len(curve) if best is None else best.epoch
    return TrainResult(curve, progress.start, kept, job.data.task.metric, _notes(job, curve, kept))


def _trained(job: _Job) -> Progress:
    """All epochs, from the start or from what was saved last."""
    order = torch.Generator().manual_seed(job.config.seed)
    rest = partial(at_rest, job.network, job.placement)
    job.companion.begin(Setting(job.network, job.optimizer, job.pace.steps, rest))
    moving = Moving(job.network, job.driver, job.companion, order, job.placement.device)
    progress, kept = _begun(job, moving), crew.shared(job.keeper is not None)
    for number in range(len(progress.curve) + 1, job.pace.epochs + 1):
        epoch = _epoch(job, number, order)
        best = _better(job, number, epoch.score, progress.best)
        progress = Progress(progress.start, (*progress.curve, epoch), best)
        if kept:
            _keep(job, moving, progress, ended=number == job.pace.epochs)
        job.reporter.say(epoch_line(epoch, job.pace.epochs, job.data.task.metric))
    return progress


def _begun(job: _Job, moving: Moving) -> Progress:
    """Before the first epoch, or after those that were done before."""
    memory = crew.shared(None if job.keeper is None else job.keeper.load())
    if memory is None:
        start = _score(job)
        return Progress(start, best=_better(job, 0, start, None))
    progress = recall(moving, memory)
    job.reporter.say(f"{job.title}: {len(progress.curve)} of {job.pace.epochs} epochs are done")
    return progress


def _keep(job: _Job, moving: Moving, progress: Progress, *, ended: bool) -> None:
    """Save what all processes need to go on; none does before it is there."""
    random = crew.gathered(random_states(moving))
    if job.keeper is not None:
        job.keeper.save(remembered(moving, progress, random, ended=ended))
    crew.meet()


def _better(job: _Job, epoch: int, score: float, best: Best | None) -> Best | None:
    """The better one of `best` and what the network is now.

    A draw goes to the later weights. `choose` comes from data that the original was trained on,
    which flatters the start; and the later an epoch, the smaller its last steps.
    """
    if not job.companion.counts(job.pace.done(epoch), job.pace.steps):
        return best
    if best is not None and not job.data.task.metric.at_least_as_good(score, best.score):
        return best
    return Best(epoch, score, weights_of(job.network), job.companion.snapshot())


def _epoch(job: _Job, number: int, generator: torch.Generator) -> Epoch:
    begin = time.monotonic()
    first, stop = job.pace.done(number - 1), job.pace.done(number)
    order = torch.randperm(len(job.data.train), generator=generator)[: job.pace.used]
    order = order[: (stop - first) * job.pace.examples]
    rates, loss_sum, rate = rates_of(job.config, job.pace), 0.0, 0.0
    title = f"{job.title}, epoch {number}/{job.pace.epochs}"
    with training_mode(job.network), job.reporter.step(title, stop - first) as step:
        stream = batches(
            job.data.train,
            job.prepare,
            job.pace.batch,
            order=order,
            device=job.placement.device,
        )
        for index in range(stop - first):
            examples = min(job.pace.examples, len(order) - index * job.pace.examples)
            rate = rates.at(first + index)
            set_lr(job.optimizer, rate)
            group = itertools.islice(stream, job.pace.accumulate)
            loss = _step(job, first + index, group, examples)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{job.title}: the loss must stay finite, "
                    f"got {loss} in epoch {number}, step {index + 1}",
                    f"lower --lr (its peak is {rates.peak:g}), or check the scale of the "
                    "inputs (--mean, --std)",
                )
            loss_sum += loss * examples
            step.update(index + 1, f"loss {loss:.3f} lr {rate:.2g}")
    return Epoch(number, loss_sum / len(order), _score(job), rate, time.monotonic() - begin)


def _step(job: _Job, step: int, group: Iterable[tuple[Tensors, Tensors]], examples: int) -> float:
    """One update; returns the loss on the targets before it.

    Args:
        group: batches of together `examples` examples, of which this process takes its part.
    """
    job.optimizer.zero_grad()
    losses: list[Tensor] = []
    for inputs, targets in group:
        losses.append(_pass(job, inputs, targets, examples, first=not losses))
    job.driver.gather()
    job.companion.before_step(step, job.pace.steps)
    pull(job.optimizer, job.config)
    job.driver.step()
    job.companion.after_step(step, job.pace.steps)
    loss, total = add_up_losses(losses)
    return loss if math.isfinite(total) else math.nan


def _pass(job: _Job, inputs: Tensors, targets: Tensors, examples: int, *, first: bool) -> Tensor:
    """Forward and backward; this process's share of the loss, and of all that is minimised.

    Both are means over the `examples` of the step, so that what processes and batches come to adds
    up to what one batch of them all would.
    """
    part = part_of(len(inputs[0]))
    share = share_of(part, targets, job.data.task.weight) * part.total / examples
    inputs, targets = tuple(map(part.of, inputs)), tuple(map(part.of, targets))
    with job.driver.passing(part):
        outputs = forward_in(job.config.precision, job.network, inputs, job.placement)
    wanted, loss = job.objective(inputs, outputs, targets)
    total = wanted * share
    penalty = job.companion.penalty() if first else None
    if penalty is not None:
        total = total + penalty / crew.size()
    job.driver.backward(total)
    return torch.stack([loss.detach() * share, total.detach()])


def _score(job: _Job) -> float:
    """Of the weights as they are, which all processes take from the main one first."""
    share_weights(job.network)
    choose = job.data.choose
    found = score_placed(job.network, choose, job.data, job.pace.batch, job.placement)
    return crew.shared(found.value)


def _untrained(data: DataSet, companion: Companion | None, title: str) -> TrainResult:
    """The result of no training; an error where something was to be done in it."""
    if companion is not None:
        raise ConfigError(
            f"{title}: masks, schedules and penalties act at training steps, got 0 epochs",
            "use --epochs 1 or more",
        )
    notes = ("nothing was trained (0 epochs)",)
    return TrainResult((), None, 0, data.task.metric, notes)


def _notes(job: _Job, curve: Sequence[Epoch], best_epoch: int) -> tuple[str, ...]:
    notes: list[str] = []
    if job.augmentation is not None:
        notes.append(f"training images are changed by: {job.augmentation.words}")
    elif any(own.image for own in job.data.preprocess):
        kept = (
            "the targets say where something is"
            if job.data.task.in_place
            else ("only colour images are changed")
        )
        notes.append(f"training images are used as they are; {kept}")
    if job.objective.words is not None:
        notes.append(job.objective.words)
    left_out = len(job.data.train) - job.pace.used
    if left_out:
        notes.append(
            f"each epoch leaves out {left_out} of {len(job.data.train)} examples at random"
        )
    if job.pace.batch != job.config.batch_size:
        notes.append(f"trained in batches of {job.pace.batch}, the only size that the graph takes")
    if job.pace.accumulate > 1:
        notes.append(f"each step adds up the gradients of {job.pace.accumulate} batches")
    if crew.size() > 1:
        notes.append(f"trained in {crew.size()} processes, which shared every batch")
    last = job.pace.done(len(curve)) - job.pace.done(len(curve) - 1)
    if last < job.pace.steps_per_epoch:
        notes.append(f"the last epoch has {last} of {job.pace.steps_per_epoch} steps")
    barred = [
        e.epoch for e in curve if not job.companion.counts(job.pace.done(e.epoch), job.pace.steps)
    ]
    if best_epoch == 0:
        notes.append("every epoch scored worse than the start, so the start was kept")
    elif best_epoch < len(curve):
        among = f" of those from epoch {max(barred) + 1} on" if barred else ""
        notes.append(f"epoch {best_epoch} of {len(curve)} was the best{among} and was kept")
    return tuple(notes)
