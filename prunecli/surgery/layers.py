"""Leaving out blocks: who reads a block's exit reads its entry instead.

Stage: surgery. In: captured network and blocks. Out: the network without them, captured again;
the original is left untouched. Checked against the original run with the blocks bypassed.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx

from prunecli.errors import ConfigError, NothingToPruneError, VerificationError
from prunecli.graph.again import captured_again
from prunecli.graph.blocks import Block, size_axis, sizes_used_outside
from prunecli.graph.bypass import outermost, run_without
from prunecli.graph.capture import Captured, quiet_export
from prunecli.graph.flattening import drop_unread
from prunecli.graph.nodes import concrete
from prunecli.graph.wiring import Wiring, is_data, wire
from prunecli.surgery.oracle import BUG, relative

TOLERANCE = 1e-5
"""Largest relative difference from the bypassed original: the same operators run."""


def drop_blocks(captured: Captured, blocks: Sequence[Block], names: Sequence[str]) -> Captured:
    """A copy of the network without the blocks `names`, and without what only they needed.

    Depth pruning as in Chen and Zhao 2018, "Shallowing Deep Networks", and Men et al. 2024,
    "ShortGPT" (arXiv:2403.03853).

    Args:
        blocks: those of `captured`.

    Raises:
        ConfigError: a name is none of a block.
        NothingToPruneError: nothing with weights would be left.
        VerificationError: the result is not the original with those blocks bypassed.
    """
    known = {block.name: block for block in blocks}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"layers: must be blocks of this network, got {unknown[0]}",
            "one of " + ", ".join(list(known)[:20]),
        )
    wanted = outermost(known[name] for name in dict.fromkeys(names))
    with quiet_export():
        network = copy.deepcopy(captured.network)
    places = {node.name: place for place, node in enumerate(network.graph.nodes)}
    instead: dict[str, fx.Node] = {}
    for block in sorted(wanted, key=lambda item: places[item.exit]):
        instead[block.exit] = _leave_out(network, block, instead)
    drop_unread(network)
    network.graph.lint()
    network.recompile()
    if not list(network.parameters()):
        raise NothingToPruneError(
            "layers: something with weights must be left, got all of them dropped",
            "ask for fewer with --layers-to-drop",
        )
    result = captured_again(network, captured)
    _check(captured, result, wanted)
    return result


def _leave_out(network: fx.GraphModule, block: Block, instead: dict[str, fx.Node]) -> fx.Node:
    """Rewire one block; returns what stands for its exit now.

    Args:
        instead: what stands for the exits of blocks that were left out before.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    exit_ = nodes[block.exit]
    entry = instead[block.entry] if block.entry in instead else nodes[block.entry]
    wiring = wire(network)
    inside = wiring.without(entry, exit_)
    for size in list(sizes_used_outside(inside, wiring)):
        _take_size_of(network, entry, size)
    if _shares_memory(entry, exit_, inside, wiring) or _laid_out_otherwise(entry, exit_):
        with network.graph.inserting_after(exit_):
            entry = _copy_of(network, entry)
    exit_.replace_all_uses_with(entry)
    # By name first: `x += f(x)` looks alive as long as somebody reads `x`.
    for node in reversed([node for node in nodes.values() if node in inside]):
        _erase(network, node)
    _erase_dead(network)
    return entry


def _take_size_of(network: fx.GraphModule, entry: fx.Node, size: fx.Node) -> None:
    """Others that asked for a size inside the block ask for the same size of its entry."""
    axis = size_axis(size, entry.meta["val"])
    if axis is None:
        raise VerificationError(f"layers: {size.name} has no size of {entry.name}", BUG)
    with network.graph.inserting_after(entry):
        fresh = network.graph.call_function(torch.ops.aten.sym_size.int, (entry, axis))
    fresh.meta = dict(size.meta)
    size.replace_all_uses_with(fresh)


def _copy_of(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    made = network.graph.call_function(
        torch.ops.aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
    )
    made.meta = dict(node.meta)
    return made


def _shares_memory(
    entry: fx.Node, exit_: fx.Node, inside: frozenset[fx.Node], wiring: Wiring
) -> bool:
    """Whether what is written into the exit later would show in the entry, or the other way
    round, to somebody who reads it after that."""
    one, two = wiring.owners[entry], wiring.owners[exit_]
    if one is two:
        return False
    for written, read in ((one, two), (two, one)):
        later = [
            wiring.place[writer]
            for writer in wiring.writers.get(written, ())
            if writer not in inside and wiring.place[writer] > wiring.place[exit_]
        ]
        if later and (read.op != "call_function" or _read_after(min(later), read, inside, wiring)):
            return True
    return False


def _read_after(place: int, memory: fx.Node, inside: frozenset[fx.Node], wiring: Wiring) -> bool:
    return any(
        wiring.place[node] > place
        and node not in inside
        and any(wiring.owners.get(item) is memory for item in node.all_input_nodes)
        for node in wiring.order
    )


def _laid_out_otherwise(entry: fx.Node, exit_: fx.Node) -> bool:
    """Whether a `view` of the exit may not be one of the entry."""
    return _contiguous(exit_.meta["val"]) and not _contiguous(entry.meta["val"])


def _contiguous(value: Tensor) -> bool:
    step = 1
    for extent, stride in zip(reversed(value.shape), reversed(value.stride()), strict=True):
        size = int(concrete(extent))
        if size > 1 and int(concrete(stride)) != step:
            return False
        step *= size
    return True


def _erase_dead(network: fx.GraphModule) -> None:
    live = set(wire(network).order)
    for node in reversed(list(network.graph.nodes)):
        if is_data(node) and node.op != "placeholder" and node not in live:
            _erase(network, node)


def _erase(network: fx.GraphModule, node: fx.Node) -> None:
    # What still asks for its size only checks it.
    for user in list(node.users):
        _erase(network, user)
    network.graph.erase_node(node)


def _check(captured: Captured, result: Captured, blocks: Sequence[Block]) -> None:
    for inputs in _inputs(captured):
        expected = run_without(captured.network, blocks, inputs)
        with torch.no_grad():
            found = result.network(*(item.clone() for item in inputs))
        pairs = zip(expected, found if isinstance(found, tuple) else (found,), strict=True)
        worst = max(_apart(*pair) for pair in pairs)
        if not worst <= TOLERANCE:
            raise VerificationError(
                "layers: the network without blocks must compute what the original does with "
                f"them bypassed, got a relative difference of {worst:.1e}",
                BUG,
            )


def _inputs(captured: Captured) -> Iterator[tuple[Tensor, ...]]:
    yield captured.inputs
    extents = {captured.batch_name: captured.batch + 1} if captured.batch_name else {}
    yield captured.draw(extents, torch.Generator().manual_seed(1))


def _apart(expected: Tensor, found: Tensor) -> float:
    # What is no number in both, as a row of attention where all is masked, is equal.
    if expected.is_floating_point() and expected.shape == found.shape:
        neither = expected.isnan() & found.isnan()
        expected, found = expected.masked_fill(neither, 0.0), found.masked_fill(neither, 0.0)
    return relative(expected, found)
