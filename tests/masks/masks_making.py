"""Maskable tensors, scores and plans in one line."""

import torch
from torch import Tensor

from prunecli.graph.coupling import layer_of
from prunecli.graph.maskable import Maskable
from prunecli.graph.reading import Kind
from prunecli.removal import Choosing, Pattern, WeightsWanted
from prunecli.selection.maskplan import MaskPlan
from prunecli.selection.masks import choose_masks


def maskable(name: str, shape: tuple[int, ...], kind: Kind = Kind.LINEAR, **more) -> Maskable:
    axes = {"input_axis": 1, "output_axis": 0, **more}
    return Maskable(name, kind, layer_of(name), shape=shape, readers=("reader",), **axes)


def random_scores(shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def plan_of(
    scores,
    sparsity: float | None,
    *,
    kinds=None,
    pattern: Pattern | None = None,
    choosing: Choosing | None = None,
    current=None,
    **more,
) -> MaskPlan:
    items = [
        maskable(name, tuple(score.shape), (kinds or {}).get(name, Kind.LINEAR))
        for name, score in scores.items()
    ]
    wanted = WeightsWanted(sparsity, pattern or Pattern())
    more.setdefault("layers", [item.layer for item in items])
    return choose_masks(scores, items, wanted, choosing or Choosing(), current, **more)


def masks_of(plan: MaskPlan, shapes) -> dict[str, Tensor]:
    """Every tensor's mask, also of those that lose nothing."""
    whole = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    return {**whole, **plan.masks}
