"""Ranking: the lowest scores go, until enough have gone.

Stage: selection. In: items of one or several tensors that are compared with one another. Out:
which of them go. Touches no weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prunecli.selection.patterns import GONE, Items


def lowest(items: Sequence[Items], amount: float) -> list[Tensor]:
    """Which items go so that `amount` weights do, as nearly as whole items allow; of single
    weights exactly `round(amount)`, as `torch.nn.utils.prune` counts.

    The best item of each tensor stays, so that no layer vanishes. Of equal scores the first go.

    Returns:
        Per entry of `items`, True where an item goes, `(I,)`.
    """
    guarded = [_guard_best(item) for item in items]
    scores = torch.cat(guarded)
    most = sum(item.scores.numel() - 1 for item in items)
    if all(item.sizes is None for item in items):
        goes = _of_single(scores, min(round(amount), most))
    else:
        sizes = torch.cat([_sizes(item) for item in items])
        goes = _of_blocks(scores, sizes, amount, most)
    found = list(torch.split(goes, [item.scores.numel() for item in items]))
    for item, own in zip(items, found, strict=True):
        own[_best(item)] = False  # it may have gone where others are infinite too
    return found


def at_or_below(item: Items, threshold: float) -> Tensor:
    """Which items go because their score is at or below the threshold; the best one stays.

    Compared in the scores' own precision: as a float32, 0.3 is a little more than as a float64.
    """
    goes = item.scores <= torch.tensor(threshold, dtype=item.scores.dtype)
    if bool(goes.all()):
        goes[_best(item)] = False
    return goes


def lowest_of(item: Items, goes: Tensor, share: float) -> Tensor:
    """Of the items that go, the given share, the lowest scores first."""
    if share >= 1.0:
        return goes
    count = round(share * int(goes.sum()))
    return goes & _of_single(item.scores.masked_fill(~goes, torch.inf), count)


def largest_of(item: Items, goes: Tensor) -> float | None:
    """The highest score of what goes, leaving out what was gone before."""
    own = item.scores[goes & (item.scores > GONE)]
    return float(own.max()) if own.numel() else None


def smallest_of(item: Items, goes: Tensor) -> float | None:
    """The lowest score of what stays."""
    own = item.scores[~goes & (item.scores > GONE)]
    return float(own.min()) if own.numel() else None


def best_score(item: Items) -> float:
    """The highest score of all items."""
    return float(item.scores.max())


def best_size(item: Items) -> int:
    """Elements of the item with the highest score."""
    return 1 if item.sizes is None else int(item.sizes[_best(item)])


def _best(item: Items) -> int:
    """The last of the highest scores: of equals, the first go."""
    return int((item.scores == item.scores.max()).nonzero()[-1])


def _guard_best(item: Items) -> Tensor:
    """Scores, with the best one's above everything."""
    scores = item.scores.clone()
    scores[_best(item)] = torch.inf
    return scores


def _sizes(item: Items) -> Tensor:
    if item.sizes is not None:
        return item.sizes
    return torch.ones(item.scores.numel(), dtype=torch.int64)


def _of_single(scores: Tensor, count: int) -> Tensor:
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    limit = scores.kthvalue(count).values
    goes = scores < limit
    equal = (scores == limit).nonzero().reshape(-1)
    goes[equal[: count - int(goes.sum())]] = True
    return goes


def _of_blocks(scores: Tensor, sizes: Tensor, amount: float, most: int) -> Tensor:
    order = scores.argsort(stable=True)
    if bool((sizes == sizes[0]).all()):
        count = round(amount / int(sizes[0]))
    else:
        taken = torch.cat([torch.zeros(1, dtype=torch.int64), sizes[order].cumsum(0)])
        count = int((taken - amount).abs().argmin())
    goes = torch.zeros_like(scores, dtype=torch.bool)
    goes[order[: min(count, most)]] = True
    return goes
