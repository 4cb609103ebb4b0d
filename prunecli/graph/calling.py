"""Calling a network with tensors one after another, whatever its `forward` takes and returns.

Stage: graph. In: a module and example inputs. Out: the module with a flat `forward` for the
length of a block. Dictionaries, keyword arguments and nested results exist only outside of the
captured graph: behind it, every network takes tensors and returns tensors.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from prunecli.errors import ConfigError, ModelError, first_line
from prunecli.graph.inputs import Example

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass
class Returned:
    """What the last call returned.

    Attributes:
        names: of the tensors, from the keys and places that lead to them.
        dropped: what else there was, by name and type.
        outputs: the tensors themselves; filled in by `try_forward`.
    """

    names: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@contextmanager
def flat_forward(module: nn.Module, example: Example) -> Iterator[Returned]:
    """Within the block, `module(*example.tensors)` works and returns a tensor or several.

    Raises:
        ConfigError: the names are none that the module's `forward` takes.
        ModelError: (when called) the module returns no tensor.
    """
    inner = module.forward
    own = vars(module).get("forward")
    parameters = inspect.signature(inner).parameters
    _check_names(example.names, parameters)
    returned = Returned()

    def forward(*tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        positional, keywords = _arguments(example, tensors)
        found = list(_leaves(inner(*positional, **keywords), ""))
        returned.names = _distinct([name for name, item in found if isinstance(item, Tensor)])
        returned.dropped = tuple(
            f"{name or 'output'} ({type(item).__name__})"
            for name, item in found
            if not isinstance(item, (Tensor, int, float, str, type(None)))
        )
        outputs = tuple(item for _, item in found if isinstance(item, Tensor))
        if not outputs:
            got = ", ".join(returned.dropped) or "nothing"
            raise ModelError(
                f"model: must return tensors, got {got}", "wrap it in a module that returns them"
            )
        return outputs[0] if len(outputs) == 1 else outputs

    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for name in input_names(example, parameters)
        ]
    )
    module.forward = forward
    try:
        yield returned
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def input_names(example: Example, parameters: Mapping[str, inspect.Parameter]) -> tuple[str, ...]:
    """What the inputs are called in the captured graph."""
    if example.names:
        return _distinct([name.replace(".", "_") for name in example.names])
    known = [name for name, item in parameters.items() if item.kind in POSITIONAL]
    return _distinct(
        [
            known[place] if place < len(known) else f"input_{place}"
            for place in range(len(example.tensors))
        ]
    )


def _check_names(names: tuple[str, ...], parameters: Mapping[str, inspect.Parameter]) -> None:
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())
    known = [name for name, item in parameters.items() if item.kind not in _VARIABLE]
    listed = ", ".join(known) or "no named inputs"
    heads = [name.partition(".")[0] for name in names]
    for head in heads:
        if head not in known and not takes_any:
            raise ConfigError(
                f"--input {head}: must be an input of the network, got no such name",
                f"its forward takes {listed}"
                + (f" (if that is a dictionary: {known[0]}.{head})" if len(known) == 1 else ""),
            )
    needed = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    missing = [name for name in needed if name not in heads] if names else []
    if missing:
        raise ConfigError(
            f"--input: every input without a default is needed, got none for {', '.join(missing)}",
            " ".join(f"--input '{name}=float32[batch,...]'" for name in missing),
        )


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _arguments(
    example: Example, tensors: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    if not example.names:
        return tensors, {}
    keywords: dict[str, Any] = {}
    for name, tensor in zip(example.names, tensors, strict=True):
        *path, last = name.split(".")
        place = keywords
        for part in path:
            place = place.setdefault(part, {})
        place[last] = tensor
    return (), keywords


def _leaves(item: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What a result holds, with the way to it as a name."""
    inner: list[tuple[str, Any]] | None = None
    if isinstance(item, Mapping):
        inner = [(str(key), value) for key, value in item.items()]
    elif isinstance(item, tuple) and hasattr(item, "_fields"):
        inner = list(zip(item._fields, item, strict=True))
    elif isinstance(item, (list, tuple)):
        inner = [(str(place), value) for place, value in enumerate(item)]
    elif dataclasses.is_dataclass(item) and not isinstance(item, type):
        inner = [(part.name, getattr(item, part.name)) for part in dataclasses.fields(item)]
    if inner is None:
        yield name, item
        return
    for key, value in inner:
        yield from _leaves(value, f"{name}_{key}" if name else key)


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Identifiers, none of them twice."""
    found: list[str] = []
    for place, name in enumerate(names):
        word = "".join(letter if letter.isalnum() else "_" for letter in name)
        if not word or word[0].isdigit():
            word = f"output_{word}" if word else "output"
        found.append(word if word not in found else f"{word}_{place}")
    return tuple(found)


def try_forward(module: nn.Module, example: Example) -> Returned:
    """Run the network once.

    Raises:
        ModelError: it rejects the inputs.
    """
    try:
        with flat_forward(module, example) as returned, torch.no_grad():
            found = module(*(item.clone() for item in example.tensors))
            returned.outputs = found if isinstance(found, tuple) else (found,)
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        what = "an input of shape" if len(example.tensors) == 1 else "inputs of shapes"
        raise ModelError(
            f"model: rejects {what} {example.in_words()}: {first_line(error)}",
            _what_to_give(example),
        ) from error
    return returned


def _what_to_give(example: Example) -> str:
    """What may make a network take its inputs."""
    if example.names:
        return "give the right --input; a free axis can say what to try, as in seq=128"
    if len(example.tensors) == 1 and example.tensors[0].dim() == 2:
        return (
            "of a table name the columns that it takes (--input-column); without data, give the "
            "right --input-shape (batch, columns)"
        )
    return "give the right --input-shape (batch, channels, height, width) or --image-size"


RANDOM = "the network's answer to the same input differs from run to run: one run was captured"

TOLERANCES = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far two ways to compute an answer may be apart, of its largest value."""
TOLERANCE = 1e-3

UNLIKE = (
    "the captured network must answer as the model does",
    "a forward that keeps state between calls, or hides work from PyTorch (numpy), cannot be "
    "captured; if yours does neither, please report it with the model",
)
"""What is wrong with a network that answers something else, and what to do."""


def compare_answers(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    expected: tuple[Tensor, ...],
    again: Callable[[], tuple[Tensor, ...]],
    unlike: tuple[str, str] = UNLIKE,
) -> str:
    """What is to be said of a captured `network`: nothing where it answers as the original did.

    Args:
        expected: what the original answered.
        again: asks the original once more.
        unlike: what to say where the network answers something else, and the hint.

    Raises:
        ModelError: it answers something else.
    """
    with torch.no_grad():
        found = _answer(network, inputs, {})
    apart = [place for place, pair in enumerate(zip(expected, found, strict=True)) if _apart(*pair)]
    if not apart:
        return ""
    if any(map(_apart, expected, again())):
        return RANDOM
    one, two = expected[apart[0]], found[apart[0]]
    got = (
        f"other values in output {apart[0]}"
        if one.shape == two.shape
        else f"{tuple(two.shape)} for {tuple(one.shape)}"
    )
    raise ModelError(f"model: {unlike[0]}, got {got}", unlike[1])


def check_drawn(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Run `network` on numbers drawn from all that its tables hold: padding alone may pass where
    nothing else does, since it has no position.

    Raises:
        ModelError: it does not take them.
    """
    try:
        with torch.no_grad():
            _answer(network, inputs, {})
    except (RuntimeError, LookupError) as error:
        shapes = ", ".join(str(tuple(item.shape)) for item in inputs)
        raise ModelError(
            f"model: must take all indices at {shapes}, got {first_line(error)}",
            "say how long sequences may be, e.g. --input 'input_ids=int64[batch,seq=32]'",
        ) from error


def program_answer(
    network: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[Tensor, ...]:
    """The tensors that a program returns for its example inputs.

    Raises:
        ModelError: it does not run on them.
    """
    try:
        with torch.no_grad():
            return _answer(network, args, keywords)
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        raise ModelError(
            f"program: must run on the example inputs in the file, got {first_line(error)}",
            "export it again with torch.export.export(model, (tensor,)) and save with its inputs",
        ) from error


def _answer(
    network: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[Tensor, ...]:
    # Copies, since a network may work on its input in place, and count or average in its buffers.
    given = tree_map_only(Tensor, Tensor.clone, (args, keywords))
    buffers = {name: item.clone() for name, item in network.named_buffers()}
    found = torch.func.functional_call(network, buffers, *given)
    return tuple(item for item in tree_leaves(found) if isinstance(item, Tensor))


def _apart(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return True
    if one.is_complex():
        one, two = torch.view_as_real(one), torch.view_as_real(two)
    if not one.is_floating_point() or not one.numel():
        return not torch.equal(one, two)
    share = TOLERANCES.get(one.dtype, TOLERANCE)
    scale = float(one.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return not torch.allclose(one, two, share, share * scale, equal_nan=True)
