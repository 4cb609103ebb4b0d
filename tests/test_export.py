"""The ONNX file: what stands in it, and that a wrong one is found out."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from prunecli.errors import VerificationError
from prunecli.export.onnx_file import (
    Exportable,
    initializer_elements,
    make_exportable,
    write_onnx,
    write_program,
)
from prunecli.export.verify import BATCHES, verify_outputs, verify_shrunk
from prunecli.graph.capture import Captured, capture
from prunecli.graph.inputs import example_inputs

SHAPE = (1, 3, 6, 6)


class Net(nn.Module):
    """Two layers; `rows` fixes the batch that it takes."""

    def __init__(self, width: int = 8, rows: int = -1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.linear = nn.Linear(width * 16, 5)
        self.rows = rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).relu().reshape(self.rows, self.linear.in_features))


def captured(net: nn.Module) -> Captured:
    return capture(net, example_inputs(SHAPE))


def exportable(found: Captured) -> Exportable:
    return make_exportable(found.network, found)


@pytest.fixture
def net() -> Captured:
    torch.manual_seed(0)
    return captured(Net())


@pytest.fixture
def file(net: Captured, tmp_path: Path) -> Path:
    write_onnx(exportable(net), tmp_path / "net.onnx", {"made.by": "a test"})
    return tmp_path / "net.onnx"


def test_file_holds_the_weights_the_metadata_and_nothing_of_this_machine(file: Path) -> None:
    model = onnx.load(file, load_external_data=False)
    onnx.checker.check_model(model)
    assert {item.key: item.value for item in model.metadata_props} == {"made.by": "a test"}
    assert [path.name for path in file.parent.iterdir()] == [file.name], "weights are inside"
    assert initializer_elements(file) == 8 * 27 + 8 + 5 * 128 + 5
    assert b"/" + Path(__file__).parent.name.encode() + b"/" not in file.read_bytes()
    assert b"site-packages" not in file.read_bytes()


def test_correct_file_passes_on_two_batches_that_capture_did_not_use(
    net: Captured, file: Path
) -> None:
    found = verify_outputs(file, net.network, exportable(net), 1e-5, seed=0)
    assert found.difference < 1e-5
    assert found.batches == BATCHES
    assert net.inputs[0].shape[0] not in BATCHES


@pytest.mark.parametrize("change", [1e-2, float("nan"), float("inf")])
def test_one_wrong_weight_is_found(change: float, net: Captured, file: Path) -> None:
    model = onnx.load(file)
    [tensor] = [item for item in model.graph.initializer if list(item.dims) == [5]]
    bias = onnx.numpy_helper.to_array(tensor).copy()
    bias[3] += change
    tensor.CopyFrom(onnx.numpy_helper.from_array(bias, tensor.name))
    onnx.save(model, file)
    with pytest.raises(VerificationError) as caught:
        verify_outputs(file, net.network, exportable(net), 1e-4, seed=0)
    assert caught.value.exit_code == 1
    assert caught.value.message.startswith("export: onnxruntime and PyTorch differ by ")
    assert caught.value.message.endswith(", allowed are 1.0e-04")
    hint = "no file was written; if the difference is acceptable to you, raise --atol"
    assert caught.value.hint == hint


def test_output_of_another_shape_is_found(net: Captured, tmp_path: Path) -> None:
    other = captured(nn.Sequential(Net(), nn.Linear(5, 4)))
    write_onnx(exportable(other), tmp_path / "other.onnx", {})
    with pytest.raises(VerificationError, match="differ by inf"):
        verify_outputs(tmp_path / "other.onnx", net.network, exportable(net), 1e-4, seed=0)


def test_file_that_takes_one_batch_only_is_found(net: Captured, tmp_path: Path) -> None:
    fixed = captured(Net(rows=2))
    assert not fixed.dynamic_batch
    write_onnx(exportable(fixed), tmp_path / "fixed.onnx", {})
    verify_outputs(tmp_path / "fixed.onnx", fixed.network, exportable(fixed), 1e-4, seed=0)
    with pytest.raises(VerificationError) as caught:
        verify_outputs(tmp_path / "fixed.onnx", net.network, exportable(net), 1e-4, seed=0)
    message = "export: onnxruntime cannot run the file on a batch of 1: "
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("content", [b"", b"no onnx file"])
def test_file_that_cannot_be_loaded_is_found(content: bytes, net: Captured, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(VerificationError) as caught:
        verify_outputs(tmp_path / "bad.onnx", net.network, exportable(net), 1e-4, seed=0)
    assert caught.value.message.startswith("export: onnxruntime cannot load the file: ")


def test_file_that_did_not_shrink_is_found(file: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow.onnx"
    write_onnx(exportable(captured(Net(width=4))), narrow, {})
    sizes = (initializer_elements(file), initializer_elements(narrow))
    removed = sizes[0] - sizes[1]
    assert verify_shrunk(file, narrow, removed) == sizes
    with pytest.raises(VerificationError) as caught:
        verify_shrunk(file, file, removed)
    assert caught.value.message == (
        f"export: the file holds {sizes[0]} weights, the original's {sizes[0]}; the plan removes "
        f"{removed} parameters"
    )


def test_program_computes_the_same_after_a_round_trip(net: Captured, tmp_path: Path) -> None:
    write_program(exportable(net), tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()
    inputs = torch.randn(5, *SHAPE[1:])
    torch.testing.assert_close(again(inputs), net.network(inputs))


def test_free_axis_is_called_batch(file: Path) -> None:
    session = onnxruntime.InferenceSession(file)
    assert session.get_inputs()[0].shape == ["batch", *SHAPE[1:]]
    assert session.get_outputs()[0].shape == ["batch", 5]
    inputs = np.zeros((7, *SHAPE[1:]), dtype=np.float32)
    assert session.run(None, {session.get_inputs()[0].name: inputs})[0].shape == (7, 5)


class Windowed(nn.Module):
    """Attention (batch, heads, windows, tokens, width), as nested and windowed networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(3, 0, 4, 1, 2, 5).unbind(0)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return attended.permute(0, 2, 3, 1, 4).flatten(3)


def test_attention_over_windows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Windowed().eval()
    found = capture(net, example_inputs((1, 3, 5, 6)))
    write_onnx(exportable(found), tmp_path / "net.onnx", {})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for batch in (1, 4):
        x = torch.randn(batch, 3, 5, 6)
        (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            assert np.abs(net(x).numpy() - result).max() < 1e-5
