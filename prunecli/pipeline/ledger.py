"""The ledger: the report as it grows, written to disk before and after each stage.

Stage: pipeline. Holds the one mutable thing of a run. Never computes a figure.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunecli.errors import PrunecliError
from prunecli.files import write_text
from prunecli.report.as_json import to_json
from prunecli.report.record import Report, Stage
from prunecli.report.removed import StepRow


class Ledger:
    """Collects what is known; with a path, a run that dies leaves it there as JSON."""

    def __init__(self, report: Report, path: Path | None) -> None:
        self.report = report
        self._path = path

    def note(self, **fields: Any) -> None:
        """Set fields of the report."""
        self.report = replace(self.report, **fields)

    def warn(self, text: str) -> None:
        """Add a warning."""
        self.note(warnings=(*self.report.warnings, text))

    def remark(self, *texts: str) -> None:
        """Add notes."""
        self.note(notes=(*self.report.notes, *texts))

    def step(self, row: StepRow) -> None:
        """Add what a strategy removed."""
        self.note(steps=(*self.report.steps, row))

    def take_back(self, number: int, why: str, before: Report) -> None:
        """Mark what round `number` removed as taken back; what is said about the network is again
        what was said `before` that round."""
        rows = (
            replace(row, taken_back=why) if row.round == number else row
            for row in self.report.steps
        )
        self.note(
            steps=tuple(rows),
            achieved=before.achieved,
            groups=before.groups,
            checks=before.checks,
            best_epoch=before.best_epoch,
        )

    def write(self) -> None:
        """Write the report as it is."""
        if self._path is not None and not self.report.dry_run:
            write_text(self._path, to_json(self.report))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage: its name is the status while it runs, its seconds are kept."""
        self.note(status=f"running: {name}")
        self.write()
        start = time.monotonic()
        try:
            yield
        except BaseException as error:
            # Whatever it is goes on as it is; the report only says where the run ended, and how.
            self.note(status=_ending(name, error))
            self.write()
            raise
        seconds = round(time.monotonic() - start, 3)
        self.note(stages=(*self.report.stages, Stage(name, seconds)))
        self.write()


def _ending(name: str, error: BaseException) -> str:
    if isinstance(error, PrunecliError):
        return f"failed: {name}: {error.message}"
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted: {name}"
    return f"crashed: {name}: {type(error).__name__}"
