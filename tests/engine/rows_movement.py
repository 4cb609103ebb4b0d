"""Rows: operators that move data, pad, join, cut, and reduce."""

import torch
import torch.nn.functional as F
from engine_harness import Net
from engine_rows import IMAGE, Row, mlp, pointwise, sandwich, stuck
from torch import nn

PADS = (
    *(pointwise(f"pad-{mode}", lambda x, mode=mode: F.pad(x, (1, 2, 1, 0), mode=mode))
      for mode in ("constant", "reflect", "replicate", "circular")),
    pointwise("pad-value", lambda x: F.pad(x, (1, 1), value=0.7)),
    pointwise("pad-cropping", lambda x: F.pad(x, (-1, 2, 0, -2))),
    pointwise("pad-1d", lambda x: F.pad(x, (2, 2), mode="reflect"), dims=1),
    pointwise("pad-3d", lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate"), dims=3, size=4),
    pointwise("zero-pad-layer", nn.ZeroPad2d(1)),
    pointwise("pad-channels", lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)).relu(), after=17),
    pointwise("pad-channels-after", lambda x: F.pad(x, (1, 1, 0, 0, 0, 6)), after=18),
    pointwise("pad-channels-value", lambda x: F.pad(x, (0, 0, 0, 0, 2, 2), value=1.5), after=16),
    mlp("pad-features", lambda n, x: F.pad(torch.relu(x), (2, 2)), after=20),
    stuck("pad-channels-cropping", lambda n, x: F.pad(x, (0, 0, 0, 0, -2, 0)), "is padded",
          after=10),
    stuck("pad-channels-circular", lambda n, x: F.pad(x.flatten(2).transpose(1, 2), (2, 2),
          mode="circular").transpose(1, 2).unflatten(2, (8, 8)), "is padded", after=16),
)  # fmt: skip

JOINS = (
    pointwise("cat", lambda x: torch.cat([x, torch.relu(x), -x], 1), after=36),
    pointwise("cat-space", lambda x: torch.cat([x, 2 * x], 3)),
    Row("cat-two", lambda: Net(
        lambda n, x: n.b(torch.cat([n.a(x), n.c(x)], 1)), a=nn.Conv2d(3, 12, 3),
        c=nn.Conv2d(3, 7, 3), b=nn.Conv2d(19, 4, 1)), goes=("a.weight", "c.weight")),
    Row("cat-space-of-two", lambda: Net(
        lambda n, x: n.b(torch.cat([n.a(x), n.c(x)], 2)), a=nn.Conv2d(3, 12, 3),
        c=nn.Conv2d(3, 12, 3), b=nn.Conv2d(12, 4, 1)), goes=("a.weight", "c.weight")),
    sandwich("cat-parameter", lambda n, x: torch.cat([x, n.p.expand(x.shape[0], -1, -1, -1)], 1),
             layers=lambda: {"p": nn.Parameter(torch.randn(1, 4, 8, 8))}, after=16),
    pointwise("stack-sum", lambda x: torch.stack([x, torch.relu(x)], 0).sum(0)),
    pointwise("stack-channels", lambda x: torch.stack([x, torch.relu(x)], 1).flatten(1, 2),
              after=24),
    pointwise("stack-interleaved", lambda x: torch.stack([x, torch.relu(x)], 2).flatten(1, 2),
              after=24),
    pointwise("repeat", lambda x: x.repeat(1, 2, 1, 1), after=24),
    pointwise("tile", lambda x: x.tile(1, 2, 1, 2), after=24),
    pointwise("repeat-interleave", lambda x: x.repeat_interleave(2, dim=1), after=24),
    pointwise("expand-space", lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)),
    pointwise("expand-as", lambda x: x.mean((2, 3), keepdim=True).expand_as(x) + x),
    pointwise("created-zeros", lambda x: torch.cat([x, x.new_zeros(x.shape[0], 4, 8, 8)], 1),
              after=16),
    pointwise("created-added", lambda x: x + torch.ones(1, 12, 1, 1)),
    pointwise("meshgrid", lambda x: x * torch.arange(8.0)),
)  # fmt: skip


def _halves(cut) -> object:
    """Both halves are used, differently."""

    def between(n, x):
        one, two = cut(x)
        return torch.cat([torch.relu(two), one * 0.5], 1)

    return between


def _write(x):
    y = x.clone()
    y[:, :4] = torch.relu(x[:, 8:])
    y[:, 2:6] *= 2
    y[:, 6:].add_(1)
    y[:, 5:7] = 0
    return y


CUTS = (
    sandwich("split", _halves(lambda x: x.split(6, 1))),
    sandwich("split-sizes", _halves(lambda x: x.split([4, 8], 1))),
    sandwich("chunk", _halves(lambda x: x.chunk(2, 1))),
    sandwich("tensor-split", _halves(lambda x: torch.tensor_split(x, 2, 1))),
    sandwich("slices", _halves(lambda x: (x[:, :5], x[:, 5:]))),
    sandwich("slices-negative", _halves(lambda x: (x[:, :-5], x[:, -5:]))),
    sandwich("narrow", _halves(lambda x: (x.narrow(1, 0, 5), x.narrow(1, 5, 7)))),
    sandwich("narrow-negative", _halves(lambda x: (x.narrow(1, -12, 5), x.narrow(1, -7, 7)))),
    sandwich("gate-of-halves", lambda n, x: torch.mul(*x.chunk(2, 1)), after=6),
    sandwich("uneven-chunks", lambda n, x: torch.cat([2 * p for p in x.chunk(3, 1)], 1),
             width=10, after=10),
    stuck("hsplit", lambda n, x: torch.cat(x.hsplit(2), 1), "no rule", unknown=("aten.hsplit",)),
    pointwise("grid-sliced", lambda x: x.view(-1, 2, 12, 8, 8)[:, :, :8].flatten(1, 2), width=24,
              after=16),
    pointwise("grid-sliced-to-one", lambda x: x.view(-1, 4, 3, 8, 8)[:, :, :1].flatten(1, 2),
              after=4),
    pointwise("one-channel-and-grid", lambda x: torch.cat([x.unflatten(1, (6, 2)).amax(2), x.view(
        -1, 6, 2, 8, 8).flatten(1, 2)[:, :1]], 1), after=7),
    pointwise("overlapping-slices", lambda x: torch.cat([x[:, :8], x[:, 4:]], 1), after=16),
    pointwise("part-unused", lambda x: x[:, 3:9], after=6),
    pointwise("one-channel-slice", lambda x: x * torch.sigmoid(x[:, :1])),
    stuck("one-channel-parts", lambda n, x: torch.cat([-p for p in x.split(1, 1)], 1),
          "is taken out alone"),
    pointwise("one-channel-last", lambda x: x[:, 1:] + x[:, :1], after=11),
    pointwise("pooled-half", lambda x: torch.cat([F.max_pool2d(x[:, :6], 1), x[:, 6:]], 1)),
    pointwise("crop-space", lambda x: x[:, :, 1:-1, ::2]),
    stuck("every-other-channel", lambda n, x: x[:, ::2], "is indexed by a constant", after=6),
    stuck("select-channel", lambda n, x: x * x[:, 3].unsqueeze(1), "is indexed by a constant"),
    stuck("unbind-channels", lambda n, x: torch.stack(x.unbind(1)[::-1], 1),
          "is indexed by a constant"),
    stuck("index-channels", lambda n, x: x[:, [1, 0, 5]], "is indexed by a tensor", after=3),
    pointwise("select-space", lambda x: x[:, :, 2][:, :, None] + x.select(3, 1)[..., None]),
    pointwise("index-space", lambda x: x[:, :, [1, 0, 5]]),
    pointwise("unbind-space", lambda x: torch.stack(x.unbind(2)[:3], 2)),
    pointwise("write-slice", _write),
    pointwise("flip-space", lambda x: x.flip(3).flip((2, 3))),
    pointwise("flip-channels", lambda x: x.flip(1)),
    pointwise("unfold-space", lambda x: x.unfold(2, 3, 2).amax(-1) * x.unfold(2, 3, 2)[..., 1]),
    stuck("unfold-channels", lambda n, x: x.unfold(1, 3, 3).permute(0, 1, 4, 2, 3).flatten(1, 2),
          "is cut into windows"),
    pointwise("roll-space", lambda x: x.roll((1, -2), (2, 3))),
    stuck("roll-channels", lambda n, x: x.roll(2, 1), "is rolled"),
)  # fmt: skip

VIEWS = (
    pointwise("permute-and-back", lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)),
    pointwise("transpose", lambda x: x.transpose(1, 3).mT.mT.transpose(1, 3)),
    pointwise("movedim", lambda x: x.movedim(1, -1).movedim(-1, 1)),
    pointwise("view-space", lambda x: x.view(x.size(0), 12, -1).view(x.size(0), 12, 8, 8)),
    pointwise("reshape-named", lambda x: x.reshape(-1, 12, 4, 16)),
    pointwise("flatten-space", lambda x: x.flatten(2).unflatten(2, (8, 8))),
    pointwise("view-as", lambda x: x.flatten(2).view_as(x) + x),
    pointwise("reshape-as", lambda x: x.flatten(2).reshape_as(x)),
    pointwise("batch-folded", lambda x: torch.tanh(x.reshape(-1, 1, 8, 8)).view(-1, 12, 8, 8)),
    sandwich("batch-folded-conv", lambda n, x: n.k(x.reshape(x.size(0) * 12, 1, 8, 8)).view(
        x.size(0), 12, 8, 8), layers=lambda: {"k": nn.Conv2d(1, 1, 3, padding=1)}),
    pointwise("flatten-and-back", lambda x: torch.relu(x.flatten(1)).view(-1, 12, 8, 8)),
    pointwise("windows", lambda x: torch.tanh(x.view(-1, 12, 2, 4, 2, 4).permute(
        0, 2, 4, 3, 5, 1).reshape(-1, 16, 12)).view(-1, 2, 2, 4, 4, 12).permute(
        0, 5, 1, 3, 2, 4).reshape(-1, 12, 8, 8)),
    sandwich("grid-scaled-by-row", lambda n, x: (x.view(-1, 3, 4, 8, 8) * n.s[:, None, None, None]
             ).flatten(1, 2), layers=lambda: {"s": nn.Parameter(torch.randn(3))}),
    sandwich("grid-scaled-by-column", lambda n, x: (x.view(-1, 3, 4, 8, 8) * n.s[
        None, :, None, None]).flatten(1, 2), layers=lambda: {"s": nn.Parameter(torch.randn(4))},
        goes=("a.weight", "s")),
    pointwise("squeeze", lambda x: x.mean(3, keepdim=True).squeeze(3).unsqueeze(-1)),
    pointwise("squeeze-two", lambda x: x.mean(3, keepdim=True)[:, :, None].squeeze((2, 4))[
        ..., None]),
    pointwise("groups-as-axis", lambda x: torch.relu(x.view(-1, 3, 4, 8, 8)).flatten(1, 2)),
    pointwise("unflatten-channels", lambda x: x.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2)),
    pointwise("channel-shuffle-view", lambda x: x.view(-1, 3, 4, 8, 8).transpose(1, 2).reshape(
        -1, 12, 8, 8)),
    pointwise("channel-shuffle", nn.ChannelShuffle(3)),
    pointwise("pixel-shuffle", nn.PixelShuffle(2), width=32, after=8),
    pointwise("pixel-unshuffle", nn.PixelUnshuffle(2), after=48),
    pointwise("patches-view", lambda x: x.view(-1, 12, 4, 2, 4, 2).permute(
        0, 1, 3, 5, 2, 4).reshape(-1, 48, 4, 4), after=48),
    Row("flatten-linear", lambda: Net(
        lambda n, x: n.b(torch.relu(n.a(x)).flatten(1)), a=nn.Conv2d(3, 12, 3),
        b=nn.Linear(12 * 36, 4))),
    Row("view-linear", lambda: Net(
        lambda n, x: n.b(n.a(x).view(x.size(0), -1)), a=nn.Conv2d(3, 12, 3),
        b=nn.Linear(12 * 36, 4))),
    Row("view-numbers-linear", lambda: Net(
        lambda n, x: n.b(n.a(x).view(-1, 12 * 36)), a=nn.Conv2d(3, 12, 3),
        b=nn.Linear(12 * 36, 4))),
    Row("channels-last-flatten", lambda: Net(
        lambda n, x: n.b(n.a(x).permute(0, 2, 3, 1).flatten(1)), a=nn.Conv2d(3, 12, 3),
        b=nn.Linear(12 * 36, 4))),
    Row("pool-flatten-linear", lambda: Net(
        lambda n, x: n.c(torch.relu(n.b(torch.flatten(n.p(n.a(x)), 1)))), a=nn.Conv2d(3, 12, 3),
        p=nn.AdaptiveAvgPool2d(2), b=nn.Linear(48, 16), c=nn.Linear(16, 4)),
        goes=("a.weight", "b.weight")),
    Row("linear-to-map", lambda: Net(
        lambda n, x: n.b(n.a(x).view(-1, 12, 4, 4)), a=nn.Linear(10, 192),
        b=nn.ConvTranspose2d(12, 3, 2, 2)), ((10,),)),
)  # fmt: skip

REDUCTIONS = (
    pointwise("mean-space", lambda x: x.mean((2, 3), keepdim=True)),
    pointwise("mean-one-axis", lambda x: x.mean(-1)[..., None] + x.sum(2, keepdim=True)),
    pointwise("std-space", lambda x: x.std((2, 3), keepdim=True) + x.var(3, keepdim=True)),
    pointwise("std-mean", lambda x: sum(torch.std_mean(x, (2, 3), keepdim=True))),
    pointwise("amax", lambda x: x.amax((2, 3), keepdim=True) - x.amin(3, keepdim=True)),
    pointwise("max-dim", lambda x: x.max(3, keepdim=True).values),
    pointwise("argmax-space", lambda x: x * x.argmax(3, keepdim=True)),
    pointwise("norm-space", lambda x: x / (x.flatten(2).norm(dim=2)[..., None, None] + 1)),
    pointwise("maxout", lambda x: x.unflatten(1, (6, 2)).amax(2), after=6),
    pointwise("mean-of-groups", lambda x: x.view(-1, 6, 2, 8, 8).mean(2), after=6),
    pointwise("max-over-groups", lambda x: x.view(-1, 2, 6, 8, 8).max(1)[0], after=6),
    pointwise("instance-norm-by-hand", lambda x: (x - x.mean((2, 3), keepdim=True)) / (
        x.std((2, 3), keepdim=True) + 1e-3)),
    pointwise("logsumexp", lambda x: x.logsumexp((2, 3), keepdim=True)),
    pointwise("mean-channels", lambda x: x - x.mean(1, keepdim=True)),
    pointwise("mean-channels-and-space", lambda x: x / (1 + x.square().mean((-1, 1, 2))[
        :, None, None, None])),
    pointwise("sum-channels", lambda x: x * x.abs().sum(1, keepdim=True)),
    pointwise("max-channels", lambda x: x * x.relu().max(1, keepdim=True)[0]),
    pointwise("amax-channels", lambda x: x + x.square().amax(1, keepdim=True)),
    pointwise("amax-of-negatives", lambda x: x * (x.abs() + 1).neg().amax(1, keepdim=True),
              exact=False),
    pointwise("amin-channels", lambda x: x * (x.abs() + 1).amin(1, keepdim=True), exact=False),
    stuck("place-of-max", lambda n, x: x * sum(x.max(1, keepdim=True)), "is reduced over"),
    stuck("variance-channels", lambda n, x: x * x.var(1, keepdim=True), "is reduced over"),
    pointwise("mean-channels-flat", lambda x: x.flatten(1).mean(1)[:, None, None, None] * x),
    pointwise("root-mean-square", lambda x: x * (x.pow(2).mean(1, True) + 1e-3).rsqrt()),
    pointwise("norms-channels", lambda x: x / (x.norm(dim=1, keepdim=True) + x.norm(
        1.0, (1, 2), keepdim=True) + 1)),
    stuck("mean-of-sigmoids", lambda n, x: x * x.sigmoid().mean(1, True), "is reduced over"),
    stuck("mean-of-shifted", lambda n, x: x * (x + 1).mean(1, True), "is reduced over"),
    stuck("mean-of-clamped", lambda n, x: x * x.clamp(0.1, 1).mean(1, True), "is reduced over"),
    stuck("mean-of-filled", lambda n, x: x * F.pad(x, (1, 1), value=1.0).mean(
        (1, 2, 3), True), "is reduced over"),
    stuck("smallest-norm", lambda n, x: x * x.norm(-1.0, 1, True), "is reduced over"),
    stuck("argmax-channels", lambda n, x: x * x.argmax(1, keepdim=True), "is reduced over"),
    pointwise("mean-everything", lambda x: x / (x.abs().mean() + 1)),
    Row("spatial-attention", lambda: Net(
        lambda n, x: n.d(torch.relu(n.c(n.a(x) * torch.sigmoid(n.b(torch.cat(
            [n.a(x).mean(1, keepdim=True), n.a(x).amax(1, keepdim=True)], 1)))))),
        a=nn.Conv2d(3, 12, 3), b=nn.Conv2d(2, 1, 3, padding=1), c=nn.Conv2d(12, 20, 1),
        d=nn.Conv2d(20, 4, 3)), (IMAGE,), goes=("a.weight", "c.weight"), exact=False),
)  # fmt: skip

ROWS = (*PADS, *JOINS, *CUTS, *VIEWS, *REDUCTIONS)
