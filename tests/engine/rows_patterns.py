"""Rows: how operators stand together in real networks."""

import torch
import torch.nn.functional as F
from engine_harness import Net
from engine_rows import Row, sandwich
from torch import nn


def _block(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )


def _shortcut_by_padding(n, x):
    x = F.relu(n.a(x))
    short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
    return n.b(F.relu(n.two(F.relu(n.one(x))) + short).mean((2, 3)))


def _dense(n, x):
    features = [n.a(x)]
    for layer in (n.one, n.two):
        features.append(F.relu(layer(torch.cat(features, 1))))
    return n.b(torch.cat(features, 1))


def _shuffle_unit(n, x):
    left, right = F.relu(n.a(x)).chunk(2, 1)
    x = torch.cat([left, n.two(F.relu(n.dw(n.one(right))))], 1)
    x = x.view(x.size(0), 2, 6, 8, 8).transpose(1, 2).contiguous().view(x.size(0), -1, 8, 8)
    return n.b(x)


def _unet(n, x):
    top = F.relu(n.a(x))
    low = F.relu(n.down(F.max_pool2d(top, 2)))
    return n.b(torch.cat([top, n.up(low)], 1))


def _res2(n, x):
    parts = F.relu(n.a(x)).chunk(3, 1)
    one = n.one(parts[1])
    return n.b(torch.cat([parts[0], one, n.two(parts[2] + one)], 1))


def _selective(n, x):
    one, two = F.relu(n.one(x)), F.relu(n.two(x))
    weights = n.mix(F.relu(n.fc((one + two).mean((2, 3))))).view(-1, 2, 12).softmax(1)
    return n.b(one * weights[:, 0, :, None, None] + two * weights[:, 1, :, None, None])


def _mixer(n, x):
    x = n.a(x).flatten(2).transpose(1, 2)
    x = x + n.tokens(n.norm1(x).transpose(1, 2)).transpose(1, 2)
    x = x + n.two(F.gelu(n.one(n.norm2(x))))
    return n.b(x.mean(1))


def _non_local(n, x):
    q, k, v = (layer(x).flatten(2) for layer in (n.q, n.k, n.v))
    pairs = (q.transpose(1, 2) @ k).softmax(-1)
    return x + n.o((v @ pairs.transpose(1, 2)).view(x.size(0), 8, 8, 8))


def _c2f(n, x):
    parts = list(n.one(x).chunk(2, 1))
    for layer in (n.two, n.three):
        parts.append(layer(parts[-1]))
    return n.four(torch.cat(parts, 1))


def _ghost(n, x):
    y = F.relu(n.one(x))
    return torch.cat([y, F.relu(n.dw(y))], 1)[:, :14]


def _split_attention(n, x):
    y = F.relu(n.r(x)).view(-1, 2, 12, 8, 8)
    weights = n.two(F.relu(n.one(y.sum(1).mean((2, 3))))).view(-1, 2, 12).softmax(1)
    return (y * weights[..., None, None]).sum(1)


def _grouped_shuffle(n, x):
    y = F.relu(n.one(x)).view(-1, 2, 8, 8, 8).transpose(1, 2).reshape(-1, 16, 8, 8)
    return x + n.two(n.dw(y))


ROWS = (
    Row("residual", lambda: Net(
        lambda n, x: n.b(F.relu(n.a(x) + n.m(n.a(x))).mean((2, 3))), a=nn.Conv2d(3, 12, 3),
        m=_block(12), b=nn.Linear(12, 4)), goes=("a.weight", "m.0.weight", "m.3.weight")),
    Row("residual-projected", lambda: Net(
        lambda n, x: n.b(F.relu(n.p(n.a(x)) + n.m(n.a(x)))), a=nn.Conv2d(3, 12, 3),
        m=nn.Conv2d(12, 16, 3, 2, 1), p=nn.Conv2d(12, 16, 1, 2), b=nn.Conv2d(16, 4, 1)),
        goes=("a.weight", "m.weight", "p.weight")),
    Row("shortcut-by-padding", lambda: Net(
        _shortcut_by_padding, a=nn.Conv2d(3, 12, 3, padding=1),
        one=nn.Conv2d(12, 18, 3, 2, 1), two=nn.Conv2d(18, 18, 3, padding=1), b=nn.Linear(18, 4)),
        goes=("a.weight", "one.weight", "two.weight")),
    sandwich("squeeze-excite", lambda n, x: x * torch.sigmoid(n.two(F.relu(n.one(
        F.adaptive_avg_pool2d(x, 1))))), layers=lambda: {
            "one": nn.Conv2d(12, 6, 1), "two": nn.Conv2d(6, 12, 1)},
        goes=("a.weight", "one.weight", "two.weight")),
    sandwich("squeeze-excite-linear", lambda n, x: x * torch.sigmoid(n.two(F.relu(n.one(
        x.mean((2, 3)))))).view(x.size(0), 12, 1, 1), layers=lambda: {
            "one": nn.Linear(12, 6), "two": nn.Linear(6, 12)},
        goes=("a.weight", "one.weight", "two.weight")),
    sandwich("efficient-channel-attention", lambda n, x: x * torch.sigmoid(n.k(
        x.mean((2, 3)).unsqueeze(1))).squeeze(1)[..., None, None], layers=lambda: {
            "k": nn.Conv1d(1, 1, 3, padding=1)}, goes=(), stays={"a": "is convolved over"}),
    sandwich("inverted-residual", lambda n, x: x + n.m(x), layers=lambda: {"m": nn.Sequential(
        nn.Conv2d(12, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True),
        nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24),
        nn.ReLU6(inplace=True), nn.Conv2d(24, 12, 1, bias=False), nn.BatchNorm2d(12))},
        goes=("a.weight", "m.0.weight", "m.3.weight")),
    sandwich("convnext", lambda n, x: x + (n.g * n.two(F.gelu(n.one(n.n(n.dw(x).permute(
        0, 2, 3, 1)))))).permute(0, 3, 1, 2), layers=lambda: {
            "dw": nn.Conv2d(12, 12, 3, padding=1, groups=12), "n": nn.LayerNorm(12),
            "one": nn.Linear(12, 20), "two": nn.Linear(20, 12),
            "g": nn.Parameter(torch.randn(12))},
        goes=("a.weight", "dw.weight", "one.weight", "two.weight", "g")),
    Row("dense", lambda: Net(
        _dense, a=nn.Conv2d(3, 8, 3), one=nn.Conv2d(8, 6, 3, padding=1),
        two=nn.Conv2d(14, 6, 3, padding=1), b=nn.Conv2d(20, 4, 1)),
        goes=("a.weight", "one.weight", "two.weight")),
    Row("shuffle-unit", lambda: Net(
        _shuffle_unit, a=nn.Conv2d(3, 12, 3, padding=1), one=nn.Conv2d(6, 6, 1),
        dw=nn.Conv2d(6, 6, 3, padding=1, groups=6), two=nn.Conv2d(6, 6, 1),
        b=nn.Conv2d(12, 4, 1)), goes=("a.weight", "one.weight", "two.weight")),
    Row("unet", lambda: Net(
        _unet, a=nn.Conv2d(3, 8, 3, padding=1), down=nn.Conv2d(8, 12, 3, padding=1),
        up=nn.ConvTranspose2d(12, 8, 2, 2), b=nn.Conv2d(16, 2, 1)),
        goes=("a.weight", "down.weight")),
    Row("res2", lambda: Net(
        _res2, a=nn.Conv2d(3, 12, 3), one=nn.Conv2d(4, 4, 3, padding=1),
        two=nn.Conv2d(4, 4, 3, padding=1), b=nn.Conv2d(12, 4, 1)), goes=("a.weight",)),
    Row("selective-kernel", lambda: Net(
        _selective, one=nn.Conv2d(3, 12, 3, padding=1), two=nn.Conv2d(3, 12, 5, padding=2),
        fc=nn.Linear(12, 6), mix=nn.Linear(6, 24), b=nn.Conv2d(12, 4, 1)),
        goes=("one.weight", "two.weight", "fc.weight", "mix.weight")),
    Row("mixer", lambda: Net(
        _mixer, a=nn.Conv2d(3, 12, 2, 2), norm1=nn.LayerNorm(12), tokens=nn.Sequential(
            nn.Linear(16, 10), nn.GELU(), nn.Linear(10, 16)), norm2=nn.LayerNorm(12),
        one=nn.Linear(12, 24), two=nn.Linear(24, 12), b=nn.Linear(12, 4)),
        goes=("a.weight", "tokens.0.weight", "one.weight")),
    sandwich("non-local", _non_local, layers=lambda: {
        **{name: nn.Conv2d(12, 8, 1) for name in "qkv"}, "o": nn.Conv2d(8, 12, 1)},
        goes=("a.weight", "q.weight", "k.weight", "v.weight", "o.weight")),
    sandwich("c2f", _c2f, after=10, layers=lambda: {
        "one": nn.Conv2d(12, 12, 1), "two": nn.Conv2d(6, 6, 3, padding=1),
        "three": nn.Conv2d(6, 6, 3, padding=1), "four": nn.Conv2d(24, 10, 1)},
        goes=("a.weight", "one.weight", "two.weight", "three.weight", "four.weight")),
    sandwich("ghost", _ghost, after=14, layers=lambda: {
        "one": nn.Conv2d(12, 8, 1), "dw": nn.Conv2d(8, 8, 3, padding=1, groups=8)},
        goes=("a.weight", "one.weight", "dw.weight")),
    sandwich("split-attention", _split_attention, layers=lambda: {
        "r": nn.Conv2d(12, 24, 3, padding=1, groups=2), "one": nn.Linear(12, 8),
        "two": nn.Linear(8, 24)}, goes=("a.weight", "r.weight", "one.weight", "two.weight")),
    sandwich("grouped-shuffle", _grouped_shuffle, layers=lambda: {
        "one": nn.Conv2d(12, 16, 1, groups=2), "two": nn.Conv2d(16, 12, 1, groups=2),
        "dw": nn.Conv2d(16, 16, 3, padding=1, groups=16)},
        goes=("a.weight", "one.weight", "dw.weight", "two.weight")),
    sandwich("reparametrised", lambda n, x: F.relu(n.three(x) + n.one(x) + n.i(x)),
             layers=lambda: {"three": nn.Conv2d(12, 12, 3, padding=1),
                             "one": nn.Conv2d(12, 12, 1), "i": nn.BatchNorm2d(12)},
             goes=("a.weight", "three.weight", "one.weight", "i.weight")),
    Row("heads-of-a-detector", lambda: Net(
        lambda n, x: torch.cat([n.b(F.silu(n.a(x))).flatten(2), n.c(F.silu(n.a(x))).flatten(2)],
                               2).mT, a=nn.Conv2d(3, 12, 3), b=nn.Conv2d(12, 5, 1),
        c=nn.Conv2d(12, 5, 1)), stays={"b": "network output"}),
    Row("separable-head", lambda: Net(
        lambda n, x: n.b(F.avg_pool2d(n.m(n.a(x)), 3).flatten(1)), a=nn.Conv2d(3, 16, 3),
        m=nn.Sequential(nn.Conv2d(16, 16, 3, groups=4), nn.BatchNorm2d(16), nn.ReLU(True)),
        b=nn.Linear(16, 4)), goes=("a.weight", "m.0.weight")),
)  # fmt: skip
