"""Merging: consecutive residual blocks of one module become one.

Stage: graph. In: `Residuals` and `Wiring`. Out: the blocks and the modules that they are.
Changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import fx

from prunecli.graph.nodes import operator_name
from prunecli.graph.residual import Residual, Residuals, alike, closed, overwritten
from prunecli.graph.wiring import Wiring

_LIGHT = frozenset(
    f"aten.{name}"
    for name in (
        *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "gelu", "silu"),
        *("mish", "hardswish", "tanh", "dropout", "feature_dropout", "clone", "contiguous"),
        *("detach", "alias", "to", "layer_norm", "rms_norm", "group_norm", "batch_norm"),
        *("instance_norm", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze"),
        "unsqueeze",
    )
)
"""Operators that a value may pass on its way through a layer, besides the residual additions:
activations, norms, and what leaves every element in its order."""


@dataclass(frozen=True)
class _Module:
    """A call of a module. `key` tells apart several calls of the same one, where known."""

    path: str
    key: str = ""

    @property
    def name(self) -> str:
        """The path, with the number of the call where it is not the first."""
        _, at, number = self.key.rpartition("@")
        return f"{self.path}@{number}" if at and number.isdigit() else self.path

    def holds(self, node: fx.Node) -> bool:
        """Whether the node stands in the module, or in one inside of it."""
        stack = node.meta.get("nn_module_stack") or {}
        if self.key:
            return self.key in stack
        inner = f"{self.path}."
        return any(path == self.path or path.startswith(inner) for path, _ in stack.values())


def merged(residuals: Residuals, wiring: Wiring) -> list[tuple[Residual, str]]:
    """Blocks with the path of the module that each is; an empty path where it is none."""
    repeated = _repeated_types(item.exit_ for item in residuals.found)
    found: list[tuple[Residual, str]] = []
    for module, own in _groups(residuals.found, lambda node: _numbered(node, repeated)):
        whole = _merge(module, own, residuals, wiring)
        if whole is not None:
            found.append((whole, module.name))
            continue
        # Where a layer as a whole is none, its attention may be.
        for part, items in _groups(own, lambda node: _owner(node, repeated)):
            one = _merge(part, items, residuals, wiring)
            found += [(item, "") for item in items] if one is None else [(one, part.name)]
    return found


def _stack(node: fx.Node) -> list[tuple[str, str, str]]:
    """Modules around a node, outermost first: key of the call, path, type."""
    stack = node.meta.get("nn_module_stack") or {}
    return [(str(key), str(path), str(kind)) for key, (path, kind) in stack.items()]


def _repeated_types(nodes: Iterable[fx.Node]) -> frozenset[str]:
    """Types of modules of which several own a residual addition."""
    owners = {stack[-1][1:] for node in nodes if (stack := _stack(node))}
    kinds = [kind for _, kind in owners]
    return frozenset(kind for kind in kinds if kinds.count(kind) > 1)


def _groups(
    found: Iterable[Residual], module_of: Callable[[fx.Node], _Module]
) -> list[tuple[_Module, list[Residual]]]:
    groups: dict[_Module, list[Residual]] = {}
    for item in found:
        groups.setdefault(module_of(item.exit_), []).append(item)
    return list(groups.items())


def _numbered(node: fx.Node, repeated: frozenset[str]) -> _Module:
    """The numbered module that an addition belongs to: `encoder.layer.3`; else its owner."""
    stack = _stack(node)
    parts = stack[-1][1].split(".") if stack else []
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        return _owner(node, repeated)
    path = ".".join(parts[: numbers[-1] + 1])
    return _Module(path, next((key for key, own, _ in reversed(stack) if own == path), ""))


def _owner(node: fx.Node, repeated: frozenset[str]) -> _Module:
    """The module whose code an addition is, where it is one of several (`encoder_layer_3`). An
    empty path where it is not."""
    stack = _stack(node)
    if not stack:
        return _Module("")
    key, path, kind = stack[-1]
    return _Module(path, key) if kind in repeated or path[-1:].isdigit() else _Module("")


def _merge(
    module: _Module, own: Sequence[Residual], residuals: Residuals, wiring: Wiring
) -> Residual | None:
    """All of `own` as one block, or `None` where they are none: other work stands between them,
    or they are the repeated parts of a whole stage."""
    ends = {item.exit_: item for item in residuals.found}
    last = max(own, key=lambda item: wiring.place[item.exit_])
    if not module.path or _periodic([_signature(item) for item in own]):
        return None
    for exit_ in reversed(_onward(last.exit_, module, wiring)):
        found = _trunk(exit_, module, ends)
        if found is None:
            continue
        entry, trunk, passed = found
        covered = {node for item in passed for node in item.inside}
        inside = wiring.between(entry, exit_)
        if (
            all(item.exit_ in covered for item in own)
            and alike(entry.meta["val"], exit_.meta["val"])
            and closed(inside, wiring)
            and not overwritten(entry, trunk, wiring)
            and not _does_more(module, entry, inside, wiring)
        ):
            return Residual(entry, exit_, trunk, inside)
    return None


def _onward(node: fx.Node, module: _Module, wiring: Wiring) -> list[fx.Node]:
    """The value after the last addition, and what norms and activations make of it."""
    found = [node]
    while len(users := wiring.users[found[-1]]) == 1:
        (user,) = users
        if not (_light(user) and user.args[0] is found[-1] and module.holds(user)):
            break
        found.append(user)
    return found


def _light(node: fx.Node) -> bool:
    return node.op == "call_function" and operator_name(node) in _LIGHT


def _trunk(
    exit_: fx.Node, module: _Module, ends: dict[fx.Node, Residual]
) -> tuple[fx.Node, tuple[fx.Node, ...], list[Residual]] | None:
    """The way back from the exit to the value that comes into the module, or to other work inside:
    that value, the way, and the blocks passed; `None` where there are none."""
    node = exit_
    trunk: list[fx.Node] = []
    passed: list[Residual] = []
    while module.holds(node):
        if node in ends:
            passed.append(ends[node])
            trunk += reversed(ends[node].trunk)
            node = ends[node].entry
        elif _light(node) and isinstance(node.args[0], fx.Node):
            trunk.append(node)
            node = node.args[0]
        else:
            break
    return (node, tuple(reversed(trunk)), passed) if passed else None


def _does_more(module: _Module, entry: fx.Node, inside: Sequence[fx.Node], wiring: Wiring) -> bool:
    """Whether the module has weights that work on the way to the block, or on from there."""
    own = set(inside)
    weighted = [
        node
        for node in wiring.order
        if node not in own
        and any(source.op == "get_attr" for source in node.all_input_nodes)
        and module.holds(node)
    ]
    return any(
        # What does not depend on the value, such as biases for all layers, may stand there too.
        wiring.between(node, entry) or wiring.between(entry, node)
        for node in weighted
    )


def _signature(item: Residual) -> tuple[str, ...]:
    return tuple(operator_name(node) for node in item.inside)


def _periodic(signatures: Sequence[tuple[str, ...]]) -> bool:
    """Whether a sequence is a shorter one several times over."""
    count = len(signatures)
    shorter = [period for period in range(1, count) if count % period == 0]
    return any(
        all(signatures[place] == signatures[place % period] for place in range(count))
        for period in shorter
    )
