"""Reconstruction: what the kept channels can still say, without training and without labels.

Stage: recovery. In: the original and the compact network, and unlabelled examples. Out: the
compact network with new weights, in place. Walks the layers in order; each linear or convolution
layer gets the weights that best reproduce the original's output on the kept channels from the
compact network's own input: least squares, ridge-regularised towards the old weights. The mean
error goes into the bias, or into the running mean of the batch norm that follows.

Related: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks"
(arXiv:1707.06168), which solves for one layer at a time from the original's inputs.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from prunecli.graph.capture import Captured
from prunecli.graph.fields import Value
from prunecli.graph.nodes import argument, attribute, operator_name, shape_of
from prunecli.graph.stepping import Stepper
from prunecli.progress import Reporter
from prunecli.recovery.leastsquares import fit, fit_few
from prunecli.surgery.kept import Kept

RIDGE = 1e-3
"""Pull towards the old weights, relative to the inputs' mean square."""

ROWS_PER_UNKNOWN = 150
"""Input rows used per unknown of a layer; more cost time and change little."""

FEWEST_ROWS, MOST_ROWS = 20_000, 80_000
"""Bounds on that, since the work grows with the square of the unknowns."""

LEAST_PER_UNKNOWN = 16
"""Even then a large layer gets this many rows per unknown."""

LIVE_BYTES = 2 << 30
"""Most memory for the activations of all examples."""

CHUNK_ROWS = 1 << 15

MOST_UNKNOWNS, MOST_WORK = 10_000, 3e12
"""Masked layers with more inputs, or more operations to solve for all outputs, stay as they are."""


@dataclass(frozen=True)
class Reconstructed:
    """What was done.

    Attributes:
        layers: layers that got new weights.
        examples: examples used.
    """

    layers: int
    examples: int


@dataclass(frozen=True)
class _Layer:
    """A layer with weights of its own in the compact network.

    Attributes:
        weight: (O, I/groups, ...).
        groups: blocks of a convolution.
        norm: the batch norm that alone reads the output, if any.
        mask: of `weight`, True stays; `None` where nothing is masked.
    """

    node: fx.Node
    weight: nn.Parameter
    bias: nn.Parameter | None
    groups: int
    norm: fx.Node | None
    mask: Tensor | None


def affordable(captured: Captured, wanted: int) -> int:
    """How many examples fit into `LIVE_BYTES` with all their live activations, at most `wanted`."""
    sizes: dict[fx.Node, int] = {}
    live = peak = 0
    stepper = Stepper(captured.network, torch.float32)
    for node in captured.network.graph.nodes:
        val = node.meta.get("val")
        if node.op != "get_attr" and isinstance(val, Tensor):
            sizes[node] = math.prod(shape_of(val)) * val.element_size()
        live += sizes.get(node, 0)
        peak = max(peak, live)
        live -= sum(sizes.pop(dead, 0) for dead in stepper.user_to_last_uses.get(node, ()))
    each = 2 * peak / captured.batch
    return max(1, min(wanted, int(LIVE_BYTES / max(each, 1.0))))


def reconstruct(
    captured: Captured,
    network: fx.GraphModule,
    kept: Kept,
    examples: Tensor,
    reporter: Reporter,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Reconstructed:
    """Give the layers of `network` new weights, in place.

    Args:
        network: the compact form of `captured.network`, in evaluation mode.
        examples: prepared inputs (N, ...), no labels.
        masks: of parameters of `network`, True stays; what is masked stays zero. Every output is
            then solved for over the weights that it has, the optimum that OBS-style compensation
            (Hassibi & Stork 1993; Frantar & Alistarh 2022, arXiv:2208.11580) approaches weight by
            weight.
    """
    layers = {layer.node: layer for layer in _layers(network, kept, masks or {})}
    original = Stepper(captured.network, torch.float32)
    smaller = Stepper(network, torch.float32)
    names = {node.name: node for node in captured.network.graph.nodes}
    generator = torch.Generator().manual_seed(seed)
    left, right = iter([examples.clone()]), iter([examples.clone()])
    total = len(layers)
    done = 0
    with torch.no_grad(), reporter.step("reconstructing layers", total) as step:
        for node in network.graph.nodes:
            twin = names.get(node.name)
            expected = original.run_one(twin, left) if twin is not None else None
            layer = layers.get(node)
            if layer is not None and isinstance(expected, Tensor):
                value = kept.flow.values[node.name]
                assert isinstance(value, Value)
                _solve(layer, smaller, kept.gather(value, expected), generator)
                done += 1
                step.update(done, node.name)
            smaller.run_one(node, right)
    return Reconstructed(done, len(examples))


def _layers(network: fx.GraphModule, kept: Kept, masks: Mapping[str, Tensor]) -> Iterator[_Layer]:
    """Layers whose inputs or weights lost something, used once."""
    pruned = {slot.tensor for slot in kept.coupling.slots if not kept.keep[slot.units].all()}
    for node in network.graph.nodes:
        if operator_name(node) not in ("aten.linear", "aten.conv1d", "aten.conv2d"):
            continue
        source = argument(node, "weight")
        weight = attribute(network, str(source.target)) if source.op == "get_attr" else None
        if not isinstance(weight, nn.Parameter) or len(source.users) != 1:
            continue
        value = kept.flow.values[source.name]
        if not isinstance(value, Value) or value.parameter is None:
            continue
        mask = masks.get(value.parameter)
        if (value.parameter not in pruned and mask is None) or _too_large(weight, mask):
            continue
        groups = argument(node, "groups") or 1  # linear layers have none
        if isinstance(argument(node, "padding"), str) or weight.shape[1] == 1 < groups:
            continue
        given = argument(node, "bias")
        bias = attribute(network, str(given.target)) if given is not None else None
        yield _Layer(node, weight, bias, int(groups), _following_norm(node), mask)


def _too_large(weight: Tensor, mask: Tensor | None) -> bool:
    """Whether a system for each output would take too much time or memory."""
    unknowns = math.prod(weight.shape[1:])
    if mask is None:
        return False
    own = mask.flatten(1).sum(1).double()
    return unknowns > MOST_UNKNOWNS or float(own.pow(3).sum()) > MOST_WORK


_LINEAR = torch.ops.aten.linear.default


def _following_norm(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    if len(users) == 1 and operator_name(users[0]) == "aten.batch_norm":
        return users[0]
    return None


def _solve(layer: _Layer, network: Stepper, target: Tensor, generator: torch.Generator) -> None:
    """Least squares for one layer.

    Args:
        target: the original's output on the kept channels, shaped as the layer's output.
    """
    weight = layer.weight
    source = network.env[layer.node.args[0]]  # type: ignore[index]
    unknowns = math.prod(weight.shape[1:])
    chunks = _rows(layer, source, target, unknowns, generator)
    old = weight.detach().double().reshape(layer.groups, -1, unknowns)
    shifts = layer.bias is not None or layer.norm is not None
    support = None if layer.mask is None else layer.mask.reshape(old.shape)
    few = source[..., 0].numel() < unknowns and layer.node.target is _LINEAR
    if few and support is None:
        rows = [torch.cat(parts, 1) for parts in zip(*chunks, strict=True)]
        found = fit_few((rows[0], rows[1]), old, RIDGE, with_bias=shifts)
    else:
        found = fit(chunks, old, RIDGE, with_bias=shifts, support=support)
    if not bool(torch.isfinite(found.weight).all()):
        return  # inputs without any variance: the old weights are as good as any
    weight.copy_(found.weight.reshape(weight.shape))
    if shifts:
        _shift(layer, network, found.bias.reshape(-1))


def _shift(layer: _Layer, network: Stepper, bias: Tensor) -> None:
    """Put the mean that the weights cannot reach where it costs nothing."""
    if layer.bias is not None:
        layer.bias.copy_(bias)
        return
    assert layer.norm is not None
    mean = network.module.get_buffer(str(argument(layer.norm, "running_mean").target))
    mean.sub_(bias.to(mean.dtype))


def _rows(
    layer: _Layer, source: Tensor, target: Tensor, unknowns: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (groups, rows, unknowns), (groups, rows, outputs): a random part of all positions."""
    enough = min(ROWS_PER_UNKNOWN * unknowns, MOST_ROWS)
    wanted = max(FEWEST_ROWS, enough, LEAST_PER_UNKNOWN * unknowns)
    if layer.node.target is _LINEAR:
        flat, out = source.reshape(-1, source.shape[-1]), target.reshape(-1, target.shape[-1])
        picked = torch.randperm(len(flat), generator=generator)[:wanted]
        for start in range(0, len(picked), CHUNK_ROWS):
            part = picked[start : start + CHUNK_ROWS]
            yield flat[part][None], out[part][None]
        return
    if source.dim() == 3:
        source, target = source.unsqueeze(2), target.unsqueeze(2)
    positions = target.shape[2] * target.shape[3]
    share = min(1.0, wanted / (len(source) * positions))
    number = max(1, math.ceil(share * positions))
    step = max(1, CHUNK_ROWS // positions)
    for start in range(0, len(source), step):
        patches = _unfold(layer, source[start : start + step])
        places = torch.randperm(positions, generator=generator)[:number]
        rows = patches[:, :, places]
        out = target[start : start + step].flatten(2)[:, :, places]
        yield _by_group(rows, layer.groups), _by_group(out, layer.groups)


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """(N, groups * C, P) -> (groups, N * P, C)."""
    split = rows.reshape(rows.shape[0], groups, -1, rows.shape[2])
    return split.permute(1, 0, 3, 2).reshape(groups, -1, split.shape[2])


def _unfold(layer: _Layer, source: Tensor) -> Tensor:
    """Input patches (N, C * taps, positions) of a 1-d (as 2-d) or 2-d convolution."""
    kernel = tuple(layer.weight.shape[2:])
    stride, padding, dilation = (
        _pair(argument(layer.node, name), len(kernel), fill)
        for name, fill in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    kernel = kernel if len(kernel) == 2 else (1, *kernel)
    return F.unfold(source, kernel, dilation, padding, stride)


def _pair(given: Any, dims: int, fill: int) -> tuple[int, int]:
    """A convolution argument as a pair; a single number in a list stands for all axes."""
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    values = values * dims if len(values) == 1 else values
    return (values[0], values[1]) if dims == 2 else (fill, values[0])
