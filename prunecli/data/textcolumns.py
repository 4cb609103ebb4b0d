"""Columns of texts: which they are, by their types and names.

Stage: data. In: an Arrow table and what the user says. Out: names of columns. Never reads a text.
"""

from collections.abc import Sequence
from typing import Any

from prunecli.choices import TaskName
from prunecli.data.columns import NamedTable, is_list, is_text
from prunecli.data.source import listed
from prunecli.data.targets import by_name
from prunecli.data.wanted import Wanted
from prunecli.errors import DataError

_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "context"),
    ("text1", "text2"),
    ("text", "text_pair"),
)
_SINGLE = ("text", "sentence", "tokens", "words", "content", "document", "review", "title")
_TAGS = ("tags", "ner_tags", "pos_tags", "chunk_tags", "labels")


def text_columns(learn: NamedTable, wanted: Wanted) -> tuple[str, ...]:
    """The column of texts, or two of them; none where there are none.

    Raises:
        DataError: several, and nothing says which.
    """
    kinds = {str(field.name): field.type for field in learn.table.schema}
    given = wanted.config.input_columns
    if given:
        if not _holds_text(kinds[given[0]]):
            return ()
        if len(given) > 2:
            raise DataError(
                f"--input-column: one column of texts or two are needed, got {listed(given)}",
                "join the texts before",
            )
        return given
    taken = taken_columns(learn, wanted)
    free = [name for name, kind in kinds.items() if _holds_text(kind) and name not in taken]
    spelt = {name.lower(): name for name in free}
    for pair in _PAIRS:
        if all(name in spelt for name in pair):
            return spelt[pair[0]], spelt[pair[1]]
    for name in _SINGLE:
        if name in spelt:
            return (spelt[name],)
    if len(free) == 2 and not taken and wanted.labelled and free[-1] == list(kinds)[-1]:
        # As in tables of numbers, the target is the last column.
        free = free[:1]
    if len(free) > 1:
        raise DataError(
            f"{learn.where}: one column of texts is needed, got {listed(map(repr, free))}",
            "say which: --input-column NAME, or NAME,NAME for pairs",
        )
    return tuple(free)


def _holds_text(kind: Any) -> bool:
    return is_text(kind) or (is_list(kind) and is_text(kind.value_type))


def taken_columns(learn: NamedTable, wanted: Wanted) -> tuple[str, ...]:
    """Columns that are targets for certain."""
    names = [str(name) for name in learn.table.column_names]
    heads = tuple(head.name for head in wanted.task.heads) if wanted.task is not None else ()
    if wanted.config.target_columns or heads:
        return wanted.config.target_columns or heads
    found = _tags(names) if task_of(wanted) is TaskName.TOKEN_CLASSIFICATION else by_name(names)
    return () if found is None else (found,)


def _tags(names: Sequence[str]) -> str | None:
    return next((name for name in names if name.lower() in _TAGS), None) or by_name(names)


def task_of(wanted: Wanted) -> TaskName | None:
    """The single task that the user names, if it is one."""
    return None if wanted.task is None else wanted.task.name
