"""A training that stops after any epoch and goes on in another process ends as one that did not,
bit for bit; whatever accompanies it, and whoever steps."""

import dataclasses
import inspect
import io
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

import pytest
import torch
from tiny_training import (
    ADAMW,
    SGD,
    cnn,
    mlp,
    random_masks,
    smallest,
    tied,
    train,
    weight_names,
)
from torch import Tensor
from torch.fx import GraphModule

from prunecli.choices import Penalty
from prunecli.errors import ConfigError, StateError
from prunecli.graph.coupling import Coupling
from prunecli.pipeline.state import copied
from prunecli.recovery import Companion, TrainResult, chain, finetuning
from prunecli.recovery.densify import DenseAtEnd
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.masking import KeepMasks
from prunecli.recovery.optimizer import make_optimizer
from prunecli.recovery.penalties import Penalised, SparseTraining
from prunecli.recovery.resuming import (
    Memory,
    optimizer_memory,
    put_optimizer_memory,
    weights_of,
)
from prunecli.timing import Timing
from prunecli.tuning import TrainConfig

Make = Callable[[], GraphModule]
Accompany = Callable[[GraphModule], Companion]


class Killed(Exception):
    """Stands for the end of the process."""


class Notebook:
    """Keeps a memory as a file would: written, and read back without running anything."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.written: bytes | None = None
        self.saves = 0
        self.stop_after = stop_after

    def load(self) -> Memory | None:
        if self.written is None:
            return None
        found: Memory = torch.load(io.BytesIO(self.written), weights_only=True)
        return found

    def save(self, memory: Mapping[str, Any]) -> None:
        stream = io.BytesIO()
        torch.save(dict(memory), stream)
        self.written = stream.getvalue()
        self.saves += 1
        if self.saves == self.stop_after:
            raise Killed


@cache
def first(make: Make) -> GraphModule:
    """Captured once for all runs."""
    return make()


def ended(
    make: Make, config: TrainConfig, accompany: Accompany | None, **given: Any
) -> tuple[dict[str, Tensor], TrainResult, Companion | None]:
    network = copied(first(make))
    companion = None if accompany is None else accompany(network)
    result = train(network, config, *([] if companion is None else [companion]), **given)
    return weights_of(network), result, companion


def check_every_stop(
    make: Make, config: TrainConfig, accompany: Accompany | None = None, **given: Any
) -> None:
    """Stop after each epoch in turn, the last one too."""
    wanted, result, companion = ended(make, config, accompany, **given)
    for stop in range(1, len(result.curve) + 1):
        notebook = Notebook(stop)
        with pytest.raises(Killed):
            ended(make, config, accompany, keeper=notebook, **given)
        weights, again, other = ended(make, config, accompany, keeper=notebook, **given)
        assert notebook.saves == len(result.curve), "each epoch is done once"
        assert weights.keys() == wanted.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, wanted[name]), (stop, name)
        assert untimed(again) == untimed(result)
        assert masks_of(other) == masks_of(companion)


def untimed(result: TrainResult) -> TrainResult:
    curve = tuple(dataclasses.replace(epoch, seconds=0.0) for epoch in result.curve)
    return dataclasses.replace(result, curve=curve)


def masks_of(companion: Companion | None) -> dict[str, list[Any]]:
    masks = getattr(companion, "masks", {})
    return {name: mask.tolist() for name, mask in masks.items()}


def optimizers() -> list[str]:
    """Every class of `torch.optim` that can train a small network of matrices and vectors."""
    found = []
    for name, item in vars(torch.optim).items():
        if inspect.isclass(item) and issubclass(item, torch.optim.Optimizer):
            try:
                make_optimizer(first(mlp), dataclasses.replace(SGD, momentum=None, optimizer=name))
            except ConfigError:
                continue
            found.append(name.lower())
    return found


@pytest.mark.parametrize("optimizer", [*optimizers(), "momentum", "nesterov"])
def test_every_optimizer_goes_on_bit_for_bit(optimizer: str) -> None:
    config = dataclasses.replace(ADAMW, optimizer=optimizer, momentum=None, weight_decay=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_every_stop(mlp, config)


def test_the_optimizers_are_those_of_pytorch() -> None:
    assert {"sgd", "adam", "adamw", "rmsprop", "adagrad", "asgd", "nadam"} <= set(optimizers())


@pytest.mark.parametrize("make", [cnn, tied])
@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("epochs", [3, 2.5, 0.4])
def test_layouts_dropout_statistics_and_tied_weights(
    make: Make, config: TrainConfig, epochs: float
) -> None:
    check_every_stop(make, config, epochs=epochs, seed_offset=3)


def gradual(timing: Timing) -> Accompany:
    return lambda network: Gradual(timing, smallest(network, 0.8))


def dense_gradual(network: GraphModule) -> Companion:
    return DenseAtEnd(Gradual(Timing(every=2), smallest(network, 0.8)), 0.4)


def sparse(network: GraphModule) -> Companion:
    no_units = cast(Coupling, None)  # l1 over named parameters looks at none
    return SparseTraining(Penalty.L1, 0.01, Penalised(no_units, tuple(weight_names(network))))


@pytest.mark.parametrize(
    "accompany",
    [
        lambda network: KeepMasks(random_masks(network)),
        gradual(Timing(every=2)),
        gradual(Timing(every=1, regrow=0.3, initial=0.2)),
        gradual(Timing(end=1.0)),
        lambda network: DenseAtEnd(KeepMasks(random_masks(network)), 0.4),
        dense_gradual,
        sparse,
        lambda network: chain(sparse(network), KeepMasks(random_masks(network))),
    ],
    ids=["masks", "gradual", "regrowing", "late", "dense", "dense rise", "sparse", "two"],
)
@pytest.mark.parametrize(("make", "config"), [(mlp, SGD), (cnn, ADAMW)], ids=["mlp", "cnn"])
def test_whatever_accompanies(make: Make, config: TrainConfig, accompany: Accompany) -> None:
    check_every_stop(make, config, accompany)


@pytest.mark.parametrize(
    "accompany",
    [None, lambda network: KeepMasks(random_masks(network)), gradual(Timing(every=2, end=1.0))],
    ids=["alone", "masks", "late"],
)
@pytest.mark.parametrize("make", [mlp, cnn])
def test_averages_and_mixtures(make: Make, accompany: Accompany | None) -> None:
    cut = 1.0 if make is cnn else None
    config = dataclasses.replace(SGD, ema=0.9, mixup=0.4, cutmix=cut)
    check_every_stop(make, config, accompany)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_what_was_given_up_stays_so(ema: float | None) -> None:
    config = dataclasses.replace(SGD, epochs=6, lr=1e-9, patience=2, ema=ema)
    _, result, _ = ended(mlp, config, None)
    assert len(result.curve) == 3
    check_every_stop(mlp, config)


class Choosy:
    """Chooses by what it remembers: each call masks one more weight of the first row."""

    def __init__(self, network: GraphModule) -> None:
        self.network = network
        self.calls = 0

    def __call__(self, share: float, current: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self.calls += 1
        name = weight_names(self.network)[0]
        mask = torch.ones(self.network.get_parameter(name).shape, dtype=torch.bool)
        mask.reshape(-1)[: self.calls] = False
        return {name: mask}

    def memory(self) -> Memory:
        return {"calls": self.calls}

    def recall(self, memory: Memory) -> None:
        self.calls = memory["calls"]


def test_whoever_chooses_masks_remembers_too() -> None:
    def accompany(network: GraphModule) -> Companion:
        choosy = Choosy(network)
        return Gradual(Timing(every=3, end=1.0), choosy, choosy)

    check_every_stop(mlp, SGD, accompany)


def test_some_parameters_only_and_their_names() -> None:
    network = cnn()
    only = frozenset({"9.weight", "9.bias"})
    check_every_stop(cnn, ADAMW, only=only)
    optimizer = make_optimizer(network, ADAMW, only)
    for name in only:
        network.get_parameter(name).grad = torch.ones_like(network.get_parameter(name))
    optimizer.step()
    assert optimizer_memory(network, optimizer).keys() == only


def test_the_optimizers_memory_goes_by_names_not_by_places() -> None:
    network, second = mlp(), mlp()
    one = make_optimizer(network, SGD)
    for place, parameter in enumerate(network.parameters()):
        parameter.grad = torch.full_like(parameter, float(place + 1))
    one.step()
    memory = optimizer_memory(network, one)
    turned = dict(reversed(memory.items()))
    other = make_optimizer(second, SGD)
    put_optimizer_memory(second, other, turned)
    for name, parameter in second.named_parameters():
        known = one.state[network.get_parameter(name)]["momentum_buffer"]
        assert torch.equal(other.state[parameter]["momentum_buffer"], known)
    with pytest.raises(StateError, match="must belong to what is trained, got a state of gone"):
        put_optimizer_memory(second, other, {"gone.weight": {}})


def test_a_memory_of_another_network_is_refused() -> None:
    notebook = Notebook(1)
    with pytest.raises(Killed):
        train(mlp(), SGD, keeper=notebook)
    with pytest.raises(StateError, match="saved weights: must fit the network"):
        train(cnn(), SGD, keeper=notebook)
    memory = notebook.load()
    assert memory is not None
    notebook.save({name: item for name, item in memory.items() if name != "order"})
    with pytest.raises(StateError, match="saved training: must fit what is trained, got KeyError"):
        train(mlp(), SGD, keeper=notebook)


@pytest.mark.parametrize("step", [0, 4, 5, 6, 14])
def test_a_stop_within_an_epoch_loses_that_epoch_only(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, result, _ = ended(cnn, SGD, None)
    notebook, steps = Notebook(), []
    real = finetuning.take_step

    def killed_at(job: Any, number: int, *batch: Tensor) -> float:
        steps.append(number)
        if len(steps) == step + 1:
            raise Killed
        return real(job, number, *batch)

    monkeypatch.setattr(finetuning, "take_step", killed_at)
    with pytest.raises(Killed):
        ended(cnn, SGD, None, keeper=notebook)
    assert notebook.saves == step // 6
    weights, again, _ = ended(cnn, SGD, None, keeper=notebook)
    assert steps == [*range(step + 1), *range(6 * (step // 6), 18)]
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights.items())
    assert untimed(again) == untimed(result)
