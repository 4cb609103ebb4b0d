"""Progress on stderr: animated on a terminal, plain lines elsewhere, nothing with `-q`.

Stage: below all others. Stages call `step` and `update`; only this module knows how it is shown.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_INTERVAL_S = 5.0
"""Plain lines of one step come at most this often."""


class Step(Protocol):
    """A running piece of work."""

    def update(self, done: float, note: str = "") -> None:
        """`done` so far, in the unit of the step's `total`; `note` says more (loss, score)."""


class Reporter(Protocol):
    """Where stages say what they are doing."""

    def step(self, title: str, total: float | None = None) -> AbstractContextManager[Step]:
        """A context manager around one piece of work; `total` gives a bar and time left."""

    def say(self, text: str) -> None:
        """One lasting line, e.g. an epoch's result."""

    def warn(self, text: str) -> None:
        """One lasting line that the user should act on."""


class _SilentStep:
    def update(self, done: float, note: str = "") -> None:
        pass


class SilentReporter:
    """Shows nothing but warnings; for `-q`, for tests, and for use from Python.

    Args:
        warns: left out by processes that only help the one that prints.
    """

    def __init__(self, *, warns: bool = True) -> None:
        self._warns = warns

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Step]:
        yield _SilentStep()

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        if self._warns:
            print(f"WARNING {text}", file=sys.stderr)


class _PlainStep:
    def __init__(self, title: str, total: float | None) -> None:
        self.title, self.total = title, total
        self.start = self.last = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last < PLAIN_INTERVAL_S:
            return
        self.last = now
        parts = [self.title]
        if self.total:
            left = (now - self.start) * (self.total - done) / done if done else 0.0
            parts.append(f"{100 * done / self.total:.0f}%")
            parts.append(f"{left:.0f} s left")
        parts.extend([note] if note else [])
        print("  ".join(parts), file=sys.stderr, flush=True)


class PlainReporter:
    """Plain lines, for logs and pipes."""

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Step]:
        print(title, file=sys.stderr, flush=True)
        step = _PlainStep(title, total)
        yield step
        seconds = time.monotonic() - step.start
        if seconds > 2.0:
            print(f"{title}: {seconds:.1f} s", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        print(f"WARNING {text}", file=sys.stderr, flush=True)


class _RichStep:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self.bar, self.task = bar, task

    def update(self, done: float, note: str = "") -> None:
        self.bar.update(self.task, completed=done, note=escape(note))


class RichReporter:
    """Bars with time left, on a terminal."""

    def __init__(self) -> None:
        # The stream itself: others may hide stderr for a while (torch.export prints graphs there).
        self.console = Console(file=sys.stderr)

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Step]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            yield _RichStep(bar, bar.add_task(escape(title), total=total, note=""))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        # Not as markup: `[aten.conv2d]` in a text is no style.
        self.console.print(Text.assemble(("WARNING", "yellow"), f" {text}"), highlight=False)


def make_reporter(quiet: bool) -> Reporter:
    """The reporter for this process: silent with `quiet`, else by whether stderr is a terminal."""
    if quiet:
        return SilentReporter()
    return RichReporter() if sys.stderr.isatty() else PlainReporter()
