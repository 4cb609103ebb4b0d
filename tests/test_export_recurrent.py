"""Recurrent layers in the ONNX file: single nodes, and projections, which ONNX does not have."""

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves

from prunecli.export.onnx_file import make_exportable, write_onnx
from prunecli.export.projection import projected_lstm
from prunecli.export.verify import BATCHES, verify_outputs
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


class Sequence(nn.Module):
    """A recurrent layer over (N, T, 6), started as asked, all of whose results are outputs."""

    def __init__(self, layer: nn.Module, started: bool) -> None:
        super().__init__()
        self.layer = layer
        self.start = nn.Linear(6, self.sizes()[0]) if started else None

    def sizes(self) -> tuple[int, int]:
        return self.layer.proj_size or self.layer.hidden_size, self.layer.hidden_size

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.start is None:
            return tuple(tree_leaves(self.layer(x)))
        first = x[:, 0] if self.layer.batch_first else x[0]
        rows = self.layer.num_layers * (2 if self.layer.bidirectional else 1)
        state = self.start(first).expand(rows, -1, -1) * torch.arange(1.0, rows + 1)[:, None, None]
        cells = state.new_ones(rows, first.shape[0], self.sizes()[1])
        return tuple(tree_leaves(self.layer(x, (state, cells))))


def operators(net: nn.Module, path: Path) -> Counter[str]:
    """Writes `net` as ONNX, compares at two batch sizes, and counts the file's operators."""
    captured = capture(net, positional((torch.randn(2, 7, 6),)))
    made = make_exportable(captured.network, captured)
    write_onnx(made, path / "net.onnx", {})
    verified = verify_outputs(path / "net.onnx", net, made, 1e-5, 0)
    assert verified.batches == BATCHES
    return Counter(node.op_type for node in onnx.load(path / "net.onnx").graph.node)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("both_ways", [False, True])
def test_every_layer_is_one_node(layer: type[nn.Module], both_ways: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Sequence(layer(6, 8, 2, batch_first=True, bidirectional=both_ways), False)
    assert operators(net, tmp_path)[layer.__name__] == 2


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_projection_is_exported(
    bias: bool, both_ways: bool, started: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(6, 8, 2, bias, batch_first=True, bidirectional=both_ways, proj_size=3)
    found = operators(Sequence(layer, started), tmp_path)
    assert found["LSTM"] == 2
    assert not {"Loop", "Scan"} & set(found)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("both_ways", [False, True])
def test_the_form_without_projection_is_the_same_function(
    both_ways: bool, batch_first: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(6, 8, 3, batch_first=batch_first, bidirectional=both_ways, proj_size=3).double()
    rows = 6 if both_ways else 3
    x = torch.randn(4, 4, 6).double()
    states = torch.randn(rows, 4, 3).double(), torch.randn(rows, 4, 8).double()
    output, (last, cells) = layer(x, states)
    weights = [item.detach() for item in layer._flat_weights]
    found = projected_lstm(x, states, weights, True, 3, 0.0, False, both_ways, batch_first)
    for one, two in zip((output, last, cells), found, strict=True):
        assert torch.allclose(one, two, atol=1e-12)


class Packed(nn.Module):
    """Sequences (N, T, 6) that end where their first feature is below -1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lengths = ((x[:, :, 0] < -1).long().cumsum(1) == 0).sum(1).clamp(min=1)
        packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        seen, (last, _) = self.layer(packed)
        return pad_packed_sequence(seen, True, total_length=x.shape[1])[0], last


def test_packed_sequences_are_exported(tmp_path: Path) -> None:
    """Backwards, a sequence is turned by its own length, so each direction is a node."""
    torch.manual_seed(0)
    assert operators(Packed(), tmp_path)["LSTM"] == 4
