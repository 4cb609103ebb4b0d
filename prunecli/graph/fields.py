"""Values as the coupling walk sees them: a shape, and label fields that broadcast to it.

Stage: graph. A field is an int64 tensor of the value's rank; along each axis it has either the
value's extent (labelled) or 1. A value's fields label disjoint axes: a linear layer's weight
has one field per axis, a batch of images after a convolution one of shape (1, C, 1, 1), the
same viewed as heads one of shape (1, 1, heads, D). An element exists while the labels it sees
in every field are kept.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Value:
    """A tensor in the captured graph.

    Attributes:
        shape: concrete extents, with the example's batch.
        fields: label fields, see above.
        parameter: name of the parameter, buffer or constant this is, or empty.
        vanishes: every element that can go is zero once the parameters that go with it are.
    """

    shape: tuple[int, ...]
    fields: tuple[Tensor, ...] = ()
    parameter: str = ""
    vanishes: bool = False

    def field_at(self, axis: int) -> Tensor | None:
        """The field that labels `axis`, if there is one."""
        axis %= max(len(self.shape), 1)
        return next((field for field in self.fields if field.shape[axis] > 1), None)


def labelled_axes(field: Tensor) -> tuple[int, ...]:
    """The axes along which a field has labels."""
    return tuple(axis for axis, extent in enumerate(field.shape) if extent > 1)


def compress(field: Tensor) -> Tensor:
    """The same labels with extent 1 wherever they do not change along an axis."""
    for axis, extent in enumerate(field.shape):
        if extent > 1:
            first = field.narrow(axis, 0, 1)
            if field.stride(axis) == 0 or bool((field == first).all()):
                field = first
    return field


def aligned(field: Tensor, rank: int) -> Tensor:
    """The field with leading axes of extent 1 added up to `rank`, as broadcasting does."""
    return field.reshape((1,) * (rank - field.dim()) + tuple(field.shape))


def along(labels: Tensor, axis: int, rank: int) -> Tensor:
    """One-dimensional `labels` as a field along `axis` of a value of `rank` axes."""
    shape = [1] * rank
    shape[axis % rank] = labels.numel()
    return labels.reshape(shape)
