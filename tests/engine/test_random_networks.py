"""Networks put together at random from operators that reorder, cut, join and group channels."""

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from engine_harness import Net, analyse, assert_exact, channels, macs, prune, shaken
from engine_nets import IMAGES
from torch import Tensor, nn

from prunecli.choices import Criterion
from prunecli.errors import NothingToPruneError, TargetError

Step = Callable[[Net, Tensor, list[Tensor]], Tensor]
"""(network, last features, all features so far) -> features."""

Made = tuple[Step, int, dict[str, nn.Module | Tensor]]
"""The step, its output channels, its layers."""

Maker = Callable[[random.Random, int, list[int], str], Made]
"""(randomness, channels, channels so far, a name) -> a step."""


def _divisor(r: random.Random, channels: int, most: int = 4) -> int:
    return r.choice([n for n in range(1, most + 1) if channels % n == 0])


def _layer(make: Callable[[random.Random, int], tuple[nn.Module, int]]) -> Maker:
    def maker(r: random.Random, c: int, before: list[int], name: str) -> Made:
        layer, out = make(r, c)
        return lambda n, x, h: getattr(n, name)(x), out, {name: layer}

    return maker


def _plain(make: Callable[[random.Random, int], tuple[Callable[[Tensor], Tensor], int]]) -> Maker:
    def maker(r: random.Random, c: int, before: list[int], name: str) -> Made:
        function, out = make(r, c)
        return lambda n, x, h: function(x), out, {}

    return maker


def _grouped(kind: type[nn.Module], r: random.Random, c: int) -> tuple[nn.Module, int]:
    groups = _divisor(r, c)
    out = groups * r.choice([4, 6])
    return kind(c, out, 3, padding=1, groups=groups), out


def _add(r: random.Random, c: int, before: list[int], name: str) -> Made:
    same = [place for place, width in enumerate(before) if width == c]
    place, join = r.choice(same), r.choice([torch.add, torch.mul, torch.maximum])
    return lambda n, x, h: join(x, h[place]), c, {}


def _cat(r: random.Random, c: int, before: list[int], name: str) -> Made:
    place = r.randrange(len(before))
    return lambda n, x, h: torch.cat([x, h[place]], 1), c + before[place], {}


def _gate(r: random.Random, c: int, before: list[int], name: str) -> Made:
    def step(n: Net, x: Tensor, h: list[Tensor]) -> Tensor:
        return x * torch.sigmoid(getattr(n, name)(x.mean((2, 3), keepdim=True)))

    return step, c, {name: nn.Conv2d(c, c, 1)}


def _scale(r: random.Random, c: int, before: list[int], name: str) -> Made:
    rows = _divisor(r, c)
    shape = r.choice([(rows, 1, 1, 1), (1, c // rows, 1, 1), (rows, c // rows, 1, 1)])
    layers = {name: nn.Parameter(torch.randn(shape))}

    def step(n: Net, x: Tensor, h: list[Tensor]) -> Tensor:
        return (x.unflatten(1, (rows, -1)) * getattr(n, name)).flatten(1, 2)

    return step, c, layers


def _shuffled(r: random.Random, c: int) -> tuple[Callable[[Tensor], Tensor], int]:
    rows = _divisor(r, c)
    return lambda x: x.view(-1, rows, c // rows, 8, 8).transpose(1, 2).reshape(-1, c, 8, 8), c


def _sliced(r: random.Random, c: int) -> tuple[Callable[[Tensor], Tensor], int]:
    start, end = r.randrange(c // 2 + 1), r.randrange(c // 2 + 1, c + 1)
    return lambda x: x[:, start:end], end - start


def _padded(r: random.Random, c: int) -> tuple[Callable[[Tensor], Tensor], int]:
    before, after = r.randrange(4), r.randrange(4)
    return lambda x: F.pad(x, (0, 0, 0, 0, before, after)), c + before + after


def _parts(r: random.Random, c: int) -> tuple[Callable[[Tensor], Tensor], int]:
    first = r.randrange(1, c) if c > 1 else 1
    return lambda x: torch.cat([2 * x[:, first:], torch.tanh(x[:, :first])], 1), c


def _norm(r: random.Random, c: int) -> tuple[nn.Module, int]:
    return r.choice([nn.BatchNorm2d(c), nn.GroupNorm(_divisor(r, c), c)]), c


MAKERS: tuple[Maker, ...] = (
    _layer(lambda r, c: (nn.Conv2d(c, w := r.choice([12, 18, 24]), 3, padding=1), w)),
    _layer(lambda r, c: _grouped(nn.Conv2d, r, c)),
    _layer(lambda r, c: _grouped(nn.ConvTranspose2d, r, c)),
    _layer(lambda r, c: (nn.Conv2d(c, 2 * c, 3, padding=1, groups=c), 2 * c)),
    _layer(_norm),
    _layer(lambda r, c: (nn.ChannelShuffle(_divisor(r, c)), c)),
    _plain(lambda r, c: (r.choice([F.gelu, torch.sigmoid]), c)),
    _plain(_shuffled),
    _plain(_sliced),
    _plain(_padded),
    _plain(_parts),
    _plain(lambda r, c: (lambda x: torch.stack([x, -x], 2).flatten(1, 2), 2 * c)),
    _plain(lambda r, c: (lambda x: x.repeat(1, 2, 1, 1), 2 * c)),
    _plain(lambda r, c: (lambda x: F.glu(x, 1) if c % 2 == 0 else x, c // 2 if c % 2 == 0 else c)),
    _add,
    _cat,
    _gate,
    _scale,
)


def random_net(seed: int) -> nn.Module:
    r = random.Random(seed)
    torch.manual_seed(seed)
    widths = [r.choice([12, 24])]
    layers: dict[str, nn.Module | Tensor] = {"first": nn.Conv2d(3, widths[0], 3, padding=1)}
    steps: list[Step] = []
    for place in range(r.randint(4, 8)):
        # Widths would grow without end; a convolution brings them back.
        maker = r.choice(MAKERS) if widths[-1] <= 48 else MAKERS[0]
        made = maker(r, widths[-1], widths, f"layer{place}")
        steps.append(made[0])
        widths.append(made[1])
        layers.update(made[2])
    layers["last"] = nn.Conv2d(widths[-1], 5, 1)

    def forward(net: Net, x: Tensor) -> Tensor:
        features = [net.first(x)]
        for step in steps:
            features.append(step(net, features[-1], features))
        result: Tensor = net.last(features[-1])
        return result

    return shaken(Net(forward, **layers), seed)


@pytest.mark.parametrize("seed", range(24))
def test_random_network(seed: int) -> None:
    module = random_net(seed)
    found = analyse(module, IMAGES)
    assert not found.flow.notes.unknown
    carried_out = 0
    for target, criterion in ((channels(0.6), Criterion.RANDOM), (macs(0.5), Criterion.L2)):
        try:
            pruned = prune(found, target, criterion, seed)
        except (TargetError, NothingToPruneError):
            continue  # its channels hang together too tightly for this one
        assert_exact(module, IMAGES, found, pruned)
        carried_out += 1
    assert carried_out
