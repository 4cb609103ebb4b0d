"""Runs of `prunecli` in processes that were forked from one which has imported everything, which
takes longer than most of these runs."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from cli_making import Ended

from prunecli.cli import main

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["prunecli.pipeline", "torch.onnx._internal.exporter._core"])

WAIT_S = 120.0


@dataclass(frozen=True)
class Forked:
    """A run.

    Attributes:
        out, err: files of what it says.
    """

    process: BaseProcess
    out: Path
    err: Path

    def wait_for(self, begin: str) -> None:
        """Until it has said a whole line that begins like this."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            lines = self.err.read_text().splitlines(keepends=True)
            if any(line.startswith(begin) and line.endswith("\n") for line in lines):
                return
            if not self.process.is_alive():
                break
            time.sleep(0.005)
        raise AssertionError(self.err.read_text())

    def ended(self) -> Ended:
        """How it ended."""
        self.process.join(WAIT_S)
        assert self.process.exitcode is not None, f"hangs: {self.err.read_text()}"
        return Ended(self.process.exitcode, self.out.read_text(), self.err.read_text())

    def send(self, sent: signal.Signals) -> None:
        """A signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, sent)


def fork(folder: Path, arguments: list[str], said: Path, environ: dict[str, str]) -> Forked:
    """Start a run in `folder`; what it says goes into `said`."""
    said.mkdir(exist_ok=True)
    found = [said / f"{environ.get('RANK', '0')}.{name}" for name in ("out", "err")]
    for file in found:
        file.write_text("")
    process = SERVER.Process(target=_run, args=(folder, arguments, found, environ), daemon=True)
    process.start()
    return Forked(process, *found)


def fork_two(folder: Path, *arguments: str) -> list[Forked]:
    """Start two processes that work on one run, as a launcher does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    said = folder.parent / f"said in {folder.name}"
    return [
        fork(folder, list(arguments), said, {**common, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]


def _run(folder: Path, arguments: list[str], said: list[Path], environ: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environ)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out, err = (file.open("w", buffering=1) for file in said)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.stdout, sys.stderr = out, err
    sys.argv = ["prunecli", *arguments]
    main()
