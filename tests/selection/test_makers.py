"""Which layers make a group's values, and which only read them."""

from typing import Any

import pytest
import torch
from selection_making import Net, analyse
from torch import nn

from prunecli.selection.overrides import layers_of, makers_of


def raw(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


NETS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "transposed convolution": (
        lambda n, x: n.c(torch.relu(n.b(torch.relu(n.a(x))))),
        {"a": nn.Conv2d(3, 8, 3), "b": nn.ConvTranspose2d(8, 9, 2), "c": nn.Conv2d(9, 2, 1)},
        (3, 6, 6),
    ),
    "convolution": (
        lambda n, x: n.c(torch.relu(n.b(torch.relu(n.a(x))))),
        {"a": nn.Conv1d(3, 8, 3), "b": nn.Conv1d(8, 9, 1), "c": nn.Conv1d(9, 2, 1)},
        (3, 6),
    ),
    "matmul": (
        lambda n, x: torch.relu(torch.relu(x @ n.a) @ n.b) @ n.c,
        {"a": raw(5, 8), "b": raw(8, 9), "c": raw(9, 2)},
        (5,),
    ),
    "turned": (
        lambda n, x: torch.relu(torch.relu(x @ n.a.t()) @ n.b.t()) @ n.c.t(),
        {"a": raw(8, 5), "b": raw(9, 8), "c": raw(2, 9)},
        (5,),
    ),
    "mm": (
        lambda n, x: torch.mm(torch.relu(torch.mm(torch.relu(torch.mm(x, n.a)), n.b)), n.c),
        {"a": raw(5, 8), "b": raw(8, 9), "c": raw(9, 2)},
        (5,),
    ),
    "bilinear": (
        lambda n, x: n.c(torch.relu(n.b(torch.relu(n.a(x)), x))),
        {"a": nn.Linear(5, 8), "b": nn.Bilinear(8, 5, 9), "c": nn.Linear(9, 2)},
        (5,),
    ),
}


@pytest.mark.parametrize(("forward", "layers", "shape"), NETS.values(), ids=NETS)
def test_the_first_makes_and_the_second_reads(
    forward: Any, layers: dict[str, Any], shape: tuple[int, ...]
) -> None:
    case = analyse(Net(forward, **layers), shape)
    found = [
        (makers_of(case.coupling, group), set(layers_of(case.coupling, group)))
        for group in case.coupling.groups
    ]
    assert found == [(("a",), {"a", "b"}), (("b",), {"b", "c"})]


def test_what_adds_to_a_stream_makes_it() -> None:
    """An embedding, a raw vector, a norm and a recurrent layer."""

    def forward(n: Any, x: torch.Tensor) -> torch.Tensor:
        x = n.norm(n.a(x) + n.position)
        x = x + n.back(n.lstm(x)[0])
        return n.head(x.mean(1))

    net = Net(
        forward,
        a=nn.Linear(4, 10),
        position=raw(3, 10),
        norm=nn.LayerNorm(10),
        lstm=nn.LSTM(10, 7, batch_first=True),
        back=nn.Linear(7, 10),
        head=nn.Linear(10, 2),
    )
    case = analyse(net, (3, 4))
    found = {group.kind: set(makers_of(case.coupling, group)) for group in case.coupling.groups}
    inner = {
        f"lstm.{name}" for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    }
    assert found == {"channels": {"a", "position", "norm", "back"}, "hidden": inner}
