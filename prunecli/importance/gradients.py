"""Gradients of the loss on calibration examples, and what criteria keep of them.

Stage: importance. In: `Evidence`. Out: per parameter, one number for each element. The network
runs in evaluation mode and stays as it is: its parameters get no gradients.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx
from torch.func import functional_call

from prunecli.errors import ModelError, TrainingError
from prunecli.importance.evidence import BATCH, Evidence
from prunecli.tasks import Task, Tensors

Statistics = Mapping[str, Tensor]
"""Parameter name -> one number per element, in at least single precision."""

MOST_SINGLE = 128
"""Examples whose gradients are taken one by one: as costly as a whole batch each."""


def mean_magnitude(evidence: Evidence, names: Sequence[str]) -> Statistics:
    """Mean over batches of |g|; g: gradient of a batch's mean loss."""
    return _mean(evidence, names, evidence.cuts(), torch.abs)


def mean_square(evidence: Evidence, names: Sequence[str]) -> Statistics:
    """Mean over batches of g^2."""
    return _mean(evidence, names, evidence.cuts(), torch.square)


def mean_gradient(evidence: Evidence, names: Sequence[str]) -> Statistics:
    """Mean over batches of g."""
    return _mean(evidence, names, evidence.cuts(), torch.clone)


def mean_square_of_examples(evidence: Evidence, names: Sequence[str]) -> Statistics:
    """Mean over examples, at most `MOST_SINGLE`, of g^2; g: gradient of one example's loss (where
    the graph fixes its batch: of a batch's mean loss)."""
    return _mean(evidence, names, evidence.cuts(1, most=MOST_SINGLE), torch.square)


def _mean(
    evidence: Evidence,
    names: Sequence[str],
    cuts: list[slice],
    what: Callable[[Tensor], Tensor],
) -> Statistics:
    total: dict[str, Tensor] = {}
    for found in each_gradient(evidence, names, cuts):
        for name, gradient in found.items():
            piece = what(at_least_single(gradient))
            total[name] = total[name].add_(piece) if name in total else piece
    return {name: item.div_(len(cuts)) for name, item in total.items()}


def each_gradient(
    evidence: Evidence, names: Sequence[str], cuts: list[slice]
) -> Iterator[dict[str, Tensor]]:
    """Gradients of the named parameters, batch by batch.

    Raises:
        ModelError: the outputs do not fit the task, or no weight changes the loss.
        TrainingError: the loss or a gradient is not finite.
    """
    network = evidence.captured.network
    weights = leaves(network)
    size = cuts[0].stop - cuts[0].start if cuts else BATCH
    title = f"gradients of {len(cuts)} batches of {size}" if size > 1 else "gradients of examples"
    for inputs, targets in evidence.batches(title, cuts):
        yield gradients(network, weights, names, (inputs, targets), evidence.examples().task)


def leaves(network: fx.GraphModule, *, copied: bool = False) -> dict[str, Tensor]:
    """Every parameter under each of its names, as tensors that gradients can be asked for.

    What several names share is one tensor. Without `copied` they share the network's memory.
    """
    known: dict[tuple[int, ...], Tensor] = {}
    found: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        key = (parameter.data_ptr(), *parameter.shape, *parameter.stride())
        if key not in known:
            tensor = parameter.detach().clone() if copied else parameter.detach()
            known[key] = tensor.requires_grad_(tensor.is_floating_point())
        found[name] = known[key]
    return found


def gradients(
    network: fx.GraphModule,
    weights: Mapping[str, Tensor],
    names: Sequence[str],
    batch: tuple[Tensors, Tensors],
    task: Task,
) -> dict[str, Tensor]:
    """Gradients of the mean loss of a batch at `weights`; zeros where nothing depends on one.

    Raises:
        ModelError, TrainingError: see `each_gradient`.
    """
    asked = [weights[name] for name in names]
    with torch.enable_grad():
        outputs = functional_call(network, dict(weights), batch[0])
        loss = checked_loss(task, outputs, batch[1])
        found = torch.autograd.grad(loss, asked, allow_unused=True)
    known = {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for name, weight, gradient in zip(names, asked, found, strict=True)
    }
    bad = next((name for name, item in known.items() if not _finite(item)), None)
    if bad is not None:
        raise not_finite(f"the gradient of {bad}")
    return known


def checked_loss(task: Task, outputs: Tensor | Tensors, targets: Tensors) -> Tensor:
    """Mean loss, which gradients can be taken of.

    Raises:
        ModelError, TrainingError: see `each_gradient`.
    """
    loss = task.loss(outputs if isinstance(outputs, tuple) else (outputs,), targets, 0.0)
    if not loss.requires_grad:
        raise ModelError(
            "network: the loss must change with the weights, got an output without gradients",
            "use --criterion l2 or another one of weights alone",
        )
    if not math.isfinite(loss.item()):
        raise not_finite("the loss")
    return loss


def _finite(tensor: Tensor) -> bool:
    return all(bool(end.isfinite()) for end in tensor.aminmax()) if tensor.numel() else True


def not_finite(what: str) -> TrainingError:
    """The error for numbers that nothing can be made of."""
    return TrainingError(
        f"calibration: {what} must be finite, got other values",
        "check the scale of the inputs (--mean, --std), or use --criterion l2",
    )


def at_least_single(tensor: Tensor) -> Tensor:
    """In single precision where it was lower: sums of many numbers need it."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
