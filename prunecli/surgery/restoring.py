"""Restoring: what was cut comes back, with the values that it had.

Stage: surgery. In: the original and a trained compact network. Out: a wider network. Changes
neither.
"""

import torch
from torch import Tensor, fx

from prunecli.errors import VerificationError
from prunecli.graph.capture import Captured
from prunecli.graph.coupling import Slot
from prunecli.graph.nodes import attribute
from prunecli.surgery.compact import compact, named_tensors, slice_tensor
from prunecli.surgery.kept import Kept


def expanded(
    original: Captured, network: fx.GraphModule, kept: Kept, wider: Kept
) -> fx.GraphModule:
    """The network that `wider` leaves: with the values of `network` where it has them, and the
    original's elsewhere.

    Args:
        network: a compact form of the original that keeps `kept`, trained or not.
        kept, wider: of the same analysis; `wider` keeps all that `kept` does.

    Raises:
        VerificationError: `wider` lacks something, or `network` is another one's.
    """
    if (kept.keep & ~wider.keep).any():
        raise VerificationError(
            "restore: the wider plan lacks units that the network has",
            "this is a bug in prunecli: please report it with both plan files",
        )
    first = _first_names(original.network)
    slots: dict[str, list[Slot]] = {}
    for slot in kept.coupling.slots:
        slots.setdefault(first[slot.tensor], []).append(slot)
    made = compact(original, wider)
    trained = dict(named_tensors(network))
    with torch.no_grad():
        for name, tensor in named_tensors(made):
            values = trained.get(name)
            if values is None:
                continue  # of a layer that had been dropped as a whole
            before = attribute(original.network, name)
            own = slots.get(first[name], [])
            found = _widened(before, values, own, kept, wider)
            if found is None:
                raise VerificationError(
                    f"restore: {name} of the pruned network is not what its plan leaves",
                    "use the plan that the network was pruned with",
                )
            tensor.copy_(found)
    return made


def _widened(
    original: Tensor, values: Tensor, slots: list[Slot], kept: Kept, wider: Kept
) -> Tensor | None:
    """What the wider network has in place of `original`; `None` where shapes do not fit."""
    if all(kept.keep[slot.units].all() for slot in slots):
        return values if values.shape == original.shape else None
    # The places of what stays are found by cutting the places themselves.
    places = torch.arange(original.numel()).reshape(original.shape)
    mine = slice_tensor(places, slots, kept)
    if mine.shape != values.shape:
        return None
    full = original.detach().clone(memory_format=torch.contiguous_format)
    full.view(-1)[mine.reshape(-1)] = values.detach().to(full.device, full.dtype).reshape(-1)
    return slice_tensor(full, slots, wider)


def _first_names(network: fx.GraphModule) -> dict[str, str]:
    """Every name of a tensor -> the first of its names."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named_tensors(network)}
