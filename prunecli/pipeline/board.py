"""How training goes, for TensorBoard.

Stage: pipeline. In: what `finetune` tells its watch. Out: event files in `--log-dir`, one for each
phase of the run. Never changes anything; TensorBoard is imported only where it was asked for.

The axis of steps goes on from phase to phase. Every epoch counts as a whole one there, so that the
place of a phase follows from the epochs before it, after an interruption too. A run that goes on
writes what it does again at the same steps, with the same numbers.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli import launch
from prunecli.config import RunConfig
from prunecli.errors import MissingExtraError, OutputError
from prunecli.files import writing
from prunecli.metric import Metric
from prunecli.pipeline.job import Job
from prunecli.recovery.records import Epoch
from prunecli.recovery.watching import Unwatched, Watch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

POINTS = 100
"""An epoch leaves about so many values of loss and rate."""


def check_board(config: RunConfig) -> None:
    """Fail before any work if nothing could be written.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        OutputError: the folder is a file.
    """
    folder = config.log_dir
    if folder is None:
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", extra="tensorboard")
    blocked = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if blocked.exists() and not blocked.is_dir():
        raise OutputError(
            f"--log-dir: must be a folder, got the file {blocked}", "choose another place"
        )


@contextmanager
def board(job: Job, phase: str) -> Iterator[Watch]:
    """What watches one phase of training.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = job.config.log_dir
    if folder is None or not launch.is_main():
        yield Unwatched()
        return
    watch = _Phase(job, folder, phase)
    try:
        yield watch
    finally:
        watch.close()


class _Phase:
    """One phase, as scalars over the steps of the whole run, and as text."""

    def __init__(self, job: Job, folder: Path, phase: str) -> None:
        self._job, self._folder, self._phase = job, folder, phase
        self._opened: SummaryWriter | None = None
        self._before = len(job.ledger.report.training)
        self._first, self._every = 0, 1
        self._metric = ""

    def begin(
        self, steps_per_epoch: int, metric: Metric, start: float, *, again: bool = False
    ) -> None:
        """Say what is trained, and where it starts; once."""
        self._first = self._before * steps_per_epoch
        self._every = max(1, steps_per_epoch // POINTS)
        self._metric = metric.name
        if again:
            return
        if not self._before:
            self._text("command", f"`{self._job.config.command}`", 0)
            self._text("training", _table(self._job), 0)
        self._text("phase", self._phase, self._first)
        self._text("plan", _plan(self._job), self._first)
        self._scalar(f"choose/{metric.name}", start, self._first)

    def step(self, step: int, loss: float, lr: float) -> None:
        """Loss and rate, every few steps."""
        if step % self._every == 0:
            self._scalar("train/loss", loss, self._first + step)
            self._scalar("train/rate", lr, self._first + step)

    def epoch(self, epoch: Epoch, done: int) -> None:
        """The score, and the mean loss of the epoch."""
        self._scalar(f"choose/{self._metric}", epoch.score, self._first + done)
        self._scalar("train/loss of the epoch", epoch.train_loss, self._first + done)
        with writing(self._folder):
            self._writer().flush()

    def close(self) -> None:
        """Nothing more will come."""
        if self._opened is not None:
            with writing(self._folder):
                self._opened.close()

    def _writer(self) -> "SummaryWriter":
        """Makes its file with the first thing to be written: a phase of which an earlier process
        has told everything leaves none."""
        from torch.utils.tensorboard import SummaryWriter

        if self._opened is None:
            self._opened = SummaryWriter(str(self._folder))
        return self._opened

    def _scalar(self, name: str, value: float, step: int) -> None:
        with writing(self._folder):
            self._writer().add_scalar(name, value, step)

    def _text(self, name: str, text: str, step: int) -> None:
        with writing(self._folder):
            self._writer().add_text(name, text, step)


def _table(job: Job) -> str:
    """The configuration of training in Markdown, without what was left open."""
    train = job.config.train
    given = {item.name: getattr(train, item.name) for item in fields(train)}
    if train.until is not None:
        given["until"] = train.until.in_words()
    rows = [f"| {name} | {value} |" for name, value in given.items() if value is not None]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _plan(job: Job) -> str:
    """What went so far, as a list in Markdown."""
    lines = [
        f"- round {step.round}: {step.strategy.value} by {step.criterion}: {step.words}"
        for step in job.ledger.report.steps
        if step.taken_back is None
    ]
    return "\n".join(lines) or "nothing was removed yet"
