"""Runs the engine on a tiny network, and says independently what must come out.

The expectation is the eager module itself with the removed entries of its parameters set to
zero; layer and group norms, whose statistics depend on what is left, are replaced by a formula
written here. Nothing of the engine's own oracle is used for it.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunecli.choices import Criterion, Quantity, Strategy
from prunecli.graph.capture import Captured, capture
from prunecli.graph.cost import CostModel, cost_model
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import Flow, walk
from prunecli.importance.scores import Scores, UnitScores
from prunecli.importance.units import score_units
from prunecli.progress import SilentReporter
from prunecli.removal import Choosing, Target, UnitsWanted, mixture
from prunecli.selection.budget import select
from prunecli.selection.plan import Plan, kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import Kept, make_kept
from prunecli.surgery.oracle import check

Shape = tuple[int, ...]
Kept1D = Mapping[int, tuple[int, ...]]


class Net(nn.Module):
    """Named layers and a function over them: `forward(net, x)`."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class TwoInputs(Net):
    """The same with two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(self, x, y)


@dataclass(frozen=True)
class Analysis:
    """Everything before a choice is made."""

    captured: Captured
    flow: Flow
    coupling: Coupling
    costs: CostModel


@dataclass(frozen=True)
class Pruned:
    """A choice carried out."""

    plan: Plan
    kept: Kept
    network: fx.GraphModule


def inputs_of(shapes: tuple[Shape, ...], batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed + 1000 * batch)
    return tuple(torch.randn((batch, *shape), generator=generator) for shape in shapes)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random values where initialisation leaves ones and zeros, so that no mistake hides."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        fresh = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var") or (tensor.dim() <= 1 and name.endswith("weight")):
            fresh = 0.5 + fresh.abs()
        elif tensor.dim() > 1:
            fresh = fresh / max(1.0, tensor[0].numel() ** 0.5)
        tensor.data.copy_(fresh)
    return module.eval()


def analyse(module: nn.Module, shapes: tuple[Shape, ...]) -> Analysis:
    return analyse_captured(capture(module, positional(inputs_of(shapes, 2))))


def analyse_captured(captured: Captured) -> Analysis:
    flow = walk(captured)
    coupling = couple(flow)
    costs = cost_model(captured.network, flow, coupling, captured.batch)
    return Analysis(captured, flow, coupling, costs)


def channels(share: float) -> Target:
    """Keep this share of the units."""
    return Target(Quantity.CHANNELS, share, None, f"{share}")


def macs(share: float) -> Target:
    """Keep at most this share of the multiply-accumulates."""
    return Target(Quantity.MACS, share, None, f"{share:.0%}")


def scores(found: Analysis, criterion: Criterion, seed: int = 0) -> Scores:
    return score_units(
        found.captured,
        found.flow,
        found.coupling,
        Strategy.STRUCTURED,
        mixture(criterion),
        None,
        seed,
        SilentReporter(),
    ).normalised


def choose(found: Analysis, target: Target, criterion: Criterion, seed: int = 0) -> Plan:
    return select_by(found, scores(found, criterion, seed), target, criterion.value, seed)


def select_by(
    found: Analysis,
    own: Scores,
    target: Target,
    criterion: str = "l2",
    seed: int = 0,
    round_to: int = 1,
) -> Plan:
    """The plan by these scores, raw and normalised."""
    wanted = UnitsWanted(target, round_to)
    both = UnitScores(own, own)
    return select(found.coupling, found.costs, both, wanted, Choosing(), criterion, seed)


def carry_out(found: Analysis, plan: Plan) -> Pruned:
    kept = make_kept(found.flow, found.coupling, kept_units(plan, found.coupling))
    return Pruned(plan, kept, compact(found.captured, kept))


def prune(
    found: Analysis, target: Target, criterion: Criterion = Criterion.L2, seed: int = 0
) -> Pruned:
    return carry_out(found, choose(found, target, criterion, seed))


def zeroed(module: nn.Module, plan: Plan) -> nn.Module:
    """A copy of `module` in which what the plan removes is zero."""
    copied = copy.deepcopy(module)
    parameters = dict(copied.named_parameters(remove_duplicate=False))
    for name, axes in plan.tensors.items():
        if name in parameters:
            groups = getattr(copied.get_submodule(name.rpartition(".")[0]), "groups", 1)
            parameters[name].data *= mask_of(parameters[name].shape, axes, groups)
    for name, layer in list(copied.named_modules()):
        axes = plan.tensors.get(f"{name}.weight")
        if axes is not None and isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            parent = copied.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], NormOfKept(layer, axes[0]))
    return copied


def mask_of(shape: Shape, axes: Kept1D, groups: int) -> Tensor:
    """Ones where an entry stays. Axis 1 of a grouped convolution restarts in every group."""
    mask = torch.ones(shape)
    for axis, kept in axes.items():
        if axis == 1 and groups > 1:
            columns = torch.zeros(groups * shape[1])
            columns[list(kept)] = 1.0
            rows = columns.reshape(groups, -1).repeat_interleave(shape[0] // groups, 0)
            mask *= rows.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
        else:
            stays = torch.zeros(shape[axis])
            stays[list(kept)] = 1.0
            mask *= stays.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return mask


class NormOfKept(nn.Module):
    """Layer or group norm whose statistics are those of the kept channels (axis `kept` is of).

    Layer norm over its last axes, the first of which is the pruned one; group norm over axis 1.
    """

    def __init__(self, norm: nn.LayerNorm | nn.GroupNorm, kept: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = norm
        self.kept = list(kept)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if isinstance(norm, nn.LayerNorm):
            rows, shape = 1, (1,) * (x.dim() - len(norm.normalized_shape))
            lead = x.dim() - len(norm.normalized_shape)
            view = x.reshape(*x.shape[:lead], rows, x.shape[lead], -1)
            affine = (*shape, *norm.normalized_shape)
        else:
            rows, lead = norm.num_groups, 1
            view = x.reshape(x.shape[0], rows, x.shape[1] // rows, -1)
            affine = (1, -1, *[1] * (x.dim() - 2))
        stays = torch.zeros(view.shape[lead] * view.shape[lead + 1])
        stays[self.kept] = 1.0
        mask = stays.reshape(rows, -1, 1)
        count = mask.sum((1, 2), keepdim=True).clamp(min=1.0) * view.shape[-1]
        mean = (view * mask).sum((-2, -1), keepdim=True) / count
        spread = (((view - mean) * mask) ** 2).sum((-2, -1), keepdim=True) / count
        result = ((view - mean) / (spread + norm.eps).sqrt()).reshape(x.shape)
        return result * norm.weight.reshape(affine) + norm.bias.reshape(affine)


def assert_same(expected: Any, found: Any, tolerance: float = 1e-4) -> None:
    """Equal up to float rounding, relative to the largest value; also in shape and number."""
    left = torch.utils._pytree.tree_leaves(expected)
    right = torch.utils._pytree.tree_leaves(found)
    assert len(left) == len(right)
    for one, two in zip(left, right, strict=True):
        one, two = one.detach(), two.detach()
        assert one.shape == two.shape
        assert torch.isfinite(one).all()
        scale = max(float(one.abs().max()), 1e-3)
        assert float((one - two).abs().max()) <= tolerance * scale


def _lstm_flops(x: Shape, inputs: Shape, states: Shape, *rest: Any, **more: Any) -> int:
    """One direction of one layer: both matrices at every step of every sequence."""
    return 2 * x[0] * x[1] * (math.prod(inputs) + math.prod(states))


def _bilinear_flops(one: Shape, weight: Shape, two: Shape, *rest: Any, **more: Any) -> int:
    """Every example meets the whole weight once."""
    return 2 * one[0] * math.prod(weight)


def flops_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Multiply-accumulates by PyTorch's own counter."""
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,
            torch.ops.aten._trilinear: _bilinear_flops,
        },
    )
    # The counter does not know the CPU's fused kernels of attention.
    with counter, sdpa_kernel(SDPBackend.MATH):
        network(*(item.clone() for item in inputs))
    return int(counter.get_total_flops()) // 2


def assert_exact(
    module: nn.Module,
    shapes: tuple[Shape, ...],
    found: Analysis,
    pruned: Pruned,
    *,
    by_zeroing: bool = True,
) -> None:
    """All that must hold of any pruned network."""
    plan, network = pruned.plan, pruned.network
    reference = zeroed(module, plan)
    for batch in (1, 5):
        inputs = inputs_of(shapes, batch, seed=7)
        with torch.no_grad():
            result = network(*(item.clone() for item in inputs))
            if by_zeroing:
                assert_same(reference(*(item.clone() for item in inputs)), result)
            assert_shapes(module(*(item.clone() for item in inputs)), result)
    assert sum(item.numel() for item in network.parameters()) == round(plan.after.params)
    assert sum(item.numel() for item in module.parameters()) == round(plan.before.params)
    one = inputs_of(shapes, 1)
    assert flops_of(network, one) == round(plan.after.macs)
    assert flops_of(module, one) == round(plan.before.macs)
    result = check(found.captured, network, pruned.kept)
    assert max(result.difference, result.worst) <= 1e-4


def assert_shapes(one: Any, two: Any) -> None:
    left = [tuple(item.shape) for item in torch.utils._pytree.tree_leaves(one)]
    assert left == [tuple(item.shape) for item in torch.utils._pytree.tree_leaves(two)]


def kept_of(plan: Plan, tensor: str, axis: int = 0) -> np.ndarray | None:
    """Kept indices, or `None` where nothing of that axis goes."""
    found = plan.tensors.get(tensor, {}).get(axis)
    return None if found is None else np.array(found)


def reasons(coupling: Coupling) -> dict[str, str]:
    """Frozen layer -> reasons, each with its operator."""
    found: dict[str, str] = {}
    for item in coupling.frozen:
        for layer in item.layers:
            said = f"{item.why.reason} ({item.why.operator})"
            found[layer] = f"{found[layer]}; {said}" if layer in found else said
    return found
