"""Rows: layers with weights, normalisation, pooling and resizing."""

import torch
import torch.nn.functional as F
from engine_harness import Net
from engine_rows import CONV, Row, mlp, pointwise, sandwich, stuck
from torch import nn

_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_SIZE = {1: 16, 2: 8, 3: 5}


def layer(name: str, make, *, after: int = 12, width: int = 12, goes=(), **row) -> Row:
    """conv a -> relu -> the layer -> relu -> conv b."""
    dims = row.pop("dims", 2)
    return sandwich(
        name,
        lambda n, x: torch.relu(n.m(torch.relu(x))),
        layers=lambda: {"m": make()},
        after=after,
        width=width,
        dims=dims,
        size=_SIZE[dims],
        goes=("a.weight", *goes),
        **row,
    )


CONVOLUTIONS = (
    *(layer(f"conv{d}d", lambda d=d: CONV[d](12, 10, 3, stride=2, dilation=1, padding=1),
            after=10, dims=d, goes=("m.weight", "m.bias")) for d in (1, 2, 3)),
    *(layer(f"conv-transposed-{d}d", lambda d=d: _TRANSPOSED[d](12, 10, 3, 2, 1, 1),
            after=10, dims=d, goes=("m.weight", "m.bias")) for d in (1, 2, 3)),
    layer("conv-no-bias", lambda: nn.Conv2d(12, 10, 3, bias=False), after=10, goes=("m.weight",)),
    layer("conv-same", lambda: nn.Conv2d(12, 10, 3, padding="same"), after=10, goes=("m.weight",)),
    *(layer(f"conv-{mode}", lambda mode=mode: nn.Conv2d(12, 10, 3, padding=1, padding_mode=mode),
            after=10, goes=("m.weight",)) for mode in ("reflect", "circular", "replicate")),
    layer("depthwise", lambda: nn.Conv2d(12, 12, 3, groups=12), goes=("m.weight", "m.bias")),
    layer("depthwise-1d", lambda: nn.Conv1d(12, 12, 3, groups=12), dims=1, goes=("m.weight",)),
    layer("depthwise-3d", lambda: nn.Conv3d(12, 12, 3, groups=12), dims=3, goes=("m.weight",)),
    layer("depthwise-multiplied", lambda: nn.Conv2d(12, 36, 3, groups=12), after=36,
          goes=("m.weight", "m.bias")),
    layer("depthwise-gathering", lambda: nn.Conv2d(12, 4, 3, groups=4), after=4,
          goes=("m.weight",)),
    layer("depthwise-transposed", lambda: nn.ConvTranspose2d(12, 12, 2, 2, groups=12),
          goes=("m.weight",)),
    layer("depthwise-transposed-multiplied", lambda: nn.ConvTranspose2d(12, 24, 2, 2, groups=12),
          after=24, goes=("m.weight", "m.bias")),
    layer("grouped", lambda: nn.Conv2d(12, 24, 3, groups=3), after=24,
          goes=("m.weight", "m.bias")),
    layer("grouped-many", lambda: nn.Conv2d(24, 24, 3, groups=8), width=24, after=24,
          goes=("m.weight",)),
    layer("grouped-1d", lambda: nn.Conv1d(12, 24, 3, groups=3), dims=1, after=24,
          goes=("m.weight",)),
    layer("grouped-3d", lambda: nn.Conv3d(12, 24, 3, groups=2), dims=3, after=24,
          goes=("m.weight",)),
    layer("grouped-transposed", lambda: nn.ConvTranspose2d(12, 24, 2, 2, groups=3), after=24,
          goes=("m.weight", "m.bias")),
    layer("grouped-twice", lambda: nn.Sequential(
        nn.Conv2d(12, 24, 3, groups=3), nn.ReLU(), nn.Conv2d(24, 12, 1, groups=3)),
        goes=("m.0.weight", "m.2.weight")),
    layer("grouped-differently", lambda: nn.Sequential(
        nn.Conv2d(12, 24, 3, groups=3), nn.ReLU(), nn.Conv2d(24, 12, 1, groups=2)),
        goes=()),
    Row("grouped-input", lambda: Net(
        lambda n, x: n.b(torch.relu(n.m(n.a(x)))), a=nn.Conv2d(4, 12, 3, groups=2),
        m=nn.Conv2d(12, 8, 1), b=nn.Conv2d(8, 5, 1)), ((4, 8, 8),), goes=("m.weight",),
        stays={"a": "grouped convolution over channels that cannot shrink"}, macs=0.8),
    Row("linear", lambda: Net(
        lambda n, x: n.c(torch.tanh(n.b(torch.relu(n.a(x))))), a=nn.Linear(10, 16),
        b=nn.Linear(16, 12, bias=False), c=nn.Linear(12, 4)), ((10,),),
        goes=("a.weight", "a.bias", "b.weight")),
    Row("linear-tokens", lambda: Net(
        lambda n, x: n.b(torch.relu(n.a(x))), a=nn.Linear(10, 16), b=nn.Linear(16, 4)),
        ((7, 10),)),
    Row("one-channel-input", lambda: Net(
        lambda n, x: n.b(torch.relu(n.a(x))), a=nn.Conv2d(1, 12, 3), b=nn.Conv2d(12, 1, 3)),
        ((1, 8, 8),)),
    Row("one-channel-inside", lambda: Net(
        lambda n, x: n.d(n.c(torch.relu(n.b(torch.relu(n.a(x)))))), a=nn.Conv2d(3, 12, 3),
        b=nn.Conv2d(12, 1, 3), c=nn.Conv2d(1, 10, 1), d=nn.Conv2d(10, 4, 1)),
        goes=("a.weight", "c.weight")),
)  # fmt: skip

NORMS = (
    *(layer(f"batch-norm-{d}d", lambda d=d: _BATCH[d](12), dims=d,
            goes=("m.weight", "m.bias", "m.running_mean", "m.running_var")) for d in (1, 2, 3)),
    layer("batch-norm-plain", lambda: nn.BatchNorm2d(12, affine=False), goes=("m.running_var",)),
    layer("batch-norm-no-statistics", lambda: nn.BatchNorm2d(12, track_running_stats=False),
          goes=("m.weight",)),
    mlp("batch-norm-mlp", lambda n, x: torch.relu(n.m(x)), layers=lambda: {
        "m": nn.BatchNorm1d(16)}, goes=("a.weight", "m.running_var")),
    *(layer(f"instance-norm-{d}d", lambda d=d: _INSTANCE[d](12, affine=True), dims=d,
            goes=("m.weight",)) for d in (1, 2, 3)),
    layer("instance-norm-statistics", lambda: nn.InstanceNorm2d(
        12, affine=True, track_running_stats=True), goes=("m.running_mean",)),
    layer("instance-norm-plain", lambda: nn.InstanceNorm2d(12)),
    *(layer(f"group-norm-{g}", lambda g=g: nn.GroupNorm(g, 12), goes=("m.weight", "m.bias"))
      for g in (1, 2, 4, 12)),
    layer("group-norm-plain", lambda: nn.GroupNorm(4, 12, affine=False), exact=False),
    mlp("group-norm-mlp", lambda n, x: torch.relu(n.m(x)), layers=lambda: {
        "m": nn.GroupNorm(4, 16)}, goes=("a.weight", "m.weight")),
    layer("grouped-then-group-norm", lambda: nn.Sequential(
        nn.Conv2d(12, 24, 3, groups=3), nn.GroupNorm(6, 24)), after=24, goes=("m.0.weight",)),
    mlp("layer-norm", lambda n, x: torch.relu(n.m(x)), layers=lambda: {"m": nn.LayerNorm(16)},
        goes=("a.weight", "m.weight", "m.bias")),
    mlp("layer-norm-no-bias", lambda n, x: n.m(x), layers=lambda: {
        "m": nn.LayerNorm(16, bias=False)}, goes=("a.weight", "m.weight"), exact=False),
    mlp("layer-norm-plain", lambda n, x: F.layer_norm(x, (16,)), exact=False),
    mlp("rms-norm", lambda n, x: n.m(x), layers=lambda: {"m": nn.RMSNorm(16)},
        goes=("a.weight", "m.weight"), exact=False),
    layer("layer-norm-chw", lambda: nn.LayerNorm((12, 8, 8)), goes=("m.weight", "m.bias")),
    sandwich("layer-norm-channels-last", lambda n, x: n.m(x.permute(0, 2, 3, 1)).permute(
        0, 3, 1, 2), layers=lambda: {"m": nn.LayerNorm(12)}, goes=("a.weight", "m.weight")),
    pointwise("layer-norm-space", lambda x: F.layer_norm(x, (8, 8))),
    stuck("local-response", lambda n, x: F.local_response_norm(x, 3), "is pooled or resized"),
    pointwise("l2-normalised", lambda x: F.normalize(x)),
    pointwise("l1-normalised", lambda x: F.normalize(x, p=1.0)),
    stuck("max-normalised", lambda n, x: F.normalize(x, p=float("inf")), "is reduced over"),
    mlp("rms-norm-by-hand", lambda n, x: n.m * x * torch.rsqrt(
        x.pow(2).mean(-1, keepdim=True) + 1e-6), layers=lambda: {"m": torch.rand(16)},
        goes=("a.weight", "m")),
    mlp("rms-norm-of-flat", lambda n, x: x / x.pow(2).mean().sqrt()),
    stuck("l2-normalised-later", lambda n, x: F.normalize(x.exp()), "is reduced over"),
    sandwich("manual-batch-norm", lambda n, x: (x - n.m[:, None, None]) * torch.rsqrt(
        n.v[:, None, None].square() + 1e-3), layers=lambda: {
            "m": torch.randn(12), "v": torch.rand(12)}, goes=("a.weight", "m", "v")),
)  # fmt: skip

POOLS = (
    *(layer(f"pool-{type(make()).__name__}", make, dims=int(type(make()).__name__[-2]))
      for make in (
        lambda: nn.MaxPool1d(2), lambda: nn.MaxPool2d(3, 2, 1), lambda: nn.MaxPool3d(2),
        lambda: nn.AvgPool1d(2), lambda: nn.AvgPool2d(3, 2, 1), lambda: nn.AvgPool3d(2),
        lambda: nn.AdaptiveAvgPool1d(3), lambda: nn.AdaptiveAvgPool2d(1),
        lambda: nn.AdaptiveAvgPool3d(2), lambda: nn.AdaptiveMaxPool1d(3),
        lambda: nn.AdaptiveMaxPool2d((2, 3)), lambda: nn.AdaptiveMaxPool3d(2),
        lambda: nn.LPPool1d(2, 2), lambda: nn.LPPool2d(2, 2),
      )),
    pointwise("pool-ceil", lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    pointwise("pool-no-pad-count", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    pointwise("pool-indices", lambda x: sum(F.max_pool2d(x, 2, return_indices=True))),
    pointwise("adaptive-indices", lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)[0]),
    stuck("unpool", lambda n, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
          "no rule", unknown=("aten.max_unpool2d",)),
    *(pointwise(f"resize-{mode}", lambda x, mode=mode: F.interpolate(x, scale_factor=2, mode=mode))
      for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")),
    sandwich("grid-sample", lambda n, x: F.grid_sample(x, n.grid.expand(x.size(0), -1, -1, -1),
             align_corners=False), layers=lambda: {"grid": torch.rand(1, 5, 6, 2) * 2 - 1}),
    sandwich("grid-sample-computed", lambda n, x: F.grid_sample(x, torch.tanh(n.g(x)).permute(
        0, 2, 3, 1), align_corners=True), layers=lambda: {"g": nn.Conv2d(12, 2, 1)},
        stays={"g": "is sampled at computed places"}),
    pointwise("resize-size", lambda x: F.interpolate(x, size=(5, 11), mode="bilinear",
                                                     align_corners=True)),
    pointwise("resize-antialias", lambda x: F.interpolate(x, size=4, mode="bilinear",
                                                          antialias=True)),
    pointwise("resize-1d", lambda x: F.interpolate(x, scale_factor=2, mode="linear"), dims=1),
    pointwise("resize-3d", lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), dims=3,
              size=4),
)  # fmt: skip

PARAMETERS = (
    sandwich("matmul-parameter", lambda n, x: (x.permute(0, 2, 3, 1) @ n.w).permute(0, 3, 1, 2),
             layers=lambda: {"w": nn.Parameter(torch.randn(12, 14))}, after=14,
             goes=("a.weight", "w")),
    mlp("matmul-left", lambda n, x: (n.w @ torch.relu(x).unsqueeze(2)).squeeze(2), after=14,
        layers=lambda: {"w": nn.Parameter(torch.randn(14, 16))}, goes=("a.weight", "w")),
    mlp("mm", lambda n, x: torch.mm(torch.relu(x), n.w), after=14,
        layers=lambda: {"w": nn.Parameter(torch.randn(16, 14))}, goes=("a.weight", "w")),
    mlp("addmm", lambda n, x: torch.addmm(n.v, torch.relu(x), n.w), after=14, layers=lambda: {
        "w": nn.Parameter(torch.randn(16, 14)), "v": nn.Parameter(torch.randn(14))},
        goes=("a.weight", "w", "v")),
    sandwich("einsum", lambda n, x: torch.einsum("nchw,cd->ndhw", x, n.w), after=14,
             layers=lambda: {"w": nn.Parameter(torch.randn(12, 14))}, goes=("a.weight", "w")),
    sandwich("einsum-dots", lambda n, x: torch.einsum("...chw,cdk->...dkhw", x, n.w).flatten(1, 2),
             after=14, layers=lambda: {"w": nn.Parameter(torch.randn(12, 7, 2))}),
    sandwich("bmm", lambda n, x: torch.bmm(x.flatten(2).mT, n.w.expand(x.size(0), -1, -1)).mT
             .unflatten(2, (8, 8)), after=14, layers=lambda: {
                 "w": nn.Parameter(torch.randn(1, 12, 14))}),
    sandwich("product-of-features", lambda n, x: torch.tanh(torch.sigmoid(x.flatten(2)).mT
             @ torch.sigmoid(n.k(x).flatten(2))).view(-1, 64, 8, 8), after=64, layers=lambda: {
                 "k": nn.Conv2d(12, 12, 1)}, goes=("a.weight", "k.weight"), exact=False),
    sandwich("joined-weights", lambda n, x: F.conv2d(x, torch.cat([n.v, n.w])), after=14,
             layers=lambda: {"v": nn.Parameter(torch.randn(6, 12, 1, 1)),
                             "w": nn.Parameter(torch.randn(8, 12, 1, 1))},
             goes=("a.weight", "v", "w")),
    sandwich("linear-weight-as-conv", lambda n, x: F.conv2d(x, n.w[:, :, None, None]), after=14,
             layers=lambda: {"w": nn.Parameter(torch.randn(14, 12))}, goes=("a.weight", "w")),
    sandwich("blur-buffer", lambda n, x: F.conv2d(x, n.w, stride=2, groups=12),
             layers=lambda: {"w": torch.randn(12, 1, 3, 3)}, goes=("a.weight", "w")),
    sandwich("blur-expanded", lambda n, x: F.conv2d(x, n.w.expand(12, 1, 3, 3), groups=12),
             layers=lambda: {"w": torch.randn(1, 1, 3, 3)}),
    sandwich("blur-repeated", lambda n, x: F.conv2d(x, n.w.repeat(x.size(1), 1, 1, 1), groups=12),
             layers=lambda: {"w": torch.randn(1, 1, 3, 3)}),
    mlp("tied-autoencoder", lambda n, x: F.linear(torch.relu(x), n.a.weight.t()), after=10),
    mlp("shared-linear", lambda n, x: n.m(torch.relu(n.m(torch.relu(x)))),
        layers=lambda: {"m": nn.Linear(16, 16)}, goes=("a.weight", "m.weight")),
    sandwich("shared-conv", lambda n, x: n.m(torch.relu(n.m(x))), layers=lambda: {
        "m": nn.Conv2d(12, 12, 3, padding=1)}, goes=("a.weight", "m.weight")),
    sandwich("shared-grouped", lambda n, x: n.m(torch.relu(n.m(x))), layers=lambda: {
        "m": nn.Conv2d(12, 12, 3, padding=1, groups=3)}, goes=("a.weight", "m.weight")),
    sandwich("shared-depthwise", lambda n, x: n.m(torch.relu(n.m(x))) + x, layers=lambda: {
        "m": nn.Conv2d(12, 12, 3, padding=1, groups=12)}, goes=("a.weight", "m.weight")),
    sandwich("shared-norm", lambda n, x: n.m(torch.relu(n.m(x))), layers=lambda: {
        "m": nn.BatchNorm2d(12)}, goes=("a.weight", "m.weight")),
    Row("shared-for-two-inputs", lambda: Net(
        lambda n, x: n.b(torch.cat([n.a(x), n.a(x.flip(3))], 1)), a=nn.Conv2d(3, 12, 3),
        b=nn.Conv2d(24, 4, 1))),
    sandwich("standardised-weight", lambda n, x: F.conv2d(x, n.w - n.w.mean((2, 3), keepdim=True)),
             layers=lambda: {"w": nn.Parameter(torch.randn(10, 12, 3, 3))}, after=10,
             goes=("a.weight", "w")),
)  # fmt: skip

ROWS = (*CONVOLUTIONS, *NORMS, *POOLS, *PARAMETERS)
