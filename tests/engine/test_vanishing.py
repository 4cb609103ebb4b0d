"""What is said to vanish does: with the removed parameters at zero, its removed places are zero."""

import copy
from typing import Any

import pytest
import torch
from engine_harness import (
    Net,
    analyse,
    channels,
    inputs_of,
    mask_of,
    prune,
    reasons,
    shaken,
)
from engine_rows import Row
from test_operators import ROWS
from torch import Tensor, fx, nn

from prunecli.choices import Criterion
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


def test_what_is_written_into_a_part_of_a_split_is_seen_in_the_whole() -> None:
    def forward(net: Net, x: Tensor) -> Any:
        seen = net.a(x)
        seen.chunk(2, 1)[0].add_(1.0)
        return net.b(seen.flatten(2).mean(1))

    found = analyse(Net(forward, a=nn.Conv2d(3, 12, 1), b=nn.Linear(16, 3)), ((3, 4, 4),))
    assert "is reduced over" in reasons(found.coupling)["a"]
    assert found.coupling.count == 0
