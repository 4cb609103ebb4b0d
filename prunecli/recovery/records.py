"""What fine-tuning hands on, and how one epoch reads as a line.

Stage: recovery. In: nothing; these are plain records. Never trains.
"""

from dataclasses import dataclass

from prunecli.metric import Metric


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        epoch: from 1.
        train_loss: mean over the epoch's examples, while the weights change.
        score: on the `choose` split, in the unit of `TrainResult.metric`.
        lr: rate of the epoch's last step.
        seconds: training and scoring.
    """

    epoch: int
    train_loss: float
    score: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What fine-tuning did.

    Attributes:
        curve: one entry for each epoch.
        start: score on `choose` before the first step; `None` if nothing was trained.
        best_epoch: whose weights were kept; 0 stands for the start.
        metric: what the scores are.
        notes: what was decided, in words.
    """

    curve: tuple[Epoch, ...]
    start: float | None
    best_epoch: int
    metric: Metric
    notes: tuple[str, ...]


def epoch_line(epoch: Epoch, epochs: int, metric: Metric) -> str:
    """An epoch as one line of progress."""
    parts = [
        f"epoch {epoch.epoch}/{epochs}",
        f"loss {epoch.train_loss:.4f}",
        f"{metric.name} {metric.in_words(epoch.score)}",
        f"lr {epoch.lr:.2g}",
        f"{epoch.seconds:.1f} s",
    ]
    left = (epochs - epoch.epoch) * epoch.seconds
    parts.extend([f"{in_time(left)} left"] if left else [])
    return "  ".join(parts)


def in_time(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
