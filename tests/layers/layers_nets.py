"""Small networks with residual blocks, written as people write them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunecli.graph.blocks import Block, find_blocks
from prunecli.graph.capture import Captured, capture
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk


def captured_of(model: nn.Module, *shapes: tuple[int, ...], seed: int = 0) -> Captured:
    """Captured with normal random inputs of `shapes`, batch first."""
    generator = torch.Generator().manual_seed(seed)
    return capture(
        model, positional([torch.randn(2, *shape, generator=generator) for shape in shapes])
    )


def blocks_of(captured: Captured) -> tuple[Block, ...]:
    """The blocks of a captured network."""
    return find_blocks(captured, walk(captured))


def names_of(captured: Captured) -> list[str]:
    """Their names."""
    return [block.name for block in blocks_of(captured)]


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with norms that do something and no parameter at zero."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name in ("running_mean", "running_var"):
            buffer = getattr(module, name, None)
            if isinstance(buffer, Tensor):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data = torch.rand(parameter.shape, generator=generator) + 0.5
    return model.eval()


class Named(nn.Module):
    """Named layers and a function over them: `forward(net, x, ...)`."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


class BasicBlock(nn.Module):
    """As in ResNet: two convolutions, a shortcut, and a ReLU after the sum; in place."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            if stride > 1 or inputs != outputs
            else nn.Sequential()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """As in ResNet-50, with squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, width // 2, 1)
        self.conv = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.expand = nn.Conv2d(width // 2, width, 1)
        self.squeeze = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.conv(functional.relu(self.reduce(x))))
        out = self.expand(out)
        gate = torch.sigmoid(self.squeeze(out.mean((2, 3))))
        return functional.relu(x + out * gate[:, :, None, None])


class ResNet(nn.Module):
    """Stem, two stages of blocks, classifier."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        for place, stage in enumerate(stages):
            self.add_module(f"layer{place + 1}", stage)
        self.count = place + 1
        self.fc = nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)))
        for place in range(self.count):
            x = self.get_submodule(f"layer{place + 1}")(x)
        return self.fc(x.mean((2, 3)))


def resnet() -> nn.Module:
    """Like ResNet-18: the second stage begins with a shortcut that has weights."""
    torch.manual_seed(0)
    model = ResNet(
        [
            nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8)),
            nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16), BasicBlock(16, 16)),
        ]
    )
    model(torch.zeros(1, 3, 8, 8))
    return lively(model)


def bottleneck() -> nn.Module:
    torch.manual_seed(0)
    model = ResNet([nn.Sequential(Bottleneck(8), Bottleneck(8))])
    model(torch.zeros(1, 3, 8, 8))
    return lively(model)


class PreNorm(nn.Module):
    """A transformer layer, norms inside the branches; additions in place."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(*parts.unbind(0))
        return self.out(found.transpose(1, 2).reshape(batch, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        x += self.down(functional.gelu(self.up(self.norm2(x))))
        return x


class PostNorm(PreNorm):
    """The same with norms on the way of the sum, as in BERT."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attend(x))
        return self.norm2(self.down(functional.gelu(self.up(x))) + x)


class Parallel(PreNorm):
    """Attention and feed-forward beside each other, as in GPT-J."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        del self.norm2

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        return self.attend(normed) + self.down(functional.gelu(self.up(normed))) + x


class Encoder(nn.Module):
    """Tokens (N, T, 6), positions, layers, classifier."""

    def __init__(self, layers: Iterable[nn.Module], width: int = 12) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.position = nn.Parameter(torch.randn(1, 7, width))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


def encoder(kind: Callable[[int, int], nn.Module], depth: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return lively(Encoder([kind(12, 3) for _ in range(depth)]))


def torch_layer(width: int, heads: int, *, first: bool = False) -> nn.Module:
    """PyTorch's own."""
    return nn.TransformerEncoderLayer(width, heads, 24, 0.1, batch_first=True, norm_first=first)


class Inverted(nn.Module):
    """MobileNetV2's inverted residual: no activation after the sum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.same = inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, 3 * inputs, 1),
            nn.ReLU6(inplace=True),
            nn.Conv2d(3 * inputs, 3 * inputs, 3, padding=1, groups=3 * inputs),
            nn.ReLU6(inplace=True),
            nn.Conv2d(3 * inputs, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.same else self.conv(x)


class ConvNeXt(nn.Module):
    """Depthwise convolution, channels last, layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.gamma * self.down(functional.gelu(self.up(out)))
        return x + out.permute(0, 3, 1, 2)


class Mixer(nn.Module):
    """MLP-Mixer: over tokens, then over channels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(7, 9), nn.GELU(), nn.Linear(9, 7))
        self.channels = nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Loop(nn.Module):
    """Residual parts in the code of one module that stands around them."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.ModuleList([nn.Linear(width, width), nn.Conv1d(7, 7, 1)]) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for first, second in self.parts:
            x = x + first(x)
            x = x + second(x)
        return x


def convs(*blocks: nn.Module) -> nn.Module:
    """Blocks between a stem and a classifier."""
    torch.manual_seed(0)
    model = ResNet([nn.Sequential(*blocks)])
    model(torch.zeros(1, 3, 8, 8))
    return lively(model)


def replaced(model: nn.Module, *paths: str) -> nn.Module:
    """`model` with modules that hand on what they get, in place."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity())
    return model
