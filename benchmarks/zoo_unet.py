"""Small UNets with transposed convolutions, shared by the zoo and the tests."""

import torch
from torch import Tensor, nn


class _Block(nn.Module):
    """Two 3x3 convolutions, each normalised, with ReLU."""

    def __init__(self, inputs: int, outputs: int, groups: int | None) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = _norm(outputs, groups)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs, groups)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm1(self.first(x)))
        return torch.relu_(self.norm2(self.second(x)))


def _norm(channels: int, groups: int | None) -> nn.Module:
    return nn.BatchNorm2d(channels) if groups is None else nn.GroupNorm(groups, channels)


class UNet(nn.Module):
    """Image (N, 3, H, W) -> mask (N, classes, H, W); H and W divisible by 2**(levels - 1).

    Args:
        width: channels of the first level; each level has twice as many.
        groups: group norm with so many groups; `None` means batch norm.
    """

    def __init__(
        self, width: int = 32, levels: int = 4, classes: int = 2, groups: int | None = None
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            _Block(before, after, groups)
            for before, after in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(deep, flat, 2, 2) for deep, flat in pairs)
        self.up = nn.ModuleList(_Block(2 * flat, flat, groups) for _, flat in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for grow, up, skip in zip(self.grow, self.up, skips[-2::-1], strict=True):
            x = up(torch.cat([skip, grow(x)], 1))
        masks: Tensor = self.head(x)
        return masks
