"""When training ends, and what is seen of it: patience, recovery, averages, logs."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_making import Bench, Ended, files_in, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prunecli.pipeline import board, goal, rounds, until
from prunecli.pipeline.job import Job
from prunecli.pipeline.state import State
from prunecli.recovery import finetuning


def judged(monkeypatch: pytest.MonkeyPatch, scores: Iterable[float]) -> None:
    """Validation scores, the original's first."""
    left = iter(scores)

    def judge(_job: Job, _state: State) -> float:
        return next(left)

    for module in (goal, rounds, until):
        monkeypatch.setattr(module, "validation_score", judge)


def report_of(ended: Ended) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(ended.out)
    return found


@pytest.mark.parametrize(
    ("scores", "flags", "epochs", "code", "said"),
    [
        pytest.param(
            [0.44, 0.41],  # 0.44 - 0.03 is above 0.41 in floats
            "--until-recovered 3pp",
            [("fine-tuning", 1)],
            0,
            "recovered: validation accuracy 41.00% after 1 epoch, at least 41.00% is needed",
            id="at once",
        ),
        pytest.param(
            [0.95, 0.9, 0.91, 0.94],
            "--until-recovered 1pp",
            [("fine-tuning", 1), ("block 2", 1), ("block 3", 1)],
            0,
            "recovered: validation accuracy 94.00% after 3 epochs, at least 94.00% is needed",
            id="after three blocks",
        ),
        pytest.param(
            [0.95, 0.9, 0.91, 0.92],
            "--until-recovered 1pp --epochs 2 --max-epochs 4.5",
            [("fine-tuning", 2), ("block 2", 2), ("block 3", 1)],
            1,
            "--until-recovered 1pp: validation accuracy 92.00% after 4.5 epochs, at least 94.00% "
            "is needed",
            id="never",
        ),
        pytest.param(
            [0.95, 0.95, 0.5, 0.9, 0.95],
            "--until-recovered 0pp --schedule iterative --rounds 2 --epochs 2 --max-drop 50pp",
            [("round 1", 1), ("round 2", 1), ("block 2", 2)],
            0,
            "recovered: validation accuracy 95.00% after 4 epochs, at least 95.00% is needed",
            id="after rounds that were judged too",
        ),
        pytest.param(
            [0.95, 0.9, 0.95],
            "--until-recovered 1pp --schedule gradual",
            [("gradual pruning", 1), ("fine-tuning", 1), ("block 2", 1)],
            0,
            "recovered: validation accuracy 95.00% after 2 epochs, at least 94.00% is needed",
            id="after gradual pruning",
        ),
        pytest.param(
            [0.9, 0.72, 0.855],
            "--until-recovered 5%",
            [("fine-tuning", 1), ("block 2", 1)],
            0,
            "recovered: validation accuracy 85.50% after 2 epochs, at least 85.50% is needed",
            id="a share of the accuracy",
        ),
    ],
)
def test_training_goes_on_until_the_network_has_recovered(
    monkeypatch: pytest.MonkeyPatch,
    bench: Bench,
    here: Path,
    scores: list[float],
    flags: str,
    epochs: list[tuple[str, int]],
    code: int,
    said: str,
) -> None:
    if "--max-drop" in flags:
        scores = [scores[0], *scores]  # both flags look at the original
    judged(monkeypatch, scores)
    ended = run("prune", *bench.usual, *flags.split(), "--json", "-o", here / "a.onnx")
    assert ended.code == code, ended.err
    report = report_of(ended)
    phases = [row["phase"] for row in report["training"]]
    assert [(name, phases.count(name)) for name in dict.fromkeys(phases)] == epochs
    assert said in (report["missed"] if code else report["notes"])
    assert bool(report["missed"]) == bool(code)
    assert (here / "a.onnx").is_file()


def test_every_block_has_the_schedule_from_its_start_and_another_order(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, here: Path
) -> None:
    judged(monkeypatch, [0.95, 0.1, 0.1, 0.95])
    flags = "--until-recovered 1pp --lr-schedule linear --lr 1e-9 --max-epochs 3"
    ended = run("prune", *bench.usual, *flags.split(), "--json", "-o", here / "a.onnx")
    rows = report_of(ended)["training"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert len({row["lr"] for row in rows}) == 1
    # At this rate the weights stay; what differs between epochs are batches and augmentation.
    assert len({row["train_loss"] for row in rows}) == 3


def test_what_never_recovers_is_told_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, here: Path
) -> None:
    judged(monkeypatch, [0.95, 0.5, 0.6])
    flags = "--until-recovered 0.3pp --max-epochs 2"
    ended = run("prune", *bench.usual, *flags.split(), "-o", here / "a.onnx")
    assert ended.code == 1
    words = "validation accuracy 60.00% after 2 epochs, at least 94.70% is needed"
    assert f"\nFAILED: --until-recovered 0.3pp: {words}\n" in ended.out
    assert "\nlearning curve: epoch 1 loss " in ended.out
    assert files_in(here) == ["a.onnx", "a.pt2", "a.run", "a.run/plan.json", "a.run/run.json"]


def test_patience_ends_blocks_that_bring_nothing(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, here: Path
) -> None:
    judged(monkeypatch, [0.95, *[0.5] * 9])
    monkeypatch.setattr(finetuning, "_score", lambda *_: 0.5)
    flags = "--until-recovered 1pp --max-epochs 9 --patience 2"
    ended = run("prune", *bench.usual, *flags.split(), "--json", "-o", here / "a.onnx")
    assert ended.code == 1
    # The first of these blocks is what the two others are not better than.
    phases = [row["phase"] for row in report_of(ended)["training"]]
    assert phases == ["fine-tuning", "block 2", "block 3", "block 4"]


@pytest.fixture(scope="session")
def numbers(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the bench with three numbers each to predict."""
    path = tmp_path_factory.mktemp("numbers") / "numbers.npz"
    stored = np.load(bench.data)
    means = stored["x_train"].mean((2, 3)) / 255, stored["x_test"].mean((2, 3)) / 255
    y_train, y_test = (item.astype(np.float32) for item in means)
    np.savez(
        path, x_train=stored["x_train"], y_train=y_train, x_test=stored["x_test"], y_test=y_test
    )
    return path


@pytest.mark.parametrize(
    ("scores", "code", "words"),
    [
        ([0.4, 0.43, 0.42], 0, "recovered: validation MSE 0.42 after 2 epochs, at most 0.42"),
        ([0.4, 0.43, 0.4201], 1, "--until-recovered 5%: validation MSE 0.4201 after 2 epochs"),
    ],
)
def test_errors_are_recovered_within_a_share(
    monkeypatch: pytest.MonkeyPatch,
    bench: Bench,
    numbers: Path,
    here: Path,
    scores: list[float],
    code: int,
    words: str,
) -> None:
    judged(monkeypatch, scores)
    ended = run(
        *("prune", bench.weights, "--model", bench.net, "--data", numbers, "--lr", "1e-4"),
        *("--until-recovered", "5%", "--max-epochs", "2", "--latency-seconds", "0.01"),
        *("--json", "-o", here / "a.onnx"),
    )
    assert ended.code == code, ended.err
    report = report_of(ended)
    assert any(text.startswith(words) for text in (*report["missed"], *report["notes"]))


def test_points_of_an_error_are_refused(bench: Bench, numbers: Path, here: Path) -> None:
    line = ("--data", numbers, "--until-recovered", "1pp", "--dry-run")
    ended = run("prune", bench.weights, "--model", bench.net, *line)
    assert ended.code == 2
    assert ended.err.splitlines()[-2:] == [
        "ERROR --until-recovered: counts points of a percentage, got MSE, a number",
        "TIP give it as a share of what the original scores: --until-recovered 5%",
    ]


@pytest.mark.parametrize("flag", ["--until-recovered", "--max-drop"])
def test_nothing_is_a_share_of_no_error(flag: str, bench: Bench, here: Path) -> None:
    line = ("--task", "match", flag, "5%", "--dry-run")
    ended = run("prune", bench.weights, "--model", bench.net, "--data", bench.data, *line)
    assert ended.code == 2
    said = "goes by the original's score, got --task match, where that is an error of 0"
    assert f"ERROR {flag}: {said}" in ended.err.splitlines()


def test_the_split_that_counts_is_validation(bench: Bench, here: Path) -> None:
    """Nothing scripted: what is said to be reached is what the table shows."""
    flags = "--until-recovered 100pp --recover none --target-macs 30%"
    ended = run("prune", *bench.usual, *flags.split(), "--json", "-o", here / "a.onnx")
    assert ended.code == 0, ended.err
    report = report_of(ended)
    (said,) = [note for note in report["notes"] if note.startswith("recovered: ")]
    shown = report["rows"][-1]["score"]
    assert said.startswith(f"recovered: validation accuracy {100 * shown:.2f}% after 1 epoch")


def test_averages_ship(bench: Bench, here: Path) -> None:
    """What is in the file is another network than without, with masks that hold."""
    found = {}
    for name, flags in (("a", ""), ("b", "--ema 0.9")):
        line = f"--strategy weight --weight-sparsity 60% --lr 0.02 --epochs 2 {flags}"
        ended = run("prune", *bench.usual, *line.split(), "--json", "-o", here / f"{name}.onnx")
        assert ended.code == 0, ended.err
        found[name] = dict(torch.export.load(here / f"{name}.pt2").named_parameters())
    assert any(not torch.equal(found["a"][name], found["b"][name]) for name in found["a"])


def test_a_run_with_all_of_it_can_be_restored(bench: Bench, here: Path) -> None:
    flags = (
        "--ema 0.9 --mixup 0.2 --augment light --epochs 2 --patience 1 --until-recovered 100pp "
        "--log-dir logs"
    )
    ended = run("prune", *bench.usual, *flags.split(), "-o", here / "a.onnx")
    assert ended.code == 0, ended.err
    logged = files_in(here / "logs")
    for epochs in ("0", "1"):
        line = ("--layer", "*", "--epochs", epochs, "--json", "-o", here / "b.onnx")
        again = run("restore", here / "a.run", *line)
        assert again.code == 0, again.err
        notes = report_of(again)["notes"]
        assert any("averaged" in note for note in notes) == (epochs == "1")
    assert files_in(here / "logs") == logged


def events(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[str]]]:
    """Scalars as (step, value), and texts, in the order of the files."""
    scalars: dict[str, list[tuple[int, float]]] = {}
    texts: dict[str, list[str]] = {}
    files = sorted(folder.iterdir(), key=lambda path: int(path.name.rpartition(".")[2]))
    for file in files:
        found = EventAccumulator(str(file))
        found.Reload()
        for tag in found.Tags()["scalars"]:
            scalars.setdefault(tag, []).extend((e.step, e.value) for e in found.Scalars(tag))
        for tag in found.Tags()["tensors"]:
            for event in found.Tensors(tag):
                texts.setdefault(tag, []).append(event.tensor_proto.string_val[0].decode())
    return scalars, texts


def test_a_log_tells_how_training_went(bench: Bench, here: Path) -> None:
    """Three rounds have an epoch each, and one axis of steps."""
    flags = "--schedule iterative --epochs 3 --log-dir deep/logs --seed 3"
    ended = run("prune", *bench.usual, *flags.split(), "--json", "-o", here / "a.onnx")
    assert ended.code == 0, ended.err
    rows = report_of(ended)["training"]
    scalars, texts = events(here / "deep" / "logs")
    steps = [step for step, _ in scalars["train/loss"]]
    assert steps == [step for step, _ in scalars["train/rate"]] == list(range(len(steps)))
    per_epoch = len(steps) // 3
    assert [step for step, _ in scalars["train/loss of the epoch"]] == [
        per_epoch * number for number in (1, 2, 3)
    ]
    assert [value for _, value in scalars["train/loss of the epoch"]] == pytest.approx(
        [row["train_loss"] for row in rows]
    )
    assert [value for _, value in scalars["choose/accuracy"][1::2]] == pytest.approx(
        [row["score"] for row in rows]
    )
    assert scalars["train/rate"][-1][1] == pytest.approx(rows[-1]["lr"])
    assert texts["phase/text_summary"] == ["round 1", "round 2", "round 3"]
    assert texts["command/text_summary"][0].startswith("`prunecli prune ")
    assert "| seed | 3 |" in texts["training/text_summary"][0]
    assert texts["plan/text_summary"][1].count("- round ") == 2


def test_a_log_without_tensorboard_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, here: Path
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        board.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorboard" else real(name),
    )
    ended = run("prune", *bench.usual, "--log-dir", "logs")
    assert ended.code == 2
    assert ended.err.splitlines()[-2:] == [
        "ERROR tensorboard is not installed",
        "TIP install it with: pip install 'prunecli[tensorboard]'",
    ]
    assert files_in(here) == []


def test_tensorboard_is_not_imported_unless_asked() -> None:
    code = "import sys, prunecli.pipeline; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
