"""The loop: remove, recover, judge, go on or take back.

Stage: pipeline. In: the original as a state. Out: the state to ship. What a round removed is
taken back by going on from the state before it, which nothing has changed since.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from prunecli.choices import PruneSchedule, Recovery, Strategy
from prunecli.errors import VerificationError
from prunecli.pipeline.cutting import cut_units
from prunecli.pipeline.dropping import drop_layers
from prunecli.pipeline.goal import Goal, goal_of, validation_score
from prunecli.pipeline.gradually import prune_gradually
from prunecli.pipeline.job import Job, Pace
from prunecli.pipeline.masking import compact_emptied, mask_weights
from prunecli.pipeline.planning import note_outcome
from prunecli.pipeline.state import State, analyse, owned
from prunecli.pipeline.training import train, train_to_the_end
from prunecli.pipeline.until import train_until
from prunecli.recovery.penalties import Penalised, SparseTraining

Apply = Callable[[Job, State, Pace], State]

APPLY: Mapping[Strategy, Apply] = {
    Strategy.STRUCTURED: cut_units,
    Strategy.NEURON: cut_units,
    Strategy.LAYER: drop_layers,
    Strategy.WEIGHT: mask_weights,
}

SMALLEST_STEP = 1 / 16
"""A step that was halved below this share of everything asked for is not tried."""

NEXT_TO_NOTHING = 1e-9


def shrink(job: Job, state: State, untrained: Callable[[State], None]) -> State:
    """Remove what is asked for, and train.

    Args:
        untrained: called with what is there before any fine-tuning, where there is such a thing.

    Raises:
        VerificationError: not even a small step keeps the accuracy that was asked for.
    """
    timing = job.config.removal.timing
    budget = goal_of(job, state, timing.largest_drop)
    goal = goal_of(job, state, job.config.train.until)
    if timing.sparse_epochs:
        state = _train_sparsely(job, state)
    state, done = _rounds(job, state, budget, untrained)
    lost = "" if budget is None else budget.margin.in_words()
    if done <= 0.0:
        raise VerificationError(
            f"--max-drop: every step lost more than {lost}",
            "allow more, train longer (--epochs), or ask for less",
        )
    if done < 1.0 - NEXT_TO_NOTHING:
        job.ledger.note(
            missed=(
                f"--max-drop {lost} was reached at {done:.0%} of what "
                "was asked for; the files hold that result",
            )
        )
    if goal is not None:
        state = train_until(job, state, goal)
    return compact_emptied(job, state)


def predict(job: Job, state: State) -> State:
    """What would be removed, all at once and without recovering anything."""
    without = replace(job, config=replace(job.config, recover=Recovery.NONE))
    for strategy in job.config.removal.strategies:
        state = APPLY[strategy](without, state, Pace())
    if job.config.removal.timing.schedule is not PruneSchedule.ONE_SHOT:
        job.ledger.remark(
            "predicted as if all went at once; what goes in rounds or while the network trains "
            "depends on the training"
        )
    return state


def _rounds(
    job: Job, state: State, budget: Goal | None, untrained: Callable[[State], None]
) -> tuple[State, float]:
    """The last state that was good enough, and how much of everything asked for is gone in it."""
    timing = job.config.removal.timing
    step, done, number = 1.0 / timing.rounds, 0.0, 1
    while done < 1.0 - NEXT_TO_NOTHING and step > SMALLEST_STEP / timing.rounds:
        pace = Pace(number, done, min(1.0, done + step))
        if timing.rounds > 1 or number > 1:
            job.reporter.say(f"round {number}: to {pace.share:.0%} of what is asked for")
        before = job.ledger.report
        candidate = _round(job, state, pace, untrained)
        why = None if budget is None else _too_bad(job, candidate, budget)
        if why is None:
            state, done = candidate, pace.share
        else:
            job.ledger.take_back(number, why, before)
            step /= 2
            job.reporter.say(f"round {number} is taken back: {why}; half of the step is tried")
        number += 1
    return state, done


def _round(job: Job, state: State, pace: Pace, untrained: Callable[[State], None]) -> State:
    """Remove and train once."""
    timing, epochs = job.config.removal.timing, job.config.train.epochs
    if timing.schedule is PruneSchedule.GRADUAL:
        return prune_gradually(job, state, pace)
    for strategy in job.config.removal.strategies:
        state = APPLY[strategy](job, state, pace)
    note_outcome(job, state)
    # A row of the table for what may be taken back would mislead.
    final = timing.schedule is PruneSchedule.ONE_SHOT and timing.largest_drop is None
    if final and job.trains:
        untrained(state)
    phase = "fine-tuning" if timing.rounds == 1 else f"round {pace.number}"
    last = pace.share >= 1.0 - NEXT_TO_NOTHING
    # Where a round removed nothing, the network is still that of the round before.
    state = owned(state)
    ending = train_to_the_end if last else train
    return ending(job, state, epochs / timing.rounds, phase=phase, offset=pace.number - 1)


def _train_sparsely(job: Job, state: State) -> State:
    timing = job.config.removal.timing
    found = state.analysis or analyse(state.captured)
    penalty = SparseTraining(timing.penalty, timing.penalty_strength, Penalised(found.coupling))
    return train(
        job,
        owned(state),
        timing.sparse_epochs,
        companion=penalty,
        phase="sparse training",
        offset=1000,
    )


def _too_bad(job: Job, state: State, budget: Goal) -> str | None:
    """Why the state is not good enough, if it is not."""
    found = validation_score(job, state)
    return None if budget.reached(found) else budget.in_words(found)
