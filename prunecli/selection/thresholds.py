"""Thresholds: what scores at or below one goes, however much that is.

Stage: selection. In: raw scores, steps, what is settled. Out: a `Cut`. Pure.
"""

import numpy as np

from prunecli.errors import NothingToPruneError
from prunecli.importance.scores import Scores
from prunecli.removal import Threshold
from prunecli.selection.overrides import NO_CUT
from prunecli.selection.steps import Bools, Steps
from prunecli.selection.targets import Cut, Field


def cut_at(field: Field, scores: Scores, threshold: Threshold, fine: Steps) -> Cut:
    """Take every step whose score is at or below the threshold.

    The score of units that can only go together is their mean. Widths become what they become:
    no rounding to multiples, and no target. Every axis keeps its floor.

    Args:
        scores: raw, on the criterion's own scale, shape (units,).
        fine: the finest steps by these scores.

    Raises:
        NothingToPruneError: no score is that low, or nothing of it may go.
    """
    limits = limits_of(field, scores, threshold)
    free = field.free(fine)
    low = at_or_below(fine.scores, _per_step(fine, limits))
    taken = np.flatnonzero(low & free)
    if not taken.size and not field.settled.out.any():
        raise _nothing(field, scores, threshold, at_or_below(scores, limits))
    return Cut(field.without(fine, taken), fine, limits, scores)


def at_or_below(scores: Scores, limits: Scores) -> Bools:
    """Compared as float32, which the weights are that scores are made of: 0.3 as a float32 is
    0.30000001, and must count as 0.3."""
    found: Bools = scores.astype(np.float32) <= limits.astype(np.float32)
    return found


def limits_of(field: Field, scores: Scores, threshold: Threshold) -> Scores:
    """The threshold of every unit, shape (units,).

    A dynamic one is so many standard deviations below the mean of the unit's group, over what
    had not gone before; where all score the same, nothing stands out, and nothing goes.
    """
    closed = field.settled.off_the_line
    if not threshold.dynamic:
        return np.where(closed, NO_CUT, threshold.value)
    limits = np.full(scores.size, NO_CUT)
    for group in field.coupling.groups:
        own = scores[group.units[~field.settled.gone[group.units]]]
        if np.unique(own.astype(np.float32)).size > 1:
            limits[group.units] = own.mean() - threshold.value * own.std()
    limits[closed] = NO_CUT
    return limits


def _per_step(steps: Steps, limits: Scores) -> Scores:
    number = steps.scores.size
    members = np.bincount(steps.of_unit, minlength=number)
    means: Scores = np.bincount(steps.of_unit, weights=limits, minlength=number) / members
    return means


def _nothing(field: Field, scores: Scores, threshold: Threshold, low: Bools) -> NothingToPruneError:
    flag = f"--threshold {threshold.in_words()}"
    if low.any():
        return NothingToPruneError(
            f"{flag}: nothing of what scores at or below it may go: every layer keeps some of its "
            "units, and what must go together is judged by its mean",
            "give a higher threshold, or a target, e.g. --target-macs 50%",
        )
    open_ = scores[~field.settled.closed]
    if not open_.size:
        return NothingToPruneError(
            f"{flag}: --keep and --layer leave nothing that it could be compared with",
            "give fewer of them",
        )
    if threshold.dynamic:
        return NothingToPruneError(
            f"{flag}: no unit scores so far below the mean of its group",
            "give fewer standard deviations",
        )
    return NothingToPruneError(
        f"{flag}: no unit scores at or below it, scores range from {open_.min():.4g} to "
        f"{open_.max():.4g}",
        f"--threshold {_nice(float(np.median(open_)))} takes about half of the units",
    )


def _nice(value: float) -> str:
    return f"{value:.3g}"
