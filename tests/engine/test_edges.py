"""Situations that no row of the operator table shows: one channel left, a fixed batch, sizes that
depend on the data, layers that nothing reads."""

import numpy as np
import pytest
import torch
from engine_harness import (
    Net,
    analyse,
    assert_exact,
    assert_same,
    channels,
    choose,
    inputs_of,
    kept_of,
    macs,
    prune,
    scores,
    shaken,
    zeroed,
)
from engine_nets import IMAGES, fine_net, mlp
from torch import Tensor, nn

from prunecli.choices import Criterion
from prunecli.errors import ModelError
from prunecli.surgery.oracle import check


def head(reduce) -> nn.Module:
    return shaken(Net(lambda n, x: n.b(reduce(n.a(x))), a=nn.Conv2d(3, 12, 3), b=nn.Linear(12, 4)))


@pytest.mark.parametrize(
    "reduce",
    [
        lambda x: x.mean((2, 3), keepdim=True).squeeze(),
        lambda x: x.mean((2, 3)).squeeze(1),
        lambda x: x.mean((2, 3), keepdim=True).squeeze((1, 2, -1)),
    ],
    ids=["all", "one axis", "several axes"],
)
def test_a_channel_axis_of_which_one_is_left_is_not_squeezed(reduce) -> None:
    module = head(reduce)
    found = analyse(module, IMAGES)
    made = prune(found, channels(0.1))
    assert kept_of(made.plan, "a.weight").size == 1
    inputs = inputs_of(IMAGES, 5)
    assert_same(zeroed(module, made.plan)(*inputs), made.network(*inputs))
    check(found.captured, made.network, made.kept)


def test_one_channel_everywhere() -> None:
    module = mlp(10, 8, 8, 4)
    found = analyse(module, ((10,),))
    made = prune(found, channels(2 / 16))
    assert [group.kept for group in made.plan.groups] == [1, 1]
    assert_exact(module, ((10,),), found, made)


def test_a_fixed_batch_stays_fixed() -> None:
    module = head(lambda x: x.view(2, 12, 36).mean(2))
    found = analyse(module, IMAGES)
    assert not found.captured.dynamic_batch
    assert "batch 2 ships" in found.captured.notes[0]
    made = prune(found, channels(0.5))
    inputs = inputs_of(IMAGES, 2)
    assert_same(zeroed(module, made.plan)(*inputs), made.network(*inputs))
    check(found.captured, made.network, made.kept)


def test_sizes_that_depend_on_the_data_are_an_error_in_words() -> None:
    def repeated(x: Tensor) -> Tensor:
        return x.mean((2, 3)).repeat_interleave(torch.tensor([1] * 12), 1)

    with pytest.raises(ModelError) as raised:
        analyse(head(repeated), IMAGES)
    assert "a size inside the network depends on the values of its input" in raised.value.message
    assert raised.value.hint


def test_a_layer_that_nothing_reads_is_no_obstacle() -> None:
    module = mlp(10, 16, 4)
    module.register_module("unused", nn.Linear(7, 5))
    module.forward = lambda x: module[2](torch.relu(module[0](x)))  # type: ignore[method-assign]
    found = analyse(module, ((10,),))
    made = prune(found, channels(0.5))
    assert not any(name.startswith("unused") for name in made.plan.tensors)
    assert check(found.captured, made.network, made.kept).worst < 1e-5


def test_the_floor_keeps_the_best() -> None:
    found = analyse(mlp(10, 40, 40, 4), ((10,),))
    plan = choose(found, channels(0.05), Criterion.L2)
    own = scores(found, Criterion.L2)
    for group, name in zip(found.coupling.groups, ("0.weight", "2.weight"), strict=True):
        best = np.argsort(own[group.units])[-2:]
        assert kept_of(plan, name).tolist() == sorted(best.tolist())


def test_the_compact_network_is_a_copy() -> None:
    """Training it leaves the original alone, weights that were not cut included."""
    module = fine_net()
    found = analyse(module, IMAGES)
    before = {name: item.clone() for name, item in found.captured.network.state_dict().items()}
    made = prune(found, macs(0.5))
    for item in (*made.network.parameters(), *made.network.buffers()):
        item.data.fill_(0)
    after = found.captured.network.state_dict()
    assert all(torch.equal(item, after[name]) for name, item in before.items())


def test_shared_layers_stay_shared() -> None:
    module = shaken(
        Net(
            lambda n, x: n.b(torch.relu(n.m(torch.relu(n.m(n.a(x)))))),
            a=nn.Linear(10, 16),
            m=nn.Linear(16, 16),
            b=nn.Linear(16, 4),
        )
    )
    found = analyse(module, ((10,),))
    made = prune(found, channels(0.5))
    assert sum(item.numel() for item in made.network.parameters()) == 8 * 11 + 8 * 9 + 4 * 9
