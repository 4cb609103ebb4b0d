"""What real networks contain besides layers: unused heads, index buffers, infinities."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunecli.export.onnx_file import make_exportable, write_onnx
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional
from prunecli.surgery.oracle import relative
from zoo_check import apart, leaves, onnx_outputs
from zoo_entry import Entry, images
from zoo_run import run


class WithSideHead(nn.Module):
    """`side` runs in training only, as the auxiliary heads of googlenet do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.side = nn.Conv2d(4, 2, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x) + self.side(x) if self.training else self.head(x)


def test_parameters_of_training_are_dropped_and_statistics_stay() -> None:
    torch.manual_seed(0)
    model = WithSideHead()
    inputs = (torch.randn(2, 3, 8, 8),)
    network = capture(model, positional(inputs)).network
    assert {name for name, _ in network.named_parameters()} == {
        "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight", "head.bias"
    }  # fmt: skip
    assert {name for name, _ in network.named_buffers()} >= {
        "body.1.running_mean", "body.1.running_var"
    }  # fmt: skip
    assert torch.equal(network(*inputs), model(*inputs))
    assert hasattr(model, "side"), "the model itself is left alone"


class WithIndices(nn.Module):
    """Positions are looked up by a buffer of indices; nothing may cut the buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30, 16), nn.Embedding(12, 16)
        self.register_buffer("ids", torch.arange(12).unsqueeze(0))
        self.wide, self.head = nn.Linear(16, 32), nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(self.ids[:, : tokens.shape[1]])
        return self.head(torch.relu(self.wide(x)))


def tokens(model: nn.Module, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randint(0, 30, (batch, 8), generator=generator),)


def test_a_buffer_of_indices_is_not_cut() -> None:
    row = run("text", Entry("positions", WithIndices, tokens))
    assert (row.stage, row.why, row.status) == ("done", "", "ok")


class WithInfinity(nn.Module):
    """The logarithm of zero is infinite, and is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(6, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.wide(x))
        return self.head(torch.where(x > 0, torch.log(x), x))


def test_infinite_intermediate_values_are_compared() -> None:
    row = run("plain", Entry("infinity", WithInfinity, images(6)))
    assert (row.stage, row.why, row.status) == ("done", "", "ok")


def test_equal_infinities_are_equal_and_others_are_not() -> None:
    one = torch.tensor([1.0, -torch.inf, 2.0])
    assert relative(one, torch.tensor([1.0, -torch.inf, 1.0])) == 0.5
    assert relative(one, torch.tensor([1.0, torch.inf, 2.0])) == torch.inf
    assert relative(one, torch.tensor([1.0, 3.0, 2.0])) == torch.inf
    assert relative(one, torch.tensor([1.0, torch.nan, 2.0])) == torch.inf
    assert relative(torch.tensor([torch.nan]), torch.tensor([torch.nan])) == torch.inf


class WithBias(nn.Module):
    """Attention with a learned bias and a mask that depends on the input, merged by a reshape
    of its transposed result; whether that can be a view depends on the attention's path."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 64) for _ in range(3))
        self.out = nn.Linear(64, 3)
        self.bias = nn.Parameter(torch.randn(1, 4, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        query, key, value = (
            layer(x).view(batch, 6, 4, 16).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mask = torch.where(x[:, None, None, 0, :6] > -1.0, self.bias, -9.0)
        mixed = functional.scaled_dot_product_attention(query, key, value, mask)
        return self.out(mixed.reshape(batch, -1, 6, 16).transpose(1, 2).reshape(batch, 6, -1))


def test_attention_with_a_learned_bias_is_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    captured = capture(WithBias(), positional((torch.randn(2, 6, 16),)))
    exportable = make_exportable(captured.network, captured)
    write_onnx(exportable, tmp_path / "model.onnx", {})
    inputs = (torch.randn(3, 6, 16),)
    with torch.no_grad():
        expected = leaves(captured.network(*inputs))
    assert apart(expected, onnx_outputs(tmp_path / "model.onnx", inputs)) < 1e-5


class WithCosine(nn.Module):
    """Heads of unit length, as in Swin's second version: the norm is spread over the head."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(16, 64), nn.Linear(16, 64)
        self.out = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, value = self.query(x).view(-1, 6, 4, 16), self.value(x).view(-1, 6, 4, 16)
        return self.out((functional.normalize(query, dim=-1) * value).flatten(2))


def test_a_value_spread_over_removed_places_is_compared() -> None:
    row = run("text", Entry("cosine", WithCosine, images(6, 16)))
    assert (row.stage, row.why, row.status) == ("done", "", "ok")
