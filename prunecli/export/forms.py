"""Forms that ONNX has, for operators that it lacks.

Stage: export. In: a program. Out: the same program, captured again with other operators in place
of those. A function takes the operator's place in the graph, and capturing spells it out.
"""

from torch import fx
from torch.export import ExportedProgram

from prunecli.export.products import has_computed_groups, multiplied_windows
from prunecli.export.projection import has_projection, projected_lstm, start_of
from prunecli.graph.capture import Captured, recapture


def in_onnx_terms(program: ExportedProgram, origin: Captured) -> ExportedProgram:
    """`program` itself if it needs no other form; `origin` has its inputs and free axes."""
    if not any(has_projection(node) or has_computed_groups(node) for node in program.graph.nodes):
        return program
    network = program.module(check_guards=False)
    assert isinstance(network, fx.GraphModule)
    for node in network.graph.nodes:
        if has_projection(node):
            node.args = (*node.args, start_of(node))
            node.target = projected_lstm
        elif has_computed_groups(node):
            node.target = multiplied_windows
    network.recompile()
    return recapture(network, origin)
