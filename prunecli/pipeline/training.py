"""Training a state, and what the report says about it.

Stage: pipeline. In: a state with a network of its own. Out: the state with trained weights.
"""

from dataclasses import replace

from prunecli import crew
from prunecli.choices import Strategy
from prunecli.pipeline.board import board
from prunecli.pipeline.job import Job
from prunecli.pipeline.scope import parameters_to_train
from prunecli.pipeline.state import State, composed, copied
from prunecli.recovery import Teacher, damage, default_lr, finetune
from prunecli.recovery.companion import Companion
from prunecli.recovery.densify import DenseAtEnd
from prunecli.recovery.masking import KeepMasks
from prunecli.report import record
from prunecli.tuning import TrainConfig

DAMAGE_EXAMPLES = 256
"""Unlabelled training examples on which the network is compared with the original."""


def train_to_the_end(
    job: Job, state: State, epochs: float, *, phase: str = "fine-tuning", offset: int = 0
) -> State:
    """The last training of a run: what `--dense-epochs` asks for comes at its end, and lifts the
    masks for good."""
    dense = job.config.removal.timing.dense_epochs
    if not dense or not state.masks:
        return train(job, state, epochs, phase=phase, offset=offset)
    companion = DenseAtEnd(KeepMasks(state.masks), dense / epochs if epochs else 1.0)
    state = train(job, state, epochs, companion=companion, phase=phase, offset=offset)
    weights = None if state.weights is None else (state.weights[0], state.weights[0])
    return replace(state, masks={}, weights=weights)


def train(
    job: Job,
    state: State,
    epochs: float,
    *,
    companion: Companion | None = None,
    phase: str = "fine-tuning",
    offset: int = 0,
) -> State:
    """Train the network of `state` in place; masks hold unless another companion is given.

    Args:
        epochs: may be a part of one; 0 trains nothing.
        offset: tells the phases of a run apart, each of which draws its own order of examples.
    """
    if job.prepared.data is None or epochs <= 0:
        return state
    config = _config(job, state, done=companion is None)
    if companion is None and state.masks:
        companion = KeepMasks(state.masks)
    ledger = job.ledger
    stage = ledger.stage(phase.replace("fine-tuning", "fine-tune"))
    with stage, board(job, phase) as watch:
        result = finetune(
            state.network,
            job.prepared.data,
            config,
            job.reporter,
            only=parameters_to_train(job, state),
            teacher=Teacher(copied(job.prepared.captured.network), composed(state.plans)),
            companion=companion,
            epochs=epochs,
            seed_offset=offset,
            title=phase,
            keeper=job.journal.training(),
            watch=watch,
        )
        before = ledger.report.training
        rows = tuple(
            record.EpochRow(
                len(before) + item.epoch,
                item.train_loss,
                item.score,
                item.lr,
                round(item.seconds, 3),
                phase,
            )
            for item in result.curve
        )
        best = result.best_epoch + len(before) if result.best_epoch else 0
        ledger.note(training=(*before, *rows), best_epoch=best)
        said = ledger.report.notes
        ledger.remark(*(note for note in result.notes if note not in said))
    return replace(state, trained=True)


def _config(job: Job, state: State, *, done: bool) -> TrainConfig:
    """As it was asked for, with the rate that suits what goes.

    Args:
        done: what goes is gone before the training, which then only has to repair what it cost.
    """
    config = job.config.train
    if config.lr is not None:
        return config
    masked = Strategy.WEIGHT in job.config.removal.strategies
    # Others than those that reconstruction has fitted the network to.
    examples = job.unlabelled(state.captured, DAMAGE_EXAMPLES, draw=2) if done else None
    if examples is None:
        return replace(config, lr=default_lr(config, masked=masked))
    with job.reporter.step("comparing with the original"):
        lost = crew.shared(damage(state.network, job.prepared.captured.network, examples))
    lr = float(f"{default_lr(config, masked=masked, damage=lost):.2g}")
    job.ledger.remark(
        f"learning rate {lr:g}: before the training outputs differed from the original's by "
        f"{lost:.1%} of their variance"
    )
    return replace(config, lr=lr)
