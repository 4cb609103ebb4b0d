"""Example inputs: made from what the user says, drawn anew for every comparison.

Stage: graph. In: shapes and types of a network's inputs. Out: tensors. Never runs a network.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from prunecli.config import Axis, InputSpec
from prunecli.graph.nodes import operator_name

BATCH = "batch"
"""What a free batch axis is called where the user gives it no name."""

EXAMPLE_BATCH = 2
"""Batch during capture: 1 would be specialised by torch.export, more costs time."""

EXTENTS = (64, 16, 256)
"""Extents to try free axes with; axes of different names differ by `APART`."""
APART = 16

Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class Example:
    """Example inputs, in the order in which the captured graph takes them.

    Attributes:
        tensors: the inputs.
        axes: per input and axis, the name of a free axis, or `None` where the extent is fixed.
        names: parameters of the network's `forward` (`batch.image`: an entry of a dictionary);
            empty for inputs that are passed one after another.
    """

    tensors: tuple[Tensor, ...]
    axes: tuple[Axes, ...]
    names: tuple[str, ...] = ()

    def in_words(self) -> str:
        """Names and shapes, for messages."""
        names = self.names or ("",) * len(self.tensors)
        return ", ".join(
            f"{name} {tuple(item.shape)}".strip()
            for name, item in zip(names, self.tensors, strict=True)
        )


def positional(tensors: Sequence[Tensor]) -> Example:
    """`tensors` one after another, each with its batch first."""
    return Example(tuple(tensors), tuple(_batch_first(item.dim()) for item in tensors))


def _batch_first(rank: int) -> Axes:
    return (BATCH, *[None] * (rank - 1)) if rank else ()


def example_inputs(shape: tuple[int, ...], seed: int = 0, batch: int = EXAMPLE_BATCH) -> Example:
    """One normal random image-like input of `shape` (batch first), with the capture batch."""
    generator = torch.Generator().manual_seed(seed)
    return positional((torch.randn((batch, *shape[1:]), generator=generator),))


def of_shape(shape: tuple[int, ...]) -> Iterator[Example]:
    """What to try for `--input-shape`: the capture batch, then the batch that was written."""
    yield example_inputs(shape)
    if shape[0] != EXAMPLE_BATCH:
        yield example_inputs(shape, batch=shape[0])


def of_specs(specs: tuple[InputSpec, ...], by_position: bool = False) -> Iterator[Example]:
    """What to try for `--input`, the likeliest first: nothing is known yet about how long a
    sequence may be and which numbers are indices of what.

    Args:
        by_position: pass the inputs one after another, not by name.
    """
    free = list(dict.fromkeys(axis.name for spec in specs for axis in _later(spec) if axis.name))
    given = {axis.name for spec in specs for axis in spec.axes if axis.name and axis.extent}
    extents = EXTENTS if set(free) - given else EXTENTS[:1]
    whole = any(not spec.dtype.startswith("float") for spec in specs)
    for batch in _batches(specs):
        for extent in extents:
            guessed = {name: extent + APART * place for place, name in enumerate(free)}
            for fill in (1, 0) if whole else (1,):
                yield _of_specs(specs, {**guessed, _batch_name(specs): batch}, fill, by_position)


def batch_name(firsts: Iterable[str | None]) -> str | None:
    """Which of the inputs' first axes counts examples: `batch`, or else the first with a name."""
    names = [name for name in firsts if name is not None]
    return BATCH if BATCH in names else next(iter(names), None)


def _later(spec: InputSpec) -> tuple[Axis, ...]:
    return spec.axes[1:]


def _batch_name(specs: tuple[InputSpec, ...]) -> str:
    return batch_name([spec.axes[0].name for spec in specs]) or BATCH


def _batches(specs: tuple[InputSpec, ...]) -> tuple[int, ...]:
    written = next((spec.axes[0].extent for spec in specs if spec.axes[0].extent), 1)
    return (EXAMPLE_BATCH, written) if written != EXAMPLE_BATCH else (EXAMPLE_BATCH,)


def _of_specs(
    specs: tuple[InputSpec, ...], extents: dict[str, int], fill: int, by_position: bool
) -> Example:
    generator = torch.Generator().manual_seed(0)
    batch = _batch_name(specs)
    named = any(spec.axes[0].name for spec in specs)
    tensors, axes = [], []
    for spec in specs:
        # Without a name a first number is the batch, as in --input-shape; but where another
        # input names its batch, a number says that this input has none.
        first = Axis(batch, None) if not named else spec.axes[0]
        own = (first, *_later(spec))
        shape = [
            extents[axis.name] if axis.name == batch else axis.extent or extents[axis.name or ""]
            for axis in own
        ]
        dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            tensors.append(torch.randn(shape, generator=generator, dtype=dtype))
        elif _is_length(spec.name, len(shape)):
            tensors.append(torch.full(shape, _longest(specs, extents) or fill, dtype=dtype))
        else:
            value = 1 - fill if _says_padding(spec.name) else fill
            tensors.append(torch.full(shape, value, dtype=dtype))
        axes.append(tuple(axis.name for axis in own))
    names = () if by_position else tuple(spec.name for spec in specs)
    return Example(tuple(tensors), tuple(axes), names)


def _is_length(name: str, rank: int) -> bool:
    """Whether a whole number for each example says how long its sequence is."""
    return rank == 1 and "len" in name.lower()


def _longest(specs: tuple[InputSpec, ...], extents: dict[str, int]) -> int | None:
    """Extent of the first input's second axis."""
    second = next((spec.axes[1] for spec in specs if len(spec.axes) > 1), None)
    return None if second is None else second.extent or extents.get(second.name or "")


@dataclass(frozen=True)
class Domain:
    """What one input's values may be.

    Attributes:
        like: an example.
        limit: values are indices below this; 0 where they are none.
        mask: whether it marks padding.
        length: whether it says how long each example's sequence is.
        padding: what a mask says there: 0, or 1 in a padding mask.
    """

    like: Tensor
    limit: int = 0
    mask: bool = False
    length: bool = False
    padding: int = 0


def draw(
    domain: Domain,
    axes: Axes,
    extents: Mapping[str, int],
    generator: torch.Generator,
    longest: int | None = None,
) -> Tensor:
    """A random input: floats normal, indices uniform, padding masks with padding at the end,
    lengths falling from the longest possible.

    Args:
        extents: of free axes, by name; the example's where there is none.
        longest: length of the sequences.
    """
    like = domain.like
    shape = [
        extents.get(name, extent) if name is not None else extent
        for name, extent in zip(axes, like.shape, strict=True)
    ]
    if like.is_floating_point():
        return torch.randn(shape, generator=generator).to(like.dtype)
    if domain.limit:
        return torch.randint(0, domain.limit, shape, generator=generator).to(like.dtype)
    if domain.mask:
        made = torch.full(shape, 1 - domain.padding, dtype=like.dtype)
        made[1:, -(shape[-1] // 4) or shape[-1] :] = domain.padding
        return made
    if domain.length and longest is not None:
        made = torch.randint(1, longest + 1, shape, generator=generator)
        made[0] = longest
        return made.sort(descending=True).values.to(like.dtype)
    # Flags, counts: nothing is known but that the example's values are allowed.
    flat = like.reshape(-1)
    places = torch.arange(max(1, int(torch.tensor(shape).prod()))) % flat.numel()
    return flat[places].reshape(shape)


_PASSES = frozenset(
    "aten." + name
    for name in (
        *("to", "_to_copy", "view", "reshape", "unsqueeze", "squeeze", "expand", "slice", "clone"),
        *("contiguous", "flatten", "permute", "transpose", "t", "alias", "select", "detach"),
    )
)
"""Operators whose result holds the same numbers."""


def domains(network: fx.GraphModule, examples: Sequence[Tensor]) -> tuple[Domain, ...]:
    """What the network does with each of its inputs, as far as that limits their values."""
    nodes = network.graph.find_nodes(op="placeholder")
    return tuple(
        Domain(item, *_limits(node, item)) for node, item in zip(nodes, examples, strict=True)
    )


def _says_padding(name: str) -> bool:
    """PyTorch's padding masks are true at padding, attention masks where there is none."""
    return "mask" in name and "padding" in name


def _limits(node: fx.Node, example: Tensor) -> tuple[int, bool, bool, int]:
    if example.is_floating_point():
        return 0, False, False, 0
    limits = [] if example.dtype is torch.bool else list(_index_limits(node))
    mask = not limits and "mask" in node.name and example.dim() == 2
    length = not limits and _is_length(node.name, example.dim())
    return min(limits, default=0), mask, length, int(_says_padding(node.name))


def _index_limits(node: fx.Node) -> Iterator[int]:
    """Rows of the tables that `node` looks up in."""
    for user in node.users:
        name = operator_name(user)
        if name in ("aten.embedding", "aten.embedding_bag") and node in user.args[1:2]:
            table = user.args[0]
            assert isinstance(table, fx.Node)
            yield int(table.meta["val"].shape[0])
        elif name in _PASSES:
            yield from _index_limits(user)
