"""The journal of a run: what took long is written down once, and read by the run that goes on.

Stage: pipeline. In: the folder of a run's state, and work to be done. Out: its result, done now or
in an earlier process. Never decides what a run does: a run that goes on is the same run, from its
first line, with the same calls in the same order, of which those in the journal are only read.

    start.json          what the run began with (`starts`)
    0001-score.pt       one file for each call, numbered in their order
    0002-plan.pt
    0003-recovery.pt
    0004-training.pt    of a training that goes on, its last epoch
    lock                held while a process works here
    ended               only with --keep-run: nothing is left to do

Of several processes the main one has the folder. The others have a journal without one, make the
same calls, and are told what was found.
"""

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from torch import nn

from prunecli import crew
from prunecli.crew import ProcessError
from prunecli.errors import OutputError, PrunecliError, StateError
from prunecli.files import sweep, write_text, writing
from prunecli.pipeline.starts import START_FILE, Start, check_same, read_start, start_to_json
from prunecli.pipeline.statefile import DAMAGED, damaged, read_state, write_state
from prunecli.progress import Reporter
from prunecli.recovery.resuming import AGAIN, put_weights, weights_of

Made = TypeVar("Made")
Values = Mapping[str, Any]

ENDED, LOCK = "ended", "lock"

_ENTRY = re.compile(r"(\d{4})-([a-z]+)\.pt")


@dataclass(frozen=True)
class Entry:
    """One file of a journal, and the run that it belongs to."""

    path: Path
    run: str

    def load(self) -> Values | None:
        """What was saved last; `None` where nothing was.

        Raises:
            StateError: the file is damaged, or another run's.
        """
        if not self.path.exists():
            return None
        found = read_state(self.path)
        if found.get("run") != self.run:
            raise StateError(
                f"state {self.path}: must belong to the run in {START_FILE}, got that of another",
                AGAIN,
            )
        if not isinstance(found.get("values"), dict):
            raise damaged(self.path)
        return dict(found["values"])

    def save(self, memory: Values) -> None:
        """Take the place of what was saved before.

        Raises:
            OutputError: it cannot be written; what was there before stays.
        """
        write_state(self.path, {"run": self.run, "values": dict(memory)})


class Journal:
    """Numbers what is done, in order; without a folder it keeps nothing.

    All processes do the same: whatever one of them finds in the folder, or does not, holds for all.
    """

    def __init__(self, folder: Path | None = None, *, again: bool = False) -> None:
        self._folder, self._again = folder, again
        self._run = ""
        self._done = 0

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return bool(self._run)

    def begin(self, start: Start, reporter: Reporter) -> None:
        """Now it is known what the run begins with. What an earlier one left here goes, unless it
        is this one.

        Raises:
            StateError: the run goes on, and began with something else, or a part of its journal
                is missing.
        """
        if self._folder is None:
            return
        if self._again:
            _check_whole(self._folder, start, reporter)
        else:
            cleared(self._folder)
            write_text(self._folder / START_FILE, start_to_json(start))
        self._run = _stamp(self._folder)

    def once(
        self,
        kind: str,
        make: Callable[[], Made],
        pack: Callable[[Made], Values],
        unpack: Callable[[Values], Made],
        *,
        alone: bool = False,
    ) -> Made:
        """What `make` returns, now or in an earlier process.

        Args:
            alone: only the main process makes this call.

        Raises:
            StateError: what is in the journal cannot be read.
        """
        entry = self._next(kind)
        found = None if entry is None else entry.load()
        if not alone:
            found = crew.shared(found)
        if found is not None:
            with readable(Path(kind) if entry is None else entry.path):
                return unpack(found)
        made = make()
        if entry is not None:
            entry.save(pack(made))
        return made

    def change(self, kind: str, network: nn.Module, make: Callable[[], str]) -> str:
        """What `make` says after it has changed the weights of `network`, now or earlier."""

        def pack(words: str) -> Values:
            return {"words": words, "weights": weights_of(network)}

        def unpack(values: Values) -> str:
            put_weights(network, values["weights"])
            return str(values["words"])

        return self.once(kind, make, pack, unpack)

    def training(self) -> Entry | None:
        """Where the main process keeps the memory of the next training, which knows what the
        others need of it."""
        return self._next("training")

    def _next(self, kind: str) -> Entry | None:
        if self._folder is None:
            return None
        assert self._run, "a journal is begun before anything is written into it"
        self._done += 1
        path = self._folder / f"{self._done:04}-{kind}.pt"
        others = [item for item in self._folder.glob(f"{self._done:04}-*.pt") if item != path]
        if others:
            raise StateError(f"state {others[0]}: {kind} is done here, got another file", AGAIN)
        return Entry(path, self._run)


def _check_whole(folder: Path, start: Start, reporter: Reporter) -> None:
    """See at once, not after an hour, whether the run can go on.

    Raises:
        StateError: it began with something else, or a part of its journal is missing or damaged.
    """
    for words in check_same(folder.parent, read_start(folder), start):
        reporter.warn(f"{words}: the last digits may differ from those of an unbroken run")
    found = entries(folder)
    numbers = [int(item.name[:4]) for item in found]
    if numbers != list(range(1, len(numbers) + 1)):
        raise StateError(f"state {folder}: files must be numbered from 1 on, got {numbers}", AGAIN)
    for item in found:
        Entry(item, _stamp(folder)).load()


def _stamp(folder: Path) -> str:
    """Names the run in all of its files."""
    return hashlib.sha256((folder / START_FILE).read_bytes()).hexdigest()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Around anything that makes something of what a file held.

    Raises:
        StateError: nothing can be made of it.
    """
    try:
        yield
    except (*DAMAGED, PrunecliError) as error:
        raise damaged(path) from error


def entries(state: Path) -> list[Path]:
    """The files of a journal, in order."""
    return sorted(item for item in state.iterdir() if _ENTRY.fullmatch(item.name))


def is_unfinished(state: Path) -> bool:
    """Whether a run left something to go on with."""
    return (state / START_FILE).is_file() and not (state / ENDED).exists()


def cleared(state: Path) -> None:
    """Remove what a journal writes, but for the lock; first what says that there is one."""
    with writing(state):
        for item in (state / START_FILE, state / ENDED):
            item.unlink(missing_ok=True)
        for item in entries(state):
            item.unlink()
    _drop_halves(state)


def _drop_halves(state: Path) -> None:
    """Remove files that a killed process had not written to the end."""
    with writing(state):
        for item in state.glob(".*.tmp.*"):
            item.unlink()


@contextmanager
def journal_in(
    state: Path,
    reporter: Reporter,
    *,
    keep: bool,
    again: bool,
    finals: Iterable[Path] = (),
) -> Iterator[Journal]:
    """The journal of a run, which nobody else may write meanwhile.

    After a run that ended well nothing is left of it, and after one that would end badly each time;
    any other is told how it can be gone on with.

    Args:
        keep: leave everything there after a run that ended well, too.
        again: the run goes on.
        finals: what it will write; halves of it that a killed process left are removed.

    Raises:
        StateError: another process has it.
    """
    with writing(state):
        state.mkdir(exist_ok=True)
    journal = Journal(state, again=again)
    go_on = f"prunecli resume {shlex.quote(str(state.parent))}"
    with _only_one(state):
        sweep(state, finals)
        _drop_halves(state)
        if is_unfinished(state) and not again:
            reporter.warn(
                f"the unfinished run in {state.parent} starts over; to go on with it: {go_on}"
            )
        try:
            yield journal
        except (OutputError, StateError) as error:
            if journal.begun and isinstance(error, OutputError):
                error.add_note(f"to go on: {go_on}")
            raise
        except PrunecliError as error:
            transient = isinstance(error, ProcessError) or isinstance(
                error.__cause__, torch.OutOfMemoryError
            )
            if transient and (journal.begun or again):
                error.add_note(f"to go on: {go_on}")
            elif journal.begun:
                cleared(state)  # the same run would end like this each time
            raise
        except BaseException as error:
            if journal.begun or again:
                error.add_note(f"to go on: {go_on}")
            raise
        if keep:
            write_text(state / ENDED, "")
        else:
            cleared(state)


@contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Hold the lock, which the system takes back from a process that dies. Where nothing but the
    lock is left in the folder, the folder goes.

    Raises:
        StateError: another process holds it.
    """
    lock = FileLock(state / LOCK)
    try:
        with writing(state):
            lock.acquire(timeout=0)
    except OutputError as error:
        if not isinstance(error.__cause__, Timeout):
            raise
        raise StateError(
            f"run {state.parent}: another process is working on it",
            "wait until it has ended, or choose another name with -o",
        ) from error
    try:
        yield
    finally:
        # The folder goes while the lock is held: after it another process may have begun here.
        if state.is_dir() and [item.name for item in state.iterdir()] == [LOCK]:
            (state / LOCK).unlink()
            state.rmdir()
        lock.release()
