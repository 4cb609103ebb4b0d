"""What an input holds, where its reader knows it: sounds, or texts as tokens.

Stage: data. In: nothing; plain records that readers fill in. Never looks at an example.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True)
class Samples:
    """Sounds as samples over time, in whatever shape the network takes them; silence (zeros)
    follows the shorter ones.

    Attributes:
        levelled: a feature extractor has brought all of them to one loudness.
    """

    levelled: bool = False


@dataclass(frozen=True)
class Features:
    """Sounds as a feature extractor gives them: so many numbers (bands) at each time.

    Attributes:
        bands: how many it may be, by what the extractor says about itself.
    """

    bands: tuple[int, ...]


@dataclass(frozen=True)
class Words:
    """Texts as numbers of tokens, `(T,)`.

    Attributes:
        fixed: tokens that are no part of what a text says: its beginning, its end, padding.
        padding: the token that fills up shorter texts.
        left: they are filled up before their beginning.
        covers: tokens that may stand for one that is hidden, the best first.
    """

    fixed: tuple[int, ...]
    padding: int
    left: bool = False
    covers: tuple[int, ...] = ()

    def within(self, limit: int) -> "Words":
        """The same for a network with a table of `limit` tokens (0: not known), which may be
        shorter than the tokenizer's."""
        if not limit:
            return self
        covers = tuple(token for token in self.covers if token < limit)
        return replace(self, covers=covers, padding=self.padding if self.padding < limit else 0)


class Beside(StrEnum):
    """What stands beside the tokens, one number for each."""

    SEEN = "1 where there is a token, 0 where there is padding"
    TEXT = "which of two texts a token belongs to"


Content = Samples | Features | Words | Beside | None
"""`None`: images where the reader says so (`Preprocess.image`), else numbers that only their author
understands."""
