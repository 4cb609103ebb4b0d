"""Without blocks, the network is the eager one with modules that hand on what they get."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import layers_nets as nets
import numpy as np
import onnxruntime
import pytest
import torch
from layers_nets import Named, blocks_of, captured_of, replaced
from torch import Tensor, nn

import prunecli.surgery.layers as surgery
from prunecli.errors import ConfigError, NothingToPruneError, VerificationError
from prunecli.export.onnx_file import make_exportable, write_onnx
from prunecli.graph.again import captured_again
from prunecli.graph.bypass import run_without
from prunecli.graph.capture import Captured
from prunecli.graph.coupling import couple
from prunecli.graph.walk import walk
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import make_kept
from prunecli.surgery.layers import drop_blocks
from prunecli.surgery.oracle import check

IMAGE = (3, 8, 8)
TEXT = (7, 6)


def dropped(captured: Captured, *names: str) -> Captured:
    return drop_blocks(captured, blocks_of(captured), names)


def outputs(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = module(*(item.clone() for item in inputs))
    return list(found) if isinstance(found, tuple) else [found]


def drawn(captured: Captured, batch: int = 5) -> tuple[Tensor, ...]:
    return captured.draw({"batch": batch}, torch.Generator().manual_seed(7))


CASES = [
    pytest.param(nets.resnet, IMAGE, ["layer1.0"], id="resnet-first"),
    pytest.param(nets.resnet, IMAGE, ["layer1.0", "layer1.1", "layer2.2"], id="resnet-three"),
    pytest.param(nets.bottleneck, IMAGE, ["layer1.1"], id="bottleneck-se"),
    pytest.param(
        lambda: nets.convs(nets.Inverted(8, 8), nets.Inverted(8, 6), nets.Inverted(6, 6)),
        IMAGE,
        ["layer1.0", "layer1.2"],
        id="inverted",
    ),
    pytest.param(
        lambda: nets.convs(nets.ConvNeXt(8), nets.ConvNeXt(8)), IMAGE, ["layer1.1"], id="convnext"
    ),
    *(
        pytest.param(lambda kind=kind: nets.encoder(kind), TEXT, names, id=f"{n}-{len(names)}")
        for n, kind in {
            "pre-norm": nets.PreNorm,
            "post-norm": nets.PostNorm,
            "parallel": nets.Parallel,
            "mixer": nets.Mixer,
            "torch-post": nets.torch_layer,
            "torch-pre": partial(nets.torch_layer, first=True),
        }.items()
        for names in (["layers.1"], ["layers.0", "layers.2"], ["layers.0", "layers.1", "layers.2"])
    ),
]


@pytest.mark.parametrize(("build", "shape", "names"), CASES)
def test_equals_the_eager_network_with_identities(
    build: Callable[[], nn.Module], shape: tuple[int, ...], names: list[str]
) -> None:
    model = build()
    captured = captured_of(model, shape)
    inputs = drawn(captured)
    before = outputs(captured.network, *inputs)
    left = copy.deepcopy(captured.network.state_dict())
    result = dropped(captured, *names)
    # In captured networks ReLUs of a network in place work on the value that was handed on.
    expected = outputs(replaced(copy.deepcopy(model), *names), *inputs)
    found = outputs(result.network, *inputs)
    assert [item.shape for item in found] == [item.shape for item in expected]
    assert all(torch.allclose(*pair, 1e-5, 1e-6) for pair in zip(found, expected, strict=True))
    assert not all(torch.allclose(*pair, 1e-2) for pair in zip(found, before, strict=True))
    # The original is the same, bit for bit.
    again = outputs(captured.network, *inputs)
    assert all(torch.equal(*pair) for pair in zip(before, again, strict=True))
    assert left.keys() == captured.network.state_dict().keys()


@pytest.mark.parametrize(("build", "shape", "names"), CASES)
def test_only_the_parameters_of_what_is_left_are_left(
    build: Callable[[], nn.Module], shape: tuple[int, ...], names: list[str]
) -> None:
    model = build()
    captured = captured_of(model, shape)
    result = dropped(captured, *names)
    expected = {
        name
        for name, _ in model.named_parameters()
        if not any(name.startswith(f"{gone}.") for gone in names)
    }
    assert {name for name, _ in result.network.named_parameters()} == expected
    assert (result.axes, result.outputs, result.notes) == (
        captured.axes,
        captured.outputs,
        captured.notes,
    )
    assert result.domains is captured.domains
    assert [node.name for node in result.network.graph.find_nodes(op="placeholder")] == [
        node.name for node in captured.network.graph.find_nodes(op="placeholder")
    ]


def test_the_copy_has_weights_of_its_own() -> None:
    captured = captured_of(nets.resnet(), IMAGE)
    inputs = drawn(captured)
    before = outputs(captured.network, *inputs)
    result = dropped(captured, "layer1.0")
    for parameter in result.network.parameters():
        parameter.data.zero_()
    assert torch.equal(before[0], outputs(captured.network, *inputs)[0])


@pytest.mark.parametrize(
    ("build", "shape"),
    [(nets.resnet, IMAGE), (lambda: nets.encoder(nets.PostNorm), TEXT)],
    ids=["resnet", "post-norm"],
)
def test_one_after_another_equals_all_at_once(
    build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    captured = captured_of(build(), shape)
    names = [block.name for block in blocks_of(captured)]
    inputs = drawn(captured)
    at_once = outputs(dropped(captured, *names[:2]).network, *inputs)
    stepwise = dropped(dropped(captured, names[1]), names[0])
    assert torch.equal(outputs(stepwise.network, *inputs)[0], at_once[0])
    assert [block.name for block in blocks_of(stepwise)] == names[2:]


def test_a_block_around_others_takes_them_with_it() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return net.head(x + net.tail(net.body(x)))

    body = nn.Sequential(nets.Inverted(6, 6), nets.Inverted(6, 6))
    conv = partial(nn.Conv2d, kernel_size=3, padding=1)
    model = Named(forward, stem=conv(3, 6), body=body, tail=conv(6, 6), head=conv(6, 3)).eval()
    captured = captured_of(model, IMAGE)
    outer, first, _ = (block.name for block in blocks_of(captured))
    inputs = drawn(captured)
    expected = model.head(model.stem(inputs[0]))
    for names in ([outer], [first, outer]):
        result = dropped(captured, *names)
        assert torch.allclose(outputs(result.network, *inputs)[0], expected, 1e-5, 1e-6)
        assert {name.split(".")[0] for name, _ in result.network.named_parameters()} == {
            "stem",
            "head",
        }


def test_sizes_taken_inside_are_taken_of_what_is_left() -> None:
    """Positions of the second block have the length that the first block found."""

    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            inside = self.a(x)
            length = inside.shape[1]
            x = x + inside
            return x + self.b(x * torch.arange(length).reshape(1, -1, 1))

    model = Sized().eval()
    captured = captured_of(model, TEXT)
    inputs = drawn(captured)
    result = dropped(captured, "a")
    x = model.stem(inputs[0])
    expected = x + model.b(x * torch.arange(7).reshape(1, -1, 1))
    assert torch.allclose(outputs(result.network, *inputs)[0], expected, 1e-5, 1e-6)


def _written_later(net: Any, x: Tensor) -> Tensor:
    """What follows the block writes into its exit; the entry is read after that."""
    x = net.stem(x)
    y = x + net.a(x)
    z = torch.relu_(y)
    return net.head(z) + net.head(x)


def _written_at_entry(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = x + net.a(x)
    z = net.head(torch.relu_(x))
    return z + net.head(y)


def _written_input(net: Any, x: Tensor) -> Tensor:
    y = x + net.first(x)
    return net.head(net.stem(torch.relu_(y)))


def _written_twice(net: Any, x: Tensor) -> Tensor:
    """In place through two blocks, while the first value is still needed."""
    x = net.stem(x)
    y = x + net.a(x)
    z = y + net.b(y)
    return net.head(torch.relu_(z)) + net.head(x)


def _sums_in_place(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    x += net.a(x)
    x += net.b(x)
    return net.head(x)


@pytest.mark.parametrize("keep", [(), ("a",), ("b",), ("first",)])
@pytest.mark.parametrize(
    "forward",
    [_written_later, _written_at_entry, _written_input, _written_twice, _sums_in_place],
)
def test_what_is_written_in_place_later_does_not_show_elsewhere(
    forward: Callable[..., Any], keep: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    layers = {name: nn.Conv2d(6, 6, 3, padding=1) for name in ("a", "b")}
    model = Named(
        forward,
        stem=nn.Conv2d(3, 6, 3, padding=1),
        first=nn.Conv2d(3, 3, 1),
        head=nn.Conv2d(6, 3, 1),
        **layers,
    ).eval()
    captured = captured_of(model, IMAGE)
    blocks = blocks_of(captured)
    names = [block.name for block in blocks if block.name not in keep]
    if not names:
        return
    inputs = drawn(captured)
    result = drop_blocks(captured, blocks, names)
    # The branch computes zero: what is left is the shortcut.
    expected = copy.deepcopy(model)
    for name in names:
        for parameter in expected.get_submodule(name).parameters():
            parameter.data.zero_()
    found = outputs(result.network, *inputs)[0]
    assert torch.allclose(found, outputs(expected, *inputs)[0], 1e-5, 1e-6)


def test_structured_pruning_before_and_after() -> None:
    """Blocks of a pruned network, and channels of a shallower one."""
    captured = captured_of(nets.resnet(), IMAGE)
    shallow = dropped(captured, "layer2.1")
    thin = thinner(shallow)
    assert [block.name for block in blocks_of(thin)] == ["layer1.0", "layer1.1", "layer2.2"]
    result = dropped(thin, "layer1.1")
    inputs = drawn(result)
    expected = run_without(
        thin.network, [block for block in blocks_of(thin) if block.name == "layer1.1"], inputs
    )
    assert torch.allclose(outputs(result.network, *inputs)[0], expected[0], 1e-5, 1e-6)
    assert size(result) < size(thin) < size(shallow) < size(captured)


def thinner(captured: Captured) -> Captured:
    """Without two units of every group; checked against the original by the oracle."""
    flow = walk(captured)
    coupling = couple(flow)
    keep = np.ones(coupling.count, dtype=np.bool_)
    for group in coupling.groups:
        keep[group.units[:2]] = False
    kept = make_kept(flow, coupling, keep)
    network = compact(captured, kept)
    check(captured, network, kept)
    return captured_again(network, captured)


def size(captured: Captured) -> int:
    return sum(item.numel() for item in captured.network.parameters())


@pytest.mark.parametrize(("build", "shape", "names"), CASES[1:9:2])
def test_the_onnx_file_agrees(
    build: Callable[[], nn.Module], shape: tuple[int, ...], names: list[str], tmp_path: Path
) -> None:
    captured = captured_of(build(), shape)
    result = dropped(captured, *names)
    path = tmp_path / "shallow.onnx"
    write_onnx(make_exportable(result.network, result), path, {})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        inputs = drawn(result, batch)
        found = session.run(None, {session.get_inputs()[0].name: inputs[0].numpy()})
        expected = outputs(result.network, *inputs)[0].numpy()
        np.testing.assert_allclose(found[0], expected, 1e-4, 1e-5)


def test_unknown_names_are_refused() -> None:
    captured = captured_of(nets.resnet(), IMAGE)
    with pytest.raises(ConfigError, match=r"must be blocks of this network, got layer9\.0"):
        dropped(captured, "layer9.0")


def test_something_must_be_left() -> None:
    model = Named(lambda net, x: x + net.a(x), a=nn.Linear(6, 6)).eval()
    with pytest.raises(NothingToPruneError, match="something with weights must be left"):
        dropped(captured_of(model, TEXT), "a")


def test_a_wrong_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is independent of the rewiring: a weight that changes on the way is noticed."""

    def spoiled(*given: Any) -> Captured:
        found = captured_again(*given)
        next(found.network.parameters()).data.mul_(1.01)
        return found

    monkeypatch.setattr(surgery, "captured_again", spoiled)
    with pytest.raises(VerificationError, match="must compute what the original does"):
        dropped(captured_of(nets.resnet(), IMAGE), "layer1.0")
