"""Folding: weights that the network computes from its parameters become parameters.

Stage: graph, right after capture. In: a captured graph. Out: the same graph, in which a weight
norm, a spectral norm or any other value-changing computation of a weight has been carried out
once and for all. A norm taken over channels would change its value with the channels that go;
its result does not. What only moves parameters about, or can be followed index by index, stays
as it is, and so does everything that shares a parameter with another part of the network.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunecli.graph.nodes import arguments, attribute, operator_name, shown, writes
from prunecli.graph.rules.contraction import (
    addmm,
    attention,
    baddbmm,
    einsum,
    linear,
    matmul,
)
from prunecli.graph.rules.convolution import convolution, convolution_transpose
from prunecli.graph.rules.elementwise import along_dim
from prunecli.graph.rules.movement import embedding
from prunecli.graph.rules.normalization import channelwise, grouped, trailing
from prunecli.graph.rules.recurrent import recurrent
from prunecli.graph.rules.reduction import extremum, largest, norm, reduction, total
from prunecli.graph.rules.table import RULES

CHANGING = (
    along_dim,
    *(addmm, baddbmm, convolution, convolution_transpose, einsum, matmul),
)
"""Rules of operators after which a weight is no longer what it was, index by index."""

LAYERS = (
    *(linear, convolution, convolution_transpose, embedding, recurrent, attention),
    *(channelwise, trailing, grouped),
)
"""Rules of operators that are the network's work. Where they work on parameters only (learned
queries, a table of positions), that is a part of the network unless it makes a weight."""

TURNS = ("aten.t", "aten.transpose", "aten.permute", "aten.numpy_T", "aten.mT", "aten.swapaxes")
"""Left in the graph after a folded weight, so that one parameter serves all its forms."""

WEIGHTS = ("weight", "bias", "params")
"""Arguments of layers that hold weights."""

ENDINGS = ("_v", "_g", "_orig")
"""What PyTorch's older weight and spectral norm append to a parameter's name."""


Nodes = dict[fx.Node, int]
"""Nodes computed from parameters alone, in graph order; equal numbers are equal computations."""


@dataclass(frozen=True)
class _Cone:
    """A computation on parameters only.

    Attributes:
        root: the node whose value is to become a parameter.
        nodes: it and everything it is computed from, in graph order.
    """

    root: fx.Node
    nodes: tuple[fx.Node, ...]

    def sources(self) -> list[fx.Node]:
        """The parameters and buffers it starts from."""
        return [node for node in self.nodes if node.op == "get_attr"]


def fold(network: fx.GraphModule) -> tuple[str, ...]:
    """Fold in place; notes for the user."""
    numbers = _constant_nodes(network)
    # A layer that is used twice computes its weight twice, and keeps one.
    alike: dict[int, list[_Cone]] = {}
    for root in _roots(network, numbers):
        alike.setdefault(numbers[root], []).append(_cone(root, numbers))
    values = [(same, _folded_value(network, same)) for same in alike.values()]
    found: dict[str, list[str]] = {}
    for same, value in values:
        if value is not None:
            name = _replace(network, same, value)
            found.setdefault(_described(same[0]), []).append(name.removesuffix(".weight"))
    if found:
        _clean(network, [same for same, value in values if value is not None])
    return tuple(
        f"{what} folded into the weight of {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for what, names in found.items()
    )


def _constant_nodes(network: fx.GraphModule) -> Nodes:
    written: set[fx.Node] = set()
    for node in reversed(network.graph.nodes):
        if any(writes(user) or (user in written and shown(user) is node) for user in node.users):
            written.add(node)
    found: Nodes = {}
    known: dict[str, int] = {}
    for node in network.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr":
            body = f"tensor {id(_tensor(network, node))}"
        elif inputs and _is_pure(node) and all(item in found for item in inputs):
            names = fx.map_arg((node.args, dict(node.kwargs)), lambda item: f"#{found[item]}")
            body = f"{node.target}{names}"
        else:
            continue
        if node not in written:
            found[node] = known.setdefault(body, len(known))
    return found


def _is_pure(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    target: Any = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded not in target.tags and not writes(node)


def _roots(network: fx.GraphModule, numbers: Nodes) -> Iterator[fx.Node]:
    """Where a computation on parameters meets the data, and must be folded."""
    seen: set[fx.Node] = set()
    for node in network.graph.nodes:
        if node in numbers or node.op != "call_function":
            continue
        for item in node.all_input_nodes:
            root = item
            while root.op == "call_function" and operator_name(root) in TURNS:
                root = root.all_input_nodes[0]
            if root in numbers and root.op == "call_function" and root not in seen:
                seen.add(root)
                if _wanted(_cone(root, numbers), _is_weight(node, item)):
                    yield root


def _cone(root: fx.Node, numbers: Nodes) -> _Cone:
    inside, waiting = {root}, [root]
    while waiting:
        fresh = [item for item in waiting.pop().all_input_nodes if item not in inside]
        inside.update(fresh)
        waiting.extend(fresh)
    return _Cone(root, tuple(node for node in numbers if node in inside))


def _wanted(cone: _Cone, is_weight: bool) -> bool:
    work = [node for node in cone.nodes if node.op == "call_function"]
    if not is_weight and any(RULES.get(operator_name(node)) in LAYERS for node in work):
        return False
    return isinstance(cone.root.meta.get("val"), Tensor) and any(map(_changes_values, work))


def _is_weight(node: fx.Node, item: fx.Node) -> bool:
    held: list[fx.Node] = []
    if RULES.get(operator_name(node)) in LAYERS:
        given = arguments(node)
        fx.map_arg([given.get(name) for name in WEIGHTS], held.append)
    return item in held


def _changes_values(node: fx.Node) -> bool:
    """Whether an entry of the result is more than a function of one entry."""
    if node.target is operator.getitem:
        return False
    rule = RULES.get(operator_name(node))
    if rule is None:
        return True
    if rule in (reduction, extremum, total, norm, largest):
        return _reduces_channels(node)
    return rule in CHANGING


def _reduces_channels(node: fx.Node) -> bool:
    """Kernel axes (2 and on) keep their size whatever happens; axes 0 and 1 are channels."""
    given = arguments(node)
    if isinstance(given.get("other"), fx.Node):
        return False  # the larger of two tensors
    rank = node.all_input_nodes[0].meta["val"].dim()
    axes = given.get("dim")
    if axes is None or axes == []:
        return True
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    return any(axis % max(rank, 1) < 2 for axis in axes)


def _folded_value(network: fx.GraphModule, same: list[_Cone]) -> nn.Parameter | None:
    """The parameter that takes the place of equal computations. `None` where they must stay: it
    would be larger than what it is made of, it is no form of one parameter, or that parameter
    has other readers."""
    tensors = {str(node.target): _tensor(network, node) for node in same[0].sources()}
    parameters = [item for item in tensors.values() if isinstance(item, nn.Parameter)]
    size = same[0].root.meta["val"].numel()
    main = max(parameters, key=Tensor.numel, default=None)
    if main is None or not main.numel() <= 2 * size <= 2 * sum(map(Tensor.numel, parameters)):
        return None
    inside = {node for cone in same for node in cone.nodes}
    for node in network.graph.find_nodes(op="get_attr"):
        if _tensor(network, node) is main and any(user not in inside for user in node.users):
            return None
    value = _evaluate(network, same[0]).clone(memory_format=torch.contiguous_format)
    trains = any(item.requires_grad for item in parameters) and value.is_floating_point()
    return nn.Parameter(value, trains)


def _evaluate(network: fx.GraphModule, cone: _Cone) -> Tensor:
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in cone.nodes:
            if node.op == "get_attr":
                values[node] = _tensor(network, node)
            else:
                target: Any = node.target
                args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
                values[node] = target(*args, **kwargs)
    result: Tensor = values[cone.root]
    return result.detach()


def _tensor(network: fx.GraphModule, node: fx.Node) -> Any:
    return attribute(network, str(node.target))


def _replace(network: fx.GraphModule, same: list[_Cone], value: nn.Parameter) -> str:
    """Put the parameter into the network and the graph; its name."""
    name = _name(network, same)
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    if hasattr(owner, leaf):
        delattr(owner, leaf)
    owner.register_parameter(leaf, value)
    for cone in same:
        with network.graph.inserting_before(cone.nodes[0]):
            fresh = network.graph.get_attr(name)
        fresh.meta["val"] = cone.root.meta["val"]
        cone.root.replace_all_uses_with(fresh)
    return name


def _name(network: fx.GraphModule, same: list[_Cone]) -> str:
    """The name that the weight has where it is used: `conv.weight` for
    `conv.parametrizations.weight.original1` and `conv.weight_v`."""
    largest = max(same[0].sources(), key=lambda node: _size(network, node))
    name = str(largest.target)
    path, marked, rest = name.partition("parametrizations.")
    if marked:
        name = path + rest.split(".")[0]
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    while name != largest.target and _exists(network, name):
        name += "_folded"
    return name


def _size(network: fx.GraphModule, node: fx.Node) -> tuple[bool, int]:
    tensor = _tensor(network, node)
    return isinstance(tensor, nn.Parameter), tensor.numel()


def _exists(network: fx.GraphModule, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    return hasattr(network.get_submodule(path), leaf)


def _clean(network: fx.GraphModule, folded: list[list[_Cone]]) -> None:
    """Forget the computations, and the tensors that only they have read."""
    sources = {str(node.target) for same in folded for cone in same for node in cone.sources()}
    network.graph.eliminate_dead_code()
    read = {str(node.target) for node in network.graph.find_nodes(op="get_attr")}
    for name in sources - read:
        path, _, leaf = name.rpartition(".")
        delattr(network.get_submodule(path), leaf)
    network.recompile()


def _described(cone: _Cone) -> str:
    names = {operator_name(node) for node in cone.nodes if node.op == "call_function"}
    if "aten._weight_norm" in names:
        return "weight norm"
    if names & {"aten.vdot", "aten.dot"}:
        return "spectral norm"
    return "what is computed from parameters alone"
