"""Capturing a rewritten graph again: fresh shapes, everything else as it was.

Stage: graph. In: a rewritten network and the `Captured` that it was made from. Out: `Captured`.
"""

from dataclasses import replace

from torch import fx

from prunecli.errors import ModelError
from prunecli.graph.capture import Captured, recapture
from prunecli.graph.flattening import flat, unlifted
from prunecli.graph.nodes import is_free


def captured_again(network: fx.GraphModule, captured: Captured) -> Captured:
    """`network` as `Captured`: inputs, free axes, names and notes are those of `captured`, shapes
    those of `network`. The two share the parameters of `network`.

    Raises:
        ModelError: the graph cannot be exported, or fixes an axis that was free.
    """
    found = flat(unlifted(recapture(network, captured)))
    nodes = found.graph.find_nodes(op="placeholder")
    for node, axes in zip(nodes, captured.axes, strict=True):
        shape = node.meta["val"].shape
        for name, extent in zip(axes, shape, strict=True):
            if name is not None and not is_free(extent):
                raise ModelError(
                    f"network: axis {name} of {node.name} must stay free, got {int(extent)} only, "
                    "after the network was rewritten",
                    "this is a bug in prunecli: please report it with the model",
                )
    return replace(captured, network=found)
