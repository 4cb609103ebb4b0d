"""`torchrun -m prunecli`: one plan, one set of files, one voice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_making import NET_SOURCE, QUICK, Bench, Ended, environment, files_in, run, run_apart

LAUNCHER = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "prunecli"),
]
HALVED = ["--epochs", "2", "--batch-size", "17", "--max-drop", "60pp"]
"""96 examples: five batches of 17 and one of 11. The accuracy of each round is judged, too."""

BROKEN_IN_ONE = """

def one_sided() -> nn.Module:
    import os
    if os.environ.get("RANK") == "1":
        raise KeyError("not on this machine")
    return net()
"""


def run_in_two(*arguments: str | Path, cwd: Path) -> Ended:
    done = subprocess.run(
        [*LAUNCHER, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


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


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(bench: Bench, here: Path) -> None:
    process = subprocess.Popen(
        [*LAUNCHER, "prune", *bench.usual, "--epochs", "100000", "-o", "new/net.onnx"],
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=60)
    assert out == ""
    assert err.splitlines().count("INTERRUPTED nothing was written") == 1
    assert "ERROR " not in err
    assert files_in(here) == []


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
