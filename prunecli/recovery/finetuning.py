"""Fine-tuning of a captured graph.

Stage: recovery. In: the pruned graph in evaluation mode, the data, the training configuration.
Out: the same graph, in place, with the weights of the best epoch, and the curve. Never looks at
the validation split: the best epoch is chosen on `data.choose`. Never changes the structure.

A run repeats bit for bit on the same machine: the order of the examples comes from its own
generator, augmentation and dropout from the global one, seeded inside a fork.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli.config import TrainConfig
from prunecli.data import DataSet, batches, loss_of
from prunecli.errors import ConfigError, TrainingError
from prunecli.graph.capture import fixed_batch
from prunecli.progress import Reporter
from prunecli.recovery.augment import Augmentation, augmentation_for
from prunecli.recovery.mode import learns_statistics, training_mode
from prunecli.recovery.optimizer import (
    check_training,
    lr_at,
    make_optimizer,
    peak_lr,
    set_lr,
)
from prunecli.recovery.placement import Placement, choose_device, placed
from prunecli.recovery.records import Epoch, TrainResult, epoch_line
from prunecli.recovery.scoring import (
    MetricName,
    at_least_as_good,
    forward,
    metric_for,
    score_placed,
)


@dataclass(frozen=True)
class _Job:
    """Everything that stays the same during a run.

    Attributes:
        prepare: stored training batch to model input, changed at random on the way.
        used: examples of each epoch.
        batch: examples of each step.
    """

    network: GraphModule
    data: DataSet
    config: TrainConfig
    reporter: Reporter
    placement: Placement
    optimizer: torch.optim.Optimizer
    augmentation: Augmentation | None
    prepare: Callable[[Tensor], Tensor]
    used: int
    batch: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.used / self.batch)


def finetune(
    network: GraphModule, data: DataSet, config: TrainConfig, reporter: Reporter
) -> TrainResult:
    """Train `network` in place; it ends in evaluation mode with the best weights seen.

    Raises:
        ConfigError: numbers or a device that cannot be trained with.
        ModelError: the output does not fit the task.
        TrainingError: the loss or the outputs are no longer finite.
    """
    check_training(config)
    metric = metric_for(data.task)
    if config.epochs == 0:
        return TrainResult((), None, 0, metric, ("nothing was trained (0 epochs)",))
    device = choose_device(config.device)
    batch, used = _sizes(network, data, config)
    augmentation = augmentation_for(data)
    with placed(network, device) as placement, _repeatable(config.seed, device):
        job = _Job(
            network=network,
            data=data,
            config=config,
            reporter=reporter,
            placement=placement,
            optimizer=make_optimizer(network, config),
            augmentation=augmentation,
            prepare=_preparation(data, augmentation),
            used=used,
            batch=batch,
        )
        try:
            return _run(job, metric)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"fine-tuning: a batch of {batch} does not fit the memory of {device}",
                "lower --batch-size, or use --device cpu",
            ) from error
        finally:
            network.zero_grad()


def _preparation(data: DataSet, augmentation: Augmentation | None) -> Callable[[Tensor], Tensor]:
    if augmentation is None:
        return data.preprocess
    change = augmentation.change
    return lambda stored: data.preprocess(change(stored))


def _run(job: _Job, metric: MetricName) -> TrainResult:
    order = torch.Generator().manual_seed(job.config.seed)
    start = best_score = _score(job)
    best_epoch, best = 0, _weights(job.network)
    curve: list[Epoch] = []
    for number in range(1, job.config.epochs + 1):
        epoch = _epoch(job, number, order)
        curve.append(epoch)
        # A draw goes to the later weights. `choose` comes from data that the original was trained
        # on, which flatters the start; and the later an epoch, the smaller its last steps.
        if at_least_as_good(metric, epoch.score, best_score):
            best_score, best_epoch, best = epoch.score, number, _weights(job.network)
        job.reporter.say(epoch_line(epoch, job.config.epochs, metric))
    _restore(job.network, best)
    return TrainResult(tuple(curve), start, best_epoch, metric, _notes(job, curve, best_epoch))


def _epoch(job: _Job, number: int, generator: torch.Generator) -> Epoch:
    begin = time.monotonic()
    total = job.steps_per_epoch
    order = torch.randperm(len(job.data.train), generator=generator)[: job.used]
    loss_sum, rate = 0.0, 0.0
    title = f"fine-tuning, epoch {number}/{job.config.epochs}"
    with training_mode(job.network), job.reporter.step(title, total) as step:
        for index, (inputs, targets) in enumerate(
            batches(
                job.data.train, job.prepare, job.batch, order=order, device=job.placement.device
            )
        ):
            done = (number - 1) * total + index
            rate = lr_at(done, job.config.epochs * total, peak_lr(job.config), job.config.schedule)
            set_lr(job.optimizer, rate)
            loss = _step(job, inputs, targets)
            if not math.isfinite(loss):
                raise TrainingError(
                    "fine-tuning: the loss must stay finite, "
                    f"got {loss} in epoch {number}, step {index + 1}",
                    f"lower --lr (its peak is {peak_lr(job.config):g}), or check the scale of the "
                    "inputs (--mean, --std)",
                )
            loss_sum += loss * len(targets)
            step.update(index + 1, f"loss {loss:.3f} lr {rate:.2g}")
    return Epoch(number, loss_sum / job.used, _score(job), rate, time.monotonic() - begin)


def _step(job: _Job, inputs: Tensor, targets: Tensor) -> float:
    """One update; returns the loss before it."""
    job.optimizer.zero_grad()
    outputs = forward(job.network, inputs, job.placement)
    loss = loss_of(job.data.task, outputs, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    job.optimizer.step()
    return loss.item()


def _score(job: _Job) -> float:
    return score_placed(job.network, job.data.choose, job.data, job.batch, job.placement)


def _sizes(network: GraphModule, data: DataSet, config: TrainConfig) -> tuple[int, int]:
    """Examples of a step, and of an epoch.

    A last batch of one is left out, because batch norm has no variance over one value, and so
    is any incomplete one where the graph fixes its batch. Every epoch leaves out others.

    Raises:
        ConfigError: the batches that would be left cannot be trained on.
    """
    count, fixed = len(data.train), fixed_batch(network)
    batch = fixed or config.batch_size
    rest = count % batch
    if fixed is not None:
        used = count - rest
    else:
        used = count - 1 if rest == 1 and count > batch else count
    smallest = min(batch, used)
    if not used:
        raise ConfigError(
            f"fine-tuning: the graph takes batches of {batch}, got {count} training examples",
            "give more data, or use --epochs 0",
        )
    if smallest < 2 and learns_statistics(network):
        raise ConfigError(
            f"--batch-size: batch norm needs at least 2 examples to train on, got {smallest}",
            "raise --batch-size, give more data, or use --epochs 0",
        )
    return batch, used


@contextmanager
def _repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators inside the block only, and let cuDNN choose no faster sums."""
    forked = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=forked),
        torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True
        ),
    ):
        torch.manual_seed(seed)
        yield


def _weights(network: GraphModule) -> dict[str, Tensor]:
    """Copies of all parameters and buffers (batch-norm statistics are part of an epoch)."""
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _restore(network: GraphModule, weights: dict[str, Tensor]) -> None:
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(weights[name])


def _notes(job: _Job, curve: list[Epoch], best_epoch: int) -> tuple[str, ...]:
    notes: list[str] = []
    if job.augmentation is not None:
        notes.append(f"training images are changed by: {job.augmentation.words}")
    elif job.data.preprocess.image:
        notes.append("training images are used as they are; only colour images are changed")
    left_out = len(job.data.train) - job.used
    if left_out:
        notes.append(
            f"each epoch leaves out {left_out} of {len(job.data.train)} examples at random"
        )
    if job.batch != job.config.batch_size:
        notes.append(f"trained in batches of {job.batch}, the only size that the graph takes")
    if best_epoch == 0:
        notes.append("every epoch scored worse than the start, so the start was kept")
    elif best_epoch < len(curve):
        notes.append(f"epoch {best_epoch} of {len(curve)} was the best and was kept")
    return tuple(notes)
