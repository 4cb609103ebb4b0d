"""Wiring: what every value is computed from, memory that operators write into included.

Stage: graph. In: a captured graph. Out: `Wiring`. Sizes are left out: they carry no data.
Changes nothing.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from prunecli.graph.nodes import owner, writes

Nodes = tuple[fx.Node, ...]


@dataclass(frozen=True)
class Wiring:
    """The graph's data dependencies, without what no output depends on.

    Attributes:
        order: live nodes (tensors, and the output) in the order in which they run.
        place: position of every node of the graph, dead ones included.
        inputs, users: of every live node, the live nodes it reads, and those that read it. Who
            reads memory reads from all that wrote into it meanwhile.
        owners: of every live node, the value whose memory it may be.
        writers: per owner, the live nodes that write into it.
    """

    order: Nodes
    place: Mapping[fx.Node, int]
    inputs: Mapping[fx.Node, Nodes]
    users: Mapping[fx.Node, Nodes]
    owners: Mapping[fx.Node, fx.Node]
    writers: Mapping[fx.Node, Nodes]

    def between(self, entry: fx.Node, exit_: fx.Node) -> Nodes:
        """What is computed from `entry` and reaches `exit_`, which is the last; empty where
        `exit_` does not depend on `entry`."""
        first, last = self.place[entry], self.place[exit_]
        start = bisect_right(self.order, first, key=self.place.__getitem__)
        stop = bisect_right(self.order, last, key=self.place.__getitem__)
        span = self.order[start:stop]
        reached = {entry}
        for node in span:
            if any(source in reached for source in self.inputs[node]):
                reached.add(node)
        reaching = {exit_}
        for node in reversed(span):
            if node in reaching:
                reaching.update(self.inputs[node])
        return tuple(node for node in span if node in reached and node in reaching)

    def without(self, entry: fx.Node, exit_: fx.Node) -> frozenset[fx.Node]:
        """What nobody needs once the readers of `exit_` read `entry`."""
        gone = {exit_}
        waiting = list(self.inputs[exit_])
        while waiting:
            node = waiting.pop()
            kept = node is entry or node.op == "placeholder" or node in gone
            if not kept and all(user in gone for user in self.users[node]):
                gone.add(node)
                waiting.extend(self.inputs[node])
        return frozenset(gone)


def is_data(node: fx.Node) -> bool:
    """Whether the value is a tensor, or several."""
    value: Any = node.meta.get("val")
    if isinstance(value, (list, tuple)):
        return any(isinstance(item, Tensor) for item in value)
    # Buffers and constants that were put into the graph by hand may lack a value.
    return isinstance(value, Tensor) or node.op == "get_attr"


def wire(network: fx.GraphModule) -> Wiring:
    """Follow the data through `network`."""
    nodes = list(network.graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    owners = {node: owner(node) for node in nodes if is_data(node)}
    writers = _grouped((owners[node], node) for node in owners if writes(node))
    inputs = {node: _read(node, place, owners, writers) for node in nodes}
    live: set[fx.Node] = set()
    for node in reversed(nodes):
        if node.op == "output" or node in live:
            live.add(node)
            live.update(inputs[node])
    order = tuple(node for node in nodes if node in live)
    return Wiring(
        order,
        place,
        {node: inputs[node] for node in order},
        {
            **dict.fromkeys(order, ()),
            **_grouped((source, node) for node in order for source in inputs[node]),
        },
        {node: owners[node] for node in order if node in owners},
        {
            source: tuple(node for node in found if node in live)
            for source, found in writers.items()
        },
    )


def _read(
    node: fx.Node,
    place: Mapping[fx.Node, int],
    owners: Mapping[fx.Node, fx.Node],
    writers: Mapping[fx.Node, Nodes],
) -> Nodes:
    read = dict.fromkeys(item for item in node.all_input_nodes if item in owners)
    for item in list(read):
        # What was written before `item` was made is part of `item`.
        later = (w for w in writers.get(owners[item], ()) if place[item] < place[w] < place[node])
        read.update(dict.fromkeys(later))
    read.pop(node, None)
    return tuple(read)


def _grouped(pairs: Iterable[tuple[fx.Node, fx.Node]]) -> dict[fx.Node, Nodes]:
    found: dict[fx.Node, list[fx.Node]] = {}
    for key, item in pairs:
        found.setdefault(key, []).append(item)
    return {key: tuple(items) for key, items in found.items()}
