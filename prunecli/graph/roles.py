"""Roles: what an axis of a tensor is to the operators that read the tensor.

Stage: graph. In: who reads a tensor, as the walk noted it. Out: a signature without widths, and
whether the axis makes what goes on or reads what came. Knows no labels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]

Reader = tuple[str, str]
"""Operator and name of its argument, e.g. `("aten.linear", "weight")`."""


@dataclass(frozen=True)
class Role:
    """What an axis of a tensor is.

    Attributes:
        signature: the same for the same axis of layers that differ in widths only.
        makes: true where the tensor makes values with this axis (a layer's outputs, a bias);
            false where it only sums over it (a layer's inputs).
    """

    signature: str = ""
    makes: bool = True


UNKNOWN = Role()

_CONVOLUTION = "aten.conv"


def _inputs() -> Mapping[Reader, tuple[int, ...]]:
    """Axes of weights that are summed over, from the end where negative."""
    found: dict[Reader, tuple[int, ...]] = {
        ("aten.linear", "weight"): (1,),
        ("aten.bilinear", "weight"): (1, 2),
    }
    for rank in (1, 2, 3):
        found[f"aten.conv{rank}d", "weight"] = (1,)
        found[f"aten.conv_transpose{rank}d", "weight"] = (0,)
    for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        found[f"aten.{cell}", "params"] = (1,)
        found[f"aten.{cell}_cell", "w_ih"] = found[f"aten.{cell}_cell", "w_hh"] = (1,)
    for product, left, right in (
        ("matmul", "self", "other"),
        ("mm", "self", "mat2"),
        ("bmm", "self", "mat2"),
        ("addmm", "mat1", "mat2"),
        ("baddbmm", "batch1", "batch2"),
    ):
        found[f"aten.{product}", left] = (-1,)
        found[f"aten.{product}", right] = (-2,)
    # A matrix that is turned before it is used is, by PyTorch's custom, (outputs, inputs).
    for turned in ("t", "numpy_T", "transpose", "permute"):
        found[f"aten.{turned}", "self"] = (1,)
    return found


_INPUTS = _inputs()


def role_of(readers: Iterable[Reader], shape: Shape, axis: int, blocks: int) -> Role:
    """The role of `axis` of a tensor of this shape, which restarts in `blocks` blocks."""
    known = sorted(set(readers))
    words = [
        f"{operator}.{argument}{list(shape[2:]) if operator.startswith(_CONVOLUTION) else ''}"
        for operator, argument in known
    ]
    signature = f"{' '.join(words)} axis {axis}{' in blocks' if blocks > 1 else ''}"
    makes = not known or any(axis not in _summed(item, len(shape)) for item in known)
    return Role(signature, makes)


def _summed(reader: Reader, rank: int) -> set[int]:
    # What has one axis only is a bias or a scale, except in products, whose left side it may be.
    if rank < 2:
        return set()
    return {axis % rank for axis in _INPUTS.get(reader, ())}
