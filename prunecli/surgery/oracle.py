"""The oracle: the compact graph computes what the original computes without the removed part.

Stage: surgery. In: original and compact network, what is kept, inputs. Out: the largest
relative difference. The original runs with every parameter of removed units set to zero, and
with normalisations over a pruned axis recomputed over the kept positions. Both graphs run side
by side, and every intermediate value is compared on the kept positions too, so that an error is
found even where later layers would hide it, and is named. Needs no data.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunecli.errors import VerificationError, first_line
from prunecli.graph.capture import Captured
from prunecli.graph.fields import Value
from prunecli.graph.nodes import arguments, attribute, operator_name
from prunecli.graph.stepping import Stepper, cast
from prunecli.surgery.kept import Kept

BUG = "this is a bug in prunecli: please report it with the model and the plan"

UNSET = frozenset(f"aten.{name}" for name in ("empty", "empty_like", "new_empty", "empty_strided"))
"""Operators whose values are whatever the memory held."""

TOLERANCE = 1e-4
"""Largest relative difference that float32 rounding explains."""


@dataclass(frozen=True)
class OracleResult:
    """What the comparison found.

    Attributes:
        difference: largest absolute difference of the outputs over their largest value.
        worst: the same over all intermediate values.
        node: where `worst` was found.
        first: the first node whose difference exceeds the tolerance, or empty.
        precision: `float32`, or `float64` where float32 rounding alone exceeded the tolerance.
    """

    difference: float
    worst: float
    node: str
    first: str = ""
    precision: str = "float32"


def check(captured: Captured, compact: fx.GraphModule, kept: Kept) -> OracleResult:
    """Compare; in float64 too before a difference is called a bug.

    Raises:
        VerificationError: the difference is not rounding.
    """
    result = compare(captured, compact, kept, torch.float32)
    if max(result.difference, result.worst) <= TOLERANCE:
        return result
    precise = compare(captured, compact, kept, torch.float64)
    if max(precise.difference, precise.worst) <= TOLERANCE:
        return precise
    raise VerificationError(
        f"oracle: the pruned network differs from the original without the removed part, first "
        f"at {precise.first or 'the output'}, worst at {precise.node} (relative difference "
        f"{precise.worst:.1e}, output {precise.difference:.1e})",
        BUG,
    )


def compare(
    captured: Captured, compact: fx.GraphModule, kept: Kept, precision: torch.dtype
) -> OracleResult:
    """Run both graphs node by node and compare what is kept."""
    original = _Masked(captured.network, kept, precision)
    smaller = Stepper(compact, precision)
    # Copies, since a network may work on its input in place.
    left, right = (
        iter([cast(item, precision).clone() for item in captured.inputs]) for _ in range(2)
    )
    worst, where, first, output = 0.0, "", "", 0.0
    with torch.no_grad():
        others = {node.name: node for node in captured.network.graph.nodes}
        for other in compact.graph.nodes:
            found = _run_compact(smaller, other, right, first)
            node = others.get(other.name)
            if node is None:
                continue  # arithmetic on sizes that the rewriter added
            expected = original.run_one(node, left)
            if node.op == "output":
                output = _difference_of_outputs(expected, found)
            elif node.op == "call_function" and operator_name(node) not in UNSET:
                apart = _difference(kept.flow.values[node.name], expected, found, kept)
                if apart > worst:
                    worst, where = apart, node.name
                if apart > TOLERANCE and not first:
                    first = node.name
    return OracleResult(output, worst, where, first, str(precision).removeprefix("torch."))


def _run_compact(network: Stepper, node: fx.Node, inputs: Any, first: str) -> Any:
    """Value of `node` in the compact network, which has differed from node `first` on.

    Raises:
        VerificationError: its sizes do not fit together.
    """
    try:
        return network.run_one(node, inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        raise VerificationError(
            f"oracle: the pruned network differs from the original first at {first or node.name}, "
            f"and cannot compute {node.name}: {first_line(error)}",
            BUG,
        ) from error


class _Masked(Stepper):
    """Runs the original with removed units' parameters zeroed, and with them the removed part of
    every value: what a sigmoid makes of a removed channel, or a division by its zeroed scale, is
    no part of the network either."""

    def __init__(self, network: fx.GraphModule, kept: Kept, precision: torch.dtype) -> None:
        super().__init__(network, precision)
        self.kept = kept

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "get_attr":
            return self._masked(n)
        axes = self.kept.flow.notes.normalised.get(n.name)
        value = self.kept.flow.values.get(n.name)
        if (
            axes is not None
            and isinstance(value, Value)
            and any(self.kept.extent(value, axis) < value.shape[axis] for axis in axes)
        ):
            return self._normalise(n, value)
        with self._never_extreme(n):
            result = super().run_node(n)
        # Where the largest is taken of nothing at all, what stands there is no number.
        if not self._blank(value, result) and n.name not in self.kept.flow.notes.extremes:
            raise VerificationError(
                f"oracle: {n.name} is not zero where it was to vanish: a sum over it would change "
                "with what is removed",
                BUG,
            )
        return result

    @contextmanager
    def _never_extreme(self, node: fx.Node) -> Iterator[None]:
        """The largest of what is left, while zeros stand where something was removed."""
        fill = self.kept.flow.notes.extremes.get(node.name)
        if fill is None:
            yield
            return
        source = node.all_input_nodes[0]
        value = self.kept.flow.values[source.name]
        assert isinstance(value, Value)
        zeroed = self.env[source]
        filled = zeroed.clone()
        for field in value.fields:
            filled.masked_fill_(torch.from_numpy(~self.kept.mask(field)), fill)
        self.env[source] = filled
        yield
        self.env[source] = zeroed

    def _blank(self, value: Any, result: Any) -> bool:
        """Zero what is removed of a result, in place, so that views and what they show agree.

        Returns whether it was zero already, where that was claimed.
        """
        if isinstance(value, tuple) and isinstance(result, (tuple, list)):
            found = [self._blank(*pair) for pair in zip(value, result, strict=True)]
            return all(found)
        if not isinstance(value, Value) or not isinstance(result, Tensor):
            return True
        as_claimed = True
        for field in value.fields:
            gone = torch.from_numpy(~self.kept.mask(field))
            if bool(gone.any()):
                shown = _once(result)
                # What is shown at many places is zeroed only if all of them are removed.
                for axis, extent in enumerate(shown.shape):
                    if extent == 1:
                        gone = gone.all(dim=axis, keepdim=True)
                if value.vanishes and bool(shown.masked_fill(~gone, 0).any()):
                    as_claimed = False
                shown.masked_fill_(gone, 0)
        return as_claimed

    def _masked(self, node: fx.Node) -> Any:
        tensor = attribute(self.module, str(node.target))  # type: ignore[arg-type]
        value = self.kept.flow.values[node.name]
        if not isinstance(tensor, Tensor) or not isinstance(value, Value):
            return tensor
        tensor = cast(tensor, self.precision)
        own = [slot for slot in self.kept.coupling.slots if slot.tensor == value.parameter]
        if not isinstance(attribute(self.module, str(node.target)), nn.Parameter):  # type: ignore[arg-type]
            return tensor.clone() if own else tensor
        # One copy, then in place: this may be the largest tensor of the network.
        tensor = tensor.clone() if own else tensor
        for slot in own:
            tensor.mul_(_slot_mask(tensor, slot.axis, slot.units, slot.blocks, self.kept))
        return tensor

    def _normalise(self, node: fx.Node, value: Value) -> Tensor:
        """The normalisation on the kept part only, spread out again over the full shape."""
        written = arguments(node)
        given: dict[str, Any] = dict(self.map_nodes_to_values(written, node))
        first = next(iter(given))
        source = given[first]
        small = given[first] = self.kept.gather(value, source)
        if "normalized_shape" in given:
            given["normalized_shape"] = list(small.shape[-len(given["normalized_shape"]) :])
        elif "num_groups" in given:
            blocks = self.kept.blocks(node.name)
            given["num_groups"] = blocks if blocks is not None else given["num_groups"]
        for name in ("weight", "bias", "running_mean", "running_var"):
            if given.get(name) is not None:
                given[name] = self._own_part(written[name], given[name])
        result = node.target(**given)  # type: ignore[operator]
        # The kept places in flat order are those of the small result in flat order.
        places = torch.arange(source.numel()).reshape(source.shape)
        full = torch.zeros(source.shape, dtype=source.dtype)
        full.view(-1)[self.kept.gather(value, places).reshape(-1)] = result.reshape(-1)
        return full

    def _own_part(self, source: Any, vector: Tensor) -> Tensor:
        """What is kept of a norm's weight or bias."""
        own = self.kept.flow.values[source.name] if isinstance(source, fx.Node) else None
        return self.kept.gather(own, vector) if isinstance(own, Value) else vector


def _once(tensor: Tensor) -> Tensor:
    """A view that shows every element of an expanded tensor once."""
    for axis, step in enumerate(tensor.stride()):
        if step == 0 and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _slot_mask(tensor: Tensor, axis: int, units: Any, blocks: int, kept: Kept) -> Tensor:
    mask = torch.from_numpy(kept.keep[units]).to(tensor.dtype)
    if blocks > 1:
        per_block = tensor.shape[0] // blocks
        mask = mask.reshape(blocks, -1).repeat_interleave(per_block, 0)
        return mask.reshape(mask.shape[0], mask.shape[1], *([1] * (tensor.dim() - 2)))
    shape = [1] * tensor.dim()
    shape[axis] = -1
    return mask.reshape(shape)


def _difference(value: Any, expected: Any, found: Any, kept: Kept) -> float:
    if isinstance(value, tuple):
        return max(
            (_difference(*item, kept) for item in zip(value, expected, found, strict=True)),
            default=0.0,
        )
    if not isinstance(value, Value) or not isinstance(expected, Tensor):
        return 0.0
    return relative(kept.gather(value, expected), found)


def _difference_of_outputs(expected: Any, found: Any) -> float:
    left: list[Tensor] = []
    right: list[Tensor] = []
    torch.utils._pytree.tree_map_only(Tensor, left.append, expected)
    torch.utils._pytree.tree_map_only(Tensor, right.append, found)
    return max((relative(*pair) for pair in zip(left, right, strict=True)), default=0.0)


def relative(expected: Tensor, found: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected finite value.

    Infinities at the same places are equal (the logarithm of zero, a mask). A wrong shape or a
    value that is not a number is an infinite difference.
    """
    if expected.shape != found.shape:
        return float("inf")
    if expected.is_complex() and found.is_complex():
        expected, found = torch.view_as_real(expected), torch.view_as_real(found)
    if expected.numel() == 0 or not expected.is_floating_point():
        return 0.0 if expected.numel() == 0 or torch.equal(expected, found) else float("inf")
    infinite = expected.isinf() & (expected == found)
    if bool(infinite.any()):
        expected, found = expected.masked_fill(infinite, 0.0), found.masked_fill(infinite, 0.0)
    apart = float((expected - found).abs().max())
    scale = float(expected.abs().max())
    if not math.isfinite(apart) or not math.isfinite(scale):
        return float("inf")
    return apart / scale if scale > 0.0 else apart
