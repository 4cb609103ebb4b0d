"""Blocks of networks that people use, in small: their names, and that they can be left out.

The expectation is the eager model with the layer's module replaced by one that hands on its first
argument.
"""

import copy
import random
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from layers_nets import blocks_of
from torch import Tensor, nn

from prunecli.errors import NothingToPruneError
from prunecli.graph.capture import Captured, capture
from prunecli.graph.inputs import positional
from prunecli.surgery.layers import drop_blocks
from zoo_entry import package

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torchvision", "transformers", "timm")),
    reason="torchvision, transformers or timm is not installed",
)

TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class HandOn(nn.Module):
    """Returns its first argument, whatever else there is."""

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        # What the code around a layer reads of it.
        for name in ("attention_type", "layer_type"):
            if hasattr(like, name):
                setattr(self, name, getattr(like, name))

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Any:
        return x


def without(model: nn.Module, names: list[str]) -> nn.Module:
    copied = copy.deepcopy(model)
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(copied.get_submodule(parent), last, HandOn(model.get_submodule(name)))
    return copied


def text(kind: str, config: str, **more: Any) -> nn.Module:
    transformers = package("transformers")
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, kind)(getattr(transformers, config)(**more))
    return model.eval()


def vision(name: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = package("torchvision").models.get_model(name, weights=None, **more)
    return model.eval()


def timm(name: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = package("timm").create_model(name, pretrained=False, **more)
    return model.eval()


def tokens(batch: int = 2) -> Tensor:
    return torch.randint(3, 50, (batch, 10), generator=torch.Generator().manual_seed(0))


def pixels(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def numbered(prefix: str, *numbers: int) -> list[str]:
    """`prefix.0.0`, `prefix.0.1`, ... for stages of so many layers."""
    return [f"{prefix}.{stage}.{at}" for stage, depth in enumerate(numbers) for at in range(depth)]


def in_row(prefix: str, depth: int, after: str = "") -> list[str]:
    return [f"{prefix}.{place}{after}" for place in range(depth)]


def gpt2() -> nn.Module:
    return text(
        "GPT2LMHeadModel", "GPT2Config", vocab_size=50, n_positions=16, n_embd=16, n_layer=3,
        n_head=2, use_cache=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def t5() -> nn.Module:
    return text(
        "T5EncoderModel", "T5Config", vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2,
        num_heads=2,
    )  # fmt: skip


def swin() -> nn.Module:
    return package("torchvision").models.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=5
    ).eval()  # fmt: skip


def tiny_vit() -> nn.Module:
    kind = package("torchvision").models.VisionTransformer
    return kind(16, 8, 2, 2, 16, 32, num_classes=5).eval()


def mixer() -> nn.Module:
    kind = package("timm.models.mlp_mixer").MlpMixer
    return kind(5, 64, patch_size=32, num_blocks=2, embed_dim=16).eval()


def tiny_convnext() -> nn.Module:
    module = package("torchvision.models.convnext")
    setting = [module.CNBlockConfig(8, 12, 2), module.CNBlockConfig(12, None, 2)]
    return module.ConvNeXt(setting, layer_scale=0.5, num_classes=5).eval()


MODELS = [
    pytest.param(
        lambda: text("BertForSequenceClassification", "BertConfig", **TEXT),
        tokens(),
        in_row("bert.encoder.layer", 3),
        id="bert",
    ),
    pytest.param(
        lambda: text(
            "LlamaForCausalLM", "LlamaConfig", **TEXT, num_key_value_heads=1, use_cache=False
        ),
        tokens(),
        in_row("model.layers", 3),
        id="llama",
    ),
    pytest.param(gpt2, tokens(), in_row("transformer.h", 3), id="gpt2"),
    pytest.param(
        t5,
        tokens(),
        [f"encoder.block.{block}.layer.{part}" for block in (0, 1) for part in (0, 1)],
        id="t5",
    ),
    pytest.param(
        tiny_vit, pixels(16), [f"encoder.layers.encoder_layer_{at}" for at in (0, 1)], id="vit"
    ),
    pytest.param(
        swin, pixels(32), [f"features.{at}.{part}" for at in (1, 3) for part in (0, 1)], id="swin"
    ),
    pytest.param(
        tiny_convnext,
        pixels(32),
        [f"features.{at}.{part}" for at in (1, 3) for part in (0, 1)],
        id="convnext",
    ),
    pytest.param(
        lambda: vision("resnet18"),
        pixels(32),
        ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"],
        id="resnet18",
    ),
    pytest.param(mixer, pixels(64), in_row("blocks", 2), id="mixer"),
    pytest.param(
        lambda: timm(
            "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=8, depths=(2, 2),
            num_heads=(2, 4),
        ),
        pixels(32),
        [f"layers.{stage}.blocks.{part}" for stage in (0, 1) for part in (0, 1)],
        id="swin-timm",
    ),
]  # fmt: skip


def outputs(module: nn.Module, given: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = torch.utils._pytree.tree_leaves(module(given.clone()))
    return [item for item in found if isinstance(item, Tensor)]


@pytest.mark.parametrize(("build", "given", "names"), MODELS)
def test_real_networks(build: Callable[[], nn.Module], given: Tensor, names: list[str]) -> None:
    model = build()
    captured = capture(model, positional([given]))
    blocks = blocks_of(captured)
    assert [block.name for block in blocks] == names
    for block in blocks:
        own = model.get_submodule(block.name)
        assert (
            block.params == sum(item.numel() for item in own.parameters()) or "block.0" in names[0]
        )
    gone = sorted(random.Random(0).sample(names, max(1, len(names) // 2)))
    for chosen in ([names[-1]], gone):
        result = drop_blocks(captured, blocks, chosen)
        assert_same(outputs(result.network, given), outputs(without(model, chosen), given))


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, 1e-4, 1e-5)


def captured_at(model: nn.Module, size: int) -> Captured:
    return capture(model, positional([pixels(size)]))


def test_inverted_residuals() -> None:
    """As the network itself says where it adds up."""
    model = vision("mobilenet_v2", width_mult=0.25)
    expected = [
        f"features.{place}"
        for place, part in enumerate(model.features)
        if getattr(part, "use_res_connect", False)
    ]
    assert [block.name for block in blocks_of(captured_at(model, 32))] == expected
    assert len(expected) > 9


def test_dense_networks_have_none() -> None:
    model = package("torchvision").models.DenseNet(4, (2, 2), 8, num_classes=5).eval()
    with pytest.raises(NothingToPruneError, match="finds no block to drop: nothing is added"):
        blocks_of(captured_at(model, 32))
