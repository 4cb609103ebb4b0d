"""The oracle finds every wrong compaction, and names the node at which it starts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_harness import Analysis, Net, Pruned, analyse, carry_out, channels, prune, shaken
from torch import Tensor, fx, nn

from prunecli.choices import Criterion
from prunecli.errors import VerificationError
from prunecli.graph import vanishing
from prunecli.selection.plan import Plan
from prunecli.surgery.oracle import check, compare, relative

SHAPES = ((3, 8, 8),)


def _forward(n: Net, x: Tensor, hide: Callable[[Tensor], Tensor]) -> Tensor:
    x = F.relu(n.bn(n.a(x)))
    left, right = x.chunk(2, 1)
    x = torch.cat([right, left], 1)
    x = n.g(x).view(-1, 3, 8, 8, 8).transpose(1, 2).flatten(1, 2)
    x = hide(F.pad(n.b(x[:, 2:]), (0, 0, 0, 0, 2, 1)))
    return n.c(n.ln(x.mean((2, 3))))


def network(hide: Callable[[Tensor], Tensor] = torch.tanh) -> nn.Module:
    """conv a, bn, halves swapped, grouped conv g, shuffle, cut, conv b, padded, `hide`, norm, c."""
    return shaken(
        Net(
            lambda n, x: _forward(n, x, hide),
            a=nn.Conv2d(3, 24, 3, padding=1),
            bn=nn.BatchNorm2d(24),
            g=nn.Conv2d(24, 24, 3, padding=1, groups=3),
            b=nn.Conv2d(22, 12, 3, padding=1),
            ln=nn.LayerNorm(15),
            c=nn.Linear(15, 4),
        )
    )


def pruned(module: nn.Module) -> tuple[Analysis, Pruned]:
    found = analyse(module, SHAPES)
    return found, prune(found, channels(0.6), Criterion.RANDOM, 3)


@pytest.fixture(scope="module")
def analysis() -> tuple[nn.Module, Analysis, Plan]:
    module = network()
    found, made = pruned(module)
    return module, found, made.plan


def weight(compact: fx.GraphModule, name: str) -> Tensor:
    return compact.get_parameter(name).data


def node(compact: fx.GraphModule, operator: str, nth: int = 0) -> fx.Node:
    """The nth call of an ATen operator."""
    return [item for item in compact.graph.nodes if f"aten.{operator}." in str(item.target)][nth]


def change(item: fx.Node, place: int, edit: Callable[[Any], Any]) -> None:
    item.update_arg(place, edit(item.args[place]))


def swap(tensor: Tensor, axis: int) -> None:
    order = torch.arange(tensor.shape[axis])
    order[:2] = torch.tensor([1, 0])
    tensor.copy_(tensor.index_select(axis, order).clone())


def bump(tensor: Tensor) -> None:
    tensor.view(-1)[0] += 0.01 * float(tensor.abs().max())


def wrong_channel(compact: fx.GraphModule, original: nn.Module, plan: Any) -> None:
    """The first filter of a is replaced by one that was removed."""
    kept = plan.tensors["a.weight"][0]
    gone = next(place for place in range(24) if place not in kept)
    weight(compact, "a.weight")[0] = original.get_parameter("a.weight").data[gone]


# name -> (what is done to the compact graph, node that must be named first)
WEIGHTS: dict[str, tuple[Callable[[fx.GraphModule], None], str]] = {
    "two inputs of b swapped": (lambda g: swap(weight(g, "b.weight"), 1), "conv2d_2"),
    "two outputs of a swapped": (lambda g: swap(weight(g, "a.weight"), 0), "conv2d"),
    "two inputs of g swapped": (lambda g: swap(weight(g, "g.weight"), 1), "conv2d_1"),
    "two inputs of c swapped": (lambda g: swap(weight(g, "c.weight"), 1), "linear"),
    "two statistics swapped": (lambda g: swap(g.get_buffer("bn.running_mean"), 0), "batch_norm"),
    "two biases swapped": (lambda g: swap(weight(g, "b.bias"), 0), "conv2d_2"),
    "two norm weights swapped": (lambda g: swap(weight(g, "ln.weight"), 0), "layer_norm"),
    "a perturbed": (lambda g: bump(weight(g, "a.weight")), "conv2d"),
    "b perturbed": (lambda g: bump(weight(g, "b.weight")), "conv2d_2"),
    "c perturbed": (lambda g: bump(weight(g, "c.weight")), "linear"),
    "b not a number": (lambda g: weight(g, "b.weight").fill_(float("nan")), "conv2d_2"),
}


@pytest.mark.parametrize(("mutate", "named"), WEIGHTS.values(), ids=WEIGHTS)
def test_wrong_weights_are_found(
    analysis: Any, mutate: Callable[[fx.GraphModule], None], named: str
) -> None:
    _, found, plan = analysis
    made = carry_out(found, plan)
    assert check(found.captured, made.network, made.kept).worst < 1e-5
    mutate(made.network)
    with pytest.raises(VerificationError, match=f"first at {named},") as raised:
        check(found.captured, made.network, made.kept)
    assert raised.value.exit_code == 1
    assert raised.value.hint == (
        "this is a bug in prunecli: please report it with the model and the plan"
    )


def test_a_wrong_channel_is_found(analysis: Any) -> None:
    module, found, plan = analysis
    made = carry_out(found, plan)
    wrong_channel(made.network, module, made.plan)
    with pytest.raises(VerificationError, match="first at conv2d, worst at"):
        check(found.captured, made.network, made.kept)


# As above. The graph still runs, with another meaning, or cannot run at all.
CONSTANTS: dict[str, tuple[Callable[[fx.GraphModule], None], str]] = {
    "groups": (
        lambda g: change(node(g, "conv2d", 1), 6, lambda n: n + 1),
        "conv2d_1, and cannot",
    ),
    "no groups": (
        lambda g: change(node(g, "conv2d", 1), 6, lambda n: 1),
        "conv2d_1, and cannot",
    ),
    "lengths of halves": (
        lambda g: change(node(g, "split_with_sizes"), 1, lambda n: [n[0] + 1, n[1] - 1]),
        "chunk",
    ),
    "rows and columns": (
        lambda g: change(node(g, "view"), 1, lambda n: [n[0], n[2], n[1], *n[3:]]),
        "view",
    ),
    "a size": (
        lambda g: change(node(g, "view"), 1, lambda n: [*n[:2], n[2] + 1, *n[3:]]),
        "view, and cannot",
    ),
    "start of the cut": (
        lambda g: change(node(g, "slice", 1), 2, lambda n: n + 1),
        "slice_2, and cannot compute conv2d_2: ",
    ),
    "padding": (
        lambda g: change(node(g, "pad"), 1, lambda n: [*n[:4], n[4] + 1, n[5] - 1]),
        "pad",
    ),
    "normalized shape": (
        lambda g: change(node(g, "layer_norm"), 1, lambda n: [n[0] - 1]),
        "layer_norm, and cannot",
    ),
    "epsilon": (lambda g: change(node(g, "layer_norm"), 4, lambda n: 0.1), "layer_norm"),
    "stride": (lambda g: change(node(g, "conv2d", 2), 3, lambda n: [2, 2]), "conv2d_2"),
}


@pytest.mark.parametrize(("mutate", "said"), CONSTANTS.values(), ids=CONSTANTS)
def test_wrong_constants_are_found(
    analysis: Any, mutate: Callable[[fx.GraphModule], None], said: str
) -> None:
    _, found, plan = analysis
    made = carry_out(found, plan)
    mutate(made.network)
    with pytest.raises(VerificationError, match=f"first at {said}"):
        check(found.captured, made.network, made.kept)


@pytest.mark.parametrize(
    "hide",
    [lambda x: 0.0 * x, lambda x: F.relu(x - 1e3), lambda x: x.clamp(50, 60)],
    ids=["zero", "dead", "saturated"],
)
def test_later_layers_hide_nothing(hide: Callable[[Tensor], Tensor]) -> None:
    found, made = pruned(network(hide))
    right = made.network(*found.captured.inputs)
    weight(made.network, "g.weight")[0, 0] += 0.01
    assert torch.equal(made.network(*found.captured.inputs), right)
    with pytest.raises(VerificationError, match=r"first at conv2d_1, .*output 0\.0e\+00"):
        check(found.captured, made.network, made.kept)


def test_a_change_below_rounding_is_no_bug(analysis: Any) -> None:
    _, found, plan = analysis
    made = carry_out(found, plan)
    weight(made.network, "b.weight").mul_(1 + 1e-6)
    assert check(found.captured, made.network, made.kept).worst < 1e-5


def test_double_precision_leaves_nothing_to_explain(analysis: Any) -> None:
    _, found, plan = analysis
    made = carry_out(found, plan)
    result = compare(found.captured, made.network, made.kept, torch.float64)
    assert result.precision == "float64"
    assert result.first == ""
    assert max(result.difference, result.worst) < 1e-12


def test_the_check_leaves_both_networks_and_the_inputs_alone() -> None:
    module = shaken(
        Net(
            lambda n, x: n.b(n.s.view(1, -1, 1, 1) * F.relu(n.a(x.add_(1.0)))),
            a=nn.Conv2d(3, 12, 3),
            b=nn.Conv2d(12, 4, 1),
            s=torch.randn(12),
        )
    )
    found = analyse(module, SHAPES)
    made = prune(found, channels(0.5))
    before = [
        {name: tensor.clone() for name, tensor in item.state_dict().items()}
        for item in (found.captured.network, made.network)
    ]
    inputs = [item.clone() for item in found.captured.inputs]
    check(found.captured, made.network, made.kept)
    for item, old in zip((found.captured.network, made.network), before, strict=True):
        assert all(torch.equal(tensor, old[name]) for name, tensor in item.state_dict().items())
    assert all(map(torch.equal, found.captured.inputs, inputs))


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([2.0, -4.0], [2.0, -4.0], 0.0),
        ([2.0, -4.0], [2.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([2.0, 4.0], [2.0], float("inf")),
        ([2.0, 4.0], [2.0, float("nan")], float("inf")),
        ([], [], 0.0),
        ([True, False], [True, False], 0.0),
        ([True, False], [True, True], float("inf")),
        ([3, 4], [3, 5], float("inf")),
    ],
)
def test_relative_difference(expected: list[Any], found: list[Any], difference: float) -> None:
    assert relative(torch.tensor(expected), torch.tensor(found)) == difference


def test_a_network_that_casts_is_compared_in_double_precision_too() -> None:
    module = shaken(
        Net(
            lambda n, x: n.b(n.a(x).to(torch.float32) * torch.ones(1, dtype=torch.float32)),
            a=nn.Linear(10, 16),
            b=nn.Linear(16, 4),
        )
    )
    found = analyse(module, ((10,),))
    made = prune(found, channels(0.5))
    assert compare(found.captured, made.network, made.kept, torch.float64).worst < 1e-12


def test_a_wrong_claim_that_something_vanishes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over what is not zero where it goes: blanking hides it, so the claim is looked at."""
    monkeypatch.setitem(vanishing._TESTS, "sigmoid", vanishing._first)
    module = shaken(
        Net(
            lambda n, x: n.b(torch.sigmoid(n.a(x)).mean(1).flatten(1)),
            a=nn.Conv2d(3, 12, 1),
            b=nn.Linear(64, 4),
        )
    )
    found, made = pruned(module)
    with pytest.raises(VerificationError, match="sigmoid is not zero where it was to vanish"):
        check(found.captured, made.network, made.kept)
