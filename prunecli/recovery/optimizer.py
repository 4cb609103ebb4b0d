"""Optimizers: which parameters change, and how.

Stage: recovery. In: a network and the training configuration. Out: an optimizer. Never steps
anything by itself.
"""

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from prunecli.choices import OptimizerName
from prunecli.errors import ConfigError, ModelError
from prunecli.graph.coupling import layer_of
from prunecli.recovery.rates import default_lr, peak_lr
from prunecli.tuning import TrainConfig

Make = Callable[..., torch.optim.Optimizer]

MOMENTUM = 0.9

_CLASSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    OptimizerName.SGD: ("SGD", {}),
    OptimizerName.MOMENTUM: ("SGD", {"momentum": MOMENTUM}),
    OptimizerName.NESTEROV: ("SGD", {"momentum": MOMENTUM, "nesterov": True}),
    OptimizerName.ADAM: ("Adam", {}),
    OptimizerName.ADAMW: ("AdamW", {}),
    OptimizerName.RMSPROP: ("RMSprop", {}),
    OptimizerName.ADAGRAD: ("Adagrad", {}),
}
"""Name -> class in `torch.optim`, and what it is made with."""

_NOT_OPTIMIZERS = ("Optimizer", "LBFGS", "SparseAdam")
"""Classes that no step here can serve: closures that are called again and again, and gradients of
tables alone."""


def check_training(config: TrainConfig, epochs: float | None = None) -> float:
    """Reject what cannot be trained with, before any work is done.

    Returns:
        `epochs`, those of `config` where left out.

    Raises:
        ConfigError: a negative number of epochs, an empty batch, a rate that is not positive, an
            optimizer that does not exist.
    """
    epochs = config.epochs if epochs is None else epochs
    if not (math.isfinite(epochs) and epochs >= 0):
        raise ConfigError(
            f"--epochs: 0 or more is needed, got {epochs:g}", "--epochs 0 trains nothing"
        )
    if config.batch_size < 1:
        raise ConfigError(
            f"--batch-size: at least 1 is needed, got {config.batch_size}",
            "for example --batch-size 32",
        )
    if config.lr is not None and not (math.isfinite(config.lr) and config.lr > 0):
        raise ConfigError(
            f"--lr: a positive number is needed, got {config.lr:g}",
            f"leave --lr out for {default_lr(config):g}",
        )
    _check_accepts(config, *_class_of(config.optimizer))
    return epochs


def _class_of(name: str) -> tuple[Make, Mapping[str, Any]]:
    """The class that a name means, and what it is made with."""
    spelled, given = _CLASSES.get(name, (name, {}))
    known = {
        key.lower(): item
        for key, item in vars(torch.optim).items()
        if inspect.isclass(item)
        and issubclass(item, torch.optim.Optimizer)
        and key not in _NOT_OPTIMIZERS
    }
    found = known.get(spelled.lower())
    if found is None:
        names = ", ".join(item.value for item in OptimizerName)
        raise ConfigError(
            f"--optimizer: must be one of {names} or a class of torch.optim, got {name!r}",
            "e.g. --optimizer adamw",
        )
    return found, given


def _check_accepts(config: TrainConfig, found: Make, given: Mapping[str, Any]) -> None:
    accepted = _accepted(found)
    with_momentum = "momentum" in (given if found is torch.optim.SGD else accepted)
    if config.momentum is not None and not with_momentum:
        raise ConfigError(
            f"--momentum: {config.optimizer} has none",
            "leave it out, or use --optimizer momentum or nesterov",
        )
    if config.weight_decay is not None and "weight_decay" not in accepted:
        raise ConfigError(
            f"--weight-decay: {config.optimizer} has none",
            "leave it out, or use another --optimizer, such as adamw",
        )


def _accepted(found: Make) -> Collection[str]:
    return inspect.signature(found).parameters


def make_optimizer(
    network: nn.Module, config: TrainConfig, only: Collection[str] | None = None
) -> torch.optim.Optimizer:
    """An optimizer of all trainable parameters, or of some.

    Weight decay leaves one-dimensional parameters (norms and biases) alone. The rate of each group
    is its entry `share` of that of the step, see `set_lr`.

    Args:
        only: names of the parameters that change; none of the others belongs to the optimizer.

    Raises:
        ModelError: nothing in the network can be trained.
        ConfigError: the optimizer cannot be made for these parameters.
    """
    named = dict(_trainable(network, only))
    if not named:
        raise ModelError("fine-tuning: the network has no trainable parameters", "use --epochs 0")
    found, given = _class_of(config.optimizer)
    given = dict(given)
    if config.momentum is not None:
        given["momentum"] = config.momentum
        if not config.momentum:
            given.pop("nesterov", None)  # PyTorch refuses Nesterov without momentum
    decays = "weight_decay" in _accepted(found)
    shares = _shares(network, config.layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        decay = config.l2 if parameter.dim() > 1 else 0.0
        groups.setdefault((decay, shares.get(name, 1.0)), []).append(parameter)
    parts = [
        {"params": own, "share": share, **({"weight_decay": decay} if decays else {})}
        for (decay, share), own in groups.items()
    ]
    try:
        return found(parts, lr=peak_lr(config), **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--optimizer {config.optimizer}: cannot be used for this network: {error}",
            "e.g. --optimizer adamw",
        ) from error


def _trainable(
    network: nn.Module, only: Collection[str] | None
) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter once, by the first of its names that is asked for."""
    seen: set[nn.Parameter] = set()
    for name, parameter in network.named_parameters(remove_duplicate=False):
        wanted = only is None or name in only
        if wanted and parameter.requires_grad and parameter not in seen:
            seen.add(parameter)
            yield name, parameter


def _shares(network: nn.Module, decay: float) -> dict[str, float]:
    """Share of the rate that each parameter gets: 1 for the last layer that the graph reads, for
    every other `decay` times that of the layer after it (Clark et al. 2020, arXiv:2003.10555)."""
    if decay == 1.0 or not isinstance(network, GraphModule):
        return {}
    known = {name for name, _ in network.named_parameters()}
    read = [str(node.target) for node in network.graph.nodes if node.op == "get_attr"]
    layers = list(dict.fromkeys(layer_of(name) for name in read if name in known))
    depth = {layer: len(layers) - 1 - place for place, layer in enumerate(layers)}
    return {name: decay ** depth[layer_of(name)] for name in read if name in known}


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate`, of each group its share, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
