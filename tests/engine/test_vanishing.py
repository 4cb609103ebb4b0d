"""What is said to vanish does: with the removed parameters at zero, its removed places are zero."""

import copy
from typing import Any

import pytest
import torch
from engine_harness import analyse, channels, inputs_of, mask_of, prune, shaken
from engine_rows import Row
from test_operators import ROWS
from torch import Tensor, fx

from prunecli.config import Criterion
from prunecli.graph.capture import quiet_export
from prunecli.graph.fields import Value
from prunecli.surgery.kept import Kept


class Watched(fx.Interpreter):
    """Runs a graph, looking at every value that is said to vanish."""

    def __init__(self, network: fx.GraphModule, kept: Kept) -> None:
        super().__init__(network)
        self.kept = kept
        self.seen = 0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        value = self.kept.flow.values.get(n.name)
        if isinstance(value, Value) and value.vanishes and isinstance(result, Tensor):
            for field in value.fields:
                gone = torch.from_numpy(~self.kept.mask(field))
                assert not result.masked_select(gone.expand(value.shape)).any(), n
                self.seen += int(gone.any())
        return result


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_removed_is_zero(row: Row) -> None:
    module = shaken(row.make())
    found = analyse(module, row.shapes)
    if found.coupling.count == 0:
        return
    pruned = prune(found, channels(0.5), Criterion.RANDOM)
    with quiet_export():
        network = copy.deepcopy(found.captured.network)
    for name, axes in pruned.plan.tensors.items():
        groups = getattr(module.get_submodule(name.rpartition(".")[0]), "groups", 1)
        tensor = dict(network.named_parameters(remove_duplicate=False)).get(name)
        if tensor is not None:
            tensor.data *= mask_of(tensor.shape, axes, groups)
    watched = Watched(network, pruned.kept)
    with torch.no_grad():
        watched.run(*inputs_of(row.shapes, 2))
    assert watched.seen
