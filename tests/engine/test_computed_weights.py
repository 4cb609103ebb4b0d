"""Weights that the network computes from its parameters, such as standardised ones.

The expectation is the module itself with its parameters sliced by hand to what the plan keeps:
statistics are then those of the kept part.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from engine_harness import Net, Pruned, analyse, assert_same, channels, inputs_of, prune, shaken
from torch import Tensor, nn

from prunecli.choices import Criterion
from prunecli.surgery.oracle import check

IMAGES = ((3, 8, 8),)


def standardised(weight: Tensor, gain: Tensor) -> Tensor:
    flat = weight.reshape(1, weight.shape[0], -1)
    scaled = F.batch_norm(
        flat, None, None, weight=(gain * 0.3).view(-1), training=True, momentum=0.0
    )
    return scaled.reshape_as(weight)


def convolved(x: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
    return F.conv2d(
        x, standardised(weight, gain), padding="same", groups=x.size(1) // weight.size(1)
    )


def weights_of(*shape: int) -> dict[str, nn.Parameter]:
    return {
        "w": nn.Parameter(torch.zeros(shape)),
        "g": nn.Parameter(torch.zeros(shape[0], 1, 1, 1)),
    }


def network(*shape: int) -> nn.Module:
    """conv a -> standardised convolution -> conv b."""
    torch.manual_seed(0)
    return shaken(
        Net(
            lambda n, x: n.b(torch.relu(convolved(torch.relu(n.a(x)), n.w, n.g))),
            a=nn.Conv2d(3, 12, 3),
            b=nn.Conv2d(shape[0], 5, 1),
            **weights_of(*shape),
        )
    )


def sliced(module: nn.Module, pruned: Pruned) -> nn.Module:
    copied = copy.deepcopy(module)
    for name, axes in pruned.plan.tensors.items():
        path, _, leaf = name.rpartition(".")
        tensor = copied.get_parameter(name).detach()
        for axis, kept in axes.items():
            tensor = tensor.index_select(axis, torch.tensor(kept))
        setattr(copied.get_submodule(path), leaf, nn.Parameter(tensor))
    return copied


@pytest.mark.parametrize(
    ("shape", "goes"),
    [
        ((16, 12, 3, 3), {"a.weight": {0}, "w": {0, 1}, "g": {0}, "b.weight": {1}}),
        ((16, 12, 1, 1), {"a.weight": {0}, "w": {0, 1}, "g": {0}, "b.weight": {1}}),
        ((24, 6, 3, 3), {"a.weight": {0}, "w": {0, 1}, "g": {0}, "b.weight": {1}}),
        ((12, 1, 3, 3), {"a.weight": {0}, "w": {0}, "g": {0}, "b.weight": {1}}),
    ],
    ids=["plain", "pointwise", "two-groups", "depthwise"],
)
def test_standardised_convolution(shape: tuple[int, ...], goes: dict[str, set[int]]) -> None:
    module = network(*shape)
    found = analyse(module, IMAGES)
    went: dict[str, set[int]] = {}
    for share, seed in ((0.7, 0), (0.5, 1), (0.3, 2)):
        pruned = prune(found, channels(share), Criterion.RANDOM, seed)
        inputs = inputs_of(IMAGES, 5, seed=7)
        with torch.no_grad():
            assert_same(sliced(module, pruned)(*inputs), pruned.network(*inputs))
        assert check(found.captured, pruned.network, pruned.kept).worst <= 1e-4
        for name, axes in pruned.plan.tensors.items():
            went.setdefault(name, set()).update(axes)
    assert {name: went.get(name) for name in goes} == goes
    assert {layer for item in found.coupling.frozen for layer in item.layers} == {"a", "b"}


def test_instance_norm_over_an_axis_that_shrinks() -> None:
    """x (N, 6, 10) -> (N, 6, 16), normalised over the 16."""
    module = shaken(
        Net(
            lambda n, x: n.b(n.norm(n.a(x))),
            a=nn.Linear(10, 16),
            norm=nn.InstanceNorm1d(6, affine=True),
            b=nn.Linear(16, 4),
        )
    )
    found = analyse(module, ((6, 10),))
    pruned = prune(found, channels(0.5), Criterion.RANDOM)
    assert 1 <= len(pruned.plan.tensors["a.weight"][0]) < 16
    inputs = inputs_of(((6, 10),), 5, seed=7)
    with torch.no_grad():
        assert_same(sliced(module, pruned)(*inputs), pruned.network(*inputs))
    assert check(found.captured, pruned.network, pruned.kept).worst <= 1e-4
