"""`torchrun -m prunecli`: one plan, one set of files, one voice."""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from cli_making import (
    NET_SOURCE,
    PRUNECLI,
    QUICK,
    Bench,
    Ended,
    environment,
    files_in,
    run,
    run_apart,
)

LAUNCHER = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "prunecli"),
]
HALVED = ["--epochs", "2", "--batch-size", "17", "--max-drop", "60pp"]
"""96 examples: five batches of 17 and one of 11. The accuracy of each round is judged, too."""

LONG = [
    *("--schedule", "iterative", "--rounds", "2", "--round-to", "1", "--epochs", "20"),
    *("--batch-size", "17", "-o", "net.onnx", "--report", "net.json"),
]

BROKEN_IN_ONE = """

def one_sided() -> nn.Module:
    import os
    if os.environ.get("RANK") == "1":
        raise KeyError("not on this machine")
    return net()
"""


run_in_two = partial(run_apart, command=LAUNCHER)


def said(ended: Ended, word: str) -> list[str]:
    return [line for line in ended.err.splitlines() if line.startswith(word)]


@pytest.mark.slow
def test_two_processes_ship_what_one_does(bench: Bench, here: Path) -> None:
    outputs = ["-o", "net.onnx", "--report", "net.json"]
    alone, shared = here / "alone", here / "shared"
    for folder in (alone, shared):
        folder.mkdir()
    one = run_apart("prune", *bench.usual, *HALVED, *outputs, cwd=alone)
    two = run_in_two("prune", *bench.usual, *HALVED, *outputs, cwd=shared)
    assert (one.code, two.code) == (0, 0), two.err
    assert files_in(alone) == files_in(shared)
    plan = Path("net.run") / "plan.json"
    assert (alone / plan).read_bytes() == (shared / plan).read_bytes()
    first, second = (json.loads((item / "net.json").read_text()) for item in (alone, shared))
    curves = [[row["train_loss"] for row in report["training"]] for report in (first, second)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert len(two.out.splitlines()) == len(one.out.splitlines()) + 1
    assert two.out.count("wrote onnx: net.onnx") == 1
    assert "note: trained in 2 processes, which shared every batch" in two.out
    assert sum(line.startswith("epoch 1/2") for line in two.err.splitlines()) == 1


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_one_line(bench: Bench, here: Path) -> None:
    source = here / "net.py"
    source.write_text(NET_SOURCE + BROKEN_IN_ONE)
    ended = run_in_two(
        *("prune", bench.weights, "--model", f"{source}:one_sided", "--data", bench.data),
        *(*QUICK, "-o", "new/net.onnx"),
        cwd=here,
    )
    assert ended.code != 0
    assert ended.out == ""
    (line,) = said(ended, "ERROR ")
    assert line.startswith("ERROR process 1: ")
    assert "not on this machine" in line
    assert "exitcode  : 2" in ended.err, "the launcher passes on neither, but shows it"
    assert files_in(here) == ["net.py"]


def came_to(folder: Path) -> dict[str, Any]:
    """Plan, weights and curve of a run."""
    training = json.loads((folder / "net.json").read_text())["training"]
    return {
        "plan": (folder / "net.run" / "plan.json").read_bytes(),
        "onnx": (folder / "net.onnx").read_bytes(),
        "curve": [{**row, "seconds": 0} for row in training],
        "files": files_in(folder),
    }


@pytest.fixture(scope="module")
def unbroken(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes come to that nothing interrupts."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert run_in_two("prune", *bench.usual, *LONG, cwd=folder).code == 0
    return came_to(folder)


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_they_go_on(
    bench: Bench, here: Path, unbroken: dict[str, Any]
) -> None:
    process = subprocess.Popen(
        [*LAUNCHER, "prune", *bench.usual, *LONG],
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        wait_for("epoch 2/", process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=60)
    assert out == ""
    assert err.splitlines().count("INTERRUPTED no result was written") == 1
    assert err.splitlines().count("TIP to go on: prunecli resume net.run") == 1
    assert "ERROR " not in err
    assert "net.onnx" not in files_in(here)
    ended = run_in_two("resume", "net.run", cwd=here)
    assert ended.code == 0, ended.err
    assert len([line for line in ended.err.splitlines() if "epochs are done" in line]) == 1
    assert "WARNING" not in ended.err
    assert came_to(here) == unbroken


@pytest.mark.slow
def test_killed_processes_go_on(bench: Bench, here: Path, unbroken: dict[str, Any]) -> None:
    """In the second round: what the first came to is shared, too. Nobody launches them."""
    processes = [start_apart(rank, bench, here) for rank in (0, 1)]
    for _ in range(2):
        wait_for("epoch 9/10", processes[0])
    for process in processes:
        process.kill()
        process.communicate()
    assert (here / "net.run" / "state" / "start.json").exists()
    assert "net.onnx" not in files_in(here)
    ended = run_in_two("resume", "net.run", cwd=here)
    assert ended.code == 0, ended.err
    assert "round 1: 10 of 10 epochs are done" in ended.err
    assert "round 2: " in ended.err
    assert came_to(here) == unbroken


@pytest.mark.slow
def test_a_killed_process_leaves_the_other_a_run_to_go_on_with(bench: Bench, here: Path) -> None:
    processes = [start_apart(rank, bench, here) for rank in (0, 1)]
    wait_for("epoch 2/", processes[0])
    processes[1].kill()
    _, err = processes[0].communicate(timeout=60)
    processes[1].communicate()
    (line,) = [line for line in err.splitlines() if line.startswith("ERROR ")]
    assert line.startswith("ERROR another process has ended: ")
    assert err.splitlines()[-1].endswith("; to go on: prunecli resume net.run")
    ended = run_apart("resume", "net.run", cwd=here)
    assert ended.code == 0, ended.err
    (warning,) = said(ended, "WARNING number")
    assert warning == (
        "WARNING number of processes was 2 and is 1: the last digits may differ from those of an "
        "unbroken run"
    )
    assert [row["epoch"] for row in came_to(here)["curve"]] == [*range(1, 21)]


def start_apart(rank: int, bench: Bench, folder: Path) -> subprocess.Popen[str]:
    """One of two processes."""
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port(folder))}
    return subprocess.Popen(
        [*PRUNECLI, "prune", *bench.usual, *LONG],
        cwd=folder,
        env=environment(**places, **meeting, LOCAL_WORLD_SIZE="2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@cache
def free_port(folder: Path) -> int:
    """The same for all processes that work in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(begin: str, process: subprocess.Popen[str]) -> None:
    """Until the process has said a line that begins like this."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(begin):
            return
    raise AssertionError("".join(said))


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a launcher would start it; there is nobody to talk to."""
    launched = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_of_two")
@pytest.mark.parametrize(
    ("flags", "code"),
    [
        pytest.param(["--dry-run"], 0, id="what one process can do"),
        pytest.param(["--seed", "-1"], 2, id="a value that is refused"),
        pytest.param(["--no-such-flag"], 2, id="a flag that does not exist"),
    ],
)
def test_others_than_the_main_process_are_silent(
    flags: list[str], code: int, bench: Bench, here: Path
) -> None:
    assert run("prune", *bench.usual, *flags) == Ended(code, "", "")
    assert files_in(here) == []
