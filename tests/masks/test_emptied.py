"""What masks have emptied goes, and nothing changes by it.

The expectation is the eager module with masked parameters. Which units go is written down by
hand.
"""

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from engine_harness import Net, analyse, assert_same, inputs_of, shaken

from prunecli.graph.maskable import maskables
from prunecli.importance.deviation import deviations
from prunecli.removal import Choosing, Threshold, WeightsWanted
from prunecli.selection.masks import choose_masks
from prunecli.surgery.kept import make_kept
from prunecli.surgery.masks import Emptied, apply_masks, compact_masked, dead_units, slice_masks


def masks_for(module: nn.Module, rows=None, columns=None) -> dict[str, Tensor]:
    """Zero rows (axis 0) and columns (axis 1) of parameters."""
    parameters = dict(module.named_parameters())
    masks: dict[str, Tensor] = {}
    for axis, wanted in ((0, rows or {}), (1, columns or {})):
        for name, places in wanted.items():
            shape = parameters[name].shape
            mask = masks.setdefault(name, torch.ones(shape, dtype=torch.bool))
            mask.index_fill_(axis, torch.tensor(places), False)
    return masks


def masked(module: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    copied = copy.deepcopy(module)
    parameters = dict(copied.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        parameters[name].data *= mask
    return copied.eval()


def emptied(module: nn.Module, shapes, masks: dict[str, Tensor]) -> Emptied:
    """Compacted, and compared with the eager masked module at other batches."""
    found = analyse(module, shapes)
    before = {name: item.clone() for name, item in module.state_dict().items()}
    result = compact_masked(found.captured, found.flow, found.coupling, masks)
    reference = masked(module, masks)
    for batch in (1, 5):
        inputs = inputs_of(shapes, batch, seed=3)
        with torch.no_grad():
            assert_same(reference(*inputs), result.network(*inputs), 1e-5)
    state = found.captured.network.state_dict()
    assert all(torch.equal(state[name], item) for name, item in before.items() if name in state)
    parameters = dict(result.network.named_parameters())
    for name, mask in result.masks.items():
        assert not parameters[name][~mask].any()
        assert mask.shape == parameters[name].shape
    return result


def widths(result: Emptied) -> dict[str, int]:
    return {
        name.removesuffix(".weight"): item.shape[0]
        for name, item in result.network.named_parameters()
        if name.endswith("weight")
    }


def mlp(bias: bool = True) -> nn.Module:
    return shaken(
        Net(
            lambda n, x: n.c(torch.relu(n.b(torch.relu(n.a(x))))),
            a=nn.Linear(6, 8, bias=bias),
            b=nn.Linear(8, 7, bias=bias),
            c=nn.Linear(7, 3, bias=bias),
        )
    )


def test_rows_without_a_bias_give_nothing() -> None:
    net = mlp(bias=False)
    result = emptied(net, ((6,),), masks_for(net, {"a.weight": [1, 2], "b.weight": [0]}))
    assert widths(result) == {"a": 6, "b": 6, "c": 3}
    assert (result.removed, result.folded, result.alive) == (3, 0, 0)
    assert not result.masks


def test_columns_that_nobody_reads_take_their_rows_along() -> None:
    net = mlp()
    masks = masks_for(net, columns={"b.weight": [1, 5], "c.weight": [0, 1]})
    assert widths(emptied(net, ((6,),), masks)) == {"a": 6, "b": 5, "c": 3}


def test_one_removal_leads_to_another() -> None:
    """Unit 3 of `a` is read by unit 2 of `b` only, which nobody reads."""
    net = mlp()
    masks = masks_for(net, columns={"b.weight": [3], "c.weight": [2]})
    masks["b.weight"][2, 3] = True
    assert widths(emptied(net, ((6,),), masks)) == {"a": 7, "b": 6, "c": 3}


def test_what_reads_only_nothing_is_nothing() -> None:
    """Unit 4 of `b` reads units 1 and 2 of `a`, which give nothing."""
    net = mlp(bias=False)
    masks = masks_for(net, {"a.weight": [1, 2], "b.weight": [4]})
    masks["b.weight"][4, 1:3] = True
    assert widths(emptied(net, ((6,),), masks)) == {"a": 6, "b": 6, "c": 3}


def test_constants_go_into_the_biases_of_what_reads_them() -> None:
    net = mlp()
    net.a.bias.data[1], net.a.bias.data[2] = 0.7, -0.7
    result = emptied(net, ((6,),), masks_for(net, {"a.weight": [1, 2]}))
    assert widths(result) == {"a": 6, "b": 7, "c": 3}
    assert (result.removed, result.folded) == (2, 1)


def test_without_a_bias_to_take_it_up_a_constant_stays() -> None:
    net = mlp()
    net.b = nn.Linear(8, 7, bias=False)
    net.a.bias.data[1], net.a.bias.data[2] = 0.7, -0.7
    result = emptied(net, ((6,),), masks_for(net, {"a.weight": [1, 2]}))
    assert (result.removed, result.folded, result.alive) == (1, 0, 1)


def test_dead_units_alone_leaves_constants() -> None:
    net = mlp()
    net.a.bias.data[1], net.a.bias.data[2] = 0.7, -0.7
    found = analyse(net, ((6,),))
    masks = masks_for(net, {"a.weight": [1, 2]})
    keep = dead_units(found.captured, found.flow, found.coupling, masks)
    assert int((~keep).sum()) == 1
    sliced = slice_masks(
        {"a.weight": torch.rand(8, 6) > 0.5}, make_kept(found.flow, found.coupling, keep)
    )
    assert sliced["a.weight"].shape == (7, 6)


def test_a_masked_bias_is_no_place_for_a_constant() -> None:
    net = mlp()
    net.a.bias.data[1] = 0.7
    masks = masks_for(net, {"a.weight": [1], "b.bias": [0]})
    result = emptied(net, ((6,),), masks)
    assert (result.removed, result.alive) == (0, 1)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.5])
def test_filters_before_a_batch_norm_leave_its_constant(padding: int, shift: float) -> None:
    """After the norm, an empty filter is beta - gamma * mean / sigma; relu may make that zero."""
    net = shaken(
        Net(
            lambda n, x: n.b(torch.relu(n.n(n.a(x)))),
            a=nn.Conv2d(3, 8, 3, bias=False),
            n=nn.BatchNorm2d(8),
            b=nn.Conv2d(8, 4, 3, padding=padding),
        )
    )
    net.n.running_mean[2:4] = 0.0
    net.n.bias.data[2:4] = shift
    result = emptied(net, ((3, 9, 9),), masks_for(net, {"a.weight": [2, 3]}))
    stays = shift > 0 and padding == 1
    assert widths(result)["a"] == (8 if stays else 6)
    assert (result.alive, result.folded) == ((2, 0) if stays else (0, 2 * (shift > 0)))


@pytest.mark.parametrize(("activation", "goes"), [(torch.tanh, True), (torch.sigmoid, False)])
def test_what_an_activation_makes_of_nothing(activation, goes: bool) -> None:
    net = shaken(
        Net(
            lambda n, x: n.b(activation(n.a(x))),
            a=nn.Conv2d(3, 6, 3, bias=False),
            b=nn.Conv2d(6, 4, 3, padding=1),
        )
    )
    result = emptied(net, ((3, 8, 8),), masks_for(net, {"a.weight": [1]}))
    assert widths(result)["a"] == (5 if goes else 6)


def residual(n, x):
    h = torch.relu(n.a(x))
    h = torch.relu(h + n.c(torch.relu(n.b(h))))
    return n.d(h.mean((2, 3)))


def test_a_stream_stays_while_one_of_its_writers_is_left() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return shaken(
            Net(
                residual,
                a=nn.Conv2d(3, 6, 3, bias=False),
                b=nn.Conv2d(6, 8, 3, padding=1, bias=False),
                c=nn.Conv2d(8, 6, 3, padding=1, bias=False),
                d=nn.Linear(6, 4),
            )
        )

    net = make()
    one = emptied(net, ((3, 8, 8),), masks_for(net, {"a.weight": [1, 2], "b.weight": [3]}))
    assert widths(one) == {"a": 6, "b": 7, "c": 6, "d": 4}
    both = masks_for(net, {"a.weight": [1, 2], "c.weight": [2, 3]})
    assert widths(emptied(net, ((3, 8, 8),), both)) == {"a": 5, "b": 8, "c": 5, "d": 4}


def test_grouped_convolutions_lose_equally_many_of_each_group() -> None:
    def make() -> nn.Module:
        return shaken(
            Net(
                lambda n, x: n.c(torch.relu(n.b(torch.relu(n.a(x))))),
                a=nn.Conv2d(3, 8, 3, bias=False),
                b=nn.Conv2d(8, 12, 3, groups=2, bias=False),
                c=nn.Conv2d(12, 4, 1),
            )
        )

    net = make()
    uneven = masks_for(net, {"a.weight": [0, 1, 5]})
    result = emptied(net, ((3, 8, 8),), uneven)
    assert (widths(result)["a"], result.removed, result.alive) == (6, 2, 1)
    outputs = masks_for(net, {"b.weight": [0, 1, 7, 8, 9]})
    assert widths(emptied(net, ((3, 8, 8),), outputs))["b"] == 8


def test_hidden_units_of_an_lstm_go_when_nobody_reads_them() -> None:
    net = shaken(
        Net(
            lambda n, x: n.c(n.a(x)[0]),
            a=nn.LSTM(3, 8, 2, batch_first=True),
            c=nn.Linear(8, 2),
        )
    )
    columns = {"a.weight_hh_l0": [1, 2], "a.weight_hh_l1": [1, 2], "a.weight_ih_l1": [1, 2]}
    result = emptied(net, ((5, 3),), masks_for(net, columns={**columns, "c.weight": [1, 3]}))
    assert result.removed == 1
    assert result.network.get_parameter("a.weight_hh_l1").shape == (28, 7)


def test_inputs_of_an_lstm_go_when_nothing_comes_in() -> None:
    net = shaken(
        Net(
            lambda n, x: n.c(n.r(torch.relu(n.a(x)))[0]),
            a=nn.Linear(4, 6, bias=False),
            r=nn.LSTM(6, 5, batch_first=True),
            c=nn.Linear(5, 2),
        )
    )
    result = emptied(net, ((5, 4),), masks_for(net, {"a.weight": [0, 4]}))
    assert result.network.get_parameter("r.weight_ih_l0").shape == (20, 4)


def attend(n, x):
    def heads(tensor: Tensor) -> Tensor:
        return tensor.reshape(x.shape[0], x.shape[1], 2, -1).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(heads(n.q(x)), heads(n.k(x)), heads(n.v(x)))
    return n.o(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


def attention() -> nn.Module:
    layers = {name: nn.Linear(6, 8) for name in "qkv"}
    return shaken(Net(attend, **layers, o=nn.Linear(8, 5)))


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        ((), {"o.weight": [0, 1, 2, 3]}, {"q": 8, "k": 8, "v": 8, "o": 5}),
        ((), {"o.weight": [0, 1, 2, 5]}, {"q": 8, "k": 8, "v": 6, "o": 5}),
        (("v.weight", "v.bias"), {}, {"q": 8, "k": 8, "v": 6, "o": 5}),
        (("q.weight", "q.bias"), {}, {"q": 6, "k": 6, "v": 8, "o": 5}),
        (("q.weight",), {}, {"q": 8, "k": 8, "v": 8, "o": 5}),
    ],
)
def test_heads_lose_equally_many_of_their_units(rows, columns, expected) -> None:
    net = attention()
    masks = masks_for(net, {name: [0, 5] for name in rows}, columns)
    assert widths(emptied(net, ((5, 6),), masks)) == expected


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.RMSNorm(8)])
def test_units_that_a_norm_looks_at_stay(norm: nn.Module) -> None:
    net = shaken(
        Net(
            lambda n, x: n.b(n.n(torch.relu(n.a(x)))),
            a=nn.Linear(6, 8, bias=False),
            n=norm,
            b=nn.Linear(8, 4),
        )
    )
    masks = masks_for(net, {"a.weight": [1, 5]}, {"b.weight": [1, 5]})
    assert emptied(net, ((6,),), masks).removed == 0


def test_never_all_of_an_axis() -> None:
    net = mlp(bias=False)
    result = emptied(net, ((6,),), masks_for(net, {"a.weight": list(range(8))}))
    assert widths(result)["a"] == 1
    assert set(result.masks) == {"a.weight"}


def test_the_worked_example() -> None:
    """[[.1, .2, .3], [.4, .5, .6], [.7, .8, .9]] with threshold 0.3: the last two rows stay."""
    weight = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    net = Net(
        lambda n, x: n.b(torch.relu(n.a(x))), a=nn.Linear(3, 3, bias=False), b=nn.Linear(3, 2)
    ).eval()
    net.a.weight.data = weight.clone()
    net.b.weight.data += 1.0
    found = analyse(net, ((3,),))
    items = maskables(found.captured, found.flow)
    scores = {item.name: net.get_parameter(item.name).detach().abs() for item in items}
    choosing = Choosing(threshold=Threshold(0.3))
    masks = choose_masks(scores, items, WeightsWanted(), choosing).masks
    assert masks["a.weight"].tolist() == [[False] * 3, [True] * 3, [True] * 3]
    result = emptied(net, ((3,),), dict(masks))
    assert torch.equal(result.network.get_parameter("a.weight"), weight[1:])


def test_deviations_are_those_of_what_is_left() -> None:
    net = mlp()
    found = analyse(net, ((6,),))
    items = maskables(found.captured, found.flow)
    mask = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) > 0.4
    spread = deviations(found.captured.network, items, {"a.weight": mask})
    for name, weights in (("a.weight", net.a.weight[mask]), ("b.weight", net.b.weight)):
        values = weights.flatten().tolist()
        mean = sum(values) / len(values)
        expected = (sum((x - mean) ** 2 for x in values) / len(values)) ** 0.5
        assert spread[name] == pytest.approx(expected, rel=1e-6)


def test_masks_reach_every_name_of_a_tensor() -> None:
    layer = nn.Linear(6, 6)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    net[2].weight = nn.Parameter(layer.weight.data)
    weights = [layer.weight, net[2].weight]
    apply_masks(net, {"0.weight": torch.eye(6) > 0})
    for weight in weights:
        assert torch.equal(weight != 0, torch.eye(6) > 0)


@pytest.mark.parametrize("read_old", [False, True])
def test_what_is_written_in_place_is_no_constant(read_old: bool) -> None:
    """What an empty filter gives is overwritten before it is read, also under its old name."""

    def forward(n, x):
        h = n.a(x)
        g = h.add_(n.d(x))
        return n.b(torch.relu(h if read_old else g))

    net = shaken(
        Net(
            forward,
            a=nn.Conv2d(3, 6, 3, bias=False),
            d=nn.Conv2d(3, 6, 3, bias=False),
            b=nn.Conv2d(6, 4, 1),
        )
    )
    assert emptied(net, ((3, 8, 8),), masks_for(net, {"a.weight": [1, 2]})).removed == 0
    both = masks_for(net, {"a.weight": [1, 2], "d.weight": [2, 3]})
    assert emptied(net, ((3, 8, 8),), both).removed == 1


def test_where_answers_are_no_numbers_everything_stays() -> None:
    """The logarithm of an empty filter is infinite, and zero times that is no number."""
    net = shaken(
        Net(
            lambda n, x: n.b(torch.log(torch.relu(n.a(x)))),
            a=nn.Conv2d(3, 6, 3, bias=False),
            b=nn.Conv2d(6, 4, 1),
        )
    )
    masks = masks_for(net, {"a.weight": [1, 2]}, {"b.weight": [1, 2]})
    found = analyse(net, ((3, 8, 8),))
    result = compact_masked(found.captured, found.flow, found.coupling, masks)
    assert (result.removed, result.alive) == (0, 2)
