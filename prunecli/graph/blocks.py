"""Blocks: parts of the network without which a path is left, as in depth pruning.

Stage: graph. In: `Captured` and `Flow`. Out: `Block`s. They are found in the graph, by its
residual additions; module paths only say which of them belong together. Decides nothing about
what is removed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, fx, nn

from prunecli.errors import NothingToPruneError
from prunecli.graph.capture import Captured
from prunecli.graph.coupling import layer_of
from prunecli.graph.fields import Value
from prunecli.graph.merging import merged
from prunecli.graph.nodes import attribute, module_path
from prunecli.graph.residual import (
    NO_LAYERS,
    Residual,
    Residuals,
    extents,
    find_residuals,
    formula,
)
from prunecli.graph.walk import Flow
from prunecli.graph.wiring import Wiring, wire


@dataclass(frozen=True)
class Block:
    """A part of the network that can be left out: who reads its exit reads its entry instead.

    Attributes:
        name: that of its module, or of its first layer.
        entry: node whose value comes in, of the same shape and type as that of `exit`.
        exit: node whose value comes out.
        inside: nodes that go with the block, `exit` among them, in graph order.
        layers: modules, and parameters used raw, inside.
        params: elements of the parameters that are used only inside.
    """

    name: str
    entry: str
    exit: str
    inside: tuple[str, ...]
    layers: tuple[str, ...]
    params: int


def find_blocks(captured: Captured, flow: Flow) -> tuple[Block, ...]:
    """All blocks, in graph order, those around others first.

    A block ends with an addition of its entry and of what is computed from it and used nowhere
    else (a residual block, He et al. 2016, arXiv:1512.03385). Where consecutive ones belong to
    one module, as attention and feed-forward part of a transformer layer do, they are one block,
    with the norm or activation that follows inside the module.

    Raises:
        NothingToPruneError: there is none; says why.
    """
    wiring = wire(captured.network)
    parameters = _parameters(captured.network, flow)
    residuals = find_residuals(wiring)
    drafts = [
        _Draft(item, module, wiring.without(item.entry, item.exit_))
        for item, module in merged(residuals, wiring)
    ]
    used = [(draft, _inside_only(draft, parameters, wiring)) for draft in drafts]
    kept = [(draft, own) for draft, own in used if own.layers and not _sizes_leak(draft, wiring)]
    if not kept:
        raise NothingToPruneError(
            "network: --strategy layer finds no block to drop: " + _why(residuals, bool(drafts)),
            "use --strategy structured, which prunes inside of layers",
        )
    kept.sort(key=lambda item: (wiring.place[item[0].residual.entry], -len(item[0].inside)))
    names = _names([(draft, own.layers) for draft, own in kept])
    return tuple(
        Block(
            name,
            draft.residual.entry.name,
            draft.residual.exit_.name,
            tuple(node.name for node in wiring.order if node in draft.inside),
            own.layers,
            own.params,
        )
        for name, (draft, own) in zip(names, kept, strict=True)
    )


@dataclass(frozen=True)
class _Draft:
    """A block without a name. `module` is the path that it was merged by, or empty."""

    residual: Residual
    module: str
    inside: frozenset[fx.Node]


@dataclass(frozen=True)
class _Contents:
    layers: tuple[str, ...]
    params: int


@dataclass(frozen=True)
class _Parameter:
    """A tensor that nodes of the graph read, under one or several names."""

    name: str
    elements: int
    nodes: tuple[fx.Node, ...]


def _parameters(network: fx.GraphModule, flow: Flow) -> list[_Parameter]:
    found: dict[str, _Parameter] = {}
    for node in network.graph.find_nodes(op="get_attr"):
        tensor = attribute(network, str(node.target))
        if not isinstance(tensor, nn.Parameter) or not node.users:
            continue
        value = flow.values.get(node.name)
        name = value.parameter if isinstance(value, Value) else str(node.target)
        earlier = found[name].nodes if name in found else ()
        found[name] = _Parameter(name, tensor.numel(), (*earlier, node))
    return list(found.values())


def _inside_only(draft: _Draft, parameters: list[_Parameter], wiring: Wiring) -> _Contents:
    """Layers that work inside, though outside as well perhaps, and what is used only inside.

    Layers are in the order in which they work.
    """
    layers: dict[str, int] = {}
    params = 0
    for item in parameters:
        users = [user for node in item.nodes for user in wiring.users.get(node, ())]
        first = [wiring.place[user] for user in users if user in draft.inside]
        if first:
            layer = layer_of(item.name)
            layers[layer] = min(layers.get(layer, first[0]), *first)
        if users and all(user in draft.inside for user in users):
            params += item.elements
    return _Contents(tuple(sorted(layers, key=lambda layer: layers[layer])), params)


def _sizes_leak(draft: _Draft, wiring: Wiring) -> bool:
    """Whether others take a size from inside that the block's entry does not have."""
    entry = draft.residual.entry.meta["val"]
    return any(size_axis(size, entry) is None for size in sizes_used_outside(draft.inside, wiring))


def sizes_used_outside(inside: frozenset[fx.Node], wiring: Wiring) -> Iterator[fx.Node]:
    """Nodes that take the size of a value inside, for some value that is not."""
    for node in inside:
        for size in node.users:
            if size not in wiring.users and any(item not in inside for item in _fed(size, wiring)):
                yield size


def _fed(size: fx.Node, wiring: Wiring) -> Iterator[fx.Node]:
    """Live nodes that a size goes into, through arithmetic on sizes perhaps."""
    for user in size.users:
        if user in wiring.users:
            yield user
        else:
            yield from _fed(user, wiring)


def size_axis(size: fx.Node, entry: object) -> int | None:
    """The axis of `entry` that has this size, if there is one."""
    text = formula(size.meta["val"])
    known = extents(entry) if isinstance(entry, Tensor) else ()
    return known.index(text) if text in known else None


def _names(blocks: list[tuple[_Draft, tuple[str, ...]]]) -> list[str]:
    """Different names, the most telling ones that are left."""
    taken: dict[str, None] = {}
    for draft, layers in blocks:
        wanted = _wanted(draft, layers)
        exit_ = draft.residual.exit_.name
        taken[next(name for name in (*wanted, f"{layers[0]}@{exit_}") if name not in taken)] = None
    return list(taken)


def _wanted(draft: _Draft, layers: tuple[str, ...]) -> list[str]:
    if draft.module:
        return [draft.module]
    owner = module_path(draft.residual.exit_)
    paths = [layer.split(".") for layer in layers]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    prefix = ".".join(common)
    # What only says where the addition stands tells nothing about the block.
    around = f"{owner}.".startswith(f"{prefix}.") or not prefix
    return [layers[0]] if around else [prefix, layers[0]]


def _why(residuals: Residuals, without_layers: bool) -> str:
    others: Mapping[str, tuple[fx.Node, ...]] = residuals.others
    reasons = []
    if without_layers:
        reasons.append(f"residual additions with {NO_LAYERS}")
    for reason, nodes in others.items():
        where = module_path(nodes[0]) or nodes[0].name
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        reasons.append(f"{reason} (at {where}{more})")
    return "; ".join(reasons) or "nothing is added to what it was computed from"
