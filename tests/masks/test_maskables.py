"""What counts as a weight, with its axes."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from engine_harness import Net, analyse

from prunecli.graph.maskable import maskables
from prunecli.graph.reading import Kind


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def tied() -> nn.Module:
    layer = nn.Linear(6, 6)
    return Net(lambda n, x: n.b(torch.relu(n.a(x))), a=layer, b=layer)


def tied_table() -> nn.Module:
    table = nn.Embedding(9, 6)
    head = nn.Linear(6, 9, bias=False)
    head.weight = table.weight
    return Net(lambda n, x: n.h(n.m(n.e(x.argmax(-1)))), e=table, m=nn.Linear(6, 6), h=head)


def cross(n, x):
    return n.a(n.q.expand(x.shape[0], -1, -1), x, x, need_weights=False)[0]


ROWS = {
    "mlp": (lambda: Net(lambda n, x: n.b(n.a(x)), a=nn.Linear(6, 5), b=nn.Linear(5, 4)), (6,), {
        "a.weight": (Kind.LINEAR, 1, 0, ("linear",)),
        "b.weight": (Kind.LINEAR, 1, 0, ("linear_1",))}),
    "conv": (lambda: Net(lambda n, x: n.d(n.c(n.b(n.n(n.a(x))))), a=nn.Conv2d(3, 8, 3),
                         n=nn.BatchNorm2d(8), b=nn.Conv2d(8, 8, 1, groups=2),
                         c=nn.Conv2d(8, 8, 3, groups=8), d=nn.ConvTranspose2d(8, 4, 2)),
             (3, 8, 8), {
        "a.weight": (Kind.CONVOLUTION, 1, 0, ("conv2d",)),
        "b.weight": (Kind.GROUPED, 1, 0, ("conv2d_1",)),
        "c.weight": (Kind.DEPTHWISE, 1, 0, ("conv2d_2",)),
        "d.weight": (Kind.TRANSPOSED, 0, 1, ("conv_transpose2d",))}),
    "products": (lambda: Net(
        lambda n, x: torch.einsum("bi,io->bo", torch.addmm(n.z, x @ n.p, n.q.t()), n.r) + n.v,
        p=parameter(6, 5), q=parameter(4, 5), z=parameter(4), r=parameter(4, 3),
        v=parameter(3)), (6,), {
        "p": (Kind.PRODUCT, 0, 1, ("matmul",)),
        "q": (Kind.PRODUCT, 1, 0, ("addmm",)),
        "r": (Kind.PRODUCT, 0, 1, ("einsum",))}),
    "permuted": (lambda: Net(
        lambda n, x: F.linear(x, n.w.permute(2, 0, 1).reshape(5, 6)) if False else
        torch.matmul(x.unsqueeze(1), n.w.permute(1, 2, 0)), w=parameter(5, 1, 6)), (1, 6), {
        "w": (Kind.PRODUCT, 2, 0, ("matmul",))}),
    "lstm": (lambda: Net(lambda n, x: n.c(n.a(x)[0]), a=nn.LSTM(3, 8, batch_first=True),
                         c=nn.Linear(8, 2)), (5, 3), {
        "a.weight_ih_l0": (Kind.RECURRENT, 1, 0, ("lstm",)),
        "a.weight_hh_l0": (Kind.RECURRENT, 1, 0, ("lstm",)),
        "c.weight": (Kind.LINEAR, 1, 0, ("linear",))}),
    "split": (lambda: Net(cross, a=nn.MultiheadAttention(8, 2, batch_first=True),
                          q=parameter(1, 3, 8)), (5, 8), {
        "a.in_proj_weight": (Kind.LINEAR, 1, 0, ("linear", "linear_1")),
        "a.out_proj.weight": (Kind.LINEAR, 1, 0, ("linear_2",))}),
    "tied": (tied, (6,), {"b.weight": (Kind.LINEAR, 1, 0, ("linear", "linear_1"))}),
    "tied-table": (tied_table, (4, 9), {"m.weight": (Kind.LINEAR, 1, 0, ("linear",))}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_weights_are_found_with_their_axes(name: str) -> None:
    make, shape, expected = ROWS[name]
    found = analyse(make(), (shape,))
    items = maskables(found.captured, found.flow)
    assert {
        item.name: (item.kind, item.input_axis, item.output_axis, item.readers) for item in items
    } == expected
    tensors = dict(found.captured.network.named_parameters(remove_duplicate=False))
    assert all(item.shape == tensors[item.name].shape for item in items)


def test_biases_and_norms_only_where_asked_for() -> None:
    net = Net(
        lambda n, x: n.b(n.n(n.a(x))) * n.s,
        a=nn.Linear(6, 5),
        n=nn.LayerNorm(5),
        b=nn.Linear(5, 4, bias=False),
        s=parameter(4),
    )
    found = analyse(net, ((6,),))
    plain = {item.name for item in maskables(found.captured, found.flow)}
    more = {item.name: item for item in maskables(found.captured, found.flow, biases=True)}
    assert plain == {"a.weight", "b.weight"}
    assert set(more) - plain == {"a.bias", "n.weight", "n.bias", "s"}
    assert {more[name].kind for name in set(more) - plain} == {Kind.VECTOR}
    assert more["n.weight"].layer == "n"
    assert more["a.bias"].input_axis is None
