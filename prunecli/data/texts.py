"""Texts: which columns hold them, and examples of token numbers for each task.

Stage: data. In: Arrow tables, or the texts of files, that a reader has opened. Out: a source whose
inputs are named as the network's. Never opens a file.

Shapes. N: examples, T: tokens, the same number for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunecli.choices import TaskName
from prunecli.data.columns import NamedTable, check_complete, is_list
from prunecli.data.contents import Beside, Content
from prunecli.data.encoding import encode_for
from prunecli.data.layout import Named
from prunecli.data.source import AnyArray, Part, Role, Source, Targets, counted, listed
from prunecli.data.tags import encode_tags
from prunecli.data.targets import aims, encode_aims
from prunecli.data.textcolumns import taken_columns, task_of, text_columns
from prunecli.data.tokens import (
    BLOCK,
    Tokenizer,
    Tokens,
    blocks,
    hidden,
    load_tokenizer,
    padded,
    tokenize,
)
from prunecli.data.wanted import IDS, Wanted, refuse_idle
from prunecli.errors import DataError

MASK, TYPES = "attention_mask", "token_type_ids"

_LANGUAGE = (TaskName.LANGUAGE_MODELLING, TaskName.MASKED_LANGUAGE_MODELLING)


@dataclass(frozen=True)
class _Sheet:
    """What one part came to: inputs by the library's names, and targets that come from the
    tokens themselves."""

    where: str
    inputs: Mapping[str, AnyArray]
    targets: AnyArray | None = None


def from_texts(
    tables: Mapping[Role, NamedTable], wanted: Wanted, target: str | None = None
) -> Source:
    """Texts of tables as token numbers.

    Args:
        target: the column of a single target, where the file's own types say it.

    Raises:
        DataError: there is no tokenizer, or columns are missing or hold something else.
    """
    learn = tables.get(Role.TRAIN) or next(iter(tables.values()))
    refuse_idle(wanted.config, "texts", "--image-size")
    columns = text_columns(learn, wanted)
    tokenizer = load_tokenizer(wanted, learn.where)
    kind = task_of(wanted)
    used = _complete(tables, columns)
    if kind in _LANGUAGE:
        refuse_idle(wanted.config, "language modelling", "--target-column")
        texts = {role: (own.where, _strings(own, columns[0])) for role, own in used.items()}
        return from_language(texts, wanted, tokenizer, f"column {columns[0]!r}")
    names = [str(name) for name in learn.table.column_names]
    others = [name for name in names if name not in columns]
    taken = taken_columns(learn, wanted)
    likely = target if target in others else (taken or tuple(others[-1:]) or (None,))[0]
    found = aims(learn, wanted, likely, columns)
    used = {
        role: own
        for role, own in used.items()
        if own is learn or all(n in own.table.column_names for aim in found for n in aim.columns)
    }
    if kind is TaskName.TOKEN_CLASSIFICATION:
        return _tagged(used, columns[0], found[0].columns[0], wanted, tokenizer)
    return _sentences(used, columns, encode_aims(used, found, wanted), wanted, tokenizer)


def _complete(
    tables: Mapping[Role, NamedTable], columns: tuple[str, ...]
) -> dict[Role, NamedTable]:
    for own in tables.values():
        for name in columns:
            if name not in own.table.column_names:
                raise DataError(
                    f"{own.where}: a column {name!r} of texts is needed, got "
                    f"{listed(map(repr, own.table.column_names))}",
                    "the same columns are needed in every split",
                )
            values = own.table.column(name)
            check_complete(own.where, name, values)
            if is_list(values.type):
                check_complete(own.where, name, pc.list_flatten(values))
    return dict(tables)


def _strings(own: NamedTable, column: str) -> list[str]:
    """Texts as they are; words with spaces between."""
    values = own.table.column(column)
    if is_list(values.type):
        return [" ".join(map(str, words)) for words in values.to_pylist()]
    found: list[str] = pc.cast(values, pa.string()).to_pylist()
    return found


def _words(own: NamedTable, column: str) -> list[list[str]]:
    values = own.table.column(column)
    if is_list(values.type):
        return [[str(word) for word in words] for words in values.to_pylist()]
    return [text.split() for text in pc.cast(values, pa.string()).to_pylist()]


def _sentences(
    tables: Mapping[Role, NamedTable],
    columns: tuple[str, ...],
    targets: tuple[Targets, ...],
    wanted: Wanted,
    tokenizer: Tokenizer,
) -> Source:
    found, over = {}, 0
    for role, own in tables.items():
        texts = [_strings(own, name) for name in columns]
        found[role], cut = tokenize(tokenizer, texts[0], texts[1] if len(texts) > 1 else None)
        over += cut
    length = _longest(found)
    sheets = {
        role: _Sheet(own.where, _inputs(found[role], length, tokenizer))
        for role, own in tables.items()
    }
    what = f"texts: column {listed(map(repr, columns))}"
    notes = [f"{what}, {_lengths(length, over, found, tokenizer)}", *(t.note for t in targets)]
    return _source(sheets, targets, notes, wanted, tokenizer, pairs=len(columns) > 1)


def _tagged(
    tables: Mapping[Role, NamedTable],
    column: str,
    tags: str,
    wanted: Wanted,
    tokenizer: Tokenizer,
) -> Source:
    """Words with a tag each; of the tokens of a word, the first has its tag."""
    if not tokenizer.own.is_fast:
        raise DataError(
            "data: token-classification needs a tokenizer that tells which token is of which "
            f"word (a fast one), got {type(tokenizer.own).__name__}",
            "save it again with transformers, so that there is a tokenizer.json",
        )
    words = {role: _words(own, column) for role, own in tables.items()}
    labels, numbers = encode_tags(tables, tags, words, wanted.classes)
    found, over = {}, 0
    for role in tables:
        found[role], cut = tokenize(tokenizer, words[role], words=True)
        over += cut
    length = _longest(found)
    sheets, values = {}, {}
    for role, own in tables.items():
        sheets[role] = _Sheet(own.where, _inputs(found[role], length, tokenizer))
        left = tokenizer.own.padding_side == "left"
        places = padded(found[role].words, length, -1, np.int64, left=left)
        values[role] = numbers[role].at(places)
    note = f"target: column {tags!r}, {counted(len(labels.classes), 'class')} of words"
    notes = [f"words: column {column!r}, {_lengths(length, over, found, tokenizer)}", note]
    return _source(sheets, (Targets(labels, values, note),), notes, wanted, tokenizer)


def from_language(
    texts: Mapping[Role, tuple[str, Sequence[str]]],
    wanted: Wanted,
    tokenizer: Tokenizer,
    what: str,
    *,
    rows: bool = True,
) -> Source:
    """Texts joined and cut into blocks, whose tokens are the targets.

    Args:
        texts: what messages name each part, and its texts.
        what: where they come from, for the notes.
        rows: each text ends, and is told from the next one; else they are lines of one.

    Raises:
        DataError: too little text.
    """
    masked = task_of(wanted) is TaskName.MASKED_LANGUAGE_MODELLING
    length = min(wanted.config.max_length or BLOCK, tokenizer.limit or BLOCK)
    sheets: dict[Role, _Sheet] = {}
    for place, (role, (where, own)) in enumerate(texts.items()):
        ids = blocks(tokenizer, own, length, masked=masked, ends=rows)
        if not len(ids):
            raise DataError(
                f"{where}: at least {length} tokens of text are needed, got fewer",
                "add text, or make the blocks shorter: --max-length 32",
            )
        seen, right = ids, ids.astype(np.int64)
        if masked:
            seen, right = hidden(tokenizer, ids, (wanted.config.seed, place))
        sheets[role] = _Sheet(where, {IDS: seen, MASK: np.ones(ids.shape, np.int8)}, right)
    notes = [f"texts: {what}, joined and cut into blocks of {length} tokens"]
    if not wanted.labelled:
        return _source(sheets, (), notes, wanted, tokenizer)
    named = {
        role: Named(own.where, own.targets)
        for role, own in sheets.items()
        if own.targets is not None
    }
    targets = encode_for(task_of(wanted), named)
    notes.append(f"targets: {'the hidden tokens' if masked else 'each next token'}")
    return _source(sheets, (targets,), notes, wanted, tokenizer)


def _inputs(tokens: Tokens, length: int, tokenizer: Tokenizer) -> dict[str, AnyArray]:
    """Everything that a network may want to know of texts, `(N, T)` each."""
    left = tokenizer.own.padding_side == "left"
    ones = [np.ones(len(ids), np.int8) for ids in tokens.ids]
    return {
        IDS: padded(tokens.ids, length, tokenizer.padding, np.int32, left=left),
        MASK: padded(ones, length, 0, np.int8, left=left),
        TYPES: padded(tokens.types, length, 0, np.int8, left=left),
    }


def _longest(found: Mapping[Role, Tokens]) -> int:
    return max((len(ids) for own in found.values() for ids in own.ids), default=0) or 1


def _lengths(length: int, over: int, found: Mapping[Role, Tokens], tokenizer: Tokenizer) -> str:
    said = f"padded to {counted(length, 'token')}, the longest"
    if over:
        number = sum(len(own.ids) for own in found.values())
        said = f"padded to {length} tokens ({over:,} of {number:,} texts were cut to that)"
    return said


def _source(
    sheets: Mapping[Role, _Sheet],
    targets: Sequence[Targets],
    notes: Sequence[str],
    wanted: Wanted,
    tokenizer: Tokenizer,
    pairs: bool = False,
) -> Source:
    names = network_names(wanted, pairs)
    parts = {}
    for role, own in sheets.items():
        values = tuple(item.values[role] for item in targets)
        examples = tuple(own.inputs[key] for key in names.values())
        parts[role] = Part(own.where, values, examples, len(examples[0]))
    labels = tuple(item.labels for item in targets)
    known: Mapping[str, Content] = {IDS: tokenizer.words, MASK: Beside.SEEN, TYPES: Beside.TEXT}
    contents = tuple(known[key] for key in names.values())
    return Source(
        parts, labels, tuple(notes), tuple(names) if len(names) > 1 else (), contents=contents
    )


def network_names(wanted: Wanted, pairs: bool) -> dict[str, str]:
    """The network's inputs, and what the library calls that which goes there.

    Networks that were not written for the library have names of their own: the mask is known by
    its name, and the numbers of the tokens come first.
    """
    bare = {name: name.rpartition(".")[2] for name in wanted.inputs}
    if IDS in bare.values():
        optional = wanted.processor.optional if wanted.processor is not None else ()
        if pairs:
            # Networks tell two texts from one by these; for one they are all zero, as they are
            # where they are left out.
            bare.update({name: name for name in optional if name == TYPES})
        return {name: key for name, key in bare.items() if key in (IDS, MASK, TYPES)}
    found: dict[str, str] = {}
    for name, key in bare.items():
        likely = MASK if "mask" in key else TYPES if "type" in key else IDS
        if likely not in found.values():
            found[name] = likely
    if IDS not in found.values():
        return {IDS: IDS}
    return found
