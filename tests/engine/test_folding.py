"""Weights that are computed from parameters: folded, and then pruned like any other.

The expectation is the same network with PyTorch's own removal of the parametrisation, whose
weights are then plain parameters; its removed entries are set to zero.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from engine_harness import Net, analyse, assert_exact, assert_same, inputs_of, macs, prune, shaken
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize

from prunecli.choices import Criterion
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional

IMAGE = ((3, 16),)


def net(make: Callable[[], nn.Module], forward=None) -> nn.Module:
    return shaken(
        Net(
            forward or (lambda n, x: n.b(torch.relu(n.m(torch.relu(n.a(x)))))),
            a=nn.Conv1d(3, 16, 3, padding=1),
            m=make(),
            b=nn.Conv1d(16, 5, 1),
        )
    )


def plain(module: nn.Module, forget: Callable[[nn.Module], object]) -> nn.Module:
    """The network (a fresh one) with an ordinary weight in `m`."""
    forget(module.m)
    return module.eval()


def conv(groups: int = 1) -> nn.Module:
    return nn.Conv1d(16, 16, 3, padding=1, groups=groups)


def transposed() -> nn.Module:
    return nn.ConvTranspose1d(16, 16, 4, 2, 1)


def unparametrised(layer: nn.Module) -> None:
    parametrize.remove_parametrizations(layer, "weight")


NORMS = {
    "weight-norm": (lambda: parametrizations.weight_norm(conv()), unparametrised, "weight norm"),
    "weight-norm-of-taps": (
        lambda: parametrizations.weight_norm(conv(4), dim=2),
        unparametrised,
        "weight norm",
    ),
    "weight-norm-transposed": (
        lambda: parametrizations.weight_norm(transposed()),
        unparametrised,
        "weight norm",
    ),
    "spectral-norm": (
        lambda: parametrizations.spectral_norm(conv()),
        unparametrised,
        "spectral norm",
    ),
    "old-weight-norm": (lambda: utils.weight_norm(conv()), utils.remove_weight_norm, "weight norm"),
    "old-spectral-norm": (
        lambda: utils.spectral_norm(transposed()),
        utils.remove_spectral_norm,
        "spectral norm",
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("name", NORMS)
def test_a_normed_weight_becomes_a_parameter_and_is_pruned(name: str) -> None:
    make, forget, said = NORMS[name]
    module = net(make)
    expected = plain(net(make), forget)
    found = analyse(module, IMAGE)
    assert found.captured.notes == (f"{said} folded into the weight of m",)
    assert not found.flow.notes.unknown
    held = dict(found.captured.network.named_parameters())
    assert set(held) == set(dict(expected.named_parameters()))
    assert_same(expected.m.weight, held["m.weight"])
    pruned = prune(found, macs(0.5), Criterion.RANDOM)
    assert_exact(expected, IMAGE, found, pruned)
    assert len(pruned.plan.tensors["m.weight"]) == 2


def test_the_network_itself_is_left_alone() -> None:
    module = net(lambda: parametrizations.weight_norm(conv()))
    before = {name: item.clone() for name, item in module.state_dict().items()}
    capture(module, positional(inputs_of(IMAGE, 2)))
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(item, before[name]) for name, item in after.items())


def test_a_layer_used_twice_keeps_one_weight() -> None:
    def twice() -> nn.Module:
        return net(
            lambda: parametrizations.weight_norm(conv()),
            lambda n, x: n.b(torch.relu(n.m(torch.relu(n.m(n.a(x)))))),
        )

    found = analyse(twice(), IMAGE)
    read = [str(node.target) for node in found.captured.network.graph.find_nodes(op="get_attr")]
    assert {name for name in read if name.startswith("m.")} == {"m.bias", "m.weight"}
    pruned = prune(found, macs(0.5), Criterion.RANDOM)
    assert_exact(plain(twice(), unparametrised), IMAGE, found, pruned)


def test_many_layers_share_one_note() -> None:
    normed = [parametrizations.weight_norm(conv()) for _ in range(5)]
    notes = analyse(net(lambda: nn.Sequential(*normed)), IMAGE).captured.notes
    assert notes == ("weight norm folded into the weight of m.0, m.1, m.2 and 2 more",)


def standardised(n: nn.Module, x: Tensor) -> Tensor:
    spread, mean = torch.std_mean(n.w, (1, 2), keepdim=True)
    return F.conv1d(x, (n.w - mean) / (spread + 1e-5))


def quantised(n: nn.Module, x: Tensor) -> Tensor:
    step = n.w.abs().max() / 7
    return F.conv1d(x, torch.round(n.w / step) * step)


def directions(n: nn.Module, x: Tensor) -> Tensor:
    return F.conv1d(x, 3 * F.normalize(n.w.flatten(1), dim=1).unflatten(1, (16, 3)))


def adapted(n: nn.Module, x: Tensor) -> Tensor:
    return F.conv1d(x, n.w + (n.u @ n.v).unflatten(1, (16, 3)))


@pytest.mark.parametrize("weight", [standardised, quantised, directions, adapted])
def test_other_computed_weights_are_folded(weight) -> None:
    module = shaken(
        Net(
            lambda n, x: n.b(torch.relu(weight(n, torch.relu(n.a(x))))),
            a=nn.Conv1d(3, 16, 3, padding=1),
            w=nn.Parameter(torch.randn(16, 16, 3)),
            u=nn.Parameter(torch.randn(16, 2)),
            v=nn.Parameter(torch.randn(2, 48)),
            b=nn.Conv1d(16, 5, 1),
        )
    )
    found = analyse(module, IMAGE)
    assert found.captured.notes == (
        "what is computed from parameters alone folded into the weight of w",
    )
    inputs = inputs_of(IMAGE, 5)
    assert_same(module(*inputs), found.captured.network(*inputs))
    pruned = prune(found, macs(0.5), Criterion.RANDOM)
    kept = pruned.plan.tensors["w"]
    assert set(kept) == {0, 1}
    # The oracle, from the eager network's own values at the kept indices.
    with torch.no_grad():
        hidden = torch.relu(module.a(*inputs))[:, list(kept[1])]
        own = dict(pruned.network.named_parameters())
        small = F.conv1d(hidden, own["w"])
        whole = weight(module, torch.relu(module.a(*inputs)) * stays(16, kept[1]))
        assert_same(whole[:, list(kept[0])], small)
        rest = module.b(torch.relu(whole) * stays(16, kept[0]))
        assert_same(rest, pruned.network(*inputs))


def stays(width: int, kept: tuple[int, ...]) -> Tensor:
    mask = torch.zeros(width, 1)
    mask[list(kept)] = 1.0
    return mask


def unfolded(forward, **layers) -> set[str]:
    module = shaken(Net(forward, a=nn.Linear(10, 16), **layers))
    captured = capture(module, positional(inputs_of(((6, 10),), 2)))
    assert captured.notes == ()
    return {name for name, _ in captured.network.named_parameters()}


def test_what_can_be_followed_is_not_folded() -> None:
    def square() -> Tensor:
        return nn.Parameter(torch.randn(16, 16))

    tied = unfolded(lambda n, x: F.linear(torch.relu(n.a(x)), n.a.weight.t()))
    assert tied == {"a.weight", "a.bias"}
    scaled = unfolded(lambda n, x: F.linear(n.a(x), n.w.mT * 0.3 + n.v), w=square(), v=square())
    assert scaled == {"a.weight", "a.bias", "w", "v"}
    # Read elsewhere as well: one tensor for both, so the norm stays in the graph.
    shared = unfolded(lambda n, x: F.linear(n.a(x) @ n.w, F.normalize(n.w)), w=square())
    assert "w" in shared
    # Smaller as it is: two thin factors.
    thin = unfolded(
        lambda n, x: F.linear(n.a(x), n.u @ n.v),
        u=nn.Parameter(torch.randn(16, 3)),
        v=nn.Parameter(torch.randn(3, 16)),
    )
    assert {"u", "v"} <= thin
    # Written into: not the same at every step.
    assert "w" in unfolded(lambda n, x: F.linear(n.a(x), F.normalize(n.w).mul_(2)), w=square())


def test_layers_that_work_on_parameters_stay_layers() -> None:
    """Learned queries pass through a norm and a projection before they meet the data."""

    def forward(n: nn.Module, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(n.q(n.norm(n.queries)), n.a(x), n.a(x))

    layers = {"queries": nn.Parameter(torch.randn(1, 5, 16)), "norm": nn.LayerNorm(16)}
    assert "q.weight" in unfolded(forward, **layers, q=nn.Linear(16, 16))
