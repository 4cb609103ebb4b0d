"""Masks on a network: set to zero, cut along with the tensors, and used up by removing what they
have emptied.

Stage: surgery. In: a captured network, its analysis, masks. Out: masked or smaller networks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.errors import VerificationError, first_line
from prunecli.graph.capture import Captured
from prunecli.graph.cost import Keep
from prunecli.graph.coupling import Coupling, Slot
from prunecli.graph.nodes import argument, attribute
from prunecli.graph.stepping import Stepper, cast
from prunecli.graph.walk import Flow
from prunecli.surgery.compact import compact, slice_tensor
from prunecli.surgery.dead import Dead, biased, find_dead
from prunecli.surgery.kept import Kept, make_kept
from prunecli.surgery.oracle import BUG, relative

Masks = Mapping[str, Tensor]
"""Parameter -> bool tensor of its shape, True where a weight stays; absent where all stay."""

EXACT = 1e-6
"""Largest relative difference between a masked network and its compact form, both in float64."""

DRAWS = 2


@dataclass(frozen=True)
class Emptied:
    """A network without the units that its masks have emptied.

    Attributes:
        network: the smaller graph; a copy of the masked network where nothing could go.
        masks: what is left of them.
        kept: what is left of every value.
        removed: number of units that went.
        folded: of those, the ones that were a constant, now in the biases of what read them.
        alive: units whose weights are all masked and that are still needed: the constant that
            they leave behind is read, or what would be left is no rectangle.
        difference: largest relative difference found between both networks.
    """

    network: fx.GraphModule
    masks: Masks
    kept: Kept
    removed: int
    folded: int
    alive: int
    difference: float


def apply_masks(network: nn.Module, masks: Masks) -> None:
    """Set masked weights to zero, in place and thereby under all names of a tensor."""
    with torch.no_grad():
        for name, mask in masks.items():
            tensor: Tensor = attrgetter(name)(network)
            tensor.masked_fill_(~mask.to(tensor.device), 0.0)


def slice_masks(masks: Masks, kept: Kept) -> dict[str, Tensor]:
    """Masks of what is kept of their tensors; those that mask nothing any more are left out."""
    slots: dict[str, list[Slot]] = {}
    for slot in kept.coupling.slots:
        slots.setdefault(slot.tensor, []).append(slot)
    found = {
        name: slice_tensor(mask, slots[name], kept) if name in slots else mask.clone()
        for name, mask in masks.items()
    }
    return {name: mask for name, mask in found.items() if not bool(mask.all())}


def dead_units(captured: Captured, flow: Flow, coupling: Coupling, masks: Masks) -> Keep:
    """Which units must stay, `(units,)`: all others can be cut from the masked network without
    any change to what it computes. See `find_dead`."""
    return find_dead(masked_copy(captured, flow, coupling, masks), flow, coupling).keep


def masked_copy(captured: Captured, flow: Flow, coupling: Coupling, masks: Masks) -> Captured:
    """The captured network with a copy of its own that is masked."""
    everything = make_kept(flow, coupling, np.ones(coupling.count, dtype=np.bool_))
    network = compact(captured, everything)
    apply_masks(network, masks)
    return replace(captured, network=network)


def compact_masked(
    captured: Captured, flow: Flow, coupling: Coupling, masks: Masks, round_to: int = 1
) -> Emptied:
    """Mask, and cut away what the masks have emptied. `captured` stays as it is.

    A unit that is a constant goes too where everything that reads it has a bias to take it up.

    Args:
        round_to: see `find_dead`.

    Raises:
        VerificationError: the result does not compute what the masked network does.
    """
    masked = masked_copy(captured, flow, coupling, masks)
    fold_into = biased(masked, flow, frozenset(masks))
    dead = find_dead(masked, flow, coupling, fold_into, round_to)
    kept = make_kept(flow, coupling, dead.keep)
    removed = int((~dead.keep).sum())
    if not removed:
        return Emptied(masked.network, slice_masks(masks, kept), kept, 0, 0, dead.alive, 0.0)
    inputs = list(_inputs(captured))
    expected = [outputs(masked.network, item) for item in inputs]
    if any(bool(item.isnan().any()) for answer in expected for item in answer):
        # Zero times what is no number is none either: here everything is noticed.
        kept = make_kept(flow, coupling, np.ones_like(dead.keep))
        alive = len(dead.scene.emptied)
        return Emptied(masked.network, slice_masks(masks, kept), kept, 0, 0, alive, 0.0)
    folded = _fold(masked, dead, fold_into)
    network = compact(masked, kept)
    difference = _compare(network, inputs, expected)
    left = slice_masks(masks, kept)
    return Emptied(network, left, kept, removed, folded, dead.alive, difference)


def _fold(masked: Captured, dead: Dead, fold_into: frozenset[str]) -> int:
    """Add to biases what constants of removed units bring; returns the number of such units."""
    units: set[int] = set()
    for node in masked.network.graph.nodes:
        level = dead.scene.levels.get(node.name)
        if node.name not in fold_into or level is None:
            continue
        weight, bias = (
            attribute(masked.network, str(item.target))
            for item in (argument(node, "weight"), argument(node, "bias"))
        )
        going = level.going(dead.keep)
        columns = weight.detach().double().flatten(2).sum(2) if weight.dim() > 2 else weight
        brings = columns.detach().double() * torch.where(going, level.level, 0.0)
        with torch.no_grad():
            bias.copy_(bias.double() + brings.sum(1))
        units.update(level.of_column[(brings != 0).any(0).numpy()].tolist())
    return len(units)


def _inputs(captured: Captured) -> Iterator[tuple[Tensor, ...]]:
    yield captured.inputs
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        yield captured.draw({}, generator)


def outputs(network: fx.GraphModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What a graph answers in float64."""
    stepper = Stepper(network, torch.float64)
    fed = iter([cast(item, torch.float64).clone() for item in inputs])
    answer = None
    with torch.no_grad():
        for node in network.graph.nodes:
            answer = stepper.run_one(node, fed)
    found = torch.utils._pytree.tree_leaves(answer)
    return [item for item in found if isinstance(item, Tensor)]


def _compare(
    network: fx.GraphModule,
    inputs: Sequence[tuple[Tensor, ...]],
    expected: Sequence[list[Tensor]],
) -> float:
    apart = 0.0
    for item, answers in zip(inputs, expected, strict=True):
        try:
            found = outputs(network, item)
        except (RuntimeError, IndexError, ValueError) as error:
            raise VerificationError(
                f"masks: the network without its emptied units cannot run: {first_line(error)}", BUG
            ) from error
        apart = max([apart, *(relative(*pair) for pair in zip(answers, found, strict=True))])
    if apart > EXACT:
        raise VerificationError(
            f"masks: the network without its emptied units differs from the masked one (relative "
            f"difference {apart:.1e})",
            BUG,
        )
    return apart
