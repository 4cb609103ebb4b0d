"""Who learns, who chooses, who judges: rows for each split, seeded and stratified.

Stage: data. In: a source and its targets. Out: row numbers for each split, and notes that say
what was decided. Never reads an example, never lets one row serve two purposes.
"""

from dataclasses import dataclass

import numpy as np

from prunecli.config import DataConfig
from prunecli.data.source import AnyArray, Part, Role, Rows, Source, counted
from prunecli.errors import DataError

HELD_OUT_SHARE = 0.15
"""Of the training data, for judging, where the source has no split for it."""

CHOOSE_SHARE, CHOOSE_LEAST, CHOOSE_MOST, CHOOSE_LIMIT = 0.05, 200, 5000, 0.2
"""Of the training data, for choosing: 5%, but 200 to 5,000 examples, and never more than 20%."""

# One stream of random numbers for each purpose, so that one draw never shifts another.
_HOLD_OUT, _CHOOSE, _CAP_TRAINING, _CAP_VALIDATION = range(4)


@dataclass(frozen=True)
class Plan:
    """Rows of each split, ascending.

    Attributes:
        train, choose: rows of the part `learn`.
        validation: rows of the part `judge`, which may be the same part.
    """

    learn: Role
    judge: Role
    train: Rows
    choose: Rows
    validation: Rows
    notes: tuple[str, ...]


def plan_splits(source: Source, config: DataConfig) -> Plan:
    """Decide which rows are for training, choosing and judging.

    Raises:
        DataError: too few examples for the three, or a `--max-samples` that leaves too few.
    """
    learn, judge, notes = _find_parts(source)
    part, seed = source.parts[learn], config.seed
    pool = np.arange(part.count)
    how = "" if source.classes_of(part) is None else "stratified, "
    if judge is learn:
        missing = "validation" if learn is Role.TRAIN else "training"
        notes.append(
            f"no {missing} split: {HELD_OUT_SHARE:.0%} of {part.where} is held out for "
            f"validation ({how}seed {seed})"
        )
        judged, pool = _hold_out(source, part, pool, seed)
    else:
        judged = np.arange(source.parts[judge].count)
    _check_enough(part.where, len(pool), 2, "training and choosing")
    _check_enough(source.parts[judge].where, len(judged), 1, "validation")
    if config.max_samples is not None:
        pool = _cap(source, learn, pool, config, _CAP_TRAINING, notes)
        judged = _cap(source, judge, judged, config, _CAP_VALIDATION, notes)
    choose, train = _draw(
        pool, _choose_count(len(pool)), _labelled(source, part, pool), (seed, _CHOOSE)
    )
    notes.append(
        f"{counted(len(train), 'example')} for training, {len(choose):,} held out of the training "
        f"data to choose the best epoch, {len(judged):,} for validation"
    )
    return Plan(learn, judge, train, choose, judged, tuple(notes))


def _find_parts(source: Source) -> tuple[Role, Role, list[str]]:
    """The part to learn from, the part to judge with (maybe the same), and what to note."""
    roles = source.parts.keys()
    judges = [role for role in (Role.VALIDATION, Role.TEST) if role in roles]
    if Role.TRAIN not in roles:
        return judges[0], judges[0], []
    if not judges:
        return Role.TRAIN, Role.TRAIN, []
    return Role.TRAIN, judges[0], [f"judged on the source's {judges[0].value} split"]


def _labelled(source: Source, part: Part, rows: Rows | None = None) -> AnyArray | None:
    """The labels to stratify by, if there are labels."""
    classes = source.classes_of(part)
    return classes if classes is None or rows is None else classes[rows]


def _hold_out(source: Source, part: Part, pool: Rows, seed: int) -> tuple[Rows, Rows]:
    """Rows for judging, at least one of each class that can spare it, and the rest."""
    labels = _labelled(source, part)
    least = 1 if labels is None else int((np.unique(labels, return_counts=True)[1] > 1).sum())
    wanted = max(round(HELD_OUT_SHARE * len(pool)), least, 1)
    return _draw(pool, wanted, labels, (seed, _HOLD_OUT))


def _choose_count(pool: int) -> int:
    wanted = min(max(round(CHOOSE_SHARE * pool), CHOOSE_LEAST), CHOOSE_MOST)
    return max(min(wanted, int(CHOOSE_LIMIT * pool)), 1)


def _cap(
    source: Source, role: Role, rows: Rows, config: DataConfig, purpose: int, notes: list[str]
) -> Rows:
    """At most `--max-samples` of `rows`."""
    most = config.max_samples or 0
    if most < 2:
        raise DataError(
            f"--max-samples: at least 2 are needed, got {most}", "for example --max-samples 1000"
        )
    if len(rows) <= most:
        return rows
    noun = "training" if purpose == _CAP_TRAINING else "validation"
    notes.append(f"--max-samples: {most:,} of {len(rows):,} examples are used for {noun}")
    labels = _labelled(source, source.parts[role], rows)
    return _draw(rows, most, labels, (config.seed, purpose), spare=0)[0]


def _draw(
    rows: Rows, wanted: int, labels: AnyArray | None, seed: tuple[int, int], spare: int = 1
) -> tuple[Rows, Rows]:
    """Draw `wanted` of `rows`, in proportion to their labels: the drawn and the rest, ascending.

    Args:
        spare: how many of each class stay in the rest, as long as `wanted` can be drawn so.
    """
    generator = np.random.default_rng(seed)
    wanted = min(wanted, max(len(rows) - spare, 0))
    if labels is None:
        picked = generator.permutation(len(rows))[:wanted]
    else:
        picked = _stratified(labels, wanted, generator, spare)
    mask = np.zeros(len(rows), dtype=bool)
    mask[picked] = True
    return rows[mask], rows[~mask]


def _stratified(labels: AnyArray, wanted: int, generator: np.random.Generator, spare: int) -> Rows:
    """Positions of `wanted` labels, every class its share and at least one if possible."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quota = _quota(counts, wanted, generator, spare)
    shuffled = generator.permutation(len(labels))
    grouped = shuffled[np.argsort(inverse[shuffled], kind="stable")]
    starts = np.cumsum(counts) - counts
    taken = [grouped[start : start + n] for start, n in zip(starts, quota, strict=True)]
    return np.concatenate(taken)


def _quota(counts: AnyArray, wanted: int, generator: np.random.Generator, spare: int) -> AnyArray:
    """How many of each class: in proportion, between its least and its most, `wanted` in sum."""
    most = np.maximum(counts - spare, 0)
    if most.sum() < wanted:
        most = counts
    least = np.minimum(most, 1)
    if least.sum() > wanted:  # more classes than places: chance decides which are drawn
        chosen = generator.permutation(np.flatnonzero(least))[:wanted]
        one_each: Rows = np.zeros(len(counts), dtype=np.int64)
        one_each[chosen] = 1
        return one_each
    share = counts * (wanted / counts.sum())
    quota: Rows = np.clip(np.floor(share).astype(np.int64), least, most)
    while quota.sum() != wanted:
        short = quota.sum() < wanted
        movable = quota < most if short else quota > least
        # Whoever is furthest from its share gives or takes next.
        distance = np.where(movable, (share - quota) * (1 if short else -1), -np.inf)
        quota[int(np.argmax(distance))] += 1 if short else -1
    return quota


def _check_enough(where: str, count: int, least: int, purpose: str) -> None:
    if count < least:
        raise DataError(
            f"{where}: at least {counted(least, 'example')} needed for {purpose}, got {count}",
            "add examples, or leave out --data to prune without training",
        )
