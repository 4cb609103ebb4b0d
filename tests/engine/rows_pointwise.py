"""Rows: activations and other operators that work position by position."""

import torch
import torch.nn.functional as F
from engine_harness import Net, TwoInputs
from engine_rows import IMAGE, Row, mlp, pointwise, sandwich, stuck
from torch import nn

_ACTIVATIONS = (
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(), nn.CELU(), nn.SELU(),
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(),
    nn.Hardtanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardshrink(), nn.Softshrink(),
    nn.Tanhshrink(), nn.Softplus(), nn.Softsign(), nn.Threshold(0.1, 0.5), nn.Identity(),
)  # fmt: skip

ACTIVATIONS = (
    *(pointwise(f"act-{str(layer).split('(')[0]}-{place}", layer)
      for place, layer in enumerate(_ACTIVATIONS)),
    sandwich("rrelu", lambda n, x: n.p(x), layers=lambda: {"p": nn.RReLU()}),
    sandwich("prelu-1", lambda n, x: n.p(x), layers=lambda: {"p": nn.PReLU()}),
    sandwich("prelu-c", lambda n, x: n.p(x), layers=lambda: {"p": nn.PReLU(12)},
             goes=("a.weight", "p.weight")),
    mlp("prelu-mlp", lambda n, x: n.p(x), layers=lambda: {"p": nn.PReLU(16)}),
    sandwich("glu-channels", lambda n, x: F.glu(x, 1), after=6),
    mlp("glu-mlp", lambda n, x: F.glu(x), after=8),
    sandwich("glu-space", lambda n, x: F.glu(x, 2)),
    pointwise("dropouts", lambda x: F.dropout2d(F.dropout(F.alpha_dropout(x, training=False),
                                                          training=False), training=False)),
    mlp("feature-dropout", lambda n, x: F.feature_alpha_dropout(x, training=False)),
    stuck("softmax-channels", lambda n, x: x.softmax(1), "is normalised or accumulated over"),
    stuck("cumsum-channels", lambda n, x: x.cumsum(1), "is normalised or accumulated over"),
    pointwise("softmax-space", lambda x: x.softmax(-1)),
    pointwise("log-softmax-space", lambda x: F.log_softmax(x, 2)),
)  # fmt: skip


def two(name: str, join, **row) -> Row:
    """Two convolutions of the input, joined."""

    def make() -> nn.Module:
        return Net(
            lambda n, x: n.b(join(n.a(x), n.a2(x))),
            a=nn.Conv2d(3, 12, 3, padding=1),
            a2=nn.Conv2d(3, 12, 1),
            b=nn.Conv2d(12, 5, 1),
        )

    return Row(name, make, goes=("a.weight", "a2.weight"), **row)


ARITHMETIC = (
    two("add", lambda x, y: x + y),
    two("sub-alpha", lambda x, y: torch.sub(x, y, alpha=0.5)),
    two("mul", lambda x, y: x * y),
    two("div", lambda x, y: x / (y.abs() + 0.5)),
    two("maximum", torch.maximum),
    two("max-other", torch.max),
    two("min-other", torch.min),
    two("where", lambda x, y: torch.where(x > y, x, 0.5 * y)),
    two("lerp", lambda x, y: torch.lerp(x, y, 0.3)),
    two("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.5)),
    two("masked-fill", lambda x, y: x.masked_fill(y > 0, -1.0)),
    two("clamp-tensor", lambda x, y: torch.clamp(x, max=y)),
    two("in-place-add", lambda x, y: x.add_(y).relu_()),
    two("in-place-mul", lambda x, y: x.mul_(torch.sigmoid_(y))),
    two("bool", lambda x, y: x * ((x > 0) & ~(y < 0)).float()),
    pointwise("polynomial", lambda x: 0.5 * x.pow(2) - x.abs().sqrt() + 1),
    pointwise("rsub-rdiv", lambda x: (1 - x) / 3 + 2 / (1 + x * x)),
    pointwise("exp-log", lambda x: torch.log(1 + torch.exp(x)) + torch.erf(x).sin()),
    pointwise("clamp", lambda x: x.clamp(-0.5, 0.7).clamp_min(-0.2)),
    pointwise("casts", lambda x: x.double().to(torch.float32).type_as(x).contiguous().clone()),
    pointwise("like", lambda x: x + torch.ones_like(x) * 0.5 + torch.zeros_like(x)),
    pointwise("log-of-nothing", lambda x: torch.log(x.abs()), exact=False),
    pointwise("divided-by-itself", lambda x: x / x.abs().sum((2, 3), keepdim=True), exact=False),
    pointwise("nan-to-num", torch.nan_to_num),
    sandwich("scale-c11", lambda n, x: x * n.s, layers=lambda: {"s": nn.Parameter(
        torch.randn(12, 1, 1))}, goes=("a.weight", "s")),
    sandwich("scale-1c11", lambda n, x: x * n.s - n.t, layers=lambda: {
        "s": nn.Parameter(torch.randn(1, 12, 1, 1)), "t": nn.Parameter(torch.randn(12, 1, 1))}),
    sandwich("scale-full", lambda n, x: x * n.s, layers=lambda: {"s": nn.Parameter(
        torch.randn(12, 8, 8))}, goes=("a.weight", "s")),
    sandwich("scale-scalar", lambda n, x: x * n.s, layers=lambda: {"s": nn.Parameter(
        torch.randn(()))}),
    sandwich("scale-view", lambda n, x: x * n.s.view(1, -1, 1, 1) + n.s[:, None, None],
             layers=lambda: {"s": nn.Parameter(torch.randn(12))}, goes=("a.weight", "s")),
    sandwich("buffer-mask", lambda n, x: x * n.m, layers=lambda: {"m": torch.rand(1, 12, 1, 1)}),
    sandwich("constant", lambda n, x: x * torch.linspace(0.5, 2, 12).view(12, 1, 1),
             goes=(), stays={"a": "meets an axis that cannot shrink"}, macs=0.8),
    sandwich("divide-by-parameter", lambda n, x: x / n.s, layers=lambda: {"s": nn.Parameter(
        torch.rand(12, 1, 1) + 1)}, goes=("a.weight", "s"), exact=False),
    mlp("scale-mlp", lambda n, x: torch.relu(x) * n.s, layers=lambda: {"s": nn.Parameter(
        torch.randn(16))}, goes=("a.weight", "s")),
)  # fmt: skip


def _with_input(join):
    return lambda: TwoInputs(
        lambda n, x, y: n.b(join(n.a(x), y)),
        a=nn.Conv2d(3, 12, 3, padding=1),
        b=nn.Conv2d(12, 5, 1),
    )


INPUTS = (
    Row("input-gate", _with_input(lambda x, y: x * y), (IMAGE, (1, 8, 8))),
    Row("two-inputs", lambda: TwoInputs(
        lambda n, x, y: n.b(torch.relu(n.a(x)) + n.c(y)[:, :, None, None]),
        a=nn.Conv2d(3, 12, 3, padding=1), c=nn.Linear(7, 12), b=nn.Conv2d(12, 5, 1),
    ), (IMAGE, (7,)), goes=("a.weight", "c.weight")),
    Row("two-inputs-cat", lambda: TwoInputs(
        lambda n, x, y: n.b(torch.cat([n.a(x), y], 1).relu()),
        a=nn.Conv2d(3, 12, 3, padding=1), b=nn.Conv2d(14, 5, 1),
    ), (IMAGE, (2, 8, 8))),
    Row("input-added", lambda: TwoInputs(
        lambda n, x, y: n.c(n.b(torch.relu(n.a(x))) + y), a=nn.Conv2d(3, 12, 3, padding=1),
        b=nn.Conv2d(12, 4, 1), c=nn.Conv2d(4, 5, 1),
    ), (IMAGE, (4, 8, 8)), stays={"b": "meets the network's input"}, macs=0.8),
    Row("input-concatenated", lambda: Net(
        lambda n, x: n.b(torch.cat([x, torch.relu(n.a(x)), x], 1)),
        a=nn.Conv2d(3, 12, 3, padding=1), b=nn.Conv2d(18, 5, 3, padding=1),
    )),
    Row("input-changed-in-place", lambda: Net(
        lambda n, x: n.b(F.relu(n.a(x.add_(1).mul_(2)))), a=nn.Conv2d(3, 12, 3),
        b=nn.Conv2d(12, 4, 1))),
    Row("several-outputs", lambda: Net(
        lambda n, x: (n.b(n.a(x)), {"mean": n.c(n.a(x)).mean((2, 3))}),
        a=nn.Conv2d(3, 12, 3, padding=1), b=nn.Conv2d(12, 5, 1), c=nn.Conv2d(12, 4, 1),
    )),
    Row("features-are-outputs", lambda: Net(
        lambda n, x: (n.b(torch.relu(n.a(x))), n.c(torch.relu(n.b(torch.relu(n.a(x)))))),
        a=nn.Conv2d(3, 12, 3, padding=1), b=nn.Conv2d(12, 6, 1), c=nn.Conv2d(6, 4, 1),
    ), stays={"b": "network output"}, macs=0.8),
)  # fmt: skip

ROWS = (*ACTIVATIONS, *ARITHMETIC, *INPUTS)
