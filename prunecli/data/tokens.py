"""Texts to numbers, by the network's own tokenizer.

Stage: data. In: texts and the folder that holds the tokenizer. Out: token numbers, padded to one
length, or in blocks. Downloads nothing, runs no code from the folder.

Shapes. N: examples, T: tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunecli.data.contents import Words
from prunecli.data.source import AnyArray
from prunecli.data.wanted import Wanted
from prunecli.errors import ConfigError, DataError
from prunecli.loading.huggingface import library, quiet
from prunecli.loading.usercode import user_code
from prunecli.tasks.task import IGNORED

CHUNK = 1000
"""Texts handed to the tokenizer at a time."""

BLOCK = 128
"""Tokens in each example of language modelling where nothing is said."""

_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
_UNLIMITED = 1_000_000
"""Tokenizers that know no limit say a far larger number."""

_MASKED, _KEPT, _RANDOM = 0.15, 0.1, 0.1
"""Of all tokens, those to be guessed; of these, those shown as they are, or as any other
(Devlin et al. 2019, arXiv:1810.04805)."""


@dataclass(frozen=True)
class Tokens:
    """Texts as numbers, not padded yet.

    Attributes:
        ids: of each text, `(T,)`, T its own.
        types: which of two texts each token belongs to.
        words: the place of the word that each token begins; -1 within words and without any.
    """

    ids: list[AnyArray]
    types: list[AnyArray]
    words: list[AnyArray]


@dataclass(frozen=True)
class Tokenizer:
    """The library's tokenizer and how long a text may be.

    Attributes:
        limit: tokens; `None` where nothing limits them.
    """

    own: Any
    limit: int | None

    @property
    def padding(self) -> int:
        """What stands where no token is. Networks without such a token never read it."""
        found = self.own.pad_token_id
        return int(found if found is not None else self.own.eos_token_id or 0)

    @property
    def words(self) -> Words:
        """What its numbers mean, as far as they are told apart later.

        A word that the tokenizer does not know is one all the same. Where the token for these is
        the one that ends a text, too (GPT-2), it stands for no word.
        """
        own = self.own
        edges = {own.pad_token_id, own.bos_token_id, own.eos_token_id}
        edges |= {own.cls_token_id, own.sep_token_id, own.mask_token_id}
        unknown = None if own.unk_token_id in edges else own.unk_token_id
        fixed = {int(token) for token in own.all_special_ids if token != unknown}
        covers = [int(token) for token in (own.mask_token_id, unknown) if token is not None]
        left = own.padding_side == "left"
        return Words(tuple(sorted(fixed)), self.padding, left, tuple(covers))


def load_tokenizer(wanted: Wanted, where: str) -> Tokenizer:
    """The tokenizer beside the network, or the one that the user names.

    Raises:
        DataError: there is none.
        ConfigError: `--max-length` is more than the network takes.
        MissingExtraError: transformers is not installed.
        ModelError: the library cannot read it.
    """
    folder = None if wanted.processor is None else wanted.processor.folder
    if folder is None or not any((folder / name).is_file() for name in _FILES):
        got = "none" if folder is None else f"none in {folder}"
        raise DataError(
            f"{where}: texts need the network's tokenizer, got {got}",
            "save it beside the network (tokenizer.save_pretrained), or name its folder: "
            "--processor FOLDER",
        )
    transformers = library()
    hint = "check that the tokenizer's files are complete"
    with user_code(f"tokenizer {folder}", (), hint), quiet(transformers):
        own = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    known = [int(own.model_max_length)] if own.model_max_length < _UNLIMITED else []
    if wanted.processor is not None and wanted.processor.longest is not None:
        known.append(wanted.processor.longest)
    limit = min(known, default=None)
    asked = wanted.config.max_length
    if asked is not None and limit is not None and asked > limit:
        raise ConfigError(
            f"--max-length: at most {limit} tokens fit the network, got {asked}",
            f"e.g. --max-length {limit}",
        )
    return Tokenizer(own, asked or limit)


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[Any],
    pairs: Sequence[str] | None = None,
    *,
    words: bool = False,
    special: bool = True,
    cut: bool = True,
) -> tuple[Tokens, int]:
    """Numbers of all texts.

    Args:
        texts: strings, or lists of words.
        pairs: the second text of each example.
        words: texts are lists of words.
        special: with the tokens that begin and end a text.
        cut: to the limit.

    Returns:
        The numbers, and how many texts were cut.
    """
    found = Tokens([], [], [])
    number = 0
    options: dict[str, Any] = {
        "is_split_into_words": words,
        "add_special_tokens": special,
        "return_token_type_ids": True,
        "return_attention_mask": False,
    }
    transformers = library()
    hint = "check the tokenizer, or write the texts in another way"
    with user_code("tokenizer", (), hint), quiet(transformers):
        for first, second in _chunks(texts, pairs):
            made = tokenizer.own(first, second, **options)
            if cut and tokenizer.limit is not None:
                over = sum(len(ids) > tokenizer.limit for ids in made["input_ids"])
                if over:
                    number += over
                    limits = {"truncation": True, "max_length": tokenizer.limit}
                    made = tokenizer.own(first, second, **options, **limits)
            found.ids.extend(np.asarray(ids, dtype=np.int32) for ids in made["input_ids"])
            kinds = made.get("token_type_ids") or [[0] * len(ids) for ids in made["input_ids"]]
            found.types.extend(np.asarray(item, dtype=np.int8) for item in kinds)
            if words:
                found.words.extend(_beginnings(made.word_ids(row)) for row in range(len(first)))
    return found, number


def _chunks(
    texts: Sequence[Any], pairs: Sequence[str] | None
) -> Iterator[tuple[list[Any], list[str] | None]]:
    for start in range(0, len(texts), CHUNK):
        block = slice(start, start + CHUNK)
        yield list(texts[block]), None if pairs is None else list(pairs[block])


def _beginnings(places: Sequence[int | None]) -> AnyArray:
    """Words by their first tokens."""
    found = np.full(len(places), -1, dtype=np.int64)
    before = None
    for position, place in enumerate(places):
        if place is not None and place != before:
            found[position] = place
        before = place
    return found


def padded(
    rows: Sequence[AnyArray], length: int, filler: int, kind: Any, *, left: bool = False
) -> AnyArray:
    """`(N, length)`, the rest filled."""
    made = np.full((len(rows), length), filler, dtype=kind)
    for place, row in enumerate(rows):
        if len(row):
            made[place, length - len(row) if left else 0 :][: len(row)] = row
    return made


def blocks(
    tokenizer: Tokenizer, texts: Sequence[str], length: int, *, masked: bool, ends: bool
) -> AnyArray:
    """All texts one after another, in rows of `length` tokens, `(N, length)`; what does not fill
    a row is left out.

    Args:
        masked: rows begin and end as texts do, for networks that read both ways.
        ends: the token that ends a text, where there is one, stands after each.
    """
    tokens, _ = tokenize(tokenizer, texts, special=False, cut=False)
    own = tokenizer.own
    edges = [own.cls_token_id, own.sep_token_id] if masked else [None, None]
    begin, end = ([] if edge is None else [edge] for edge in edges)
    stop = [own.eos_token_id] if ends and not masked and own.eos_token_id is not None else []
    stream = np.concatenate(
        [np.zeros(0, np.int32), *(part for ids in tokens.ids for part in (ids, _row(stop)))]
    )
    inner = length - len(begin) - len(end)
    count = len(stream) // inner
    body = stream[: count * inner].reshape(count, inner)
    sides = [np.tile(_row(edge), (count, 1)) for edge in (begin, end)]
    return np.concatenate([sides[0], body, sides[1]], axis=1)


def _row(numbers: Sequence[int]) -> AnyArray:
    return np.array(numbers, dtype=np.int32)


def hidden(tokenizer: Tokenizer, ids: AnyArray, seed: tuple[int, ...]) -> tuple[AnyArray, AnyArray]:
    """Rows of which some tokens are to be guessed: what the network sees, and what is right.

    Raises:
        DataError: the tokenizer has no token to hide another behind.
    """
    own = tokenizer.own
    if own.mask_token_id is None:
        raise DataError(
            "data: masked-language-modelling needs a tokenizer with a mask token, got none",
            "--task language-modelling is for networks that say the next token",
        )
    rng = np.random.default_rng(seed)
    plain = ~np.isin(ids, np.array(own.all_special_ids))
    chosen = plain & (rng.random(ids.shape) < _MASKED)
    how = rng.random(ids.shape)
    seen = np.where(chosen & (how >= _KEPT + _RANDOM), own.mask_token_id, ids)
    other = rng.integers(0, own.vocab_size, ids.shape)
    seen = np.where(chosen & (how >= _KEPT) & (how < _KEPT + _RANDOM), other, seen)
    return seen.astype(np.int32), np.where(chosen, ids, IGNORED).astype(np.int64)
