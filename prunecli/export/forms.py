"""Forms that ONNX has, for operators that it lacks.

Stage: export. In: a program. Out: the same program, captured again with other operators in place
of those. A function takes the operator's place in the graph, and capturing spells it out.
"""

from collections.abc import Callable
from typing import Any

from torch import fx
from torch.export import ExportedProgram

from prunecli.export.attention import has_more_axes, with_four_axes
from prunecli.export.products import has_computed_groups, multiplied_windows
from prunecli.export.projection import (
    has_projection,
    projected_lstm,
    projected_lstm_from_zeros,
    starts_at_zero,
)
from prunecli.graph.capture import Captured, recapture

FORMS: tuple[tuple[Callable[[fx.Node], bool], Callable[..., Any]], ...] = (
    (starts_at_zero, projected_lstm_from_zeros),
    (has_projection, projected_lstm),
    (has_computed_groups, multiplied_windows),
    (has_more_axes, with_four_axes),
)
"""Which nodes ONNX lacks, and a function of the same arguments in operators that it has. The first
row that fits counts."""


def in_onnx_terms(program: ExportedProgram, origin: Captured) -> ExportedProgram:
    """`program` itself if it needs no other form; `origin` has its inputs and free axes."""
    if not any(_form(node) for node in program.graph.nodes):
        return program
    network = program.module(check_guards=False)
    assert isinstance(network, fx.GraphModule)
    for node in network.graph.nodes:
        node.target = _form(node) or node.target
    network.recompile()
    return recapture(network, origin)


def _form(node: fx.Node) -> Callable[..., Any] | None:
    return next((function for lacks, function in FORMS if lacks(node)), None)
