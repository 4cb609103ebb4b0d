"""Exchange of weights (RigL) against a search through all weights, one by one."""

import math
from collections.abc import Callable

import pytest
import torch
from tiny_training import ADAMW, SGD, Watcher, cnn, mlp, smallest, train, weight_names
from torch import Tensor
from torch.fx import GraphModule

from prunecli.choices import Curve
from prunecli.recovery.curves import decayed, updates
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.masking import Masks
from prunecli.recovery.regrowth import exchange
from prunecli.timing import Timing
from prunecli.tuning import TrainConfig

Make = Callable[[], GraphModule]


def by_search(mask: Tensor, weight: Tensor, gradient: Tensor, share: float) -> Tensor:
    """One weight after the other."""
    found = mask.clone().reshape(-1)
    stays, size, pull = mask.reshape(-1), weight.reshape(-1), gradient.reshape(-1)
    active = [i for i in range(len(stays)) if stays[i]]
    idle = [i for i in range(len(stays)) if not stays[i]]
    for _ in range(min(round(share * len(active)), len(idle))):
        worst = min(active, key=lambda i: (abs(float(size[i])), i))
        best = min(idle, key=lambda i: (-abs(float(pull[i])), i))
        active.remove(worst)
        idle.remove(best)
        found[worst], found[best] = False, True
    return found.reshape(mask.shape)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.33, 1.0])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_exchange_equals_a_search(share: float, sparsity: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((7, 9), (4, 3, 3, 3)):
        mask = torch.rand(shape, generator=generator) >= sparsity
        weight = torch.randn(shape, generator=generator).masked_fill(~mask, 0.0)
        gradient = torch.randn(shape, generator=generator)
        found = exchange(mask, weight, gradient, share)
        assert torch.equal(found, by_search(mask, weight, gradient, share))
        assert found.sum() == mask.sum()


def test_a_draw_goes_to_the_first() -> None:
    mask = torch.tensor([True, True, True, False, False, False])
    found = exchange(mask, torch.ones(6), torch.ones(6), 1 / 3)
    assert found.tolist() == [False, True, True, True, False, False]


def test_the_exchanged_share_falls_along_half_a_cosine() -> None:
    due = updates(100, Timing(begin=0.1, end=0.9, every=8))
    for step in due:
        expected = 0.3 / 2 * (1 + math.cos(math.pi * (step - 10) / 80))
        assert decayed(0.3, step, due) == pytest.approx(expected)
    assert decayed(0.3, 90, due) == pytest.approx(0.0, abs=1e-15)
    assert decayed(0.3, 0, {0: 1.0}) == pytest.approx(0.0, abs=1e-15)


class Dense(Watcher):
    """Before the masks: gradients are those of all weights. Weights before each step too."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[dict[str, Tensor]] = []

    def before_step(self, step: int, steps: int) -> None:
        super().before_step(step, steps)
        self.before.append({name: item.detach().clone() for name, item in self._named()})


class Momentum(Watcher):
    """After the masks: the optimizer's memory before each step."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[dict[str, list[Tensor]]] = []

    def before_step(self, step: int, steps: int) -> None:
        super().before_step(step, steps)
        state = self.setting.optimizer.state
        self.memory.append(
            {
                name: [
                    value.clone()
                    for value in state.get(item, {}).values()
                    if isinstance(value, Tensor) and value.shape == item.shape
                ]
                for name, item in self._named()
            }
        )


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("make", [mlp, cnn])
def test_constant_sparsity_with_exchange(make: Make, config: TrainConfig) -> None:
    """RigL: all is removed at the first update (`initial` 100%), then only exchanged."""
    network = make()
    choose = smallest(network, 0.7)

    def once(share: float, current: Masks) -> Masks:
        assert share == 1.0
        return current or choose(share, current)

    timing = Timing(initial=1.0, regrow=0.4, every=3, end=0.8)
    gradual, dense, after = Gradual(timing, once), Dense(), Momentum()
    train(network, config, dense, gradual, after)
    due = updates(18, timing)
    masks = {name: ~_smallest_share(dense.before[0][name], 0.7) for name in weight_names(network)}
    exchanged = 0
    for step in range(18):
        new = dict(masks)
        if step in due:
            share = 0.4 / 2 * (1 + math.cos(math.pi * step / max(due)))
            for name, mask in masks.items():
                weight = dense.before[step][name].masked_fill(~mask, 0.0)
                new[name] = by_search(mask, weight, dense.gradients[step][name], share)
                grown = new[name] & ~mask
                exchanged += int(grown.sum())
                for value in after.memory[step][name]:
                    assert not value[grown].any(), "momentum starts afresh"
                    assert not value[~new[name]].any()
                own = after.gradients[step][name]
                assert torch.equal(own[grown], dense.gradients[step][name][grown])
                if config is SGD and step:
                    moved = after.weights[step][name][grown]
                    # From zero, along Nesterov's first step.
                    expected = -after.rates[step] * 1.9 * dense.gradients[step][name][grown]
                    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-8)
        for name, mask in new.items():
            assert mask.sum() == masks[name].sum(), "sparsity of the tensor is constant"
            assert not after.weights[step][name][~mask].any()
            assert not after.gradients[step][name][~mask].any()
        masks = new
    assert exchanged > 20
    assert exchanged == sum(item.exchanged for item in gradual.history)
    for name, mask in masks.items():
        assert torch.equal(gradual.masks[name], mask)


def _smallest_share(weight: Tensor, share: float) -> Tensor:
    size = weight.abs().reshape(-1)
    gone = torch.zeros(size.numel(), dtype=torch.bool)
    gone[size.argsort(stable=True)[: round(share * size.numel())]] = True
    return gone.reshape(weight.shape)


def test_exchange_while_sparsity_rises() -> None:
    """As in GraNet: prune to the curve, then exchange; each tensor keeps its count."""
    network, watcher = cnn(), Watcher()
    timing = Timing(curve=Curve.LINEAR, regrow=0.5, every=2)
    gradual = Gradual(timing, smallest(network, 0.8))
    train(network, SGD, gradual, watcher)
    due = updates(18, timing)
    back = 0
    for step, weights in enumerate(watcher.weights):
        share = [own for when, own in due.items() if when <= step][-1]
        for name in weight_names(network):
            gone = weights[name] == 0
            assert int(gone.sum()) == round(share * 0.8 * gone.numel())
            if step:
                returned = (watcher.weights[step - 1][name] == 0) & ~gone
                assert step in due or not returned.any(), "only updates bring weights back"
                back += int(returned.sum())
    assert back > 20
    assert gradual.history[-1].exchanged == 0
    for name, mask in gradual.masks.items():
        assert torch.equal(network.get_parameter(name) != 0, mask)
