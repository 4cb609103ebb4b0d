"""What a training is at the end of an epoch, and how it goes on from there.

Stage: recovery. In: a training that runs. Out: plain values (`Memory`), and the same training
with these values in place. Never writes a file: a `Keeper` does.

Everything that an epoch depends on is in it: weights and statistics, their averages, the memory of
the optimizer by the names of the parameters that it belongs to, the companion, the order of the
examples and the random states, the scale of the loss, the best weights so far, the curve. The rate
and the length of an epoch follow from the number of epochs that are done.

Several processes have the same of everything, but that each may draw at random for itself: so the
main one's memory, with the random states of all, is that of each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunecli import crew
from prunecli.errors import StateError, with_type
from prunecli.recovery.averaging import Averages
from prunecli.recovery.companion import Companion, Memory, State
from prunecli.recovery.driving import Driver
from prunecli.recovery.records import Epoch

Weights = Mapping[str, Tensor]


class Keeper(Protocol):
    """Where the memory of one training lies between two processes."""

    def load(self) -> Memory | None:
        """What was saved last; `None` at the start."""

    def save(self, memory: Memory) -> None:
        """Take the place of what was saved before."""


@dataclass(frozen=True)
class Best:
    """The best weights so far.

    Attributes:
        epoch: 0 for those before the first step.
        state: what the companion has to say about them, see `Companion.snapshot`.
    """

    epoch: int
    score: float
    weights: Weights
    state: State


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        start: score before the first step.
        curve: epochs that are done.
    """

    start: float
    curve: tuple[Epoch, ...] = ()
    best: Best | None = None


@dataclass(frozen=True)
class Moving:
    """What changes while a network trains.

    Attributes:
        driver: takes the steps.
        order: draws the order of the examples.
        device: whose random state is the global one, beside that of the CPU.
        averages: of the weights, where they are averaged.
    """

    network: GraphModule
    driver: Driver
    companion: Companion
    order: torch.Generator
    device: torch.device
    averages: Averages | None = None


def random_states(moving: Moving) -> Memory:
    """What this process draws from: all that several of them may have each for itself."""
    on_gpu, together = moving.device.type == "cuda", moving.driver.together
    return {
        "cpu": torch.get_rng_state(),
        "gpu": torch.cuda.get_rng_state(moving.device) if on_gpu else None,
        "own": None if together is None else together.stream,
    }


def remembered(
    moving: Moving, progress: Progress, random: Sequence[Memory], *, ended: bool
) -> Memory:
    """Everything that the rest of the training depends on; of one that `ended`, its result. To be
    written at once: the weights are those of the network, not copies.

    Args:
        random: the `random_states` of each process.
    """
    best = progress.best
    over = ended and best is not None
    return {
        "start": progress.start,
        "curve": [list(astuple(epoch)) for epoch in progress.curve],
        "best": None
        if best is None
        else {
            "epoch": best.epoch,
            "score": best.score,
            "weights": _on_cpu(best.weights),
            "state": _on_cpu(best.state),
        },
        "companion": dict(moving.companion.memory()),
        "weights": {} if over else _on_cpu(_tensors(moving.network)),
        "averages": {} if over or moving.averages is None else _on_cpu(moving.averages.snapshot()),
        "optimizer": {} if ended else optimizer_memory(moving.network, moving.driver.optimizer),
        "driver": dict(moving.driver.memory()),
        "order": moving.order.get_state(),
        "random": [dict(states) for states in random],
    }


def recall(moving: Moving, memory: Memory) -> Progress:
    """Put everything in place; the companion has begun.

    Raises:
        StateError: the memory is that of another training.
    """
    try:
        return _recalled(moving, memory)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise StateError(
            f"saved training: must fit what is trained, got {with_type(error)}", AGAIN
        ) from error


def _recalled(moving: Moving, memory: Memory) -> Progress:
    moving.companion.recall(memory["companion"])
    if memory["weights"]:
        put_weights(moving.network, memory["weights"])
        if moving.averages is not None:
            moving.averages.restore(memory["averages"])
    if memory["optimizer"]:
        put_optimizer_memory(moving.network, moving.driver.optimizer, memory["optimizer"])
    moving.driver.recall(memory["driver"])
    moving.order.set_state(memory["order"])
    _draw_on(moving, memory["random"])
    best = None if memory["best"] is None else Best(**memory["best"])
    return Progress(memory["start"], tuple(Epoch(*epoch) for epoch in memory["curve"]), best)


def _draw_on(moving: Moving, random: Sequence[Memory]) -> None:
    """Where there were more or fewer processes, all draw alike what they draw together, and begin
    anew what each draws for itself."""
    same = len(random) == crew.size()
    states = random[crew.rank() if same else 0]
    torch.set_rng_state(states["cpu"])
    if moving.device.type == "cuda" and states["gpu"] is not None:
        torch.cuda.set_rng_state(states["gpu"], moving.device)
    if same and moving.driver.together is not None:
        moving.driver.together.stream = states["own"]


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers (batch-norm statistics are part of an epoch)."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(network).items()}


def put_weights(network: nn.Module, weights: Weights) -> None:
    """Give all parameters and buffers these values.

    Raises:
        StateError: names or shapes are those of another network.
    """
    tensors = _tensors(network)
    shapes = [{name: item.shape for name, item in own.items()} for own in (tensors, weights)]
    if shapes[0] != shapes[1]:
        raise StateError("saved weights: must fit the network, got those of another one", AGAIN)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(weights[name])


def optimizer_memory(network: nn.Module, optimizer: torch.optim.Optimizer) -> Memory:
    """What the optimizer knows of each parameter, by the parameter's name."""
    state = optimizer.state_dict()["state"]
    names = _names_by_place(network, optimizer)
    return {names[place]: dict(own) for place, own in state.items()}


def put_optimizer_memory(
    network: nn.Module, optimizer: torch.optim.Optimizer, memory: Memory
) -> None:
    """Let the optimizer go on with what it knew.

    Raises:
        StateError: it knew of parameters that it does not change.
    """
    places = {name: place for place, name in _names_by_place(network, optimizer).items()}
    unknown = sorted(memory.keys() - places.keys())
    if unknown:
        raise StateError(
            f"saved optimizer: must belong to what is trained, got a state of {unknown[0]}", AGAIN
        )
    groups = optimizer.state_dict()["param_groups"]
    state = {places[name]: own for name, own in memory.items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


AGAIN = "prune again: a new run starts over"


def _names_by_place(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    """PyTorch numbers an optimizer's parameters through its groups."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    own = (item for group in optimizer.param_groups for item in group["params"])
    return {place: names[parameter] for place, parameter in enumerate(own)}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _on_cpu(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}
