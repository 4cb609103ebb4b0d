"""Rows for least squares: a random part of what a layer reads and should say.

Stage: recovery. In: a layer, its input, its aim. Out: portions of rows. Changes nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prunecli.graph.patches import input_patches
from prunecli.recovery.aims import Aim
from prunecli.recovery.leastsquares import Bend, Rows
from prunecli.recovery.solvable import SolvableLayer

ROWS_PER_UNKNOWN = 150
"""Input rows used per unknown of a layer; more cost time and change little."""

FEWEST_ROWS, MOST_ROWS = 20_000, 80_000
"""Bounds on that, since the work grows with the square of the unknowns."""

LEAST_PER_UNKNOWN = 16
"""Even then a large layer gets this many rows per unknown."""

CHUNK_ROWS = 1 << 15

LINEAR = torch.ops.aten.linear.default


@dataclass(frozen=True)
class SampledRows:
    """A random part of all positions of a layer, the same one each time that it is gone over.

    Attributes:
        source: what the layer reads.
    """

    layer: SolvableLayer
    source: Tensor
    aim: Aim
    seed: int

    @property
    def wanted(self) -> int:
        """Rows."""
        unknowns = math.prod(self.layer.weight.shape[1:])
        enough = min(ROWS_PER_UNKNOWN * unknowns, MOST_ROWS)
        return max(FEWEST_ROWS, enough, LEAST_PER_UNKNOWN * unknowns)

    @property
    def size_bytes(self) -> int:
        """Of all rows, at most."""
        weight = self.layer.weight
        each = math.prod(weight.shape[1:]) * self.layer.groups + 2 * weight.shape[0]
        return self.wanted * each * 4

    @property
    def bend(self) -> Bend | None:
        """What follows, as least squares sees it."""
        aim = self.aim
        if aim.alive is None or aim.slope is None:
            return None
        slope = aim.slope.expand(1, self.layer.weight.shape[0], *aim.slope.shape[2:])
        return Bend(slope.reshape(self.layer.groups, 1, -1), *aim.alive)

    def __iter__(self) -> Iterator[Rows]:
        """Inputs (groups, rows, unknowns) and what is wanted of them, (groups, rows, outputs)."""
        aim, generator = self.aim, torch.Generator().manual_seed(self.seed)
        outputs = [aim.wanted] if aim.before is None else [aim.wanted, aim.before]
        if self.layer.node.target is LINEAR:
            yield from _linear_rows(self.source, outputs, self.wanted, generator)
            return
        source = self.source
        if source.dim() == 3:
            source, outputs = source.unsqueeze(2), [item.unsqueeze(2) for item in outputs]
        positions = math.prod(outputs[0].shape[2:])
        share = min(1.0, self.wanted / (len(source) * positions))
        number = max(1, math.ceil(share * positions))
        step, groups = max(1, CHUNK_ROWS // positions), self.layer.groups
        for start in range(0, len(source), step):
            part = slice(start, start + step)
            places = torch.randperm(positions, generator=generator)[:number]
            patches = input_patches(self.layer.node, self.layer.weight.shape, source[part])
            flat = (item[part].flatten(2) for item in outputs)
            yield tuple(_by_group(item[:, :, places], groups) for item in (patches, *flat))


def _linear_rows(
    source: Tensor, outputs: list[Tensor], wanted: int, generator: torch.Generator
) -> Iterator[Rows]:
    """Of all positions along the axes before the last one."""
    flat = [item.reshape(-1, item.shape[-1]) for item in (source, *outputs)]
    picked = torch.randperm(len(flat[0]), generator=generator)[:wanted]
    for part in torch.split(picked, CHUNK_ROWS):
        yield tuple(item[part][None] for item in flat)


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """(N, groups * C, P) -> (groups, N * P, C)."""
    split = rows.reshape(rows.shape[0], groups, -1, rows.shape[2])
    return split.permute(1, 0, 3, 2).reshape(groups, -1, split.shape[2])
