"""Training on until the network has recovered.

Stage: pipeline. In: a state that was trained for `--epochs`. Out: one that was trained on, in
blocks of as many epochs, each with the schedule of its rates from the start (warm restarts,
Loshchilov & Hutter 2017, arXiv:1608.03983) and from the best weights so far. Removes nothing.

What is good enough is judged on the validation split (see `goal`), which decides no more than
whether there is another block; epochs are chosen on the part held out for it.
"""

from prunecli.metric import Metric
from prunecli.pipeline.goal import Goal, validation_score
from prunecli.pipeline.job import Job
from prunecli.pipeline.state import State, owned
from prunecli.pipeline.training import train
from prunecli.recovery.patience import waited

NEXT_TO_NOTHING = 1e-9

OFFSET = 2000
"""Blocks draw other orders of the examples than rounds do."""


def train_until(job: Job, state: State, goal: Goal) -> State:
    """Train on, block by block, until the goal is reached, the epochs are used up, or the patience
    is; what falls short is noted as missed.

    The epochs of all rounds together count, those of sparse training do not.
    """
    config = job.config.train
    epochs, number = config.epochs, 1
    first = len(job.ledger.report.training)
    while not goal.reached(found := validation_score(job, state)):
        if config.longest - epochs < NEXT_TO_NOTHING or _gives_up(job, goal.metric, first):
            words = goal.in_words(found, _after(epochs))
            missed = f"--until-recovered {goal.margin.in_words()}: {words}"
            job.ledger.note(missed=(*job.ledger.report.missed, missed))
            return state
        number += 1
        block = min(config.epochs, config.longest - epochs)
        job.reporter.say(f"block {number}: {goal.in_words(found, _after(epochs))}")
        state = _block(job, state, block, number)
        epochs += block
    job.ledger.remark(f"recovered: {goal.in_words(found, _after(epochs))}")
    return state


def _after(epochs: float) -> str:
    return f"after {epochs:g} epoch{'s' * (epochs != 1)}"


def _block(job: Job, state: State, epochs: float, number: int) -> State:
    before = job.ledger.report
    state = train(job, owned(state), epochs, phase=f"block {number}", offset=OFFSET + number)
    # What a block says of its own epochs would be read as said of all.
    job.ledger.note(notes=before.notes)
    if not job.ledger.report.best_epoch:
        # The block ended with the weights that it started with.
        job.ledger.note(best_epoch=before.best_epoch)
    return state


def _gives_up(job: Job, metric: Metric, first: int) -> bool:
    patience = job.config.train.patience
    scores = [row.score for row in job.ledger.report.training[first:] if row.score is not None]
    return patience is not None and waited(metric, scores) >= patience
