"""`prunecli resume`: a run that was stopped anywhere ends as one that was not: the same plan, the
same weights bit for bit, the same report apart from times."""

import contextlib
import errno
import json
import random
import re
import shutil
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_making import QUICK, Bench, Ended, files_in, run
from filelock import FileLock
from forking import fork
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prunecli.pipeline import goal, statefile
from prunecli.pipeline import journal as pipeline_journal
from prunecli.pipeline.ledger import Ledger
from prunecli.recovery import finetuning

SCHEDULES = {
    "structured": ["--epochs", "3"],
    "rounds": ["--schedule", "iterative", "--rounds", "2", "--epochs", "3", "--round-to", "1"],
    "gradual weights": [
        *("--strategy", "weight", "--weight-sparsity", "70%", "--schedule", "gradual"),
        *("--epochs", "4", "--regrow", "20%", "--every", "4"),
    ],
    "gradual units and weights": [
        *("--strategy", "structured,weight", "--weight-sparsity", "40%", "--schedule", "gradual"),
        *("--epochs", "4", "--round-to", "1", "--every", "5"),
    ],
    "dense at the end": [
        *("--strategy", "weight", "--weight-sparsity", "50%", "--dense-epochs", "1"),
        *("--epochs", "2.5", "--optimizer", "adamw"),
    ],
    "sparse before": ["--sparse-epochs", "1.5", "--epochs", "1", "--recover", "bn"],
    "until recovered": [
        *("--until-recovered", "5%", "--max-epochs", "9", "--recover", "none", "--lr", "0.1"),
        *("--target-macs", "20%", "--ema", "0.9", "--mixup", "0.2", "--cutmix", "1"),
        *("--augment", "light", "--patience", "4"),
    ],
    "without training": ["--epochs", "0"],
}


def flags(bench: Bench, schedule: str) -> list[str]:
    return [*bench.usual, *SCHEDULES[schedule], "-o", "net.onnx", "--report", "net.json"]


def results(folder: Path) -> dict[str, Any]:
    """All that a run came to, without times."""
    report = json.loads((folder / "net.json").read_text())
    assert report["status"] == "ok"
    del report["latency"]
    for row in report["rows"]:
        del row["latency_ms"], row["speedup"]
    for row in (*report["training"], *report["stages"]):
        del row["seconds"]
    program = torch.export.load(folder / "net.pt2")
    return {
        "report": report,
        "plan": (folder / "net.run" / "plan.json").read_bytes(),
        "onnx": (folder / "net.onnx").read_bytes(),
        "weights": {name: item.tolist() for name, item in program.state_dict.items()},
        "files": files_in(folder),
    }


class Strikes:
    """Ctrl-C at a given event: the start of a stage, a training step, before and after a write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen, self.at = 0, -1
        step, write, stage = finetuning.take_step, pipeline_journal.write_state, Ledger.stage

        def struck_step(*given: Any) -> float:
            self.event()
            return step(*given)

        def struck_write(path: Path, values: Any) -> None:
            self.event()
            write(path, values)
            self.event()

        @contextmanager
        def struck_stage(ledger: Ledger, name: str) -> Iterator[None]:
            with stage(ledger, name):
                self.event()
                yield

        monkeypatch.setattr(finetuning, "take_step", struck_step)
        monkeypatch.setattr(pipeline_journal, "write_state", struck_write)
        monkeypatch.setattr(Ledger, "stage", struck_stage)

    def event(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt

    def next(self, at: int) -> None:
        self.seen, self.at = 0, at


BEGUN = 4
"""Events of a run before there is anything to go on with: its first stages."""


@pytest.mark.parametrize(
    "schedule",
    [
        "structured",
        "gradual weights",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in SCHEDULES
            if name not in ("structured", "gradual weights")
        ),
    ],
)
def test_ctrl_c_anywhere(
    schedule: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strikes = Strikes(monkeypatch)
    whole, struck = (tmp_path / name for name in ("whole", "struck"))
    for folder in (whole, struck):
        folder.mkdir()
    monkeypatch.chdir(whole)
    assert run("prune", *flags(bench, schedule)).code == 0
    monkeypatch.chdir(struck)
    draw = random.Random(schedule)
    events = strikes.seen
    strikes.next(draw.randint(BEGUN + 1, events))
    ended = run("prune", *flags(bench, schedule))
    check_interrupted(ended, struck)
    # What was done is not done again, so that there are fewer events now.
    strikes.next(draw.randint(BEGUN + 1, BEGUN + 1 + (events - strikes.seen) // 2))
    check_interrupted(run("resume", "net.run"), struck)
    strikes.next(-1)
    ended = run("resume", "net.run")
    assert ended.code == 0, ended.err
    assert results(struck) == results(whole)


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows, the last of several values at one step."""
    found = EventAccumulator(str(folder / "logs")).Reload()
    return {
        tag: {item.step: item.value for item in found.Scalars(tag)}
        for tag in found.Tags()["scalars"]
    }


def test_logs_go_on_as_if_nothing_had_happened(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strikes = Strikes(monkeypatch)
    whole, struck, elsewhere = (tmp_path / name for name in ("whole", "struck", "elsewhere"))
    for folder in (whole, struck, elsewhere):
        folder.mkdir()
    arguments = [*flags(bench, "rounds"), "--log-dir", "logs"]
    monkeypatch.chdir(whole)
    assert run("prune", *arguments).code == 0
    events = strikes.seen
    monkeypatch.chdir(struck)
    strikes.next(events * 2 // 3)
    assert run("prune", *arguments).code == 130
    strikes.next(-1)
    monkeypatch.chdir(elsewhere)
    assert run("resume", struck / "net.run").code == 0
    assert files_in(elsewhere) == []
    assert scalars(struck) == scalars(whole)


def check_interrupted(ended: Ended, folder: Path) -> None:
    assert ended.code == 130
    assert ended.err.splitlines()[-2:] == [
        "INTERRUPTED no result was written",
        "TIP to go on: prunecli resume net.run",
    ]
    names = files_in(folder)
    assert {"net.run", "net.run/state", "net.run/state/start.json"} <= set(names)
    assert not {"net.onnx", "net.pt2"} & set(names)
    assert not any(".prunecli-" in name or ".tmp" in name for name in names)


def killed(folder: Path, arguments: list[str], changes: int, delay_s: float) -> bool:
    """Start a run, and kill it `delay_s` after the files of its state changed so often; whether it
    had ended by then."""
    forked = fork(folder, arguments, said_in(folder), {})
    process = forked.process
    state, seen, last = folder / "net.run" / "state", 0, None
    while process.is_alive() and seen < changes:
        with contextlib.suppress(FileNotFoundError):
            now = [(item.name, item.stat().st_mtime_ns) for item in sorted(state.glob("0*.pt"))]
            seen += now != last
            last = now
        time.sleep(0.001)
    time.sleep(delay_s)
    process.kill()
    ended = forked.ended()
    assert ended.code in (0, -signal.SIGKILL), ended.err
    return ended.code == 0


def said_in(folder: Path) -> Path:
    """Where it lies what a run in `folder` says."""
    return folder.parent / "said"


def epochs_said(folder: Path) -> tuple[int, int]:
    """Of the only training: epochs that a run found done, and the last one that it did."""
    lines = (said_in(folder) / "0.err").read_text().splitlines()
    found = [
        int(match[1]) for line in lines if (match := re.search(r": (\d+) of \d+ epochs", line))
    ]
    done = [int(match[1]) for line in lines if (match := re.match(r"epoch (\d+)/", line))]
    return max(found, default=0), max(done, default=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "kills"), [("structured", 10), ("rounds", 4), ("gradual weights", 4)]
)
def test_killed_at_random_moments(
    schedule: str, kills: int, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, struck = (tmp_path / name for name in ("whole", "struck"))
    for folder in (whole, struck):
        folder.mkdir()
    longer = [*flags(bench, schedule), "--epochs", "100", "--batch-size", "8"]
    monkeypatch.chdir(whole)
    assert run("prune", *longer).code == 0
    draw, arguments, reached = random.Random(schedule), ["prune", *longer], 0
    for number in range(kills):
        # The first time there must be something to go on with, later none need be new.
        changes = draw.randint(1 if number else 2, 5)
        over = killed(struck, arguments, changes, draw.uniform(0.0, 0.1))
        assert not over, "there were enough epochs for all kills"
        found, done = epochs_said(struck)
        if schedule == "structured":
            assert found >= reached or not found, "no epoch that was reported is lost"
            reached = max(reached, found, done)
        arguments = ["resume", "net.run"]
    monkeypatch.chdir(struck)
    ended = run("resume", "net.run")
    assert ended.code == 0, ended.err
    assert results(struck) == results(whole)


@dataclass(frozen=True)
class Unfinished:
    """A run that was interrupted in the second of three epochs.

    Attributes:
        given: folder of what it read.
        flags: what it was started with.
    """

    given: Path
    run: Path
    flags: list[str]

    @property
    def state(self) -> Path:
        return self.run / "state"

    def entry(self, kind: str) -> Path:
        return next(self.state.glob(f"*-{kind}.pt"))


@pytest.fixture(scope="session")
def pristine(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, list[str]]:
    """A folder with such a run, a copy of it, and how it was started."""
    folder = tmp_path_factory.mktemp("unfinished")
    here, copy = folder / "here", folder / "copy"
    shutil.copytree(bench.folder, here / "given")
    asked = ["given/weights.pt", "--model", "given/net.py:net", "--data", "given/data.npz"]
    asked += [*QUICK, "--epochs", "3", "-o", "net.onnx"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        strike_step(patch, 8)
        check_interrupted(run("prune", *asked), here)
    shutil.copytree(here, copy)
    return here, copy, asked


@pytest.fixture
def unfinished(
    pristine: tuple[Path, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> Unfinished:
    here, copy, asked = pristine
    shutil.rmtree(here)
    shutil.copytree(copy, here)
    monkeypatch.chdir(here)
    return Unfinished(here / "given", Path("net.run"), asked)


def strike_step(patch: pytest.MonkeyPatch, at: int) -> None:
    steps: list[None] = []
    real = finetuning.take_step

    def struck(*given: Any) -> float:
        steps.append(None)
        if len(steps) == at:
            raise KeyboardInterrupt
        return real(*given)

    patch.setattr(finetuning, "take_step", struck)


def refused(*arguments: str) -> list[str]:
    """The two lines of a run that ends at once."""
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, ""), ended.err
    return [line for line in ended.err.splitlines() if line.startswith(("ERROR", "TIP"))]


def test_nothing_to_go_on_with(unfinished: Unfinished) -> None:
    assert refused("resume", "elsewhere.run") == [
        "ERROR run elsewhere.run: the folder that an unfinished run left is needed, got no such "
        "folder",
        "TIP give the folder beside the ONNX file: model.run for model.onnx",
    ]
    Path("empty.run").mkdir()
    assert refused("resume", "empty.run") == [
        "ERROR run empty.run: ended before there was anything to go on with, got no "
        "state/start.json",
        "TIP start it again: prunecli prune",
    ]
    assert run("resume", "net.run").code == 0
    assert not unfinished.state.exists()
    assert refused("resume", "net.run") == [
        "ERROR run net.run: has ended, there is nothing to go on with",
        "TIP see what came out: prunecli inspect net.run",
    ]


def other_weights(given: Path) -> None:
    weights = torch.load(given / "weights.pt")
    weights["0.weight"] += 1
    torch.save(weights, given / "weights.pt")


def other_data(given: Path) -> None:
    with np.load(given / "data.npz") as found:
        arrays = dict(found)
    arrays["y_train"] = arrays["y_train"][::-1]
    np.savez(given / "data.npz", **arrays)


def other_code(given: Path) -> None:
    source = given / "net.py"
    source.write_text(source.read_text().replace("nn.ReLU()", "nn.SiLU()"))


SAME = "must be the one that the run began with, got another"


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            other_weights,
            [f"the checkpoint {SAME}", "TIP put the original back, or prune again"],
        ),
        (
            other_data,
            [f"the data {SAME}", "TIP put the data back as it was, or prune again"],
        ),
        (
            other_code,
            [f"the model {SAME}", "TIP put its code back as it was (--model), or prune again"],
        ),
    ],
    ids=["checkpoint", "data", "code"],
)
def test_something_else_than_it_began_with_is_refused(
    change: Callable[[Path], None], lines: list[str], unfinished: Unfinished
) -> None:
    before = files_in(unfinished.run)
    change(unfinished.given)
    assert refused("resume", "net.run") == [f"ERROR resume net.run: {lines[0]}", lines[1]]
    assert files_in(unfinished.run) == before, "nothing is lost"


@pytest.mark.parametrize(
    ("gone", "error"),
    [
        ("data.npz", "data given/data.npz: no such file or folder"),
        ("weights.pt", "checkpoint given/weights.pt: "),
        ("net.py", "--model given/net.py:net: "),
    ],
)
def test_what_is_gone_is_said(gone: str, error: str, unfinished: Unfinished) -> None:
    before = files_in(unfinished.run)
    (unfinished.given / gone).unlink()
    assert refused("resume", "net.run")[0].startswith(f"ERROR {error}")
    assert files_in(unfinished.run) == before, "nothing is lost"


class Bomb:
    """Leaves a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def with_code(path: Path) -> None:
    torch.save({"run": Bomb()}, path)


def of_another_form(path: Path) -> None:
    values = torch.load(path)
    torch.save({**values, "values": {"weights": 1}}, path)


@pytest.mark.parametrize("kind", ["plan", "training"])
@pytest.mark.parametrize("damage", [cut_off, flipped, emptied, with_code, of_another_form])
def test_a_damaged_file_is_one_line(
    damage: Callable[[Path], None], kind: str, unfinished: Unfinished
) -> None:
    damage(unfinished.entry(kind))
    error, tip = refused("resume", "net.run")
    if damage is of_another_form and kind == "training":
        assert error.startswith("ERROR saved training: must fit what is trained, got KeyError")
    else:
        assert error == f"ERROR state {unfinished.entry(kind)}: is damaged"
    assert tip == "TIP prune again: a new run starts over"
    assert not Path("executed").exists()


def test_a_file_that_is_missing_is_said(unfinished: Unfinished) -> None:
    unfinished.entry("plan").unlink()
    [error, _] = refused("resume", "net.run")
    assert error == "ERROR state net.run/state: files must be numbered from 1 on, got [1, 3, 4, 5]"


def test_another_configuration_than_it_began_with_is_refused(unfinished: Unfinished) -> None:
    start = unfinished.state / "start.json"
    document = json.loads(start.read_text())
    document["config"]["train"]["epochs"] = 7
    start.write_text(json.dumps(document))
    error, _ = refused("resume", "net.run")
    entry = sorted(unfinished.state.glob("*.pt"))[0]
    assert error == (
        f"ERROR state {entry}: must belong to the run in start.json, got that of another"
    )
    document["config"]["train"]["epochs"] = -7
    start.write_text(json.dumps(document))
    assert "--epochs: 0 or more is needed, got -7" in refused("resume", "net.run")[0]
    document["config"]["train"].update(epochs=3, lr="abc")
    start.write_text(json.dumps(document))
    assert refused("resume", "net.run")[0] == f"ERROR state {start}: is damaged"
    document["config"]["seeds"] = 1
    start.write_text(json.dumps(document))
    assert refused("resume", "net.run")[0] == f"ERROR state {start}: is damaged"
    document["version"] = 99
    start.write_text(json.dumps(document))
    assert refused("resume", "net.run")[0] == f"ERROR state {start}: version 2 is needed, got 99"
    for text in ("{", "[]", "[" * 100_000):
        start.write_text(text)
        assert refused("resume", "net.run")[0].startswith(f"ERROR state {start}: cannot be read: ")


def test_a_folder_names_no_function_of_any_package(unfinished: Unfinished) -> None:
    start = unfinished.state / "start.json"
    document = json.loads(start.read_text())
    document["config"]["model"].update(factory="os:system", args={"command": "touch executed"})
    start.write_text(json.dumps(document))
    assert refused("resume", "net.run") == [
        "ERROR run net.run: code of installed packages must be named by you, got os:system from "
        "the folder",
        "TIP if this is what the run began with, say so: --model os:system",
    ]
    assert not Path("executed").exists()


def test_the_code_is_named_before_it_runs(unfinished: Unfinished) -> None:
    (unfinished.given / "net.py").write_text("raise KeyError")
    ended = run("resume", "net.run")
    assert ended.code == 2
    lines = ended.err.splitlines()
    said = lines.index("runs the code of: --model given/net.py:net")
    assert said < next(place for place, line in enumerate(lines) if "KeyError" in line)


def test_a_task_of_ones_own_from_another_folder(
    unfinished: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        from torch.nn import functional as F

        class Own:
            higher_is_better = False

            def loss(self, outputs, targets):
                return F.cross_entropy(outputs, targets)

            metric = loss
    """
    Path("own.py").write_text(textwrap.dedent(code))
    flags = [*unfinished.flags, "--task", "own.py:Own", "-o", "own.onnx"]
    with monkeypatch.context() as patch:
        strike_step(patch, 8)
        assert run("prune", *flags).code == 130
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    ended = run("resume", "../own.run")
    assert ended.code == 0, ended.err
    assert Path("../own.onnx").is_file()


def test_two_processes_do_not_work_on_one_run(unfinished: Unfinished) -> None:
    before = {path: path.read_bytes() for path in unfinished.state.iterdir()}
    with FileLock(unfinished.state / "lock"):
        for arguments in (["resume", "net.run"], ["prune", *unfinished.flags]):
            assert refused(*arguments) == [
                "ERROR run net.run: another process is working on it",
                "TIP wait until it has ended, or choose another name with -o",
            ]
    assert {path: path.read_bytes() for path in unfinished.state.iterdir()} == before


def test_pruning_anew_starts_over_and_says_so(unfinished: Unfinished) -> None:
    ended = run("prune", *unfinished.flags, "-q", "--json")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "WARNING the unfinished run in net.run starts over; to go on with it: prunecli resume "
        "net.run"
    ]
    assert len(json.loads(ended.out)["training"]) == 3
    assert json.loads(ended.out)["warnings"] == []
    assert files_in(unfinished.run) == ["plan.json", "run.json"]


def test_a_new_run_that_cannot_begin_leaves_the_unfinished_one(unfinished: Unfinished) -> None:
    before = files_in(unfinished.run)
    weights = unfinished.given / "weights.pt"
    weights.rename(weights.with_suffix(".away"))
    assert run("prune", *unfinished.flags).code == 2
    assert files_in(unfinished.run) == before


@pytest.mark.slow
def test_an_earlier_result_stays_until_the_new_one_is_there(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*bench.usual, "-o", "net.onnx"]
    assert run("prune", *arguments, "--epochs", "0").code == 0
    kept = ["net.onnx", "net.pt2", "net.run/plan.json", "net.run/run.json"]
    before = {name: (here / name).read_bytes() for name in kept}
    with monkeypatch.context() as patch:
        strike_step(patch, 6)
        assert run("prune", *arguments, "--target-macs", "70%", "--epochs", "2").code == 130
    assert {name: (here / name).read_bytes() for name in kept} == before
    assert run("resume", "net.run").code == 0
    assert files_in(here) == ["net.onnx", "net.pt2", "net.run", *kept[2:]]
    assert all((here / name).read_bytes() != content for name, content in before.items())


@pytest.mark.slow
def test_keep_run_keeps_what_it_would_have_needed(unfinished: Unfinished) -> None:
    assert run("resume", "net.run", "--keep-run").code == 0
    assert unfinished.entry("training").is_file()
    assert refused("resume", "net.run")[0] == (
        "ERROR run net.run: has ended, there is nothing to go on with"
    )
    assert run("inspect", "net.run").code == 0
    ended = run("prune", *unfinished.flags, "-q")
    assert (ended.code, ended.err) == (0, ""), "nothing unfinished was there"
    assert files_in(unfinished.run) == ["plan.json", "run.json"]
    assert refused("prune", *unfinished.flags, "--keep-run", "--dry-run") == [
        "ERROR --keep-run: a dry run writes nothing that could be kept, got --dry-run",
        "TIP leave one of them out",
    ]


@pytest.mark.slow
def test_from_another_folder_and_after_the_folder_was_moved(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = here / "given"
    shutil.copytree(bench.folder, given)
    monkeypatch.chdir(given)
    relative = ["weights.pt", "--model", "net.py:net", "--data", "data.npz", *QUICK]
    whole = run("prune", *relative, "--epochs", "3", "--json", "-o", here / "whole.onnx")
    with monkeypatch.context() as patch:
        strike_step(patch, 8)
        ended = run("prune", *relative, "--epochs", "3", "-o", "net.onnx", "--report", "net.json")
    assert ended.code == 130
    (given / "net.run").rename(here / "other name.run")
    monkeypatch.chdir(here)
    ended = run("resume", "other name.run", "--json")
    assert ended.code == 0, ended.err
    assert (here / "other name.onnx").is_file()
    assert not (given / "net.onnx").exists()
    found, wanted = json.loads(ended.out), json.loads(whole.out)
    assert [row["score"] for row in found["rows"]] == [row["score"] for row in wanted["rows"]]
    assert found["steps"] == wanted["steps"]
    assert (given / "net.json").is_file(), "where the run wanted its report"
    programs = [torch.export.load(here / f"{name}.pt2") for name in ("whole", "other name")]
    one, other = (program.state_dict for program in programs)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_that_got_another_kind_of_name(unfinished: Unfinished) -> None:
    Path("net.run").rename("backup")
    assert refused("resume", "backup") == [
        "ERROR run backup: the folder's name must end in .run, got backup",
        "TIP it was net.run: give it that name again",
    ]


def test_inside_the_folder_itself(unfinished: Unfinished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("net.run")
    ended = run("resume", ".", "-q")
    assert (ended.code, ended.err) == (0, "")
    assert Path("../net.onnx").is_file()


@pytest.mark.slow
def test_a_full_disk_loses_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "whole", tmp_path / "struck"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    assert run("prune", *flags(bench, "structured")).code == 0
    monkeypatch.chdir(folders[1])
    real, writes = torch.save, []

    def full(values: Any, stream: Any) -> None:
        writes.append(values)
        if len(writes) == 6:
            stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(values, stream)

    with monkeypatch.context() as patch:
        patch.setattr(statefile.torch, "save", full)
        ended = run("prune", *flags(bench, "structured"))
    assert ended.code == 2
    assert ended.err.splitlines()[-2:] == [
        "ERROR net.run/state/0005-training.pt cannot be written: No space left on device",
        "TIP choose another place with -o or --report; to go on: prunecli resume net.run",
    ]
    ended = run("resume", "net.run")
    assert ended.code == 0, ended.err
    assert "fine-tuning: 1 of 3 epochs are done" in ended.err.splitlines()
    assert results(folders[1]) == results(folders[0])


@pytest.mark.slow
def test_restoring_goes_on_too(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--strategy", "weight", "--weight-sparsity", "60%", "--epochs", "1", "-o", "a.onnx"]
    back = ["restore", "a.run", "--layer", "4", "--epochs", "3", "-o", "net.onnx"]
    back += ["--report", "net.json"]
    first, whole, struck = (tmp_path / name for name in ("first", "whole", "struck"))
    first.mkdir()
    monkeypatch.chdir(first)
    assert run("prune", *bench.usual, *asked).code == 0
    shutil.copytree(first, whole)
    shutil.copytree(first, struck)
    monkeypatch.chdir(whole)
    assert run(*back).code == 0
    monkeypatch.chdir(struck)
    with monkeypatch.context() as patch:
        strike_step(patch, 8)
        ended = run(*back)
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == "TIP to go on: prunecli resume net.run"
    program = (struck / "a.pt2").read_bytes()
    shutil.copy(bench.program, struck / "a.pt2")
    assert refused("resume", "net.run") == [
        f"ERROR resume net.run: the run {SAME}",
        "TIP put the pruned network back (.pt2), or prune again",
    ]
    (struck / "a.pt2").write_bytes(program)
    ended = run("resume", "net.run")
    assert ended.code == 0, ended.err
    assert "fine-tuning: 2 of 3 epochs are done" in ended.err.splitlines()
    assert results(struck) == results(whole)


@pytest.mark.slow
def test_rounds_that_are_taken_back(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--schedule", "iterative", "--rounds", "2", "--max-drop", "1pp", "--round-to", "1"]
    arguments = [*bench.usual, *asked, "--epochs", "4", "-o", "net.onnx", "--report", "net.json"]
    whole, struck = (tmp_path / name for name in ("whole", "struck"))
    judged: list[float] = []

    def scripted(*_: object) -> float:
        judged.append([0.95, 0.94, 0.80, 0.945, 0.945][len(judged)])
        return judged[-1]

    monkeypatch.setattr(goal, "judged", scripted)
    for folder in (whole, struck):
        folder.mkdir()
    monkeypatch.chdir(whole)
    assert run("prune", *arguments).code == 0
    assert len(judged) == 5
    judged.clear()
    monkeypatch.chdir(struck)
    with monkeypatch.context() as patch:
        strike_step(patch, 9)
        assert run("prune", *arguments).code == 130
    assert len(judged) == 2, "in the round that is taken back"
    ended = run("resume", "net.run")
    assert ended.code == 0, ended.err
    assert len(judged) == 5, "what was judged is not judged again"
    assert results(struck) == results(whole)
