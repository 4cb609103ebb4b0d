"""Ctrl-C, SIGTERM and failures midway leave no file that looks good; see `test_cli_resume` for how
they are gone on from."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_making import PRUNECLI, Bench, environment, files_in, run

from prunecli.errors import PrunecliError, TrainingError
from prunecli.pipeline import cutting
from prunecli.pipeline import run as pipeline_run
from prunecli.pipeline import training as pipeline_training
from prunecli.pipeline.ledger import Ledger
from prunecli.report.record import Report


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_signal_in_the_middle_of_fine_tuning(
    sent: signal.Signals, code: int, bench: Bench, here: Path
) -> None:
    where = ["-o", "new/net.onnx", "--report", "net.json"]
    process = subprocess.Popen(
        [*PRUNECLI, "prune", *bench.usual, "--epochs", "100000", *where],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background inherit that Ctrl-C is ignored; a user's run does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        assert any((here / "new").iterdir()), "the temporary folder is there now"
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert err.splitlines()[-2:] == [
        "INTERRUPTED no result was written",
        "TIP to go on: prunecli resume new/net.run",
    ]
    assert "Traceback" not in err
    assert {Path(name).parts[0] for name in files_in(here)} == {"net.json", "new"}
    assert sorted(path.name for path in (here / "new").iterdir()) == ["net.run"]
    assert [path.name for path in (here / "new" / "net.run").iterdir()] == ["state"]
    assert json.loads((here / "net.json").read_text())["status"] == "interrupted: fine-tune"


def _raise(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_failure_midway_leaves_only_a_report_of_what_was_known(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = TrainingError("fine-tuning: the loss must stay finite, got nan", "lower --lr")
    monkeypatch.setattr(pipeline_training, "finetune", _raise(error))
    ended = run("prune", *bench.usual, "-o", "new/net.onnx", "--report", "net.json")
    assert ended.code == 1
    assert ended.err.splitlines()[-2:] == [f"ERROR {error.message}", "TIP lower --lr"]
    assert files_in(here) == ["net.json"]
    report = json.loads((here / "net.json").read_text())
    assert report["status"] == f"failed: fine-tune: {error.message}"
    assert report["stages"][-1]["name"] == "score pruned"
    assert report["achieved"] is not None
    assert report["groups"]


def test_bug_midway_is_not_hidden_and_the_run_can_go_on(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "compact", _raise(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug") as crash:
        run("prune", bench.program, "-o", "new/net.onnx", "--report", "net.json")
    assert crash.value.__notes__ == ["to go on: prunecli resume new/net.run"]
    status = json.loads((here / "net.json").read_text())["status"]
    assert status == "crashed: compact: ZeroDivisionError"
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert run("resume", "new/net.run", "-q").code == 0
    assert files_in(here / "new") == [
        *("net.onnx", "net.pt2", "net.run", "net.run/plan.json", "net.run/run.json")
    ]


def test_failure_while_renaming_takes_the_other_files_back(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline_run.rename_together

    def with_a_missing_one(renames: list[tuple[Path, Path]]) -> None:
        renames[-1][0].unlink()
        real(renames)

    monkeypatch.setattr(pipeline_run, "rename_together", with_a_missing_one)
    ended = run("prune", bench.program, "--latency-seconds", "0.01", "-o", "new/net.onnx")
    assert ended.code == 2
    assert ended.err.splitlines()[-2:] == [
        "ERROR new/net.onnx cannot be written: No such file or directory",
        "TIP choose another place with -o or --report; to go on: prunecli resume new/net.run",
    ]
    assert [path.name for path in (here / "new").iterdir()] == ["net.run"]
    assert [path.name for path in (here / "new" / "net.run").iterdir()] == ["state"]


def test_report_on_disk_is_current_before_and_after_every_stage(here: Path) -> None:
    ledger = Ledger(Report("prunecli prune"), here / "net.json")

    def on_disk() -> tuple[str, list[str]]:
        found = json.loads((here / "net.json").read_text())
        return found["status"], [stage["name"] for stage in found["stages"]]

    with ledger.stage("load"):
        assert on_disk() == ("running: load", [])
    assert on_disk() == ("running: load", ["load"])
    with pytest.raises(PrunecliError), ledger.stage("plan"):
        raise PrunecliError("no room")
    assert on_disk() == ("failed: plan: no room", ["load"])


def test_ledger_of_a_dry_run_writes_nothing(here: Path) -> None:
    with Ledger(Report("prunecli prune", dry_run=True), here / "net.json").stage("load"):
        pass
    assert files_in(here) == []
