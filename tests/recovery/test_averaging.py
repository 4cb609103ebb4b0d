"""The average of the weights, against one that is worked out from what training passed through."""

import dataclasses

import pytest
import torch
from tiny_training import (
    ADAMW,
    SGD,
    Watcher,
    captured,
    cnn,
    data_for,
    mlp,
    random_masks,
    smallest,
    train,
    weight_names,
)
from torch import Tensor, nn

from prunecli.progress import SilentReporter
from prunecli.recovery import Gradual, KeepMasks, finetune, score
from prunecli.recovery.averaging import Averages, decay_at
from prunecli.recovery.companion import Setting
from prunecli.timing import Timing


class Late(Watcher):
    """Watches, and lets only the end count, so that the last weights are what is kept."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.start = {name: item.detach().clone() for name, item in self._named()}

    def counts(self, done: int, steps: int) -> bool:
        return done == steps


def by_hand(watcher: Late, decay: float) -> dict[str, Tensor]:
    found = {name: item.double() for name, item in watcher.start.items()}
    for step, weights in enumerate(watcher.weights):
        keep = min(decay, (1 + step) / (10 + step))
        for name, item in weights.items():
            found[name] = keep * found[name] + (1 - keep) * item.double()
    return found


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_the_average_is_what_is_kept(decay: float, config: object) -> None:
    network, watcher = mlp(), Late()
    train(network, dataclasses.replace(config, ema=decay), watcher)  # type: ignore[type-var]
    for name, item in by_hand(watcher, decay).items():
        torch.testing.assert_close(network.get_parameter(name).double(), item, atol=1e-6, rtol=0)
        assert not torch.equal(network.get_parameter(name), watcher.weights[-1][name])


def test_a_short_run_has_an_average_of_its_end() -> None:
    """0.9999 to the power of 18 is 0.998: without a growing decay the start would be all of it."""
    assert [decay_at(step, 0.9999) for step in (0, 1, 8)] == [0.1, 2 / 11, 0.5]
    assert decay_at(10**6, 0.9999) == 0.9999
    remains = 1.0
    for step in range(18):
        remains *= decay_at(step, 0.9999)
    assert remains < 1e-6


def test_training_itself_goes_on_as_without() -> None:
    plain, averaged = Watcher(), Watcher()
    train(cnn(), SGD, plain)
    train(cnn(), dataclasses.replace(SGD, ema=0.9), averaged)
    for one, other in zip(plain.weights, averaged.weights, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_scores_are_those_of_the_average() -> None:
    network, watcher = cnn(), Late()
    data = data_for(network)
    config = dataclasses.replace(SGD, ema=0.9)
    result = train(network, config, watcher, data=data)
    assert result.best_epoch == len(result.curve)
    assert score(network, data.choose, data, config.batch_size).value == result.curve[-1].score
    assert "weights are averaged over the steps (decay 0.9)" in result.notes


def test_statistics_of_batch_norms_are_averaged_with_the_weights() -> None:
    network = cnn()
    seen: list[Tensor] = []

    class Statistics(Late):
        def begin(self, setting: Setting) -> None:
            super().begin(setting)
            seen.append(network.get_buffer("1.running_var").clone())

        def after_step(self, step: int, steps: int) -> None:
            super().after_step(step, steps)
            seen.append(network.get_buffer("1.running_var").clone())

    train(network, dataclasses.replace(SGD, ema=0.9), Statistics())
    found = seen[0]
    for step, item in enumerate(seen[1:]):
        found = torch.lerp(found, item, 1 - min(0.9, (1 + step) / (10 + step)))
    torch.testing.assert_close(network.get_buffer("1.running_var"), found)
    assert not torch.equal(found, seen[-1])


def test_masks_hold_in_the_average() -> None:
    network = cnn()
    masks = random_masks(network)
    train(network, dataclasses.replace(ADAMW, ema=0.99), KeepMasks(masks))
    for name, mask in masks.items():
        weight = network.get_parameter(name)
        assert bool((weight[~mask] == 0).all())
        assert bool((weight[mask] != 0).all())


def test_weights_that_were_masked_on_the_way_are_zero_in_the_average() -> None:
    network = mlp()
    gradual = Gradual(Timing(every=2), smallest(network, 0.5))
    train(network, dataclasses.replace(SGD, ema=0.99), gradual)
    for name in weight_names(network):
        weight, mask = network.get_parameter(name), gradual.masks[name]
        assert bool((weight[~mask] == 0).all())
        assert int((~mask).sum()) == mask.numel() // 2


def test_weights_out_of_scope_and_constants_stay_bit_for_bit() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 3)
            bias = torch.zeros(6)
            bias[0] = -torch.inf
            self.register_buffer("bias", bias)
            self.register_buffer("third", torch.full((6,), 1 / 3))

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.two(torch.softmax(self.one(x) * self.third + self.bias, 1))
            return found

    torch.manual_seed(0)
    network = captured(Masked(), 6)
    before = {name: item.clone() for name, item in network.state_dict().items()}
    config = dataclasses.replace(SGD, ema=0.9)
    train(network, config, Late(), only={"two.weight", "two.bias"})
    for name, item in network.state_dict().items():
        assert torch.equal(item, before[name]) == (not name.startswith("two")), name


def test_an_average_goes_on_from_a_snapshot() -> None:
    network = mlp()
    one = Averages(network, 0.7)

    def step() -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))

    for _ in range(12):
        step()
        one.update()
    other = Averages(network, 0.7)
    other.restore(one.snapshot())
    for _ in range(3):
        step()
        one.update()
        other.update()
    for name, item in one.weights().items():
        assert torch.equal(item, other.weights()[name])


def test_the_trained_weights_are_back_after_a_look_even_when_it_fails() -> None:
    network = mlp()
    averages = Averages(network, 0.9)
    with torch.no_grad():
        network.get_parameter("0.weight").add_(1.0)
    averages.update()
    trained = network.get_parameter("0.weight").clone()
    seen: list[Tensor] = []

    def look() -> None:
        with averages.shown():
            seen.append(network.get_parameter("0.weight").clone())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look()
    assert not torch.equal(seen[0], trained)
    assert torch.equal(network.get_parameter("0.weight"), trained)


def test_runs_with_an_average_repeat_bit_for_bit() -> None:
    found = []
    for _ in range(2):
        network = cnn()
        config = dataclasses.replace(SGD, ema=0.99)
        finetune(network, data_for(network), config, SilentReporter())
        found.append(network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
