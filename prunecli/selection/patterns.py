"""Patterns of weight masks: what goes together, and what the pattern itself says.

Stage: selection. In: scores of single weights. Out: `Items` (what is ranked and goes as a
whole), and masks. Touches no weights.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prunecli.graph.maskable import Maskable
from prunecli.removal import Pattern, PatternKind

GONE = -math.inf
"""The score of what is masked already: it ranks before everything else."""


@dataclass(frozen=True)
class Items:
    """What goes as a whole: single weights, or blocks of them. I: number of items.

    Attributes:
        of: the tensor.
        scores: `(I,)`, `GONE` where nothing of the item is left.
        block: rows and columns of an item on the matrix (outputs, flattened rest).
        sizes: elements of every item, `(I,)`; `None` where each is a single weight.
    """

    of: Maskable
    scores: Tensor
    block: tuple[int, int] = (1, 1)
    sizes: Tensor | None = None

    def mask(self, goes: Tensor) -> Tensor:
        """`goes` (I,) spread over the tensor: True where a weight stays."""
        if self.sizes is None:
            return ~goes.reshape(self.of.shape)
        rows, columns = self.block
        height, width = _extents(self.of)
        blocks = goes.reshape(-1, -(-width // columns))
        spread = blocks.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        return _back(self.of, ~spread[:height, :width])


def items_of(of: Maskable, scores: Tensor, pattern: Pattern, current: Tensor | None) -> Items:
    """What is ranked under a pattern. `scores` and `current` have the tensor's shape.

    A block's score is the mean over its elements; what is masked already counts as zero. At the
    edges blocks may be smaller.
    """
    if pattern.kind is not PatternKind.BLOCK:
        alive = scores if current is None else scores.masked_fill(~current, GONE)
        return Items(of, alive.reshape(-1))
    block = (pattern.first, pattern.second)
    alive = scores if current is None else scores.masked_fill(~current, 0.0)
    sizes = _block_sums(of, torch.ones_like(scores, dtype=torch.int64), block)
    means = _block_sums(of, alive, block) / sizes
    if current is not None:
        left = _block_sums(of, current.to(torch.int64), block)
        means = means.masked_fill(left == 0, GONE)
    return Items(of, means, block, sizes)


def _extents(of: Maskable) -> tuple[int, int]:
    """Rows (outputs) and columns (everything else) of the matrix that blocks are cut from."""
    rows = 1 if of.output_axis is None else of.shape[of.output_axis]
    return rows, of.size // rows


def _matrix(of: Maskable, tensor: Tensor) -> Tensor:
    """(outputs, flattened rest); a vector of outputs is one column, any other one row."""
    moved = tensor if of.output_axis is None else tensor.movedim(of.output_axis, 0)
    return moved.reshape(_extents(of))


def _back(of: Maskable, matrix: Tensor) -> Tensor:
    """The tensor whose matrix this is."""
    if of.output_axis is None:
        return matrix.reshape(of.shape).contiguous()
    others = [extent for axis, extent in enumerate(of.shape) if axis != of.output_axis]
    return matrix.reshape(-1, *others).movedim(0, of.output_axis).contiguous()


def _block_sums(of: Maskable, tensor: Tensor, block: tuple[int, int]) -> Tensor:
    """Sums over blocks, row of blocks by row of blocks, one-dimensional."""
    rows, columns = block
    matrix = _matrix(of, tensor)
    matrix = F.pad(matrix, (0, -matrix.shape[1] % columns, 0, -matrix.shape[0] % rows))
    split = matrix.reshape(matrix.shape[0] // rows, rows, matrix.shape[1] // columns, columns)
    return split.sum((1, 3)).reshape(-1)


def n_of_m(of: Maskable, scores: Tensor, pattern: Pattern, current: Tensor | None) -> Tensor | None:
    """The mask that keeps the best N of every M consecutive weights along the input axis, for
    every output and kernel position, as NVIDIA's sparse tensor cores want them (Mishra et al.
    2021, arXiv:2104.08378; N:M in general: Zhou et al. 2021, arXiv:2102.04010).

    The rest of an axis, shorter than M, keeps its best N or all of it. Of equals the first stay.

    Returns:
        A mask of the tensor's shape; `None` where no input axis has M weights.
    """
    keep, block = pattern.first, pattern.second
    if of.input_axis is None or _per_group(of) < block:
        return None
    alive = scores if current is None else scores.masked_fill(~current, GONE)
    moved = alive.movedim(of.input_axis, -1)
    rows = moved.reshape(-1, _per_group(of))
    short = rows.shape[1] % block
    whole, rest = torch.split(rows, [rows.shape[1] - short, short], 1)
    masks = [_best(whole.reshape(-1, block), keep).reshape(whole.shape)]
    if short:
        masks.append(_best(rest, min(keep, short)))
    mask = torch.cat(masks, 1).reshape(moved.shape).movedim(-1, of.input_axis)
    return mask.contiguous() if current is None else (mask & current)


def _per_group(of: Maskable) -> int:
    """Consecutive inputs that are summed together; axis 0 of a grouped transposed convolution
    runs over all groups, axis 1 of a grouped convolution over one."""
    assert of.input_axis is not None
    return of.shape[of.input_axis] // (of.groups if of.input_axis == 0 else 1)


def _best(rows: Tensor, keep: int) -> Tensor:
    """True at the `keep` largest of every row."""
    order = rows.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order[:, :keep], True)
