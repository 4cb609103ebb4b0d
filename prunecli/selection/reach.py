"""What could go: group by group, and how small the network would be without it.

Stage: selection. Pure: coupling, costs and steps in, records out. Touches no weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunecli.graph.cost import Cost, CostModel
from prunecli.graph.coupling import Coupling, Group
from prunecli.selection.steps import Steps


@dataclass(frozen=True)
class GroupReach:
    """How far one group can be cut.

    Attributes:
        may_go: so many of its units.
        after: cost of the network without them, everything else staying but for units of other
            groups that can only go together with these.
    """

    group: Group
    may_go: int
    after: Cost


def group_reach(coupling: Coupling, model: CostModel, steps: Steps) -> Iterator[GroupReach]:
    """Each group on its own, in the coupling's order."""
    for group in coupling.groups:
        own = np.unique(steps.of_unit[group.units])
        gone = np.zeros(steps.never.size, dtype=np.bool_)
        gone[own] = ~steps.never[own]
        keep = ~gone[steps.of_unit]
        yield GroupReach(group, int((~keep[group.units]).sum()), model.evaluate(keep))
