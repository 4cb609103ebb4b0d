"""Dense-sparse-dense: masks hold, are lifted, and never come back."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from tiny_training import (
    ADAMW,
    SGD,
    Watcher,
    cnn,
    data_for,
    mlp,
    random_masks,
    smallest,
    train,
    weight_names,
)
from torch.fx import GraphModule

from prunecli.errors import ConfigError
from prunecli.recovery.densify import DenseAtEnd
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.masking import KeepMasks
from prunecli.timing import Timing
from prunecli.tuning import TrainConfig

Make = Callable[[], GraphModule]


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("share", [1 / 3, 0.5])
def test_ends_dense(make: Make, config: TrainConfig, share: float) -> None:
    network, watcher = make(), Watcher()
    masks = random_masks(network)
    dsd = DenseAtEnd(KeepMasks(masks), share)
    result = train(network, config, dsd, watcher)
    lifted = 18 - round(share * 18)
    for step, weights in enumerate(watcher.weights):
        for name, mask in masks.items():
            assert bool(weights[name][~mask].any()) == (step >= lifted), (step, name)
    assert dsd.masks == {}
    for name, mask in masks.items():
        back = network.get_parameter(name)[~mask]
        assert back.all(), "all of them have left zero"
        assert back.abs().max() > 1e-4
    assert result.best_epoch == 3 or share == 0.5


def test_a_rise_is_over_before_the_dense_phase() -> None:
    network, watcher = mlp(), Watcher()
    gradual = Gradual(Timing(every=2), smallest(network, 0.8))
    dsd = DenseAtEnd(gradual, 0.5)
    train(network, SGD, dsd, watcher)
    assert [item.step for item in gradual.history] == [0, 2, 4, 6, 7], "3/4 of 9 steps"
    for step, weights in enumerate(watcher.weights):
        gone = sum(int((weights[name] == 0).sum()) for name in weight_names(network))
        if step in (7, 8):
            assert gone == sum(round(0.8 * weights[name].numel()) for name in weight_names(network))
        elif step > 9:
            # Where all outputs of a unit were masked, its inputs have no gradient in step 9.
            assert gone == 0
    assert dsd.masks == {}
    assert len(gradual.history) == 5


def test_masks_are_there_until_they_are_lifted() -> None:
    network = mlp()
    masks = random_masks(network)
    dsd = DenseAtEnd(KeepMasks(masks), 0.5)
    seen: list[bool] = []

    class Looks(Watcher):
        def after_step(self, step: int, steps: int) -> None:
            super().after_step(step, steps)
            seen.append(bool(dsd.masks))

    train(network, SGD, dsd, Looks())
    assert seen == [True] * 9 + [False] * 9


def test_only_the_dense_phase_counts() -> None:
    """The start would be the best, the masks are lifted after the first of three epochs."""
    network = mlp()
    data = data_for(network)
    labels = network(data.choose.inputs[0]).argmax(1)
    data = dataclasses.replace(data, choose=dataclasses.replace(data.choose, targets=(labels,)))
    dsd = DenseAtEnd(KeepMasks(random_masks(network)), 2 / 3)
    result = train(network, SGD, dsd, data=data)
    counting = [item.score for item in result.curve[1:]]
    assert result.best_epoch > 1
    assert result.curve[result.best_epoch - 1].score == max(counting)
    assert all(network.get_parameter(name).all() for name in weight_names(network))


@pytest.mark.parametrize(("epochs", "share"), [(1 / 6, 0.5), (1, 1.0), (1, 0.95)])
def test_something_must_go_before(epochs: float, share: float) -> None:
    dsd = DenseAtEnd(KeepMasks({}), share)
    with pytest.raises(ConfigError, match=r"^--dense-epochs: some of the training must go before"):
        train(mlp(), SGD, dsd, epochs=epochs)


def test_a_short_dense_phase_has_a_step() -> None:
    network = mlp()
    masks = random_masks(network)
    train(network, SGD, DenseAtEnd(KeepMasks(masks), 0.001))
    assert all(network.get_parameter(name)[~mask].any() for name, mask in masks.items())
    assert torch.isfinite(network.get_parameter("0.weight")).all()
