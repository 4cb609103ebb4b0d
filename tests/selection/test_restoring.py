"""What was cut comes back with its old values, next to the trained ones."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from selection_making import Case, analyse, grouped, linked, macs, mlp, residual
from test_revising import Recurrent, depthwise
from torch import Tensor, fx, nn

from prunecli.errors import VerificationError
from prunecli.graph.cost import Keep
from prunecli.selection.plan import kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import Kept, make_kept
from prunecli.surgery.restoring import expanded


class Tied(nn.Module):
    """One matrix is used twice, and a constant scales channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.one, self.two, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.first = nn.Linear(5, 16)
        self.two.weight = self.one.weight
        self.register_buffer("scale", torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + torch.relu(self.two(torch.relu(self.one(x)))) * self.scale
        return self.last(x)


NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (lambda: mlp(6, 24, 18, 3), (6,)),
    "residual": (residual, (3, 8, 8)),
    "grouped": (lambda: grouped(4, 48), (3, 6, 6)),
    "blocks": (lambda: grouped(12, 24), (3, 6, 6)),
    "depthwise": (depthwise, (3, 9, 9)),
    "linked": (linked, (6, 10)),
    "lstm": (Recurrent, (4, 6)),
    "tied": (Tied, (5,)),
}


@pytest.fixture(scope="module", params=NETS)
def made(request: pytest.FixtureRequest) -> tuple[Case, tuple[int, ...]]:
    make, shape = NETS[request.param]
    module = make()
    for name, item in module.named_buffers():
        if item.is_floating_point():
            item.copy_(torch.rand(item.shape) + (0.5 if "var" in name else 0.0))
    return analyse(module, shape), shape


def kept_by(case: Case, share: float, seed: int = 1) -> Kept:
    return case.kept(macs(share).plan(case, case.scores(seed)))


def make(case: Case, keep: Keep) -> Kept:
    return make_kept(case.flow, case.coupling, keep)


def wider_than(case: Case, kept: Kept) -> Kept:
    """A plan between `kept` and everything."""
    plan = macs(0.85).plan(case, np.where(kept.keep[:-1], 1.0, case.scores(2) / 2))
    keep = kept_units(plan, case.coupling) | kept.keep[:-1]
    return make(case, keep)


def trained(network: fx.GraphModule) -> fx.GraphModule:
    """Every value is another one."""
    with torch.no_grad():
        for item in (*network.parameters(), *network.buffers()):
            item.copy_(item * 2 + 1)
    return network


def test_without_training_everything_is_the_original(made) -> None:
    case, shape = made
    kept = kept_by(case, 0.6)
    everything = make(case, np.ones(case.coupling.count, dtype=np.bool_))
    found = expanded(case.captured, compact(case.captured, kept), kept, everything)
    original = case.captured.network
    assert found.state_dict().keys() == original.state_dict().keys()
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name
    inputs = torch.randn((3, *shape), generator=torch.Generator().manual_seed(1))
    assert torch.equal(found(inputs), original(inputs))
    assert found.code == original.code


def test_trained_values_stay_and_the_rest_is_the_original(made) -> None:
    """Cutting what was given back away again leaves the trained network; what came back is what
    the original holds there."""
    case, _ = made
    kept = kept_by(case, 0.6)
    wider = wider_than(case, kept)
    assert wider.keep.sum() > kept.keep.sum()
    small = trained(compact(case.captured, kept))
    before = {name: item.clone() for name, item in small.state_dict().items()}
    found = expanded(case.captured, small, kept, wider)
    fresh = compact(case.captured, wider)
    all_ = trained(copy.deepcopy(fresh))
    for name, tensor in found.state_dict().items():
        old, new = fresh.state_dict()[name], all_.state_dict()[name]
        assert tensor.shape == old.shape
        assert ((tensor == old) | (tensor == new)).all(), name
        changed = int((tensor != old).sum())
        assert changed <= before[name].numel()
        if tensor.is_floating_point():
            # Values that a change of 2x + 1 leaves alone (-1) are not among random ones.
            assert changed == before[name].numel(), name
    # Exactly the places that the small network has: it comes out again.
    again = expanded(case.captured, small, kept, kept)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for name, item in small.state_dict().items():
        assert torch.equal(item, before[name])


def test_places_are_right_by_their_values() -> None:
    """Numbered weights: a restored matrix holds at each place its own number, marked if trained."""
    net = mlp(3, 8, 6, 2)
    for layer in (net[0], net[2], net[4]):
        layer.weight.data = torch.arange(float(layer.weight.numel())).reshape(layer.weight.shape)
    case = analyse(net, (3,))
    kept = kept_by(case, 0.5)
    small = compact(case.captured, kept)
    with torch.no_grad():
        for item in small.parameters():
            item.add_(1000.0)
    everything = make(case, np.ones(case.coupling.count, dtype=np.bool_))
    found = expanded(case.captured, small, kept, everything)
    rows = kept.keep[case.group("2")]
    columns = kept.keep[case.group("0")]
    expected = torch.arange(48.0).reshape(6, 8)
    for row in range(6):
        for column in range(8):
            if rows[row] and columns[column]:
                expected[row, column] += 1000.0
    assert torch.equal(found.get_parameter("2.weight"), expected)


def test_tied_tensors_stay_tied() -> None:
    """Under two names; capture itself leaves one of them."""
    case = analyse(Tied(), (5,))
    case.captured.network.one.weight = case.captured.network.two.weight
    kept = kept_by(case, 0.6)
    small = trained(compact(case.captured, kept))
    everything = make(case, np.ones(case.coupling.count, dtype=np.bool_))
    found = expanded(case.captured, small, kept, everything)
    names = dict(found.named_parameters(remove_duplicate=False))
    assert names["one.weight"] is names["two.weight"]
    columns = kept.keep[case.group("one")]
    assert torch.equal(names["two.weight"][columns][:, columns], small.get_parameter("two.weight"))
    assert [item.requires_grad for item in found.parameters()] == [
        item.requires_grad for item in case.captured.network.parameters()
    ]


def test_the_original_is_left_alone(made) -> None:
    case, _ = made
    before = {name: item.clone() for name, item in case.captured.network.state_dict().items()}
    kept = kept_by(case, 0.6)
    everything = make(case, np.ones(case.coupling.count, dtype=np.bool_))
    trained(expanded(case.captured, compact(case.captured, kept), kept, everything))
    for name, item in case.captured.network.state_dict().items():
        assert torch.equal(item, before[name])


def test_what_does_not_fit_is_refused() -> None:
    case = analyse(mlp(6, 24, 18, 3), (6,))
    kept, other = kept_by(case, 0.6), kept_by(case, 0.6, 9)
    small = compact(case.captured, kept)
    with pytest.raises(VerificationError, match="restore: the wider plan lacks units"):
        expanded(case.captured, small, kept, other)
    everything = make(case, np.ones(case.coupling.count, dtype=np.bool_))
    narrower = kept_by(case, 0.3)
    with pytest.raises(VerificationError, match="weight of the pruned network is not what its p"):
        expanded(case.captured, small, narrower, everything)
