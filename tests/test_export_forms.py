"""Convolutions with a computed number of groups: the form without it is the same function."""

from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunecli.export.onnx_file import make_exportable, write_onnx
from prunecli.export.products import multiplied_windows
from prunecli.export.verify import BATCHES, verify_outputs
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_windows_times_weights(groups: int, stride: int, padding: int, dilation: int) -> None:
    torch.manual_seed(0)
    x, bias = torch.randn(2, 12, 9, 8).double(), torch.randn(24).double()
    weight = torch.randn(24, 12 // groups, 3, 2).double()
    sizes = ([stride, 1], [padding, 1], [dilation, 1])
    expected = F.conv2d(x, weight, bias, *sizes, groups)
    assert torch.allclose(multiplied_windows(x, weight, bias, *sizes, groups), expected)
    line, taps = x[:, :, 0], weight[:, :, 0]
    expected = F.conv1d(line, taps, None, stride, padding, dilation, groups)
    found = multiplied_windows(line, taps, None, [stride], [padding], [dilation], groups)
    assert torch.allclose(found, expected)


class Dynamic(nn.Module):
    """Every example's kernel is computed from it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Linear(4, 6 * 4 * 9)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        weight = self.kernel(x.mean((2, 3))).view(batch * 6, 4, 3, 3)
        found = F.conv2d(x.reshape(1, batch * 4, 8, 8), weight, padding=1, groups=batch)
        return found.view(batch, 6, 8, 8)


def test_a_dynamic_convolution_is_exported_for_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Dynamic()
    captured = capture(net, positional((torch.randn(2, 4, 8, 8),)))
    made = make_exportable(captured.network, captured)
    write_onnx(made, tmp_path / "net.onnx", {})
    assert verify_outputs(tmp_path / "net.onnx", net, made, 1e-5, 0).batches == BATCHES
    assert "Conv" not in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
