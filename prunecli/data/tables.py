"""Rows of numbers: which columns are features, which targets.

Stage: data. In: Arrow tables that a reader has opened. Out: a source with float32 features; one of
texts where the network takes tokens. Never opens a file, never encodes a feature that is not a
number.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from prunecli.data.columns import NamedTable, numbers_of
from prunecli.data.source import AnyArray, Part, Role, Source, Targets, counted, listed
from prunecli.data.targets import Aim, aims, by_name, check_there, encode_aims
from prunecli.data.textcolumns import text_columns
from prunecli.data.texts import from_texts
from prunecli.data.wanted import Wanted, refuse_idle
from prunecli.errors import DataError


def from_tables(
    tables: Mapping[Role, NamedTable], wanted: Wanted, target: str | None = None
) -> Source:
    """Turn tables into inputs and targets.

    Args:
        target: the column of a single target; found by name, else the last one, when left out.

    Raises:
        ConfigError: `--target-column` does not fit `--task`.
        DataError: a value is missing or not a number, or the tables' columns differ.
    """
    learn = tables.get(Role.TRAIN) or next(iter(tables.values()))
    names = [str(name) for name in learn.table.column_names]
    check_there(learn, wanted.config.input_columns)
    if wanted.takes_tokens and text_columns(learn, wanted):
        return from_texts(tables, wanted, target)
    refuse_idle(wanted.config, "a table of numbers", "--max-length", "--processor")
    target = target or by_name(names) or (names[-1] if wanted.labelled else None)
    found = aims(learn, wanted, target, wanted.config.input_columns or None)
    features = _features(learn, wanted, found, target)
    used, notes = with_targets(tables, learn, found)
    for own in used.values():
        _check_columns(own, learn, wanted, [*features, *(n for aim in found for n in aim.columns)])
    targets = encode_aims(used, found, wanted)
    parts = {role: _part(own, role, features, targets) for role, own in used.items()}
    said = [item.note for item in targets]
    said.append(f"{counted(len(features), 'feature')}: {listed(features)}")
    return Source(parts, tuple(item.labels for item in targets), (*said, *notes))


def with_targets(
    tables: Mapping[Role, NamedTable], learn: NamedTable, found: Sequence[Aim]
) -> tuple[dict[Role, NamedTable], list[str]]:
    """The tables without a test table whose targets nobody tells, and what to note."""
    notes, used = [], {}
    for role, own in tables.items():
        missing = [n for aim in found for n in aim.columns if n not in own.table.column_names]
        if role is Role.TEST and own is not learn and missing:
            notes.append(f"{own.where} has no column {missing[0]!r} and is not used")
            continue
        used[role] = own
    return used, notes


def _features(
    learn: NamedTable, wanted: Wanted, found: Sequence[Aim], target: str | None
) -> list[str]:
    """Columns of the only input.

    Raises:
        DataError: there is none.
    """
    taken = [name for aim in found for name in aim.columns]
    # Where no target is needed, one that is there is still no feature.
    taken += [*wanted.config.target_columns, *([target] if target and not taken else [])]
    names = wanted.config.input_columns or learn.table.column_names
    features = [str(name) for name in names if name not in taken]
    if features:
        return features
    raise DataError(
        f"{learn.where}: feature columns are needed besides the target, got "
        f"{listed(map(repr, dict.fromkeys(taken)))} only",
        "check the separator: commas, semicolons and tabs are understood",
    )


def _part(own: NamedTable, role: Role, features: list[str], targets: Sequence[Targets]) -> Part:
    values = tuple(item.values[role] for item in targets)
    return Part(own.where, values, (_numbers(own, features),), own.table.num_rows)


def _check_columns(
    named: NamedTable, learn: NamedTable, wanted: Wanted, needed: Sequence[str]
) -> None:
    ours, theirs = set(named.table.column_names), set(learn.table.column_names)
    if wanted.config.input_columns:
        # The others do not matter where the user says which do.
        ours, theirs = ours & set(needed), set(needed)
    if ours != theirs:
        odd = sorted(ours ^ theirs)
        raise DataError(
            f"{named.where}: columns must be those of {learn.where}, got a difference in "
            f"{listed(repr(name) for name in odd)}",
            "the same columns are needed in every split",
        )


def _numbers(named: NamedTable, features: list[str]) -> AnyArray:
    """`(N, F)` float32, in the training table's order of columns."""
    values = np.empty((named.table.num_rows, len(features)), dtype=np.float32)
    for position, name in enumerate(features):
        values[:, position] = numbers_of(named.where, name, named.table.column(name))
    return values
