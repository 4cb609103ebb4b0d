"""Constants in the graph that hold sizes, rewritten for the kept part.

Stage: surgery. One function per way of holding sizes, one table. Each receives the node and
what is left of every value, and changes the node's arguments in place.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from prunecli.graph.fields import Value
from prunecli.graph.nodes import (
    argument,
    argument_names,
    arguments,
    operator_name,
    put_argument,
)
from prunecli.graph.rules.reduction import reduced_axes
from prunecli.surgery.kept import Kept


@dataclass(frozen=True)
class Site:
    """A node to rewrite.

    Attributes:
        node: the node in the copy of the graph.
        kept: what is left.
        source: the first tensor argument's value, if any.
        results: the node's values.
    """

    node: fx.Node
    kept: Kept
    source: Value | None
    results: tuple[Value, ...]

    def get(self, *names: str) -> Any:
        """The first of these arguments that the operator has, as written, or its default."""
        return argument(self.node, self._own(names))

    def put(self, value: Any, *names: str) -> None:
        """Write that argument."""
        put_argument(self.node, self._own(names), value)

    def _own(self, names: tuple[str, ...]) -> str:
        known = argument_names(self.node)
        return next(name for name in names if name in known)


Rewriter = Callable[[Site], None]


def rewrite(node: fx.Node, kept: Kept) -> None:
    """Rewrite the sizes of one node, if its operator holds any."""
    rewriter = REWRITERS.get(operator_name(node))
    if rewriter is None:
        return
    values = kept.flow.values
    result = values[node.name]
    results = result if isinstance(result, tuple) else (result,)
    first = next((item for item in node.all_input_nodes if values[item.name] is not None), None)
    source = values[first.name] if first is not None else None
    rewriter(
        Site(
            node,
            kept,
            source if isinstance(source, Value) else None,
            tuple(item for item in results if item is not None),
        )
    )


def _sizes(site: Site) -> None:
    """A list of sizes, one per axis of the result."""
    result = site.results[0]
    given = list(site.get("size", "shape"))
    _put_sizes(site, given, result, 0, "size", "shape")


def _unflatten(site: Site) -> None:
    result = site.results[0]
    given = list(site.get("sizes"))
    rank = len(result.shape) - len(given) + 1
    _put_sizes(site, given, result, site.get("dim") % rank, "sizes")


def _put_sizes(site: Site, given: list[Any], result: Value, offset: int, *names: str) -> None:
    changed = False
    for place, item in enumerate(given):
        original = result.shape[place + offset]
        extent = site.kept.extent(result, place + offset)
        if item == -1 or extent == original:
            continue
        given[place] = _scaled(site.node, item, extent, original)
        changed = True
    if changed:
        site.put(given, *names)


def _scaled(node: fx.Node, size: Any, extent: int, original: int) -> Any:
    """A size after the cut. One that the graph computes, such as batch times heads, is scaled:
    what is left of it does not depend on the batch."""
    if not isinstance(size, fx.Node):
        return extent
    common = math.gcd(extent, original)
    with node.graph.inserting_before(node):
        product = node.graph.call_function(operator.mul, (size, extent // common))
        return node.graph.call_function(operator.floordiv, (product, original // common))


def _repeats(site: Site) -> None:
    """`repeat` of an axis of extent 1: as often as is left of its labels."""
    source, result = site.source, site.results[0]
    assert source is not None
    before = (*[1] * (len(result.shape) - len(source.shape)), *source.shape)
    given = list(site.get("repeats"))
    for axis, item in enumerate(given):
        if before[axis] == 1 and isinstance(item, int):
            given[axis] = site.kept.extent(result, axis)
    site.put(given, "repeats")


def _attention(site: Site) -> None:
    """Without `scale` it is 1/sqrt(D): what it was stays, whatever is left of D."""
    query = site.source
    assert query is not None
    if site.node.kwargs.get("scale") is None:
        site.node.update_kwarg("scale", 1.0 / math.sqrt(query.shape[-1]))


def _parts(site: Site) -> None:
    """`split`, `chunk`: what is left need not divide evenly, so every part's length is written."""
    assert site.source is not None
    axis = site.get("dim")
    lengths = [site.kept.extent(part, axis) for part in site.results]
    if lengths == [part.shape[axis] for part in site.results]:
        return
    source = site.node.args[0]
    site.node.target = torch.ops.aten.split_with_sizes.default
    site.node.args = (source, lengths, axis)
    site.node.kwargs = {}


def _bounds(site: Site) -> None:
    """`slice(x, dim, start, end)`: bounds count what is left before them."""
    source = site.source
    assert source is not None
    axis = site.get("dim") % len(source.shape)
    extent = source.shape[axis]
    mask = site.kept.axis(source, axis)
    if mask.all():
        return
    start, end = (
        _position(site.get(name), extent, side) for name, side in (("start", 0), ("end", extent))
    )
    site.put(int(mask[:start].sum()), "start")
    site.put(int(mask[:end].sum()), "end")


def _position(given: int | None, extent: int, default: int) -> int:
    if given is None:
        return default
    return min(max(given + extent if given < 0 else given, 0), extent)


def _narrow(site: Site) -> None:
    source = site.source
    assert source is not None
    axis = site.get("dim") % len(source.shape)
    mask = site.kept.axis(source, axis)
    if mask.all():
        return
    start, length = site.get("start"), site.get("length")
    start = start + mask.size if start < 0 else start
    site.put(int(mask[:start].sum()), "start")
    site.put(int(mask[start : start + length].sum()), "length")


def _padding(site: Site) -> None:
    """Padding of a labelled axis: as many constants as are left of its labels."""
    result = site.results[0]
    given = list(site.get("pad"))
    for place in range(len(given) // 2):
        axis = len(result.shape) - 1 - place
        mask = site.kept.axis(result, axis)
        before, after = given[2 * place], given[2 * place + 1]
        if before > 0:
            given[2 * place] = int(mask[:before].sum())
        if after > 0:
            given[2 * place + 1] = int(mask[-after:].sum())
    site.put(given, "pad")


def _groups(site: Site) -> None:
    blocks = site.kept.blocks(site.node.name)
    if blocks is not None:
        original = site.kept.flow.notes.blocks[site.node.name].shape[0]
        if blocks != original:
            written = site.get("groups", "num_groups")
            site.put(_scaled(site.node, written, blocks, original), "groups", "num_groups")


def _mean(site: Site) -> None:
    """`mean` over an axis that shrinks divides by what its extent was: what is gone counts as
    zero, and the result is what it was."""
    source = site.source
    assert source is not None
    rank = len(source.shape)
    axes = reduced_axes(arguments(site.node), rank)
    share = math.prod(site.kept.extent(source, axis) / source.shape[axis] for axis in axes)
    if share < 1.0:
        with site.node.graph.inserting_before(site.node):
            mean = site.node.graph.node_copy(site.node)
        site.node.target = torch.ops.aten.mul.Tensor
        site.node.args = (mean, share)
        site.node.kwargs = {}


def _squeezed(site: Site) -> None:
    """`squeeze`: an axis that has shrunk to extent 1 is not one of those to be dropped."""
    source = site.source
    assert source is not None
    rank = len(source.shape)
    if all(site.kept.extent(source, axis) > 1 for axis in range(rank) if source.shape[axis] > 1):
        return
    asked: Any = site.node.args[1] if len(site.node.args) > 1 else list(range(rank))
    asked = asked if isinstance(asked, list) else [asked]
    axes = [axis % rank for axis in asked if source.shape[axis % rank] == 1]
    site.node.target = torch.ops.aten.squeeze.dims
    site.node.args = (site.node.args[0], axes)


def _normalized_shape(site: Site) -> None:
    result = site.results[0]
    given = list(site.get("normalized_shape"))
    offset = len(result.shape) - len(given)
    site.put(
        [site.kept.extent(result, offset + place) for place in range(len(given))],
        "normalized_shape",
    )


_BY_REWRITER: tuple[tuple[Rewriter, str], ...] = (
    (
        _sizes,
        "view reshape _unsafe_view expand zeros ones full empty new_zeros new_ones new_full "
        "new_empty",
    ),
    (_unflatten, "unflatten"),
    (_repeats, "repeat"),
    (
        _parts,
        "split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk "
        "unsafe_split_with_sizes",
    ),
    (_bounds, "slice"),
    (_narrow, "narrow"),
    (_padding, "pad constant_pad_nd"),
    (
        _groups,
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
        "group_norm channel_shuffle native_channel_shuffle",
    ),
    (_mean, "mean"),
    (_squeezed, "squeeze"),
    (_normalized_shape, "layer_norm rms_norm"),
    (_attention, "scaled_dot_product_attention"),
)

REWRITERS: dict[str, Rewriter] = {
    f"aten.{name}": rewriter for rewriter, names in _BY_REWRITER for name in names.split()
}
