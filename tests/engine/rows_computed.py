"""Rows: index tensors, windows, products by other names, Fourier transforms, and weights that
depend on the input."""

import torch
import torch.nn.functional as F
from engine_rows import mlp, pointwise, sandwich, stuck
from torch import nn

PLACES = torch.tensor([3, 0, 5])

INDEXING = (
    sandwich("index-select-space", lambda n, x: x.index_select(2, n.i), layers=lambda: {
        "i": PLACES}, stays={"i": "is indexed by a tensor"}),
    stuck("index-select-channels", lambda n, x: x.index_select(1, n.i), "is indexed by a tensor",
          after=3, layers=lambda: {"i": PLACES}),
    sandwich("gather-space", lambda n, x: x.flatten(2).gather(2, n.i.expand(
        x.size(0), 12, -1))[..., None], layers=lambda: {"i": torch.arange(5).view(1, 1, 5) * 7}),
    pointwise("gather-best", lambda x: x.flatten(2).gather(2, x.flatten(2).mean(
        1, keepdim=True).expand(-1, 12, -1).argsort(2)[:, :, :9]).unflatten(2, (3, 3))),
    pointwise("gather-per-channel", lambda x: x.flatten(2).gather(2, x.flatten(2).topk(
        9, 2).indices).unflatten(2, (3, 3))),
    stuck("gather-channels", lambda n, x: x.gather(1, n.i.expand(x.size(0), -1, 8, 8)),
          "is indexed by a tensor", after=3, layers=lambda: {"i": PLACES.view(1, 3, 1, 1)}),
    stuck("gather-part", lambda n, x: x.gather(2, n.i.expand(x.size(0), 6, 8, 8)),
          "is indexed by a tensor", after=6, layers=lambda: {
              "i": torch.arange(8).view(1, 1, 8, 1)}),
    pointwise("take-along-dim", lambda x: torch.take_along_dim(x, x.argsort(3), 3)),
    sandwich("scatter-add", lambda n, x: torch.zeros_like(x).scatter_add(3, n.i.expand(
        x.size(0), 12, -1, -1), x), layers=lambda: {"i": torch.arange(64).view(1, 1, 8, 8) % 5}),
    sandwich("index-add", lambda n, x: torch.relu(x).index_add(2, n.i, x[:, :, :3]),
             layers=lambda: {"i": PLACES}, stays={"i": "is written to by index"}),
    stuck("index-add-channels", lambda n, x: torch.relu(x).index_add(1, n.i, x[:, :3]),
          "is written to by index", layers=lambda: {"i": PLACES}),
    sandwich("expanded-mask", lambda n, x: x.masked_fill(n.m.expand(x.size(0), 12, 8, 8), 0.5),
             layers=lambda: {"m": torch.arange(8).view(1, 1, 1, 8) > 4}, exact=False),
)  # fmt: skip

ORDER = (
    pointwise("sort", lambda x: x.sort(2)[0] + x.sort(3, descending=True)[0]),
    pointwise("argsort", lambda x: x * x.argsort(2).float()),
    pointwise("topk", lambda x: x.flatten(2).topk(9, 2).values.unflatten(2, (3, 3))),
    pointwise("kthvalue", lambda x: x.kthvalue(2, dim=2, keepdim=True).values),
    pointwise("cummax", lambda x: x.cummax(3).values),
    stuck("sort-channels", lambda n, x: x.sort(1)[0], "is reduced over"),
    stuck("topk-channels", lambda n, x: x.topk(4, 1)[0], "is reduced over", after=4),
)  # fmt: skip

WINDOWS = (
    pointwise("unfold-windows", lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))),
    pointwise("unfold-patches", lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).permute(
        0, 1, 4, 5, 2, 3).flatten(1, 3), after=192),
    sandwich("im2col", lambda n, x: n.l(F.unfold(x, 2, stride=2).mT).mT.unflatten(2, (4, 4)),
             layers=lambda: {"l": nn.Linear(48, 14)}, after=14, goes=("a.weight", "l.weight")),
    pointwise("im2col-and-back", lambda x: F.fold(torch.tanh(F.unfold(x, 3, padding=1)), (8, 8), 3,
                                                  padding=1)),
    mlp("tril", lambda n, x: x @ torch.tril(n.w), layers=lambda: {
        "w": nn.Parameter(torch.randn(16, 16))}, goes=(),
        stays={"a": "is cut to a triangle"}),
    pointwise("triu-space", lambda x: x.triu()),
    pointwise("rot90", lambda x: torch.rot90(x, 1, (2, 3))),
)  # fmt: skip

FOURIER = (
    pointwise("fft2", lambda x: torch.fft.fft2(x).real),
    sandwich("fourier-filter", lambda n, x: torch.fft.irfft2(torch.fft.rfft2(
        x, norm="ortho") * torch.view_as_complex(n.w), s=(8, 8), norm="ortho"), layers=lambda: {
            "w": nn.Parameter(torch.randn(12, 8, 5, 2))}, goes=("a.weight", "w")),
    pointwise("spectrum", lambda x: torch.view_as_real(torch.fft.rfft(x)).square().sum(-1)),
    mlp("fft-channels", lambda n, x: torch.fft.fft(x).real, goes=(),
        stays={"a": "is reduced over"}),
)  # fmt: skip


def square(width: int = 16) -> dict[str, nn.Parameter]:
    return {"w": nn.Parameter(torch.randn(width, 16))}


PRODUCTS = (
    mlp("tensordot", lambda n, x: torch.tensordot(x, n.w, ([1], [1])), after=14,
        layers=lambda: square(14), goes=("a.weight", "w")),
    mlp("inner", lambda n, x: torch.inner(x, n.w), after=14, layers=lambda: square(14),
        goes=("a.weight", "w")),
    mlp("outer", lambda n, x: x + torch.outer(x.mean(1), n.v), layers=lambda: {
        "v": nn.Parameter(torch.randn(16))}, goes=("a.weight", "v")),
    mlp("outer-of-batch", lambda n, x: x + torch.outer(n.g(x).squeeze(1), n.v), layers=lambda: {
        "g": nn.Linear(16, 1), "v": nn.Parameter(torch.randn(16))}, goes=("a.weight", "v")),
    mlp("bilinear", lambda n, x: n.m(torch.relu(x), torch.relu(n.c(x))), after=9, layers=lambda: {
        "m": nn.Bilinear(16, 12, 9), "c": nn.Linear(16, 12)},
        goes=("a.weight", "c.weight", "m.weight")),
    mlp("distances", lambda n, x: torch.cdist(torch.relu(x), n.w), after=14,
        layers=lambda: square(14), goes=("a.weight", "w")),
    mlp("cosine", lambda n, x: x * F.cosine_similarity(x, n.c(x), -1)[:, None], goes=(),
        layers=lambda: {"c": nn.Linear(16, 16)}, stays={"a": "is reduced over"}),
    pointwise("cosine-space", lambda x: x * F.cosine_similarity(x, torch.tanh(x), 2)[:, :, None]),
    pointwise("pairwise-space", lambda x: x * F.pairwise_distance(x, torch.tanh(x), keepdim=True)),
    mlp("embedding-bag", lambda n, x: x + n.e((x[:, :3] > 0).long()), layers=lambda: {
        "e": nn.EmbeddingBag(2, 16, mode="mean")}, goes=(), stays={"e": "vocabulary"}),
    mlp("embedding-bags", lambda n, x: torch.relu(x) + n.e(n.i.expand(x.size(0), -1)),
        layers=lambda: {"e": nn.EmbeddingBag(7, 16), "i": PLACES}),
)  # fmt: skip


def kernels(n, x, weight, *, groups=None, convolve=F.conv2d):
    """Every example has its own kernel (N, O, I, k, k)."""
    batch = x.shape[0]
    groups = batch if groups is None else groups
    y = convolve(x.reshape(1, -1, 8, 8), weight.flatten(0, 1), padding=1, groups=groups)
    return y.view(batch, -1, 8, 8)


def mixed(n, x):
    """A mixture of four kernels (CondConv, dynamic convolution)."""
    shares = n.r(x.mean((2, 3))).softmax(1)[:, :, None, None, None, None]
    return kernels(n, x, (shares * n.w).sum(1))


def mixed_flat(n, x):
    shares = torch.sigmoid(n.r(x.mean((2, 3))))
    return kernels(n, x, (shares @ n.w).view(-1, 14, 12, 3, 3))


def modulated(n, x):
    """Scaled input channels, as StyleGAN2 has it without its normalisation."""
    return kernels(n, x, n.w[0] * n.s(x.mean((2, 3)))[:, None, :, None, None])


def upscaled(n, x):
    shares = n.r(x.mean((2, 3))).softmax(1)[:, :, None, None, None, None]
    return kernels(n, x, (shares * n.w).sum(1), convolve=F.conv_transpose2d)


def depthwise(n, x):
    weight = n.k(x.mean((2, 3))).view(-1, 12, 1, 3, 3)
    return kernels(n, x, weight, groups=x.shape[0] * 12)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


DYNAMIC = (
    sandwich("kernels-mixed", mixed, after=14, layers=lambda: {
        "r": nn.Linear(12, 4), "w": parameter(4, 14, 12, 3, 3)}),
    sandwich("kernels-mixed-flat", mixed_flat, after=14, goes=("w",), layers=lambda: {
        "r": nn.Linear(12, 4), "w": parameter(4, 14 * 12 * 9)}),
    sandwich("kernels-modulated", modulated, after=14, goes=("a.weight", "s.weight"),
             layers=lambda: {"s": nn.Linear(12, 12), "w": parameter(14, 14, 12, 3, 3)}),
    sandwich("kernels-transposed", upscaled, after=14, layers=lambda: {
        "r": nn.Linear(12, 4), "w": parameter(4, 12, 14, 3, 3)}),
    sandwich("kernels-depthwise", depthwise, goes=("a.weight", "k.weight"), layers=lambda: {
        "k": nn.Linear(12, 108)}),
)  # fmt: skip

ROWS = (*INDEXING, *ORDER, *WINDOWS, *FOURIER, *PRODUCTS, *DYNAMIC)
