"""Reconstruction: what the kept channels can still say, without training and without labels.

Stage: recovery. In: the original and the compact network, and unlabelled examples. Out: the
compact network with new weights, in place. Walks the layers in order; each linear or convolution
layer gets the weights that best reproduce what its output should be (`aims`) on the kept channels
from the compact network's own input: least squares, ridge-regularised towards the old weights. The
mean error goes into the bias, or into the running mean of the batch norm that follows.

Related: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks"
(arXiv:1707.06168), which solves for one layer at a time from the original's inputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from prunecli.graph.capture import Captured
from prunecli.graph.nodes import argument, shape_of
from prunecli.graph.stepping import Stepper
from prunecli.progress import Reporter
from prunecli.recovery.aims import Aim, Pair, aim_of
from prunecli.recovery.leastsquares import fit, fit_few
from prunecli.recovery.sampling import LINEAR, SampledRows
from prunecli.recovery.solvable import SolvableLayer, solvable_layers
from prunecli.surgery.kept import Kept
from prunecli.tasks import Tensors

RIDGE = 1e-3
"""Pull towards the old weights, relative to the inputs' mean square."""

LIVE_BYTES = 2 << 30
"""Most memory for the activations of all examples."""

MOST_HELD_BYTES = 1 << 29
"""Rows that take more are made anew every time that they are gone over."""


@dataclass(frozen=True)
class Reconstructed:
    """What was done.

    Attributes:
        layers: layers that got new weights.
        examples: examples used.
    """

    layers: int
    examples: int


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
    examples: Tensors,
    reporter: Reporter,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Reconstructed:
    """Give the layers of `network` new weights, in place.

    Args:
        network: the compact form of `captured.network`, in evaluation mode.
        examples: prepared inputs, each (N, ...), no labels.
        masks: of parameters of `network`, True stays; what is masked stays zero. Every output is
            then solved for over the weights that it has, the optimum that OBS-style compensation
            (Hassibi & Stork 1993; Frantar & Alistarh 2022, arXiv:2208.11580) approaches weight by
            weight.
    """
    layers = {layer.node: layer for layer in solvable_layers(network, kept, masks or {})}
    original = Stepper(captured.network, torch.float32)
    smaller = Stepper(network, torch.float32)
    twins = {node.name: node for node in captured.network.graph.nodes}
    pair = Pair(original, smaller, twins, kept)
    generator = torch.Generator().manual_seed(seed)
    left, right = (iter([item.clone() for item in examples]) for _ in range(2))
    total = len(layers)
    done = 0
    with torch.no_grad(), reporter.step("reconstructing layers", total) as step:
        for node in network.graph.nodes:
            twin = twins.get(node.name)
            if twin is not None:
                original.run_one(twin, left)
            layer = layers.get(node)
            aim = None if layer is None else aim_of(node, layer.after, pair)
            if layer is not None and aim is not None:
                _solve(layer, smaller, aim, generator)
                done += 1
                step.update(done, node.name)
            smaller.run_one(node, right)
    return Reconstructed(done, len(examples[0]))


def _solve(layer: SolvableLayer, network: Stepper, aim: Aim, generator: torch.Generator) -> None:
    """Least squares for one layer."""
    weight = layer.weight
    source = network.env[layer.node.args[0]]  # type: ignore[index]
    unknowns = math.prod(weight.shape[1:])
    seed = int(torch.randint(2**31, (), generator=generator))
    rows = SampledRows(layer, source, aim, seed)
    old = weight.detach().double().reshape(layer.groups, -1, unknowns)
    shifts = layer.bias is not None or layer.after.norm is not None
    support = None if layer.mask is None else layer.mask.reshape(old.shape)
    few = source[..., 0].numel() < unknowns and layer.node.target is LINEAR
    if few and support is None:
        whole = tuple(torch.cat(parts, 1) for parts in zip(*rows, strict=True))
        found = fit_few(whole, old, RIDGE, with_bias=shifts)
    else:
        held = rows if rows.size_bytes > MOST_HELD_BYTES else list(rows)
        found = fit(held, old, RIDGE, with_bias=shifts, support=support, bend=rows.bend)
    if not bool(torch.isfinite(found.weight).all()):
        return  # inputs without any variance: the old weights are as good as any
    weight.copy_(found.weight.reshape(weight.shape))
    if shifts:
        _shift(layer, network, found.bias.reshape(-1))


def _shift(layer: SolvableLayer, network: Stepper, bias: Tensor) -> None:
    """Put the mean that the weights cannot reach where it costs nothing."""
    if layer.bias is not None:
        layer.bias.copy_(bias)
        return
    assert layer.after.norm is not None
    mean = network.module.get_buffer(str(argument(layer.after.norm, "running_mean").target))
    mean.sub_(bias.to(mean.dtype))
