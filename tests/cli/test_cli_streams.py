"""What goes to stdout and stderr, in processes of their own; and that help needs no torch."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from cli_making import PRUNECLI, QUICK, Bench, environment, files_in, run, run_apart

from prunecli.cli import app

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]

HEAVY = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "datasets",
    "pyarrow",
    "PIL",
    "kornia",
    "torchmetrics",
    "safetensors",
)


def test_program_without_data_in_one_quiet_line(bench: Bench, here: Path) -> None:
    ended = run_apart("prune", bench.program, "-q", *QUICK, cwd=here)
    assert ended.code == 0
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0].startswith("network ")
    assert "accuracy" not in lines[0]
    assert "no --data: nothing was trained, accuracy is not shown" in lines
    assert files_in(here) == [
        "program-pruned.onnx",
        "program-pruned.pt2",
        "program-pruned.run",
        "program-pruned.run/plan.json",
        "program-pruned.run/run.json",
    ]


def test_json_stands_alone_on_stdout_even_when_the_model_prints(bench: Bench, here: Path) -> None:
    chatty = bench.net.replace(":net", ":chatty")
    ended = run_apart(
        *("prune", bench.weights, "--model", chatty, "--input-shape", "1,3,8,8", *QUICK),
        *("-o", "net.onnx", "--json", "--report", "net.json"),
        cwd=here,
    )
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found == json.loads((here / "net.json").read_text())
    assert found["schema_version"] == 2
    assert "building the network" in ended.err.splitlines()
    assert "Warning" not in ended.err


def test_warnings_and_errors_are_said_quietly_too(bench: Bench, here: Path) -> None:
    ended = run("prune", bench.program, "-q", "--dry-run", "--target-macs", "1%")
    assert ended.code == 2
    assert [line.split()[0] for line in ended.err.splitlines()] == ["ERROR", "TIP"]


def test_terminal_gets_the_same_table_drawn(bench: Bench, here: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PRUNECLI, "prune", str(bench.program), *QUICK, "-o", "net.onnx"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm", COLUMNS="200", LINES="50"),
    ) as process:
        os.close(theirs)
        text = _read_all(ours)
    assert process.returncode == 0, text
    for word in ("size on disk", "speed-up (10-90%)", "original", "pruned", "wrote onnx: net.onnx"):
        assert word in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is visible again"


def _read_all(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # what Linux says when the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Commands"),
        *(([name, "--help"], 0, f"Usage: prunecli {name}") for name in COMMANDS),
        ([], 0, "Commands"),
        (["--version"], 0, "prunecli 0."),
        (["prune", "net.pt", "--target-macs", "abc"], 2, ""),
        (["prune", "--epochs"], 2, ""),
        (["inspect", "net.pt", "--input-shape", "1,x"], 2, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_help_and_wrong_flags_are_answered_without_heavy_imports(
    arguments: list[str], code: int, said: str, here: Path
) -> None:
    script = (
        "import sys, prunecli.cli\n"
        f"sys.argv = ['prunecli', *{arguments!r}]\n"
        "try:\n"
        "    prunecli.cli.main()\n"
        "except SystemExit as end:\n"
        f"    assert (end.code or 0) == {code}, end.code\n"
        f"loaded = sorted(set({HEAVY!r}) & sys.modules.keys())\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(COLUMNS="200"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_help_says_what_stays_and_what_goes() -> None:
    ended = run("prune", "--help")
    text = " ".join(ended.out.split())
    assert ended.code == 0
    assert "Targets say what is left (--target-macs 50% keeps at most half)" in text
    assert "Exit codes: 0 good, 1 the result failed verification or" in text
    assert "2 wrong input." in text


def test_help_shows_inputs_as_they_are_written() -> None:
    text = " ".join(run("inspect", "--help").out.replace("│", " ").split())
    assert "'input_ids=int64[batch,seq]'" in text
    assert "Hugging Face folder" in text
