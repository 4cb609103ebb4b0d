"""Which parts of a network can be left out: found in the graph, named after their modules."""

from collections.abc import Callable
from functools import partial
from typing import Any

import layers_nets as nets
import pytest
import torch
from layers_nets import Named, blocks_of, captured_of, lively, names_of
from torch import Tensor, nn
from torch.nn import functional

from prunecli.errors import NothingToPruneError

IMAGE = (3, 8, 8)
TEXT = (7, 6)
CASES = [
    pytest.param(nets.resnet, IMAGE, "layer1.0 layer1.1 layer2.1 layer2.2", id="resnet"),
    pytest.param(nets.bottleneck, IMAGE, "layer1.0 layer1.1", id="bottleneck-se"),
    pytest.param(
        lambda: nets.convs(nets.Inverted(8, 8), nets.Inverted(8, 6), nets.Inverted(6, 6)),
        IMAGE,
        "layer1.0 layer1.2",
        id="inverted",
    ),
    pytest.param(
        lambda: nets.convs(nets.ConvNeXt(8), nets.ConvNeXt(8)),
        IMAGE,
        "layer1.0 layer1.1",
        id="convnext",
    ),
    *(
        pytest.param(lambda kind=kind: nets.encoder(kind), TEXT, "layers.0 layers.1 layers.2", id=n)
        for n, kind in {
            "pre-norm": nets.PreNorm,
            "post-norm": nets.PostNorm,
            "parallel": nets.Parallel,
            "mixer": nets.Mixer,
            "torch-post": nets.torch_layer,
            "torch-pre": partial(nets.torch_layer, first=True),
        }.items()
    ),
]


@pytest.mark.parametrize(("build", "shape", "names"), CASES)
def test_blocks_have_the_names_of_their_modules(
    build: Callable[[], nn.Module], shape: tuple[int, ...], names: str
) -> None:
    assert names_of(captured_of(build(), shape)) == names.split()


def test_a_block_says_what_is_inside() -> None:
    model = nets.resnet()
    captured = captured_of(model, IMAGE)
    block = blocks_of(captured)[0]
    own = model.get_submodule("layer1.0")
    assert block.layers == ("layer1.0.conv1", "layer1.0.bn1", "layer1.0.conv2", "layer1.0.bn2")
    assert block.params == sum(item.numel() for item in own.parameters())
    nodes = {node.name: node for node in captured.network.graph.nodes}
    entry, exit_ = nodes[block.entry], nodes[block.exit]
    # From the ReLU after the stem to the one after the sum.
    assert [entry.target, exit_.target] == [
        torch.ops.aten.relu.default,
        torch.ops.aten.relu_.default,
    ]
    assert block.entry not in block.inside
    assert block.exit in block.inside
    assert {"layer1_0_conv1_weight", "layer1_0_bn2_running_var"} <= set(block.inside)


def test_post_norm_layers_end_after_their_last_norm() -> None:
    captured = captured_of(nets.encoder(nets.PostNorm), TEXT)
    nodes = {node.name: node for node in captured.network.graph.nodes}
    first, second, _ = blocks_of(captured)
    assert nodes[first.exit].target is torch.ops.aten.layer_norm.default
    assert second.entry == first.exit


def test_shared_weights_are_not_counted_and_calls_are_told_apart() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(6, 12)
            self.layers = nn.ModuleList([nets.PreNorm(12, 3)])

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[0](self.layers[0](self.embed(x))).mean((1, 2))

    blocks = blocks_of(captured_of(Twice().eval(), TEXT))
    assert [block.name for block in blocks] == ["layers.0", "layers.0@1"]
    assert [block.params for block in blocks] == [0, 0]


def test_repeated_parts_in_the_code_of_one_module_stay_apart() -> None:
    model = lively(nets.Encoder([nets.Loop(12, 2)]))
    assert names_of(captured_of(model, TEXT)) == [
        f"layers.0.parts.{place}.{part}" for place in (0, 1) for part in (0, 1)
    ]


def test_a_block_around_blocks_is_one_too() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return net.head(x + net.tail(net.body(x)))

    layers = nn.Sequential(nets.Inverted(6, 6), nets.Inverted(6, 6))
    conv = partial(nn.Conv2d, kernel_size=3, padding=1)
    model = Named(forward, stem=conv(3, 6), body=layers, tail=conv(6, 6), head=conv(6, 3)).eval()
    blocks = {block.name: block for block in blocks_of(captured_of(model, IMAGE))}
    outer, *inner = blocks
    assert inner == ["body.0", "body.1"]
    assert all(set(blocks[name].inside) < set(blocks[outer].inside) for name in inner)


def _named(forward: Callable[..., Any], **more: nn.Module) -> nn.Module:
    layers = {name: nn.Conv2d(6, 6, 3, padding=1) for name in ("a", "b")}
    return Named(
        forward, stem=nn.Conv2d(3, 6, 3, padding=1), head=nn.Conv2d(6, 3, 1), **layers, **more
    ).eval()


def _in_root(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    x = net.a(x) + x
    return net.head(x + 0.1 * net.b(x))


def _used_elsewhere(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    inside = net.a(x)
    return net.head(x + net.b(inside)) + net.head(inside)


def _overwritten(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    # The shortcut sees the ReLU too.
    view = x.flatten(2)
    branch = net.a(torch.relu_(view).reshape(x.shape))
    return net.head(net.b(branch) + x)


def _relu_before(net: Any, x: Tensor) -> Tensor:
    x = torch.relu_(net.stem(x))
    return net.head(net.b(net.a(x)) + x)


def _scaled(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(torch.add(net.a(x), x, alpha=2))


def _scaled_branch(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(torch.add(x, net.a(x), alpha=2))


def _doubled(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(x + x)


def _without_weights(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(x + x.sigmoid().mean((2, 3), keepdim=True))


def _gated(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(x * net.a(x).sigmoid())


def _concatenated(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(torch.cat([x[:, :3], net.a(x)[:, :3]], 1))


def _broadcast(net: Any, x: Tensor) -> Tensor:
    small = net.stem(x).mean((2, 3), keepdim=True)
    return net.head(small + net.a(functional.interpolate(small, size=(8, 8))))


def _two_paths(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.a(x) + net.b(x))


def _output_inside(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = net.stem(x)
    inside = net.a(x)
    return net.head(x + inside), inside


ODD = [
    pytest.param(_in_root, "a b", id="root"),
    pytest.param(_relu_before, "a", id="relu-before"),
    pytest.param(_scaled_branch, "a", id="scaled-branch"),
    pytest.param(_used_elsewhere, "something inside is used by other parts", id="used-elsewhere"),
    pytest.param(_output_inside, "something inside is used by other parts", id="output-inside"),
    pytest.param(_overwritten, "overwritten in place before it is added", id="overwritten"),
    pytest.param(_scaled, "the shortcut has weights, or pads or reshapes", id="scaled-shortcut"),
    pytest.param(_doubled, "the shortcut has weights, or pads or reshapes", id="doubled"),
    pytest.param(_broadcast, "the shortcut has weights, or pads or reshapes", id="broadcast"),
    pytest.param(_two_paths, "the shortcut has weights, or pads or reshapes", id="two-paths"),
    pytest.param(_without_weights, "nothing with weights inside", id="without-weights"),
    pytest.param(_gated, "nothing is added to what it was computed from", id="gated"),
    pytest.param(_concatenated, "nothing is added to what it was computed from", id="cat"),
]


@pytest.mark.parametrize(("forward", "expected"), ODD)
def test_what_is_a_block_and_what_is_not(forward: Callable[..., Any], expected: str) -> None:
    captured = captured_of(_named(forward), IMAGE)
    if len(expected) > len("a b"):
        with pytest.raises(NothingToPruneError, match=expected) as caught:
            blocks_of(captured)
        assert caught.value.hint == "use --strategy structured, which prunes inside of layers"
    else:
        assert names_of(captured) == expected.split()


def test_zero_padded_shortcuts_are_none() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return net.head(torch.relu(net.wide(x) + short))

    wide = nn.Conv2d(6, 10, 3, 2, 1)
    model = _named(forward, wide=wide)
    model.head = nn.Conv2d(10, 3, 1)
    with pytest.raises(NothingToPruneError, match="the shortcut has weights, or pads"):
        blocks_of(captured_of(model, IMAGE))


def test_a_side_input_may_come_from_outside() -> None:
    """Cross attention: memory is computed once, every layer reads it."""

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.remember = nn.Linear(6, 12), nn.Linear(6, 12)
            self.layers = nn.ModuleList(
                nn.TransformerDecoderLayer(12, 3, 24, batch_first=True) for _ in range(2)
            )
            self.head = nn.Linear(12, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            x, memory = self.embed(x), self.remember(y)
            for layer in self.layers:
                x = layer(x, memory)
            return self.head(x.mean(1))

    torch.manual_seed(0)
    captured = captured_of(Decoder().eval(), TEXT, (5, 6))
    assert names_of(captured) == ["layers.0", "layers.1"]
