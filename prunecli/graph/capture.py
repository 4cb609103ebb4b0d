"""Capture: any network becomes one graph of ATen operators.

Stage: graph. In: a module with example inputs, or an exported program. Out: `Captured`. Never
changes the network; knows no pruning.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from prunecli.errors import ModelError
from prunecli.graph.inlining import inline_contexts

EXAMPLE_BATCH = 2
"""Batch during capture: 1 would be specialised by torch.export, more costs time."""


@dataclass(frozen=True)
class Captured:
    """A network as a graph that can be read, rewritten, trained and exported again.

    Attributes:
        network: ATen graph in evaluation mode; parameters keep the names of the original.
        inputs: example inputs with a batch of `EXAMPLE_BATCH` (or the fixed batch).
        dynamic_batch: whether the batch axis is free in the graph.
        notes: what had to be decided, in words.
    """

    network: fx.GraphModule
    inputs: tuple[Tensor, ...]
    dynamic_batch: bool
    notes: tuple[str, ...] = ()


@contextmanager
def quiet_export() -> Iterator[None]:
    """Hide the warnings that torch.export prints about its own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def example_inputs(
    shape: tuple[int, ...], seed: int = 0, batch: int = EXAMPLE_BATCH
) -> tuple[Tensor, ...]:
    """One normal random image-like input of `shape` (batch first), with the capture batch."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((batch, *shape[1:]), generator=generator),)


def fitting_inputs(module: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Example inputs that `module` takes: with the capture batch or, where the module's code
    fixes another, with the batch of `shape`.

    Raises:
        ModelError: the module takes neither.
    """
    module.eval()
    inputs = example_inputs(shape)
    try:
        _try_forward(module, inputs)
    except ModelError as rejected:
        inputs = example_inputs(shape, batch=shape[0])
        try:
            _try_forward(module, inputs)
        except ModelError:
            raise rejected from None
    return inputs


def capture(module: nn.Module, inputs: tuple[Tensor, ...]) -> Captured:
    """Export `module` in evaluation mode, with a free batch axis where the module allows it.

    Args:
        module: any network; put into evaluation mode.
        inputs: positional example inputs, batch first.

    Raises:
        ModelError: the module rejects the inputs, or cannot be captured.
    """
    module.eval()
    _try_forward(module, inputs)
    return _captured(_export(module, inputs, dynamic=True), inputs)


def capture_program(program: ExportedProgram) -> Captured:
    """Take a program that was exported elsewhere (a `.pt2` file) as it is.

    Raises:
        ModelError: the program takes something other than tensors, one after another.
    """
    arguments, keywords = program.example_inputs or ((), {})
    if keywords or not arguments or not all(isinstance(item, Tensor) for item in arguments):
        raise ModelError(
            "program: example inputs must be positional tensors stored in the file",
            "export it again with torch.export.export(model, (tensor,)) and save with its inputs",
        )
    # Copies, because an example that is a view of a whole data set would be saved with all of it.
    return _captured(program, tuple(item.detach().clone() for item in arguments))


def output_shape(captured: Captured) -> tuple[int, ...]:
    """Shape of the first output for the example inputs."""
    with torch.no_grad():
        first = torch.utils._pytree.tree_leaves(captured.network(*captured.inputs))[0]
    return tuple(first.shape)


def recapture(
    network: fx.GraphModule, inputs: tuple[Tensor, ...], dynamic: bool
) -> ExportedProgram:
    """Export a rewritten graph again, which checks it and gives it fresh shapes.

    Raises:
        ModelError: the graph cannot be exported.
    """
    return _export(network, inputs, dynamic)


def _try_forward(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    shapes = ", ".join(str(tuple(item.shape)) for item in inputs)
    try:
        with torch.no_grad():
            module(*inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ModelError(
            f"model: rejects an input of shape {shapes}: {_first_line(error)}",
            "give the right --input-shape (batch, channels, height, width) or --image-size",
        ) from error


def _export(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool) -> ExportedProgram:
    # Dim.AUTO lets torch.export decide: an axis that the model's own code fixes becomes a
    # constant instead of an error, and the caller sees that in the placeholder's shape.
    shapes = tuple({0: Dim.AUTO} if dynamic and item.dim() else None for item in inputs)
    try:
        with torch.no_grad(), quiet_export():
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise ModelError(
            f"model: torch.export cannot capture it: {_first_line(error)}",
            "control flow that depends on the data must go; see the torch.export documentation",
        ) from error


def _captured(program: ExportedProgram, inputs: tuple[Tensor, ...]) -> Captured:
    network = program.module(check_guards=False)
    if not isinstance(network, fx.GraphModule):
        raise ModelError("program: does not unlift to a graph module")
    inline_contexts(network)
    for node in list(network.graph.nodes):
        # Export's checks would reject the compact network's own shapes, other devices, and the
        # precision in which results are compared.
        guard = node.op == "call_module" and node.target == "_guards_fn"
        if guard or node.target is torch.ops.aten._assert_tensor_metadata.default:
            network.graph.erase_node(node)
    _drop_unread(network)
    network.recompile()
    batch = fixed_batch(network)
    notes = () if batch is None else (f"the model fixes its batch: batch {batch} ships",)
    return Captured(network, inputs, batch is None, notes)


def fixed_batch(network: fx.GraphModule) -> int | None:
    """The only batch size that the graph takes, or `None` where any will do."""
    first = next(node for node in network.graph.nodes if node.op == "placeholder")
    example = first.meta.get("val")
    if not isinstance(example, Tensor) or not example.dim():
        return None
    size = example.shape[0]
    # A symbol can have been found to have one value only: `view(2, -1)` in the model's code.
    return size if isinstance(size, int) else size.node.maybe_as_int()


def _drop_unread(network: fx.GraphModule) -> None:
    """Forget parameters that the graph does not read, such as those of heads that exist only in
    training: they would count as parts of the network and be stored with it."""
    read = set()
    for node in network.graph.find_nodes(op="get_attr"):
        if node.users:
            read.add(str(node.target))
        else:
            network.graph.erase_node(node)
    for name, _ in list(network.named_parameters(remove_duplicate=False)):
        if name not in read:
            path, _, leaf = name.rpartition(".")
            delattr(network.get_submodule(path), leaf)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
