"""Compaction: the only place where the structure of a network changes.

Stage: surgery. In: captured network, analysis, plan. Out: a smaller graph with the same node
names; the original is left untouched.
"""

import copy

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.graph.capture import Captured, quiet_export
from prunecli.graph.coupling import Slot
from prunecli.graph.nodes import attribute
from prunecli.surgery.constants import rewrite
from prunecli.surgery.kept import Kept


def compact(captured: Captured, kept: Kept) -> fx.GraphModule:
    """The network with only what is kept: sliced tensors, rewritten constants."""
    tensors = _sliced(captured.network, kept)
    # Tensors are shared by the copy first, so that nothing but the kept part is duplicated.
    memo = {
        id(tensor): tensors.get(name, tensor) for name, tensor in named_tensors(captured.network)
    }
    with quiet_export():
        network = copy.deepcopy(captured.network, memo)
    for node in network.graph.nodes:
        if node.op == "call_function":
            rewrite(node, kept)
    network.graph.lint()
    network.recompile()
    return _own(network, tensors)


def named_tensors(network: fx.GraphModule) -> list[tuple[str, Tensor]]:
    """Parameters, buffers and constants with all their names."""
    named: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
    named.update(network.named_buffers(remove_duplicate=False))
    for node in network.graph.nodes:
        if node.op == "get_attr":
            found = attribute(network, str(node.target))
            if isinstance(found, Tensor):
                named.setdefault(str(node.target), found)
    return list(named.items())


def _own(network: fx.GraphModule, tensors: dict[str, Tensor]) -> fx.GraphModule:
    """Give the copy its own storage for what was not sliced, so that training leaves the
    original alone."""
    sliced = {id(tensor) for tensor in tensors.values()}
    done: dict[int, Tensor] = {}
    for name, tensor in named_tensors(network):
        if id(tensor) in sliced:
            continue
        if id(tensor) not in done:
            fresh = tensor.detach().clone()
            done[id(tensor)] = (
                nn.Parameter(fresh, tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else fresh
            )
        _assign(network, name, done[id(tensor)])
    return network


def _assign(network: fx.GraphModule, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = network.get_submodule(path) if path else network
    setattr(module, leaf, tensor)


def _sliced(network: fx.GraphModule, kept: Kept) -> dict[str, Tensor]:
    slots: dict[str, list[Slot]] = {}
    for slot in kept.coupling.slots:
        slots.setdefault(slot.tensor, []).append(slot)
    aliases: dict[int, list[str]] = {}
    for name, tensor in named_tensors(network):
        aliases.setdefault(id(tensor), []).append(name)
    found: dict[str, Tensor] = {}
    for name, own in slots.items():
        if all(kept.keep[slot.units].all() for slot in own):
            continue
        original = attribute(network, name)
        data = slice_tensor(original.detach(), own, kept)
        fresh = (
            nn.Parameter(data, original.requires_grad)
            if isinstance(original, nn.Parameter)
            else data
        )
        for alias in aliases[id(original)]:
            found[alias] = fresh
    return found


CHUNK_ELEMENTS = 1 << 16


def slice_tensor(tensor: Tensor, slots: list[Slot], kept: Kept) -> Tensor:
    """Keep of `tensor` what the plan keeps on all its slots. Always a copy."""
    block = next((slot for slot in slots if slot.blocks > 1), None)
    if block is not None:
        flat = next((slot for slot in slots if slot.axis == 0), None)
        tensor = _slice_blocks(tensor, block, flat, kept)
        return tensor.contiguous()
    places = {
        slot.axis: torch.from_numpy(np.flatnonzero(kept.keep[slot.units]))
        for slot in slots
        if not kept.keep[slot.units].all()
    }
    shape = [
        places[axis].numel() if axis in places else extent
        for axis, extent in enumerate(tensor.shape)
    ]
    rows = places.pop(0, torch.arange(tensor.shape[0]))
    made = torch.empty(shape, dtype=tensor.dtype)
    # Some rows at a time, so that what lies between two cuts stays in the processor's cache.
    step = max(1, CHUNK_ELEMENTS * tensor.shape[0] // max(tensor.numel(), 1))
    for start in range(0, rows.numel(), step):
        part = tensor.index_select(0, rows[start : start + step])
        for axis, own in places.items():
            part = part.index_select(axis, own)
        made[start : start + step] = part
    return made


def _slice_blocks(tensor: Tensor, block: Slot, flat: Slot | None, kept: Kept) -> Tensor:
    """A weight (O, I/g, ...): block by block, its own kept rows and its own kept columns."""
    columns = kept.keep[block.units].reshape(block.blocks, -1)
    rows = (
        kept.keep[flat.units].reshape(block.blocks, -1)
        if flat is not None
        else np.ones((block.blocks, tensor.shape[0] // block.blocks), dtype=np.bool_)
    )
    blocks = tensor.reshape(block.blocks, -1, *tensor.shape[1:])
    stays = np.flatnonzero(rows.any(1) & columns.any(1))
    # Equally many rows and columns of every block stay: a weight is a rectangle.
    row = torch.from_numpy(np.nonzero(rows[stays])[1].reshape(stays.size, -1, 1))
    column = torch.from_numpy(np.nonzero(columns[stays])[1].reshape(stays.size, 1, -1))
    return blocks[torch.from_numpy(stays).reshape(-1, 1, 1), row, column].flatten(0, 1)
