"""How far the weights of each tensor spread, for thresholds that are given in standard
deviations.

Stage: importance. In: the network and what of it may be masked. Out: a number per tensor.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from prunecli.graph.maskable import Maskable
from prunecli.graph.nodes import attribute


def deviations(
    network: fx.GraphModule,
    maskables: Sequence[Maskable],
    masks: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Standard deviation of each tensor's weights, of those that are left where it has a mask
    (Han et al. 2015, "Learning both Weights and Connections", arXiv:1506.02626)."""
    found = {}
    for item in maskables:
        weights: Tensor = attribute(network, item.name).detach()
        mask = (masks or {}).get(item.name)
        own = weights.flatten() if mask is None else weights[mask]
        found[item.name] = float(own.double().std(correction=0))
    return found
