"""Units in soft form: masked as a whole while the network trains, removed at the end.

Stage: recovery. In: which units stay. Out: masks over all weights that go with the others, the
same that removal takes away. Never decides which.
"""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunecli.graph.cost import Keep
from prunecli.graph.coupling import Coupling
from prunecli.graph.nodes import attribute
from prunecli.recovery.unit_norms import units_of


def unit_masks(network: GraphModule, coupling: Coupling, keep: Keep) -> dict[str, Tensor]:
    """Masks for every parameter that units sit on; the soft filters of He et al. 2018
    (arXiv:1808.06866), but held.

    Args:
        keep: bool, shape (units,).
    """
    stays = torch.cat([torch.from_numpy(keep), torch.ones(1, dtype=torch.bool)])
    masks: dict[str, Tensor] = {}
    for slot in coupling.slots:
        tensor = attribute(network, slot.tensor)
        if isinstance(tensor, nn.Parameter):
            # What must stay has unit -1, which is the last entry.
            own = stays[units_of(tensor, slot)].expand(tensor.shape)
            masks[slot.tensor] = masks[slot.tensor] & own if slot.tensor in masks else own.clone()
    return masks
