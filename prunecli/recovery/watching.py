"""Who is told how training goes, while it goes.

Stage: recovery. In: nothing; this is the contract that `finetune` keeps. Out: what follows a run
step by step, such as TensorBoard. Never changes anything.
"""

from typing import Protocol

from prunecli.metric import Metric
from prunecli.recovery.records import Epoch


class Watch(Protocol):
    """Told about one training. Steps are numbered from 0, epochs from 1."""

    def begin(
        self, steps_per_epoch: int, metric: Metric, start: float, *, again: bool = False
    ) -> None:
        """Before the first step; `start` is the score on `choose`.

        Args:
            again: an earlier process has told of the start, and of some epochs.
        """

    def step(self, step: int, loss: float, lr: float) -> None:
        """After each step, with the loss on its targets and the rate it was made with."""

    def epoch(self, epoch: Epoch, done: int) -> None:
        """After each epoch, when `done` steps have been made."""


class Unwatched:
    """Nobody."""

    def begin(
        self, steps_per_epoch: int, metric: Metric, start: float, *, again: bool = False
    ) -> None:
        """Nothing."""

    def step(self, step: int, loss: float, lr: float) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch, done: int) -> None:
        """Nothing."""
