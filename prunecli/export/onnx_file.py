"""Export: a captured network becomes one ONNX file, weights inside, origin in the metadata.

Stage: export. In: a graph and example inputs. Out: a file. Never verifies (see `verify`) and
never gives a file its final name.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import fx
from torch.export import ExportedProgram

from prunecli.choices import Storage
from prunecli.errors import ModelError, with_type
from prunecli.export.forms import in_onnx_terms
from prunecli.export.sparse_storage import compress, count_nonzero, expanded
from prunecli.graph.capture import Captured, quiet_export, recapture
from prunecli.graph.lengths import any_length

_SYMBOL = re.compile(r"[A-Za-z_]\w*")

OPSET = 20
"""Old enough for runtimes in use, new enough for every operator that torch.export emits."""


@dataclass(frozen=True)
class Exportable:
    """A network ready for export.

    Attributes:
        program: captured again, so that its shapes are those of the weights it holds.
        origin: the original, for inputs, free axes and names.
    """

    program: ExportedProgram
    origin: Captured


def make_exportable(network: fx.GraphModule, captured: Captured) -> Exportable:
    """Capture a (rewritten, trained) graph again, with the inputs and free axes of `captured`.

    Raises:
        ModelError: the graph cannot be captured.
    """
    return Exportable(recapture(network, captured), captured)


def write_onnx(
    exportable: Exportable,
    path: Path,
    metadata: Mapping[str, str],
    storage: Storage = Storage.DENSE,
) -> None:
    """Write `exportable` to `path` as it is, with `metadata` as the file's properties.

    Args:
        storage: whether weights with many zeros are packed.

    Raises:
        ModelError: an operator has no ONNX form.
    """
    program = in_onnx_terms(exportable.program, exportable.origin)
    try:
        # Without gradients, as during capture: with them, attention takes another path, whose
        # results have other strides than the captured views were made for.
        with quiet_export(), torch.no_grad(), any_length():
            exported = torch.onnx.export(
                program,
                exportable.origin.inputs,
                dynamo=True,
                output_names=list(exportable.origin.outputs),
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            f"export: this network has no ONNX form: {_cause(error)}",
            "report the operator that is named; the .pt2 form of the network may still work",
        ) from error
    assert exported is not None
    model = exported.model_proto
    _clean(model, exportable.origin)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(compress(model) if storage is Storage.SPARSE else model, path)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong first; the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return with_type(error)


def _clean(model: onnx.ModelProto, origin: Captured) -> None:
    """Drop what the exporter notes about its own work (stack traces with the paths of this
    machine among it) and give the free axes their names."""
    graph = model.graph
    names = {
        dim.dim_param: name
        for value, own in zip(graph.input, origin.axes, strict=True)
        for dim, name in zip(value.type.tensor_type.shape.dim, own, strict=True)
        if dim.dim_param and name is not None
    }
    del graph.value_info[:]
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:  # of an output perhaps an expression: s0 // 2
                dim.dim_param = _SYMBOL.sub(
                    lambda found: names.get(found.group(), found.group()), dim.dim_param
                )


def write_program(exportable: Exportable, path: Path) -> None:
    """Write the network as a `.pt2` program, which can be loaded, trained and pruned again."""
    # Through memory: where the disk is full, torch's own writer ends the process with a core dump.
    buffer = io.BytesIO()
    with quiet_export():
        torch.export.save(exportable.program, buffer)
    path.write_bytes(buffer.getbuffer())


def initializer_elements(path: Path) -> int:
    """Elements of all floating-point initialisers (weights) in an ONNX file, with those that are
    packed counted in full."""
    return nonzero_weights(path)[1]


def nonzero_weights(path: Path) -> tuple[int, int]:
    """Weights in an ONNX file, packed or not: those that are not zero, and all."""
    weights = weights_in(path).values()
    return sum(map(count_nonzero, weights)), sum(item.size for item in weights)


def weights_in(path: Path) -> dict[str, NDArray[Any]]:
    """The floating-point initialisers of an ONNX file by name, packed or not."""
    return expanded(onnx.load(path, load_external_data=False))


def stored_bytes(path: Path) -> int:
    """What all initialisers take in an ONNX file; packed ones without the nodes around them."""
    model = onnx.load(path, load_external_data=False)
    return sum(item.ByteSize() for item in model.graph.initializer)
