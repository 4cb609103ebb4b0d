"""What the report says about a training.

Stage: recovery. In: a training and its curve. Out: sentences. Decides nothing.
"""

from collections.abc import Sequence

from prunecli import crew
from prunecli.recovery.records import Epoch
from prunecli.recovery.steps import Training


def remarks(job: Training, curve: Sequence[Epoch], best_epoch: int) -> tuple[str, ...]:
    """How it went, beyond the numbers of the curve."""
    notes = list(job.changes.notes)
    if job.config.ema is not None:
        notes.append(f"weights are averaged over the steps (decay {job.config.ema:g})")
    if job.objective.words is not None:
        notes.append(job.objective.words)
    left_out = len(job.data.train) - job.pace.used
    if left_out:
        notes.append(
            f"each epoch leaves out {left_out} of {len(job.data.train)} examples at random"
        )
    if job.pace.batch != job.config.batch_size:
        notes.append(f"trained in batches of {job.pace.batch}, the only size that the graph takes")
    if job.pace.accumulate > 1:
        notes.append(f"each step adds up the gradients of {job.pace.accumulate} batches")
    if crew.size() > 1:
        notes.append(f"trained in {crew.size()} processes, which shared every batch")
    last = job.pace.done(len(curve)) - job.pace.done(len(curve) - 1)
    if len(curve) < job.pace.epochs:
        notes.append(
            f"stopped after epoch {len(curve)} of {job.pace.epochs}: {job.config.patience} in a "
            "row were not better (--patience)"
        )
    if last < job.pace.steps_per_epoch:
        notes.append(f"the last epoch has {last} of {job.pace.steps_per_epoch} steps")
    barred = [
        e.epoch for e in curve if not job.companion.counts(job.pace.done(e.epoch), job.pace.steps)
    ]
    if best_epoch == 0:
        notes.append("every epoch scored worse than the start, so the start was kept")
    elif best_epoch < len(curve):
        among = f" of those from epoch {max(barred) + 1} on" if barred else ""
        notes.append(f"epoch {best_epoch} of {len(curve)} was the best{among} and was kept")
    return tuple(notes)
