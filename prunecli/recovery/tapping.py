"""Values inside a captured graph, as it runs.

Stage: recovery. In: a captured graph, and nodes with what they read. Out: those values, while the
graph is tapped. Afterwards the graph is node for node what it was.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, fx


class Taps:
    """Keeps what each of some nodes last read.

    Analyses know nothing of taps: nobody else may look at the graph while it is tapped.
    """

    def __init__(self, network: fx.GraphModule, places: Sequence[tuple[fx.Node, fx.Node]]) -> None:
        """`places`: a node, and which of its operands."""
        self._network = network
        self._places = tuple(places)
        self._added: list[fx.Node] = []
        self._values: dict[int, Tensor] = {}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Inside the block the graph is tapped."""
        self._open()
        try:
            yield
        finally:
            self._close()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Inside a block of `opened`: for this one the graph is as it was."""
        self._close()
        try:
            yield
        finally:
            self._open()

    def taken(self) -> list[Tensor]:
        """What was read in the last pass, in the order of the places; held no longer than that."""
        values, self._values = self._values, {}
        return [values[place] for place in range(len(self._places))]

    def _open(self) -> None:
        graph = self._network.graph
        for place, (reader, source) in enumerate(self._places):
            # Right before the reader: the memory may be written into before, and after.
            with graph.inserting_before(reader):
                self._added.append(graph.call_function(self._keeper(place), (source,)))
        self._network.recompile()

    def _close(self) -> None:
        for node in self._added:
            self._network.graph.erase_node(node)
        self._added.clear()
        self._values.clear()
        self._network.recompile()

    def _keeper(self, place: int) -> Callable[[Tensor], None]:
        def tap(value: Tensor) -> None:
            self._values[place] = value

        return tap
