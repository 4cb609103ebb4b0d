"""What the report says about a training.

Stage: recovery. In: a training and its curve. Out: sentences. Decides nothing.
"""

from prunecli import crew
from prunecli.recovery.resuming import Progress
from prunecli.recovery.steps import Training


def remarks(job: Training, progress: Progress, best_epoch: int) -> tuple[str, ...]:
    """How it went, beyond the numbers of the curve."""
    curve = progress.curve
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
    if best_epoch and _memory_preferred(job, progress, best_epoch):
        notes.append(
            "on examples that the original was trained on the start was better, on the validation "
            "split what was trained: that was kept"
        )
    return tuple(notes)


def _memory_preferred(job: Training, progress: Progress, best_epoch: int) -> bool:
    """Whether the part held out for choosing would have kept the start."""
    found = progress.curve[best_epoch - 1].score
    counted = job.companion.counts(0, job.pace.steps)
    return counted and not job.data.task.metric.at_least_as_good(found, progress.start)
