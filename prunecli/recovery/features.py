"""The original's features as something to learn from, at the ends of blocks.

Stage: recovery. In: the original, the pruned network, and which indices of its tensors are left.
Out: the distance between what both compute inside. Changes neither.

FitNets (Romero et al. 2015, arXiv:1412.6550) learn a layer that makes a small network's features
comparable to a large one's. Here none is needed: the channels that stay are the original's, and
the plans say which.

A feature is what a layer reads, and it is known by the name of the layer's weight: names of nodes
change when a graph is captured again, those of parameters do not. The weight's axis that reads it
says which channels stay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from prunecli.graph.nodes import argument, attribute, operator_name
from prunecli.graph.wiring import Wiring, wire
from prunecli.recovery.tapping import Taps

Left = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Tensor -> axis -> indices of the original that stay, of axes that lost something."""

MOST = 16
"""Features that are compared; of more, so many, evenly spread."""


@dataclass(frozen=True)
class _Reading:
    """How an operator reads a feature.

    Attributes:
        value, weight: names of its arguments.
        read: axis of the weight that reads the channels.
        channels: axis of the value that has them.
    """

    value: str
    weight: str
    read: int
    channels: int


_READINGS: Mapping[str, _Reading] = {
    "aten.linear": _Reading("input", "weight", 1, -1),
    **{f"aten.conv{rank}d": _Reading("input", "weight", 1, 1) for rank in (1, 2, 3)},
    **{f"aten.conv_transpose{rank}d": _Reading("input", "weight", 0, 1) for rank in (1, 2, 3)},
    "aten.batch_norm": _Reading("input", "weight", 0, 1),
    "aten.group_norm": _Reading("input", "weight", 0, 1),
    "aten.layer_norm": _Reading("input", "weight", 0, -1),
    "aten.rms_norm": _Reading("input", "weight", 0, -1),
    **{
        f"aten.{cell}": _Reading("input", "params", 1, -1)
        for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    },
}


@dataclass(frozen=True)
class _Place:
    """Where a feature is read.

    Attributes:
        reader, source: node, and the operand.
        reading: how.
    """

    reader: fx.Node
    source: fx.Node
    reading: _Reading


@dataclass(frozen=True)
class _Pair:
    """One feature of both networks.

    Attributes:
        weight: name of the parameter that reads it.
        original, pruned: where.
        kept: indices (C',) of the original's channels that stay; `None` for all.
    """

    weight: str
    original: _Place
    pruned: _Place
    kept: Tensor | None

    def meant(self, value: Tensor) -> Tensor:
        """The original's, on the channels that stay."""
        if self.kept is None:
            return value
        return value.index_select(self.original.reading.channels, self.kept.to(value.device))

    def spread(self, value: Tensor) -> float:
        """Mean over channels of the variance of the original's feature."""
        rows = value.movedim(self.original.reading.channels, -1).flatten(0, -2)
        return float(rows.float().var(0, correction=0).mean())


class Features:
    """The distance between the features of two networks, of the last forward pass of both.

    It is the mean over features of the mean square of their difference, each divided by the
    original's variance on the channels that stay.
    """

    def __init__(self, pairs: Sequence[_Pair], spreads: Sequence[float], mine: Taps, theirs: Taps):
        self._pairs = pairs
        self._spreads = spreads
        self._mine = mine
        self._theirs = theirs

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def weights(self) -> tuple[str, ...]:
        """Parameters that read what is compared."""
        return tuple(pair.weight for pair in self._pairs)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Both networks are watched inside the block."""
        with self._mine.opened(), self._theirs.opened():
            yield

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Inside a block of `watched`: the pruned network is left alone."""
        with self._mine.closed():
            yield

    def distance(self) -> Tensor:
        """A scalar: the mean over the examples of the pass."""
        found = zip(
            self._pairs, self._spreads, self._mine.taken(), self._theirs.taken(), strict=True
        )
        return torch.stack(
            [
                (mine.float() - pair.meant(theirs).float()).square().mean() / spread
                for pair, spread, mine, theirs in found
            ]
        ).mean()


def features_of(
    original: fx.GraphModule,
    network: fx.GraphModule,
    left: Left,
    run: Callable[[], None],
) -> Features | None:
    """What can be compared; `None` where nothing can.

    Args:
        network: a smaller form of `original`, with parameters of the same names.
        run: makes both compute the same examples, in evaluation mode.
    """
    pairs = _pairs(original, network, left)
    mine, theirs = _taps(original, network, pairs)
    with torch.no_grad(), mine.opened(), theirs.opened():
        run()
        values = list(zip(pairs, mine.taken(), theirs.taken(), strict=True))
    # Another axis than that of channels may have been cut, too: a value of several heads, say.
    spreads = {
        place: pair.spread(pair.meant(wanted))
        for place, (pair, own, wanted) in enumerate(values)
        if pair.meant(wanted).shape == own.shape
    }
    found = _thinned([place for place, spread in spreads.items() if spread > 0])
    if not found:
        return None
    chosen = [pairs[place] for place in found]
    taps = _taps(original, network, chosen)
    return Features(chosen, [spreads[place] for place in found], *taps)


def _taps(
    original: fx.GraphModule, network: fx.GraphModule, pairs: Sequence[_Pair]
) -> tuple[Taps, Taps]:
    return (
        Taps(network, [(pair.pruned.reader, pair.pruned.source) for pair in pairs]),
        Taps(original, [(pair.original.reader, pair.original.source) for pair in pairs]),
    )


def _thinned(places: Sequence[int]) -> list[int]:
    """At most `MOST` of them, the last among them."""
    number = min(len(places), MOST)
    return [places[(index + 1) * len(places) // number - 1] for index in range(number)]


def _pairs(original: fx.GraphModule, network: fx.GraphModule, left: Left) -> list[_Pair]:
    wiring = wire(original)
    theirs, mine = _places(original), _places(network)
    shared = {name: place for name, place in theirs.items() if name in mine}
    learnt = _learnt(original, wiring)
    usable = {
        name: place
        for name, place in shared.items()
        if place.source in learnt and not _overwritten(place, wiring)
    }
    ends = {name: place for name, place in usable.items() if _ends_block(place.source, wiring)}
    found: dict[fx.Node, _Pair] = {}
    for name, place in (ends or usable).items():
        kept = left.get(name, {}).get(place.reading.read)
        indices = None if kept is None else torch.tensor(kept)
        found.setdefault(place.source, _Pair(name, place, mine[name], indices))
    return list(found.values())


def _places(network: fx.GraphModule) -> dict[str, _Place]:
    """By the name of the weight, of weights that are used once."""
    found: dict[str, _Place] = {}
    seen: set[str] = set()
    for node in network.graph.nodes:
        reading = _READINGS.get(operator_name(node)) if node.op == "call_function" else None
        if reading is None or argument(node, "groups") not in (None, 1):
            continue
        weight, source = argument(node, reading.weight), argument(node, reading.value)
        if isinstance(weight, (list, tuple)) and weight:
            weight = weight[0]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            continue
        name = str(weight.target)
        if name in seen:
            found.pop(name, None)
        elif isinstance(source, fx.Node) and _fits(attribute(network, name), reading):
            found[name] = _Place(node, source, reading)
        seen.add(name)
    return found


def _fits(weight: Tensor, reading: _Reading) -> bool:
    """Whether the weight has the axis; a norm over several axes reads no channels."""
    return weight.dim() > reading.read and (reading.read > 0 or weight.dim() in (1, 3, 4, 5))


def _learnt(network: fx.GraphModule, wiring: Wiring) -> set[fx.Node]:
    """Numbers that depend on inputs and on weights."""
    weighted: set[fx.Node] = set()
    fed: set[fx.Node] = set()
    for node in wiring.order:
        if node.op == "placeholder":
            fed.add(node)
        if node.op == "get_attr" and isinstance(attribute(network, str(node.target)), nn.Parameter):
            weighted.add(node)
        if any(source in fed for source in wiring.inputs[node]):
            fed.add(node)
        if any(source in weighted for source in wiring.inputs[node]):
            weighted.add(node)
    return {
        node
        for node in weighted & fed
        if isinstance(node.meta.get("val"), Tensor) and node.meta["val"].is_floating_point()
    }


def _overwritten(place: _Place, wiring: Wiring) -> bool:
    """Whether something is written into the value after it was read."""
    owner = wiring.owners.get(place.source)
    writers = () if owner is None else wiring.writers.get(owner, ())
    return any(wiring.place[writer] > wiring.place[place.reader] for writer in writers)


def _ends_block(node: fx.Node, wiring: Wiring) -> bool:
    """Whether the value is a sum of two others, perhaps with steps without weights after it."""
    while True:
        sources = wiring.inputs.get(node, ())
        if operator_name(node) == "aten.add" and len(sources) > 1:
            return all(source.op != "get_attr" for source in sources)
        if len(sources) != 1:
            return False
        (node,) = sources
