"""`--task FILE.py:Task`: a task of the user's own.

Stage: tasks. In: the user's class. Out: a `Task`. Whatever that code raises becomes one line that
says where.

What the class, called without arguments, must have:

    class Task:
        higher_is_better = True                # which way the metric goes

        def loss(self, outputs, targets):      # a scalar: the mean over the batch
        def metric(self, outputs, targets):    # a number, over all examples of a split at once

and what it may have: `name` (of the metric), `percent` (a share of one, shown as a percentage), and
`distance(outputs, wanted, temperature)`, how far outputs are from the original's (else their mean
squared difference). `metric` may be a metric of torchmetrics instead, which is then updated batch
by batch. `outputs` and `targets` are tensors where there is one, and tuples where there are
several: outputs in the network's order, targets in that of the data.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecli.errors import ConfigError, ModelError
from prunecli.loading.factory import import_object
from prunecli.loading.usercode import user_code
from prunecli.metric import Metric
from prunecli.tasks.gauges import Gauge
from prunecli.tasks.rows import no_examples
from prunecli.tasks.task import Scores, Task, Tensors

HINT = "the code belongs to the task that you gave; run it on its own to find the cause"
PROTOCOL = (
    "give it loss(outputs, targets), metric(outputs, targets) and higher_is_better = True or False"
)


def load_task(spec: str) -> Task:
    """The user's task.

    Raises:
        ConfigError: it cannot be found, or lacks something.
        ModelError: its code raised.
    """
    made, folder = import_object("--task", spec)
    call = partial(_call, spec, folder)
    own = call(made) if isinstance(made, type) or not hasattr(made, "loss") else made
    for name in ("loss", "metric"):
        # Attributes may be code of the user's as well.
        if not callable(call(getattr, own, name, None)):
            raise ConfigError(f"--task {spec}: must have a {name}, got none", PROTOCOL)
    better = call(getattr, own, "higher_is_better", None)
    if not isinstance(better, bool):
        raise ConfigError(
            f"--task {spec}: must say whether a higher metric is better, got {better!r}", PROTOCOL
        )
    name = str(getattr(own, "name", "") or type(own).__name__.lower())
    metric = Metric(name, name, bool(getattr(own, "percent", False)), better)

    def loss(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
        found = call(own.loss, _plain(outputs), _plain(targets))
        return _scalar(spec, "loss", found)

    def distance(outputs: Tensors, wanted: Tensors, targets: Tensors, temperature: float) -> Tensor:
        if not hasattr(own, "distance"):
            return _squared(outputs, wanted)
        found = call(own.distance, _plain(outputs), _plain(wanted), temperature)
        return _scalar(spec, "distance", found)

    return Task(
        spec,
        metric,
        loss,
        distance,
        lambda: _CustomMeter(spec, own.metric, call),
        lambda _: None,
        share=0.0,
        # Nobody knows whether its targets say where in an image something is.
        in_place=True,
        outputs=(),
    )


def _call(spec: str, folder: Path | None, function: Callable[..., Any], *given: Any) -> Any:
    try:
        with user_code(f"--task {spec}", () if folder is None else (folder,), HINT):
            return function(*given)
    except ModelError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            # No mistake in that code: whoever knows the size of the batch says what helps.
            raise error.__cause__ from None
        raise


def _plain(tensors: Tensors) -> Tensor | Tensors:
    return tensors[0] if len(tensors) == 1 else tensors


def _scalar(spec: str, what: str, found: object) -> Tensor:
    if not isinstance(found, Tensor) or found.numel() != 1 or found.is_complex():
        got: object = type(found).__name__
        if isinstance(found, Tensor):
            got = found.dtype if found.is_complex() else tuple(found.shape)
        raise ModelError(
            f"--task {spec}: {what} must return a tensor of one number, got {got}",
            "return the mean over the batch",
        )
    return found.reshape(())


def _squared(outputs: Tensors, wanted: Tensors) -> Tensor:
    pairs = zip(outputs, wanted, strict=True)
    parts = [F.mse_loss(said, meant) for said, meant in pairs if said.is_floating_point()]
    return torch.stack(parts).sum()


class _CustomMeter:
    """The user's metric, over everything at once or batch by batch."""

    def __init__(self, spec: str, metric: Any, call: Callable[..., Any]) -> None:
        self._spec, self._metric, self._call = spec, metric, call
        self._batches: list[tuple[Tensors, Tensors]] = []
        self._updated = False
        self._gauge: Gauge | None = None
        if isinstance(metric, Gauge):
            self._gauge = deepcopy(metric).cpu()
            self._gauge.reset()

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Take in one batch; see `Meter`."""
        said, meant = (tuple(item.detach().cpu() for item in items) for items in (outputs, targets))
        self._updated = True
        if self._gauge is None:
            self._batches.append((said, meant))
        else:
            self._call(self._gauge.update, _plain(said), _plain(meant))

    def compute(self) -> Scores:
        """What the user's metric says; see `Meter`."""
        if not self._updated:
            raise no_examples()
        if self._gauge is not None:
            found = self._call(self._gauge.compute)
        else:
            outputs, targets = (
                tuple(_joined(items) for items in zip(*side, strict=True))
                for side in zip(*self._batches, strict=True)
            )
            found = self._call(self._metric, _plain(outputs), _plain(targets))
        return Scores(_number(self._spec, found))


def _joined(batches: Tensors) -> Tensor:
    """Examples of all batches; of single numbers (an auxiliary loss), one for each batch."""
    return torch.cat([item.reshape(1) if item.dim() == 0 else item for item in batches])


def _number(spec: str, found: Any) -> float:
    try:
        value = float(found)
    except (TypeError, ValueError, RuntimeError):
        value = math.nan
    if not math.isfinite(value):
        raise ModelError(
            f"--task {spec}: metric must return a finite number, got "
            f"{' '.join(str(found).split())[:80]}",
            HINT,
        )
    return value
