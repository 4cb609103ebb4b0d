"""Several processes that work on one run: meeting, sharing, and ending together.

Stage: below loading. In: what a launcher has started (see `launch`). Out: the same values in all
processes. In a run of one process everything here does nothing. Never trains, writes or prints.

Processes meet by polling a store, not inside a collective: then one that fails, or is interrupted,
can tell the others, and none waits for a timeout.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate.state import PartialState
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from prunecli import launch
from prunecli.errors import PrunecliError, first_line, with_type

T = TypeVar("T")

SHORTEST_S, LONGEST_S = 0.001, 0.2
"""Between two looks into the store while waiting."""

PATIENCE_S = 2.0
"""How long a failing process waits for the main one to say so, before it does itself: that one may
wait for it inside a collective, which ends (with gloo) or is ended (by the launcher) when this one
is gone."""

FAILED, SAID, LEFT = "failed", "said", "left"
INTERRUPTED = "was interrupted"


class ProcessError(PrunecliError):
    """Another process failed, or this one did and not all of them shall say so.

    Attributes:
        said: another process tells the user; this one ends silently.
    """

    exit_code = 1

    def __init__(
        self, message: str, hint: str | None = None, *, code: int = 1, said: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.exit_code = code  # type: ignore[misc]
        self.said = said


@dataclass
class _Crew:
    """What this process needs to talk to the others.

    Attributes:
        turn: how often they have met.
    """

    store: Store
    rank: int
    size: int
    turn: int = 0


_crews: list[_Crew] = []
"""The one that this process belongs to, if any; PyTorch knows one default group per process too."""


def size() -> int:
    """How many processes share the work; 1 outside of `joined`."""
    return _crews[-1].size if _crews else 1


def rank() -> int:
    """Which of them this is."""
    return _crews[-1].rank if _crews else 0


@contextmanager
def joined(cpu: bool) -> Iterator[None]:
    """Work together with the other processes inside the block; it ends well in all, or in none.

    Args:
        cpu: work on the CPU even where there is a GPU.

    Raises:
        ProcessError: another process failed.
    """
    if launch.size() == 1 or _crews:
        yield
        return
    crew = _join(cpu)
    try:
        yield
        meet()
        _part(crew)
    except BaseException as error:
        # Whatever it is, the others must hear of it; it goes on from here.
        instead = _ending(crew, error)
        if instead is not None:
            for note in getattr(error, "__notes__", ()):
                instead.add_note(note)
            raise instead from error
        raise
    finally:
        _crews.clear()
    PartialState().destroy_process_group()


def _join(cpu: bool) -> _Crew:
    """Make the process group (NCCL on GPUs, gloo on CPUs), and a store beside it."""
    state = PartialState(cpu=cpu or not torch.cuda.is_available())
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    crew = _Crew(
        PrefixStore(f"prunecli/{attempt}", store), state.process_index, state.num_processes
    )
    _crews.append(crew)
    return crew


def meet() -> None:
    """Go on when all processes have come here.

    Raises:
        ProcessError: one of them never will.
    """
    if not _crews:
        return
    crew = _crews[-1]
    crew.turn += 1
    here = f"turn/{crew.turn}"
    with _talking():
        if crew.store.add(here, 1) == crew.size:
            crew.store.set(f"{here}/all", "yes")
    pause = SHORTEST_S
    while not _there(crew, f"{here}/all"):
        failed = _failed(crew)
        if failed is not None:
            raise _as_error(failed)
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_S)


def shared(value: T) -> T:
    """What the main process has for `value`."""
    if not _crews:
        return value
    meet()
    found = [value]
    with _talking():
        dist.broadcast_object_list(found, src=0)
    return found[0]


def gathered(value: T) -> list[T]:
    """What each process has for `value`, in their order."""
    if not _crews:
        return [value]
    meet()
    found: list[T] = [value] * size()
    with _talking():
        dist.all_gather_object(found, value)
    return found


def add_up(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if _crews:
        with _talking():
            dist.all_reduce(tensor)
    return tensor


def side_by_side(tensor: Tensor) -> Tensor:
    """The tensors of all processes, shape (processes, ...)."""
    found = tensor.new_zeros((size(), *tensor.shape))
    found[rank()] = tensor
    return add_up(found)


def from_main(tensor: Tensor) -> None:
    """Overwrite a dense tensor with that of the main process."""
    if not _crews:
        return
    sent = tensor.contiguous()
    with _talking():
        dist.broadcast(sent, src=0)
    if sent.data_ptr() != tensor.data_ptr():
        tensor.copy_(sent)


@contextmanager
def _talking() -> Iterator[None]:
    """Around everything that needs the others.

    Raises:
        ProcessError: one has gone in the meantime.
    """
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"another process has ended: {_why(error)}",
            "the launcher says which one and why; often its memory ran out",
        ) from error


def _why(error: RuntimeError) -> str:
    """What the backend found, without its own source line before and its advice after it."""
    return re.sub(r"^\[[^]]*\.\w+:\d+\] ", "", first_line(error)).partition(". ")[0]


def _there(crew: _Crew, key: str) -> bool:
    with _talking():
        return bool(crew.store.check([key]))


@dataclass(frozen=True)
class _Failure:
    """How the first process that failed did so."""

    rank: int
    message: str
    hint: str | None
    code: int


def _failed(crew: _Crew) -> _Failure | None:
    if not _there(crew, FAILED):
        return None
    with _talking():
        return _Failure(*json.loads(crew.store.get(FAILED)))


def _as_error(failure: _Failure, said: bool = False) -> ProcessError:
    return ProcessError(
        f"process {failure.rank}: {failure.message}", failure.hint, code=failure.code, said=said
    )


def _ending(crew: _Crew, error: BaseException) -> ProcessError | None:
    """What to raise in place of `error` so that one process tells the user; `None` for itself."""
    try:
        first = _publish(crew, error)
        if crew.rank == 0:
            return _ending_of_main(crew, error, first)
        if not isinstance(error, PrunecliError):
            return None
        return _as_error(first, said=first.rank != crew.rank or not _must_say(crew))
    except ProcessError:
        # The store is gone, and with it whoever kept it.
        if crew.rank == 0:
            return None
        code = error.exit_code if isinstance(error, PrunecliError) else 1
        return ProcessError(first_line(error), code=code, said=True)


def _publish(crew: _Crew, error: BaseException) -> _Failure:
    """Leave word, unless another process did so before; the word that is there."""
    match error:
        case PrunecliError():
            mine = _Failure(crew.rank, error.message, error.hint, error.exit_code)
        case KeyboardInterrupt():
            # SIGTERM comes as one of these, and has a code of its own.
            mine = _Failure(crew.rank, INTERRUPTED, None, getattr(error, "exit_code", 130))
        case _:
            mine = _Failure(crew.rank, f"ended with {with_type(error)}", None, 1)
    text = json.dumps([mine.rank, mine.message, mine.hint, mine.code])
    with _talking():
        return _Failure(*json.loads(crew.store.compare_set(FAILED, "", text)))


def _ending_of_main(crew: _Crew, error: BaseException, first: _Failure) -> ProcessError | None:
    with _talking():
        said = crew.store.add(SAID, 1) > 1
    told = isinstance(error, ProcessError) or (
        # Launchers stop all processes once one has failed.
        isinstance(error, KeyboardInterrupt) and first.message != INTERRUPTED
    )
    if first.rank != crew.rank and (told or said):
        return _as_error(first, said)
    return None


def _part(crew: _Crew) -> None:
    """The main process may keep the store: it is the last to go."""
    with _talking():
        crew.store.add(LEFT, 1)
    end = time.monotonic() + PATIENCE_S
    while crew.rank == 0 and time.monotonic() < end:
        with _talking():
            if crew.store.add(LEFT, 0) == crew.size:
                return
        time.sleep(SHORTEST_S)


def _must_say(crew: _Crew) -> bool:
    """Whether the main process is not there to say it."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and not _there(crew, SAID):
        time.sleep(LONGEST_S)
    with _talking():
        return bool(crew.store.add(SAID, 1) == 1)
