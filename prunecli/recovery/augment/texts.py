"""Random changes of texts: tokens are hidden, left out, or trade places.

Stage: recovery. In: a preset, and what the reader knows of the tokens. Out: a function over stored
batches. Never sees targets; never changes what begins, ends or fills up a text, and never all that
it says.

Leaving out and trading places are the random deletion and swap of EDA (Wei and Zou 2019,
arXiv:1901.11196), for tokens, since networks read no words. Hiding is the blank noise of Xie et al.
2017 (arXiv:1703.02573), or, where the tokenizer has no token for it, their unigram noise: another
token of the same batch.

Where targets belong to tokens, these may only be hidden: a target would stay where its token was,
and the next ones would belong to others.

Shapes. B: texts, T: tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from prunecli.choices import Augment
from prunecli.data.contents import Words
from prunecli.recovery.augment.change import in_words
from prunecli.recovery.augment.draws import evenly


@dataclass(frozen=True)
class Reading:
    """How much of a text is changed, as shares of its tokens.

    Attributes:
        dropped: left out.
        swapped: put where another one of these was.
        hidden: another token stands there.
    """

    hidden: float
    dropped: float = 0.0
    swapped: float = 0.0


READINGS: Mapping[Augment, Reading] = {
    Augment.LIGHT: Reading(hidden=0.05),
    Augment.STANDARD: Reading(hidden=0.1, dropped=0.05),
    Augment.STRONG: Reading(hidden=0.15, dropped=0.1, swapped=0.1),
}
"""EDA gains with 5 to 10% of each, and loses with more than 20%; 15% hidden is what BERT was
trained to see through (Devlin et al. 2019, arXiv:1810.04805)."""


@dataclass(frozen=True)
class Page:
    """Texts of a batch.

    Attributes:
        ids: of tokens, `(B, T)`.
        seen: where there are tokens and no padding, `(B, T)` bool.
        types: which of two texts each is of, `(B, T)`; `None` where the network does not ask.
    """

    words: Words
    ids: Tensor
    seen: Tensor
    types: Tensor | None

    @property
    def free(self) -> Tensor:
        """Tokens that may be changed, `(B, T)` bool."""
        fixed = torch.tensor(self.words.fixed, dtype=self.ids.dtype, device=self.ids.device)
        return self.seen & ~torch.isin(self.ids, fixed)


Turn = Callable[[Page], Page]


def page_of(words: Words, ids: Tensor, mask: Tensor | None, types: Tensor | None) -> Page:
    """Texts as they are stored.

    Args:
        mask: 1 where there are tokens; without one, padding is what has its number and comes after
            (or before) everything else.
    """
    if mask is not None:
        return Page(words, ids, mask != 0, types)
    other = ids != words.padding
    count = other.cumsum(1) if words.left else other.flip(1).cumsum(1).flip(1)
    return Page(words, ids, count > 0, types)


def text_changes(preset: Augment, words: Words, *, in_place: bool) -> tuple[Turn, str]:
    """What is done to texts, and that in words.

    Args:
        in_place: targets belong to tokens.
    """
    rule = READINGS[preset]
    turns: list[Turn] = []
    said: list[str] = []
    if rule.dropped and not in_place:
        turns.append(partial(_dropped, share=rule.dropped))
        said.append(f"leaving out {rule.dropped:.0%}")
    if rule.swapped and not in_place:
        turns.append(partial(_swapped, share=rule.swapped))
        said.append(f"swapping {rule.swapped:.0%}")
    # What hides a token is no token of the text any more, and would stay: it comes last.
    turns.append(partial(_hidden, share=rule.hidden))
    said.append(f"{'masking' if words.covers else 'replacing'} {rule.hidden:.0%}")
    told = f"{in_words(said)} of the tokens" + ("" if words.covers else " by others")
    if in_place and (rule.dropped or rule.swapped):
        told += "; none is left out or moved, since targets may belong to tokens"

    def change(page: Page) -> Page:
        for turn in turns:
            page = turn(page)
        return page

    return change, told


def _parts(free: Tensor) -> Tensor:
    """The text that each token is of, `(B, T)`: what is never changed begins another one."""
    return (~free).cumsum(1)


def _chosen(free: Tensor, share: float) -> Tensor:
    """Tokens that something happens to, each with this probability; none of a text of which
    nothing else would be left."""
    chosen = free & (evenly(tuple(free.shape), free) < share)
    parts = _parts(free)
    left = torch.zeros(free.shape[0], free.shape[1] + 1, dtype=torch.int64, device=free.device)
    left.scatter_add_(1, parts, (free & ~chosen).to(torch.int64))
    return chosen & (left.gather(1, parts) > 0)


def _hidden(page: Page, share: float) -> Page:
    free = page.free
    chosen = _chosen(free, share)
    if page.words.covers:
        cover = torch.full_like(page.ids, page.words.covers[0])
    else:
        cover = _others(page.ids, free)
    return replace(page, ids=torch.where(chosen, cover, page.ids))


def _others(ids: Tensor, free: Tensor) -> Tensor:
    """A token of the batch for each place, as likely as it is frequent."""
    known = ids[free]
    places = evenly(tuple(ids.shape), ids)
    if not len(known):
        return ids
    return known[(places * len(known)).to(torch.int64).clamp(max=len(known) - 1)]


def _dropped(page: Page, share: float) -> Page:
    """What is left moves together, and padding takes the rest."""
    gone = _chosen(page.free, share) | ~page.seen
    rank = ~gone if page.words.left else gone
    order = rank.to(torch.uint8).argsort(dim=1, stable=True)
    away = gone.gather(1, order)
    ids = page.ids.gather(1, order).masked_fill(away, page.words.padding)
    types = None if page.types is None else page.types.gather(1, order).masked_fill(away, 0)
    return Page(page.words, ids, ~away, types)


def _swapped(page: Page, share: float) -> Page:
    """The chosen tokens of one text in another order, each order as likely."""
    free = page.free
    chosen = free & (evenly(tuple(free.shape), free) < share)
    parts, draws = _parts(free), evenly(tuple(free.shape), free)
    length = free.shape[1]
    places = torch.arange(length, device=free.device).expand_as(free)
    # Both list the chosen places first, text by text; in a text, one by place, one at random.
    mine = torch.where(chosen, places, length + places).argsort(1)
    other = torch.where(chosen, parts + draws.double(), length + 1.0 + places).argsort(1)
    origin = torch.empty_like(mine).scatter_(1, mine, other)
    return replace(page, ids=page.ids.gather(1, origin))
