"""`torchrun -m prunecli`: one plan, one set of files, one voice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_making import (
    NET_SOURCE,
    QUICK,
    Bench,
    Ended,
    environment,
    files_in,
    run,
    run_apart,
)
from forking import fork_two

LAUNCHER = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "prunecli"),
]
HALVED = ["--epochs", "2", "--batch-size", "17", "--max-drop", "60pp"]
"""96 examples: five batches of 17 and one of 11. The accuracy of each round is judged, too."""

LONG = [
    *("--schedule", "iterative", "--rounds", "2", "--round-to", "1", "--epochs", "12"),
    *("--batch-size", "17", "-o", "net.onnx", "--report", "net.json"),
]

BROKEN_IN_ONE = """

def one_sided() -> nn.Module:
    import os
    if os.environ.get("RANK") == "1":
        raise KeyError("not on this machine")
    return net()
"""


def run_in_two(folder: Path, *arguments: str) -> list[Ended]:
    """What becomes of each of two processes."""
    return [forked.ended() for forked in fork_two(folder, *arguments)]


def said(ended: Ended, word: str) -> list[str]:
    return [line for line in ended.err.splitlines() if line.startswith(word)]


@pytest.mark.slow
def test_two_processes_ship_what_one_does(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = ["-o", "net.onnx", "--report", "net.json"]
    alone, shared = here / "alone", here / "shared"
    for folder in (alone, shared):
        folder.mkdir()
    monkeypatch.chdir(alone)
    one = run("prune", *bench.usual, *HALVED, *outputs)
    two = run_apart("prune", *bench.usual, *HALVED, *outputs, cwd=shared, command=LAUNCHER)
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
    both = run_in_two(
        *(here, "prune", str(bench.weights), "--model", f"{source}:one_sided"),
        *("--data", str(bench.data), *QUICK, "-o", "new/net.onnx"),
    )
    assert [(ended.code, ended.out) for ended in both] == [(2, "")] * 2
    (line,) = [line for ended in both for line in said(ended, "ERROR ")]
    assert line.startswith("ERROR process 1: ")
    assert "not on this machine" in line
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
    first, second = run_in_two(folder, "prune", *bench.usual, *LONG)
    assert (first.code, second.code) == (0, 0), first.err
    assert (second.out, second.err) == ("", "")
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
    ended = run_in_two(here, "resume", "net.run")[0]
    assert ended.code == 0, ended.err
    assert len([line for line in ended.err.splitlines() if "epochs are done" in line]) == 1
    assert "WARNING" not in ended.err
    assert came_to(here) == unbroken


@pytest.mark.slow
def test_killed_processes_go_on(bench: Bench, here: Path, unbroken: dict[str, Any]) -> None:
    """In the second round: what the first came to is shared, too. Nobody launches them."""
    both = fork_two(here, "prune", *bench.usual, *LONG)
    both[0].wait_for("round 2, epoch 5/6")
    for forked in both:
        forked.send(signal.SIGKILL)
        assert forked.ended().code == -signal.SIGKILL
    assert (here / "net.run" / "state" / "start.json").exists()
    assert "net.onnx" not in files_in(here)
    ended = run_in_two(here, "resume", "net.run")[0]
    assert ended.code == 0, ended.err
    assert "round 1: 6 of 6 epochs are done" in ended.err
    assert "round 2: " in ended.err
    assert came_to(here) == unbroken


@pytest.mark.slow
def test_a_killed_process_leaves_the_other_a_run_to_go_on_with(bench: Bench, here: Path) -> None:
    both = fork_two(here, "prune", *bench.usual, *LONG)
    both[0].wait_for("epoch 2/")
    both[1].send(signal.SIGKILL)
    found = both[0].ended()
    assert both[1].ended().code == -signal.SIGKILL
    (line,) = said(found, "ERROR ")
    assert line.startswith("ERROR another process has ended: ")
    assert "This is typically" not in line
    assert ".cc:" not in line
    assert found.err.splitlines()[-1].endswith("; to go on: prunecli resume net.run")
    ended = run("resume", "net.run")
    assert ended.code == 0, ended.err
    (warning,) = said(ended, "WARNING number")
    assert warning == (
        "WARNING number of processes was 2 and is 1: the last digits may differ from those of an "
        "unbroken run"
    )
    assert [row["epoch"] for row in came_to(here)["curve"]] == [*range(1, 13)]


@pytest.mark.slow
def test_sigterm_for_one_process_ends_both(bench: Bench, here: Path) -> None:
    both = fork_two(here, "prune", *bench.usual, *LONG)
    both[0].wait_for("epoch 2/")
    both[1].send(signal.SIGTERM)
    first, second = (forked.ended() for forked in both)
    assert (first.code, second.code) == (143, 143)
    assert (second.out, second.err) == ("", "")
    assert first.err.splitlines()[-2:] == [
        "ERROR process 1: was interrupted",
        "TIP to go on: prunecli resume net.run",
    ]
    assert (here / "net.run" / "state" / "start.json").exists()
    assert not any(".prunecli-" in name or ".tmp" in name for name in files_in(here))


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
