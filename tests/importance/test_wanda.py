"""What comes through a weight, for every operator that has weights.

Where an output is a sum of products, its derivative by a weight is what the weight multiplies:
the squares of all derivatives by it add up to the square of the norm. That needs no knowledge of
the operator.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunecli.choices import Criterion
from prunecli.errors import ModelError
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional
from prunecli.graph.maskable import maskables
from prunecli.graph.walk import walk
from prunecli.importance.calibration import Calibration
from prunecli.importance.weights import score_weights
from prunecli.progress import SilentReporter
from prunecli.removal import mixture
from prunecli.tasks import REGRESSION

EXAMPLES = 40
"""A whole batch and a rest, all of which count."""


class OneWeight(nn.Module):
    """A function of x and a weight of the given shape."""

    def __init__(self, shape: tuple[int, ...], function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.randn(6))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight, self.bias)


def in_parts(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Three projections stored as one, of different inputs."""
    one, two, three = w.chunk(3)
    return torch.cat([F.linear(x, one), F.linear(2 * x, two), F.linear(x - 1, three)], -1)


Row = tuple[tuple[int, ...], tuple[int, ...], Callable[[Tensor, Tensor, Tensor], Tensor]]

ROWS: dict[str, Row] = {
    "linear": ((5,), (6, 5), F.linear),
    "linear of tokens": ((4, 5), (6, 5), F.linear),
    "shared": ((5,), (6, 5), lambda x, w, b: torch.cat([F.linear(x, w), F.linear(x + 1, w, b)])),
    "in parts": ((4, 5), (6, 5), in_parts),
    "transposed view": ((5,), (5, 6), lambda x, w, b: F.linear(x, w.t(), b)),
    "addmm": ((5,), (5, 6), lambda x, w, b: torch.addmm(b, x, w)),
    "matmul": ((4, 5), (5, 6), lambda x, w, b: x @ w),
    "matmul, weight first": ((5, 4), (6, 5), lambda x, w, b: w @ x),
    "matmul, weight per head": ((3, 4, 5), (3, 5, 6), lambda x, w, b: x @ w),
    "matmul, one weight for heads": ((3, 4, 5), (1, 5, 6), lambda x, w, b: x @ w),
    "bmm": ((4, 5), (5, 6), lambda x, w, b: torch.bmm(x, w.expand(x.shape[0], 5, 6))),
    "einsum": ((3, 5), (3, 5, 6), lambda x, w, b: torch.einsum("bhi,hio->bho", x, w)),
    "einsum with dots": ((3, 5), (5, 6), lambda x, w, b: torch.einsum("...i,io->...o", x, w)),
    "einsum over two": ((3, 5), (3, 5, 6), lambda x, w, b: torch.einsum("bhi,hio->bo", x, w)),
    "conv1d": ((5, 7), (6, 5, 1), F.conv1d),
    "conv2d": ((4, 3, 3), (6, 4, 1, 1), F.conv2d),
    "grouped": ((4, 3, 3), (6, 2, 1, 1), lambda x, w, b: F.conv2d(x, w, b, groups=2)),
    "depthwise": ((6, 3, 3), (6, 1, 1, 1), lambda x, w, b: F.conv2d(x, w, b, groups=6)),
    "transposed": ((4, 3, 3), (4, 6, 1, 1), F.conv_transpose2d),
    "transposed, grouped": (
        (4, 3, 3), (4, 3, 1, 1), lambda x, w, b: F.conv_transpose2d(x, w, b, groups=2)
    ),
}  # fmt: skip


def scores(
    module: nn.Module, inputs: Tensor, criterion: Criterion = Criterion.WANDA, biases: bool = True
) -> dict[str, Tensor]:
    captured = capture(module, positional((inputs[:3],)))
    own = maskables(captured, walk(captured), biases=biases)
    calibration = Calibration((inputs,), (torch.zeros(len(inputs), 1),), REGRESSION)
    return dict(score_weights(captured, own, mixture(criterion), calibration, 0, SilentReporter()))


@pytest.mark.parametrize(("shape", "weight", "function"), ROWS.values(), ids=ROWS)
def test_products(
    shape: tuple[int, ...], weight: tuple[int, ...], function: Callable[..., Tensor]
) -> None:
    torch.manual_seed(0)
    module = OneWeight(weight, function).double()
    inputs = torch.randn(EXAMPLES, *shape, dtype=torch.float64)
    found = scores(module, inputs)
    assert "weight" in found
    for name, own in module.named_parameters():
        if name not in found:
            continue
        values = module(inputs).reshape(-1)
        each = torch.eye(values.numel(), dtype=torch.float64)
        (slopes,) = torch.autograd.grad(values, own, each, is_grads_batched=True)
        expected = own.detach().abs() * slopes.square().sum(0).sqrt()
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


def gru_steps(x: Tensor, layer: nn.GRU, end: str) -> tuple[Tensor, Tensor]:
    """Outputs of one direction by the equations of a GRU, and sums of squares of the states that
    it read."""
    own = {name: item.detach() for name, item in layer.named_parameters()}
    w, u, b, c = (own[f"{kind}_{end}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = torch.zeros(x.shape[0], u.shape[1], dtype=x.dtype)
    read, found = torch.zeros(u.shape[1], dtype=x.dtype), []
    for time in range(x.shape[1]):
        read = read + (h**2).sum(0)
        r, z, n = (x[:, time] @ w.T + b).chunk(3, 1)
        hr, hz, hn = (h @ u.T + c).chunk(3, 1)
        r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
        h = (1 - z) * (n + r * hn).tanh() + z * h
        found.append(h)
    return torch.stack(found, 1), read


class Gru(nn.Module):
    def __init__(self, layers: int, batch_first: bool) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 4, num_layers=layers, batch_first=batch_first)
        self.first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            return self.rnn(x)[0]
        return self.rnn(x.transpose(0, 1))[0].transpose(0, 1)


@pytest.mark.parametrize("batch_first", [True, False])
def test_gru(batch_first: bool) -> None:
    torch.manual_seed(0)
    module = Gru(2, batch_first).double()
    x = torch.randn(EXAMPLES, 6, 5, dtype=torch.float64)
    found = scores(module, x)
    for end in ("l0", "l1"):
        out, read = gru_steps(x, module.rnn, end)
        own = {name: item.detach().abs() for name, item in module.rnn.named_parameters()}
        norms = {
            "weight_ih": (x**2).sum((0, 1)).sqrt(),
            "weight_hh": read.sqrt(),
            "bias_ih": torch.tensor(6.0 * EXAMPLES).double().sqrt(),
        }
        for kind, norm in norms.items():
            torch.testing.assert_close(
                found[f"rnn.{kind}_{end}"], own[f"{kind}_{end}"] * norm, rtol=1e-6, atol=1e-9
            )
        x = out


def test_cells() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            h, c = self.cell(x[:, 0])
            return self.cell(x[:, 1], (h, c))[0]

    torch.manual_seed(0)
    module = Cell().double()
    x = torch.randn(EXAMPLES, 2, 5, dtype=torch.float64)
    with torch.no_grad():
        h, _ = module.cell(x[:, 0])
    found = scores(module, x)
    own = {name: item.detach().abs() for name, item in module.named_parameters()}
    norms = {
        "cell.weight_ih": (x**2).sum((0, 1)).sqrt(),
        "cell.weight_hh": (h**2).sum(0).sqrt(),
        "cell.bias_ih": torch.tensor(2.0 * EXAMPLES).double().sqrt(),
    }
    for name, norm in norms.items():
        torch.testing.assert_close(found[name], own[name] * norm, rtol=1e-9, atol=1e-12)


def test_scales_of_norms_read_ones() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6)).double()
    found = scores(module, torch.randn(EXAMPLES, 5, dtype=torch.float64))
    expected = module[1].weight.detach() * EXAMPLES**0.5
    torch.testing.assert_close(found["1.weight"], expected)


def test_what_cannot_be_seen_is_refused() -> None:
    module = OneWeight((6, 5, 5), lambda x, w, b: F.bilinear(x, x, w, b))
    with pytest.raises(ModelError, match=r"weight: wanda needs the inputs .* matrix product"):
        scores(module, torch.randn(EXAMPLES, 5))
