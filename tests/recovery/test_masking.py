"""A masked weight is exactly zero after every step, whatever the optimizer does."""

import dataclasses
from collections.abc import Callable

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
    tied,
    train,
)
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils import prune

from prunecli.errors import ModelError
from prunecli.recovery.masking import HeldMasks, KeepMasks
from prunecli.tuning import TrainConfig

Make = Callable[[], GraphModule]


def bits(tensor: Tensor) -> Tensor:
    """Tells +0.0 from -0.0."""
    return tensor.contiguous().view(torch.int32)


def assert_masked(tensors: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    for name, mask in masks.items():
        assert not bits(tensors[name])[~mask].any(), name
        assert tensors[name][mask].abs().min() > 0, "the others live"


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("make", [mlp, cnn, tied])
def test_masked_weights_are_zero_after_every_step(make: Make, config: TrainConfig) -> None:
    network, watcher = make(), Watcher()
    masks = random_masks(network)
    if make is tied:
        masks["two.weight"] = masks["one.weight"]
    result = train(network, config, KeepMasks(masks), watcher)
    assert len(watcher.weights) == 18
    for weights in watcher.weights:
        assert_masked(weights, masks)
    assert result.best_epoch > 0
    assert_masked(dict(network.named_parameters(remove_duplicate=False)), masks)
    first = watcher.weights[0][next(iter(masks))]
    assert first.is_contiguous() != (make is cnn), "images run channels last"


def test_masks_hold_through_the_return_to_an_earlier_epoch() -> None:
    """The start is the best: it is masked too."""
    network = mlp()
    masks = random_masks(network)
    data = data_for(network)
    with torch.no_grad():
        for name, mask in masks.items():
            network.get_parameter(name).mul_(mask)
        parts = {
            part.name: dataclasses.replace(part, targets=(network(part.inputs[0]).argmax(1),))
            for part in (data.choose, data.validation)
        }
        for name, mask in masks.items():
            network.get_parameter(name).masked_fill_(~mask, -3.0)
    result = train(network, SGD, KeepMasks(masks), data=dataclasses.replace(data, **parts))
    assert (result.best_epoch, result.start) == (0, 1.0)
    assert_masked(dict(network.named_parameters()), masks)


def test_training_equals_torchs_own_masks() -> None:
    """`torch.nn.utils.prune` multiplies masks into the weights at every use."""
    network, data = mlp(), data_for(mlp())
    masks = random_masks(network)
    config = dataclasses.replace(SGD, epochs=1, batch_size=48)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3))
    prune.custom_from_mask(module[0], "weight", masks["0.weight"])
    prune.custom_from_mask(module[2], "weight", masks["2.weight"])
    nn.functional.cross_entropy(module(data.train.inputs[0]), data.train.targets[0]).backward()
    train(network, config, KeepMasks(masks))
    rate = 0.1 / 25  # the first step of the warm-up
    for place in (0, 2):
        start, mask = module[place].weight_orig, masks[f"{place}.weight"]
        assert start.grad is not None
        step = (start.grad + 0.01 * start * mask) * 1.9  # Nesterov's first step
        expected = (start * mask - rate * step * mask).detach()
        found = network.get_parameter(f"{place}.weight")
        torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-7)


def test_zeroed_gradients_alone_would_not_do() -> None:
    """What the mask on the weights is for: momentum from before the mask moves them."""
    network = mlp()
    masks = random_masks(network)

    class Late(Watcher):
        """Masks gradients from the third step on, and nothing else."""

        def before_step(self, step: int, steps: int) -> None:
            if step == 2:
                with torch.no_grad():
                    for name, mask in masks.items():
                        network.get_parameter(name).mul_(mask)
            if step >= 2:
                for name, mask in masks.items():
                    gradient = network.get_parameter(name).grad
                    assert gradient is not None
                    gradient.mul_(mask)

    late = Late()
    train(network, SGD, late)
    assert late.weights[-1]["0.weight"][~masks["0.weight"]].abs().max() > 1e-3


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_the_optimizer_forgets_what_was_masked(config: TrainConfig) -> None:
    network = mlp()
    masks = random_masks(network)
    checked: list[int] = []

    class Late(Watcher):
        """Masks in the middle of training."""

        def before_step(self, step: int, steps: int) -> None:
            if step != 5:
                return
            memory = self.setting.optimizer.state
            weight = network.get_parameter("0.weight")
            before = {name: item.clone() for name, item in memory[weight].items() if item.dim()}
            assert before
            HeldMasks(network, self.setting.optimizer).put(masks)
            for name, item in before.items():
                found, mask = memory[weight][name], masks["0.weight"]
                assert not found[~mask].any()
                assert torch.equal(found[mask], item[mask])
                assert item[~mask].any()
                checked.append(step)

    train(network, config, Late())
    assert checked


def test_weights_that_are_not_finite_become_zero() -> None:
    network = mlp()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    weight = network.get_parameter("0.weight")
    with torch.no_grad():
        weight[0, 0], weight[0, 1], weight[0, 2] = torch.nan, -torch.inf, -1.0
    mask = torch.ones(16, 6, dtype=torch.bool)
    mask[0] = False
    HeldMasks(network, optimizer).put({"0.weight": mask})
    assert not bits(weight.detach())[0].any()


def test_tied_weights_obey_the_masks_of_all_their_names() -> None:
    network = tied()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    one = torch.ones(6, 6, dtype=torch.bool)
    two = one.clone()
    one[0], two[:, 1] = False, False
    held = HeldMasks(network, optimizer)
    held.put({"one.weight": one, "two.weight": two})
    weight = network.get_parameter("two.weight")
    assert torch.equal(weight != 0, one & two)
    assert all(torch.equal(mask, one & two) for mask in held.masks.values())
    assert set(held.masks) == {"one.weight", "two.weight"}


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        pytest.param(
            "0.weight",
            torch.ones(6, 16, dtype=torch.bool),
            "masks: 0.weight needs bool (16, 6), got bool (6, 16)",
            id="shape",
        ),
        pytest.param(
            "0.weight",
            torch.ones(16, 6),
            "masks: 0.weight needs bool (16, 6), got float32 (16, 6)",
            id="dtype",
        ),
        pytest.param(
            "9.weight",
            torch.ones(2, 2, dtype=torch.bool),
            "masks: only parameters can be masked, got 9.weight",
            id="name",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(name: str, mask: Tensor, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        train(mlp(), SGD, KeepMasks({name: mask}))
    assert caught.value.message == message


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    def run(offset: int) -> list[Tensor]:
        network = cnn()
        torch.seed()
        train(network, SGD, KeepMasks(random_masks(network)), seed_offset=offset)
        return [item.detach() for item in network.parameters()]

    first, again, other = run(0), run(0), run(1)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_a_frozen_parameter_is_masked_too() -> None:
    module = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3))
    module[0].weight.requires_grad_(False)
    network = captured(module, 6)
    masks = random_masks(network)
    train(network, SGD, KeepMasks(masks))
    assert_masked(dict(network.named_parameters()), masks)
