"""Capture: any network becomes one graph of ATen operators.

Stage: graph. In: a module with example inputs, or an exported program. Out: `Captured`. Never
changes the network; knows no pruning.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from prunecli.errors import ModelError
from prunecli.graph.calling import (
    UNLIKE,
    check_drawn,
    compare_answers,
    flat_forward,
    program_answer,
    try_forward,
)
from prunecli.graph.failing import cannot_capture
from prunecli.graph.flattening import flat, unlifted
from prunecli.graph.folding import fold
from prunecli.graph.inputs import BATCH, Axes, Domain, Example, batch_name, domains, draw
from prunecli.graph.lengths import any_length
from prunecli.graph.masks import masks_as_given
from prunecli.graph.nodes import is_free
from prunecli.graph.packed import UNLIKE as UNLIKE_PACKED
from prunecli.graph.packed import drop_unasked, packed_as_padded


@dataclass(frozen=True)
class Captured:
    """A network as a graph that can be read, rewritten, trained and exported again.

    Attributes:
        network: ATen graph in evaluation mode, from tensors one after another to a tensor or a
            tuple of them; parameters keep the names of the original.
        inputs: example inputs; free axes have the extents they had during capture.
        axes: per input and axis, the name of an axis that is free in the graph, or `None`.
        domains: what values each input may have.
        outputs: names of the outputs.
        notes: what had to be decided, in words.
    """

    network: fx.GraphModule
    inputs: tuple[Tensor, ...]
    axes: tuple[Axes, ...]
    domains: tuple[Domain, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def dynamic_batch(self) -> bool:
        """Whether any number of examples can be given at once."""
        return self.batch_name is not None

    @property
    def batch_name(self) -> str | None:
        """Name of the free batch axis."""
        return batch_name(own[0] for own in self.axes if own)

    @property
    def batch(self) -> int:
        """Examples in `inputs`."""
        name = self.batch_name
        for item, own in zip(self.inputs, self.axes, strict=True):
            if item.dim() and (name is None or own[0] == name):
                return item.shape[0]
        return 1

    def draw(self, extents: Mapping[str, int], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random inputs; `extents` of free axes by name, those of the example where missing."""
        return _drawn(self.domains, self.axes, extents, generator)


def _drawn(
    domains: Sequence[Domain],
    axes: Sequence[Axes],
    extents: Mapping[str, int],
    generator: torch.Generator,
) -> tuple[Tensor, ...]:
    second = next(
        ((own[1], item.like.shape[1]) for item, own in zip(domains, axes, strict=True) if own[1:]),
        None,
    )
    longest = None if second is None else extents.get(second[0] or "", second[1])
    return tuple(
        draw(domain, own, extents, generator, longest)
        for domain, own in zip(domains, axes, strict=True)
    )


@contextmanager
def quiet_export() -> Iterator[None]:
    """Hide what torch.export and the ONNX exporter print about their own internals: progress,
    warnings, and whole graphs where they fail."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.fx", "torch._export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        hidden = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(hidden),
            contextlib.redirect_stderr(hidden),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def fitting_example(
    module: nn.Module, examples: Iterable[Example]
) -> tuple[Example, tuple[Tensor, ...]]:
    """The first of `examples` that `module` takes, and what it answers.

    Raises:
        ModelError: the module takes none; says why not the first.
    """
    module.eval()
    rejected: ModelError | None = None
    for example in examples:
        try:
            return example, try_forward(module, example).outputs
        except ModelError as error:
            rejected = rejected or error
    assert rejected is not None
    raise rejected


def capture(
    module: nn.Module, example: Example, answer: tuple[Tensor, ...] | None = None
) -> Captured:
    """Export `module` in evaluation mode, with free axes where the module allows them.

    Args:
        module: any network; put into evaluation mode.
        answer: what it answers to the example, if that is known (see `fitting_example`).

    Raises:
        ModelError: the module rejects the inputs, or cannot be captured.
    """
    module.eval()
    expected = try_forward(module, example).outputs if answer is None else answer
    with flat_forward(module, example) as returned:
        with packed_as_padded() as packed:
            program = _export(module, example.tensors, example.axes)
        network = flat(unlifted(program))
        if packed:
            drop_unasked(network)
    found = _captured(network, example.tensors, example.axes, returned.names)
    notes = [f"the output {item} is not a tensor: left out" for item in returned.dropped]
    unlike = UNLIKE_PACKED if packed else UNLIKE
    said = compare_answers(
        network, example.tensors, expected, lambda: try_forward(module, example).outputs, unlike
    )
    notes += [said] if said else []
    # What was only guessed so far, before it was known which numbers are indices of what.
    generator = torch.Generator().manual_seed(0)
    drawn = _drawn(found.domains, found.axes, {}, generator)
    inputs = tuple(
        old if old.is_floating_point() else new
        for old, new in zip(found.inputs, drawn, strict=True)
    )
    if not all(item.is_floating_point() for item in inputs):
        check_drawn(network, inputs)
    return Captured(
        network, inputs, found.axes, found.domains, found.outputs, (*found.notes, *notes, *packed)
    )


def capture_program(program: ExportedProgram) -> Captured:
    """Take a program that was exported elsewhere (a `.pt2` file) as it is.

    Raises:
        ModelError: the program holds no example inputs, or does not run on them.
    """
    given: tuple[Any, Any] = program.example_inputs or ((), {})
    leaves = torch.utils._pytree.tree_leaves(given)
    # Copies, because an example that is a view of a whole data set would be saved with all of it.
    inputs = tuple(item.detach().clone() for item in leaves if isinstance(item, Tensor))
    if not inputs:
        raise ModelError(
            "program: example inputs must be stored in the file, got none",
            "export it again with torch.export.export(model, (tensor,)) and save with its inputs",
        )
    original = unlifted(program)
    expected = program_answer(original, *given)
    network = flat(original)
    axes = tuple(
        tuple(f"{node.name}_{axis}" if axis else BATCH for axis in range(node.meta["val"].dim()))
        for node in network.graph.find_nodes(op="placeholder")
    )
    outputs = fx_outputs(network)
    names = (
        ("output",)
        if len(outputs) == 1
        else tuple(f"output_{place}" for place in range(len(outputs)))
    )
    found = _captured(network, inputs, axes, names)
    said = compare_answers(
        network, inputs, expected, lambda: program_answer(unlifted(program), *given)
    )
    return replace(found, notes=(*found.notes, said)) if said else found


def fx_outputs(network: fx.GraphModule) -> list[fx.Node]:
    """The nodes whose values the network returns."""
    found: list[fx.Node] = []
    fx.map_arg(next(iter(network.graph.find_nodes(op="output"))).args[0], found.append)
    return found


def output_shapes(captured: Captured) -> tuple[tuple[int, ...], ...]:
    """Shapes of the outputs for the example inputs."""
    with torch.no_grad():
        found = torch.utils._pytree.tree_leaves(captured.network(*captured.inputs))
    return tuple(tuple(item.shape) for item in found)


def recapture(network: fx.GraphModule, captured: Captured) -> ExportedProgram:
    """Export a rewritten graph again, which checks it and gives it fresh shapes.

    Raises:
        ModelError: the graph cannot be exported.
    """
    return _export(network, captured.inputs, captured.axes)


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], axes: tuple[Axes, ...]
) -> ExportedProgram:
    # Dim.AUTO lets torch.export decide: an axis that the model's own code fixes becomes a
    # constant instead of an error, and the caller sees that in the placeholder's shape.
    shapes = tuple(
        {place: Dim.AUTO for place, name in enumerate(own) if name is not None} or None
        for own in axes
    )
    try:
        with torch.no_grad(), quiet_export(), masks_as_given(), any_length():
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise cannot_capture(module, error) from error


def _captured(
    network: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    wanted: tuple[Axes, ...],
    outputs: tuple[str, ...],
) -> Captured:
    nodes = network.graph.find_nodes(op="placeholder")
    axes: list[Axes] = []
    notes = list(fold(network))
    for node, own in zip(nodes, wanted, strict=True):
        shape = node.meta["val"].shape
        axes.append(
            tuple(name if is_free(size) else None for name, size in zip(own, shape, strict=True))
        )
        for place, name in enumerate(own):
            if name is not None and axes[-1][place] is None:
                what = "its batch: batch" if name == BATCH else f"axis {name} of {node.name}:"
                notes.append(f"the model fixes {what} {int(shape[place])} ships")
    found = domains(network, inputs)
    return Captured(
        network, inputs, tuple(axes), found, _apart(outputs, nodes), tuple(dict.fromkeys(notes))
    )


def _apart(outputs: tuple[str, ...], inputs: list[fx.Node]) -> tuple[str, ...]:
    """An ONNX file needs different names for what comes in and what goes out."""
    taken = {node.name for node in inputs}
    return tuple(f"output_{name}" if name in taken else name for name in outputs)


def fixed_batch(network: fx.GraphModule) -> int | None:
    """The only batch size that the graph takes, or `None` where any will do."""
    first = network.graph.find_nodes(op="placeholder")[0].meta.get("val")
    if not isinstance(first, Tensor) or not first.dim() or is_free(first.shape[0]):
        return None
    return int(first.shape[0])
