"""Packed weights: the same values, the same network once loaded, fewer bytes."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from prunecli.choices import Storage
from prunecli.errors import ModelError, VerificationError
from prunecli.export.onnx_file import (
    initializer_elements,
    make_exportable,
    nonzero_weights,
    stored_bytes,
    write_onnx,
)
from prunecli.export.sparse_storage import compress, count_nonzero, expanded
from prunecli.export.verify import verify_masked, verify_outputs, verify_shrunk
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional

Array = NDArray[Any]
Level = onnxruntime.GraphOptimizationLevel


def sparse(shape: tuple[int, ...], zeros: float, dtype: Any = np.float32) -> Array:
    """Random values of which about the given share is zero."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=shape).astype(dtype)
    return np.where(generator.random(shape) < zeros, np.zeros((), dtype), values)


def holding(*weights: Array, opset: int = 20) -> onnx.ModelProto:
    """A model with these weights `w0`, `w1`, ..., each of which is an output too (`y0`, ...)."""
    nodes, outputs = [], []
    for place, weight in enumerate(weights):
        nodes.append(helper.make_node("Identity", [f"w{place}"], [f"y{place}"]))
        kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
        outputs.append(helper.make_tensor_value_info(f"y{place}", kind, weight.shape))
    stored = [numpy_helper.from_array(item, f"w{place}") for place, item in enumerate(weights)]
    graph = helper.make_graph(nodes, "weights", [], outputs, stored)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(model: bytes | Path, level: Level, saved: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def as_loaded(path: Path, level: Level) -> Counter[str]:
    """The operators that are left of a file once it is loaded."""
    saved = path.with_suffix(f".{level.name}.onnx")
    session(path, level, saved)
    return Counter(node.op_type for node in onnx.load(saved).graph.node)


def bits(array: Array) -> bytes:
    return array.tobytes()


SHAPES = [
    *((), (1,), (7,), (1001,), (8, 8), (64, 48), (63, 65), (16, 3, 3, 3), (33, 5, 3)),
    *((2, 64, 17), (1, 1, 1, 999)),
]


@pytest.mark.parametrize("zeros", [0.0, 0.3, 0.5, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("level", [Level.ORT_DISABLE_ALL, Level.ORT_ENABLE_ALL])
def test_every_value_comes_back(shape: tuple[int, ...], zeros: float, level: Level) -> None:
    weight = sparse(shape, zeros)
    model = compress(holding(weight))
    onnx.checker.check_model(model, full_check=True)
    assert bits(expanded(model)["w0"]) == bits(weight)
    [found] = session(model.SerializeToString(), level).run(None, {})
    assert found.shape == shape
    assert bits(found) == bits(weight)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("zeros", [0.8, 0.99])
def test_every_float_type_comes_back(dtype: Any, zeros: float) -> None:
    weight = sparse((50, 41), zeros, dtype)
    model = compress(holding(weight))
    assert "ScatterElements" in operators(model)
    assert bits(expanded(model)["w0"]) == bits(weight)
    for level in (Level.ORT_DISABLE_ALL, Level.ORT_ENABLE_ALL):
        [found] = session(model.SerializeToString(), level).run(None, {})
        assert found.dtype == dtype
        assert bits(found) == bits(weight)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def placed(*places: int, size: int = 5000) -> Array:
    weight = np.zeros(size, np.float32)
    weight[list(places)] = np.arange(1.0, len(places) + 1)
    return weight


@pytest.mark.parametrize(
    "weight",
    [
        *(placed(place) for place in (0, 14, 15, 16, 254, 255, 256, 509, 510, 511, 4999)),
        *(placed(0, place) for place in (1, 15, 16, 255, 256, 510, 511, 4999)),
        placed(*range(2000)),
        placed(*range(3000, 5000)),
        placed(*range(0, 5000, 15)),
        placed(*range(0, 5000, 16)),
        placed(*range(1, 5000, 255)),
        placed(*range(1, 5000, 256)),
    ],
    ids=lambda weight: f"{np.flatnonzero(weight)[:3]}".replace(" ", "_"),
)
def test_gaps_of_any_length(weight: Array) -> None:
    """Longer than a byte or half a byte holds, exactly as long, at either end."""
    model = compress(holding(weight))
    assert "ScatterElements" in operators(model)
    assert bits(expanded(model)["w0"]) == bits(weight)
    [at] = [node.output[0] for node in model.graph.node if node.op_type == "CumSum"]
    model.graph.output.append(helper.make_tensor_value_info(at, TensorProto.INT32, [None]))
    found, places = session(model.SerializeToString(), Level.ORT_ENABLE_ALL).run(None, {})
    assert bits(found) == bits(weight)
    assert np.all(np.diff(places) > 0), "ONNX wants every place once"


def test_special_values() -> None:
    """Subnormal numbers, infinities and NaNs are values, also where torch flushes the first;
    a negative zero is a zero and becomes a positive one."""
    weight = placed(*range(0, 5000, 10))
    weight[:50:10] = [1e-45, -1e-45, np.inf, -np.inf, np.nan]
    stored = weight.copy()
    stored[5::10] = -0.0
    try:
        torch.set_flush_denormal(True)
        model = compress(holding(stored))
        assert count_nonzero(stored) == 500
    finally:
        torch.set_flush_denormal(False)
    assert "ScatterElements" in operators(model)
    assert bits(expanded(model)["w0"]) == bits(weight)
    [found] = session(model.SerializeToString(), Level.ORT_ENABLE_ALL).run(None, {})
    assert bits(found) == bits(weight)


@pytest.mark.parametrize(
    ("zeros", "steps", "most"),
    [
        (0.5, ("BitShift", "CumSum"), 0.57),
        (0.8, ("BitShift", "CumSum"), 0.24),
        (0.9, ("CumSum",), 0.13),
        (0.95, ("CumSum",), 0.066),
        (0.98, ("CumSum",), 0.028),
    ],
)
def test_size(zeros: float, steps: tuple[str, ...], most: float) -> None:
    model = holding(sparse((256, 256), zeros))
    packed = compress(model)
    assert packed.ByteSize() <= most * model.ByteSize()
    found = operators(packed)
    assert tuple(name for name in ("BitShift", "CumSum") if name in found) == steps


def test_what_would_hardly_be_smaller_stays() -> None:
    weights = (sparse((200, 200), 0.04), sparse((9, 9), 0.9), np.zeros(20, np.float32))
    model = holding(*weights, np.zeros((400, 400), np.int64))
    assert compress(model) == model


def test_weights_that_a_caller_may_replace_stay() -> None:
    model = holding(sparse((100, 100), 0.9))
    model.graph.input.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, (100, 100)))
    assert compress(model) == model


def test_the_model_given_is_not_changed_and_packing_again_changes_nothing() -> None:
    model = holding(sparse((100, 100), 0.9), sparse((30, 77), 0.5))
    model.metadata_props.add(key="made.by", value="a test")
    before = model.SerializeToString()
    packed = compress(model)
    assert model.SerializeToString() == before
    assert packed.metadata_props == model.metadata_props
    assert compress(packed) == packed


def test_a_packed_matrix_of_zeros_is_left_packed() -> None:
    packed = compress(holding(np.zeros((300, 300), np.float32)))
    assert packed.ByteSize() < 1000
    assert compress(packed) == packed
    assert bits(expanded(packed)["w0"]) == bits(np.zeros((300, 300), np.float32))


def test_older_operators_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        compress(holding(sparse((100, 100), 0.9), opset=17))
    assert caught.value.message == ("export: packed weights need ONNX opset 18 or later, got 17")
    assert caught.value.hint == "--storage dense writes the zeros too"


def test_a_name_that_is_taken_is_refused() -> None:
    model = holding(sparse((100, 100), 0.9))
    model.graph.node.append(helper.make_node("Identity", ["y0"], ["w0/values"]))
    with pytest.raises(ModelError) as caught:
        compress(model)
    assert caught.value.message == (
        "export: a packed weight needs a name that is taken, got a value called w0/values"
    )


class Recurrent(nn.Module):
    """(N, T, 12) -> (N, 5)."""

    def __init__(self, layer: nn.Module, width: int = 48) -> None:
        super().__init__()
        self.layer = layer
        self.out = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x)[0][:, -1])


def convolutions() -> nn.Module:
    norm = nn.BatchNorm2d(32)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    body = (nn.Conv2d(3, 32, 3, bias=False), norm, nn.ReLU(), nn.Conv2d(32, 48, 3, groups=2))
    return nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Linear(192, 10))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(60, 80), nn.ReLU(), nn.Linear(80, 30))


def lstm() -> nn.Module:
    return Recurrent(nn.LSTM(12, 24, 2, batch_first=True, bidirectional=True))


def gru() -> nn.Module:
    return Recurrent(nn.GRU(12, 48, batch_first=True))


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)


NETS = [
    pytest.param(convolutions, (2, 3, 6, 6), id="convolutions"),
    pytest.param(perceptron, (2, 60), id="perceptron"),
    pytest.param(lstm, (2, 5, 12), id="lstm"),
    pytest.param(gru, (2, 5, 12), id="gru"),
    pytest.param(transformer, (2, 5, 32), id="transformer"),
]


def mask(net: nn.Module, zeros: float) -> dict[str, Tensor]:
    """Masks of all matrices and kernels, taken by chance, and applied."""
    torch.manual_seed(1)
    masks = {
        name: torch.rand_like(weight) >= zeros
        for name, weight in net.named_parameters()
        if weight.dim() > 1
    }
    with torch.no_grad():
        for name, own in masks.items():
            net.get_parameter(name).mul_(own)
    return masks


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_networks(make: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    """What is loaded is the dense file's network, at every level of optimisation."""
    torch.manual_seed(0)
    net = make().eval()
    original = tmp_path / "original.onnx"
    found = capture(net, positional((torch.randn(shape),)))
    write_onnx(make_exportable(found.network, found), original, {})
    masks = mask(net, 0.9)
    found = capture(net, positional((torch.randn(shape),)))
    ready = make_exportable(found.network, found)
    dense, packed = tmp_path / "dense.onnx", tmp_path / "packed.onnx"
    write_onnx(ready, dense, {"made.by": "a test"})
    write_onnx(ready, packed, {"made.by": "a test"}, Storage.SPARSE)

    model = onnx.load(packed)
    onnx.checker.check_model(model, full_check=True)
    assert {item.key: item.value for item in model.metadata_props} == {"made.by": "a test"}
    weights = expanded(onnx.load(dense))
    assert {name: bits(item) for name, item in expanded(model).items()} == {
        name: bits(item + 0.0) for name, item in weights.items()
    }
    assert stored_bytes(packed) < 0.35 * stored_bytes(dense)
    assert packed.stat().st_size < dense.stat().st_size

    zeros = sum(int((~own).sum()) for own in masks.values())
    assert nonzero_weights(packed) == nonzero_weights(dense)
    nonzero, total = nonzero_weights(packed)
    assert total - nonzero >= zeros
    masked = verify_masked(packed, found.network, masks)
    assert (masked.zeros, masked.rewritten) == (zeros, ())
    verify_shrunk(original, packed, 0)
    verify_outputs(packed, found.network, ready, 1e-5, seed=0)
    for level in (Level.ORT_ENABLE_BASIC, Level.ORT_ENABLE_EXTENDED, Level.ORT_ENABLE_ALL):
        assert as_loaded(packed, level) == as_loaded(dense, level)
    x = {model.graph.input[0].name: torch.randn(3, *shape[1:]).numpy()}
    wanted, same = (session(file, Level.ORT_ENABLE_ALL).run(None, x)[0] for file in (dense, packed))
    assert bits(same) == bits(wanted)
    slow = session(packed, Level.ORT_DISABLE_ALL).run(None, x)[0]
    np.testing.assert_allclose(slow, wanted, rtol=0, atol=1e-5)


def test_counting_by_hand(tmp_path: Path) -> None:
    weight, bias = sparse((200, 100), 0.8), np.array([0.0, -0.0, 1.0], np.float32)
    onnx.save(compress(holding(weight, bias)), tmp_path / "some.onnx")
    nonzero = sum(1 for row in weight for value in row if value != 0.0) + 1
    assert nonzero_weights(tmp_path / "some.onnx") == (nonzero, 20003)
    assert initializer_elements(tmp_path / "some.onnx") == 20003


def written(
    net: nn.Module, shape: tuple[int, ...], path: Path, storage: Storage = Storage.SPARSE
) -> Any:
    found = capture(net.eval(), positional((torch.randn(shape),)))
    write_onnx(make_exportable(found.network, found), path, {}, storage)
    return found.network


def test_a_mask_that_was_not_respected_is_found(tmp_path: Path) -> None:
    net = perceptron()
    masks = mask(net, 0.9)
    with torch.no_grad():
        weight = net.get_parameter("2.weight")
        weight[tuple((~masks["2.weight"]).nonzero()[7])] = 1e-30
    network = written(net, (2, 60), tmp_path / "net.onnx")
    with pytest.raises(VerificationError) as caught:
        verify_masked(tmp_path / "net.onnx", network, masks)
    assert caught.value.message == (
        "export: masked weights must be zero, got 1 of 2.weight that are not, in the network"
    )
    with torch.no_grad():
        network.get_parameter("2.weight").mul_(masks["2.weight"])
    with pytest.raises(VerificationError, match=r"got 1 of 2\.weight that are not, in the file"):
        verify_masked(tmp_path / "net.onnx", network, masks)


@pytest.mark.parametrize("flaw", [0, 1])
def test_a_wrong_weight_in_another_order_is_not_taken_for_found(flaw: int, tmp_path: Path) -> None:
    """Recurrent weights have other names in the file, and their gates in another order."""
    net = Recurrent(nn.LSTM(12, 24, batch_first=True), 24)
    masks = mask(net, 0.9)
    network = written(net, (2, 5, 12), tmp_path / "net.onnx", Storage.DENSE)
    model = onnx.load(tmp_path / "net.onnx")
    stored = model.graph.initializer
    assert "layer.weight_hh_l0" not in {item.name for item in stored}
    [tensor] = [item for item in stored if list(item.dims) == [1, 96, 24]]
    weight = numpy_helper.to_array(tensor).copy()
    weight[tuple(np.argwhere(weight == 0)[11])] = flaw
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, tmp_path / "net.onnx")
    masked = verify_masked(tmp_path / "net.onnx", network, masks)
    assert masked.rewritten == (("layer.weight_hh_l0",) if flaw else ())


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_weights_that_the_exporter_multiplied_are_named(tmp_path: Path) -> None:
    """The recurrent weight of an LSTM with a projection is in the file only times that."""
    net = Recurrent(nn.LSTM(12, 24, batch_first=True, proj_size=10), 10)
    masks = mask(net, 0.9)
    network = written(net, (2, 5, 12), tmp_path / "net.onnx")
    masked = verify_masked(tmp_path / "net.onnx", network, masks)
    assert masked.rewritten == ("layer.weight_hh_l0",)


def test_a_bias_that_took_in_a_norm_is_named(tmp_path: Path) -> None:
    net = convolutions()
    masks = mask(net, 0.9)
    masks |= {name: torch.arange(32) > 9 for name in ("1.weight", "1.bias")}
    masks["6.bias"] = torch.arange(10) > 4
    with torch.no_grad():
        for name, own in masks.items():
            net.get_parameter(name).mul_(own)
    network = written(net, (2, 3, 6, 6), tmp_path / "net.onnx")
    masked = verify_masked(tmp_path / "net.onnx", network, masks)
    assert masked.rewritten == ("1.weight", "1.bias")
