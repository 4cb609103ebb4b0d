"""Taking back: rounds that cost too much, and layers given back by hand; and the explanations that
a run leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from cli_making import SIZE, Bench, coloured, run
from torch import Tensor

from prunecli.pipeline import goal, rounds
from prunecli.pipeline.goal import Goal
from prunecli.pipeline.job import Job
from prunecli.pipeline.state import State

Json = dict[str, Any]

UNTRAINED = ["--epochs", "0", "--recover", "none", "--latency-seconds", "0.01"]


def ask(program: Path) -> Tensor:
    """Outputs of a `.pt2` program for fixed images."""
    images = torch.tensor(coloured(4, seed=5)[0]).float() / 255
    found = torch.export.load(program).module()(images)
    assert isinstance(found, Tensor)
    return found.detach()


def zeros_in(program: Path) -> dict[str, int]:
    """Zeros of each weight."""
    weights = torch.export.load(program).state_dict
    return {name: int((weight == 0).sum()) for name, weight in weights.items() if weight.dim() > 1}


@pytest.mark.parametrize(
    "flags",
    [
        ["--target-macs", "50%"],
        ["--strategy", "weight", "--weight-sparsity", "70%"],
        ["--strategy", "structured,weight", "--weight-sparsity", "50%"],
    ],
    ids=["units", "weights", "both"],
)
def test_everything_given_back_is_the_original_bit_for_bit(
    flags: list[str], bench: Bench, here: Path
) -> None:
    ended = run("prune", bench.program, "--data", bench.data, *UNTRAINED, *flags, "-o", "net.onnx")
    assert ended.code == 0, ended.err
    expected = ask(bench.program)
    assert not torch.equal(ask(here / "net.pt2"), expected)
    ended = run("restore", "net.run", "--layer", "*", "-o", "back.onnx")
    assert ended.code == 0, ended.err
    assert torch.equal(ask(here / "back.pt2"), expected)
    report = json.loads((here / "back.run" / "run.json").read_text())["report"]
    assert report["achieved"]["params_share"] == 1.0
    assert any(note.startswith("restored: ") for note in report["notes"])


def test_one_layer_comes_back_and_the_others_keep_what_they_learnt(
    bench: Bench, here: Path
) -> None:
    asked = ["--strategy", "weight", "--weight-sparsity", "60%", "--epochs", "1"]
    assert run("prune", *bench.usual, *asked, "-o", "net.onnx").code == 0
    ended = run("restore", "net.run", "--layer", "4", "-o", "back.onnx")
    assert ended.code == 0, ended.err
    before, after = zeros_in(here / "net.pt2"), zeros_in(here / "back.pt2")
    assert before["4.weight"] > 0
    assert after["4.weight"] == 0
    assert after["0.weight"] == before["0.weight"] > 0
    pruned = torch.export.load(here / "net.pt2").state_dict["0.weight"]
    back = torch.export.load(here / "back.pt2").state_dict["0.weight"]
    assert torch.equal(pruned, back)


def test_a_run_can_be_taken_back_from_another_folder(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.folder)
    asked = ["weights.pt", "--model", "net.py:net", "--data", "data.npz", *UNTRAINED]
    assert run("prune", *asked, "-o", here / "net.onnx").code == 0
    monkeypatch.chdir(here)
    ended = run("restore", "net.run", "--layer", "*")
    assert ended.code == 0, ended.err
    assert torch.equal(ask(here / "net-restored.pt2"), ask(bench.program))


def test_fine_tuning_after_it_keeps_the_other_masks(bench: Bench, here: Path) -> None:
    asked = ["--strategy", "weight", "--weight-sparsity", "60%", "--epochs", "1"]
    assert run("prune", *bench.usual, *asked, "-o", "net.onnx").code == 0
    ended = run("restore", "net.run", "--layer", "8", "--epochs", "1", "-o", "back.onnx", "--json")
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)["training"]) == 1
    before, after = zeros_in(here / "net.pt2"), zeros_in(here / "back.pt2")
    assert after["0.weight"] == before["0.weight"]
    assert after["4.weight"] == before["4.weight"]
    assert after["8.weight"] == 0 < before["8.weight"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["net.run", "--layer", "nothing.*"],
            "--layer: must match something that was removed, got nothing.*",
        ),
        (
            ["elsewhere", "--layer", "*"],
            "run elsewhere: the folder that a finished run left is needed, got none with run.json",
        ),
    ],
    ids=["no such layer", "no run"],
)
def test_what_cannot_be_given_back_is_one_line(
    arguments: list[str], error: str, bench: Bench, here: Path
) -> None:
    assert run("prune", bench.program, *UNTRAINED, "-o", "net.onnx").code == 0
    before = sorted(here.rglob("*"))
    ended = run("restore", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert f"ERROR {error}" in ended.err.splitlines()
    assert sorted(here.rglob("*")) == before


def test_single_weights_go_where_no_unit_can_and_without_data(here: Path) -> None:
    network = torch.nn.Linear(6, 4).eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 6),)), here / "one.pt2")
    asked = ["--strategy", "weight", "--weight-sparsity", "50%", "--latency-seconds", "0.01"]
    ended = run("prune", "one.pt2", *asked, "-o", "net.onnx")
    assert ended.code == 0, ended.err
    weight = torch.export.load(here / "net.pt2").state_dict["weight"]
    assert int((weight == 0).sum()) == 12


def test_another_checkpoint_of_that_name_is_refused(bench: Bench, here: Path) -> None:
    own = here / "own.pt2"
    own.write_bytes(bench.program.read_bytes())
    assert run("prune", own, *UNTRAINED, "-o", "net.onnx").code == 0
    own.write_bytes((here / "net.pt2").read_bytes())
    ended = run("restore", "net.run", "--layer", "*")
    assert ended.code == 2
    assert "must be the one that was pruned" in ended.err


def test_inspect_of_a_run_says_what_went_and_why(bench: Bench, here: Path) -> None:
    assert run("prune", bench.program, *UNTRAINED, "-o", "net.onnx").code == 0
    ended = run("inspect", "net.run")
    assert ended.code == 0, ended.err
    [head] = [line for line in ended.out.splitlines() if line.startswith("explain: ")]
    assert head == "explain: round 1, structured by l2: keep at most 50% of the MACs"
    report = json.loads(run("inspect", "net.run", "--json").out)
    [step] = report["steps"]
    for group in step["groups"]:
        positions = sorted(unit for fate in group["fates"] for unit in fate["units"])
        assert positions == list(range(group["total"]))
        went = sum(len(fate["units"]) for fate in group["fates"] if fate["went"])
        assert went == group["total"] - group["kept"]


def test_explain_is_printed_under_the_table(bench: Bench, here: Path) -> None:
    ended = run("prune", bench.program, "--dry-run", "--explain", "--round-to", "1")
    assert ended.code == 0
    lines = ended.out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("explain: "))
    assert all("went" in line for line in lines[start + 1 :])


def test_worked_example_leaves_exactly_the_last_two_rows(here: Path) -> None:
    first, second = torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 2, bias=False)
    rows = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    with torch.no_grad():
        first.weight.copy_(rows)
        second.weight.fill_(1.0)
    network = torch.nn.Sequential(first, second).eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 3),)), here / "rows.pt2")
    asked = ["--strategy", "weight", "--threshold", "0.3", "--latency-seconds", "0.01"]
    ended = run("prune", "rows.pt2", *asked, "-o", "net.onnx")
    assert ended.code == 0, ended.err
    left = torch.export.load(here / "net.pt2").state_dict
    assert torch.equal(left["0.weight"], rows[1:])
    assert torch.equal(left["1.weight"], torch.ones(2, 2))


def scripted(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> list[State]:
    """Let the judge answer with these, the original's first; returns what it is shown."""
    shown: list[State] = []

    def judge(_: Job, state: State) -> float:
        shown.append(state)
        return accuracies[len(shown) - 1]

    for module in (goal, rounds):
        monkeypatch.setattr(module, "validation_score", judge)
    return shown


def test_a_round_that_costs_too_much_is_undone_and_half_of_it_tried(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = scripted(monkeypatch, [0.95, 0.94, 0.80, 0.945, 0.945])
    asked = ["--schedule", "iterative", "--rounds", "2", "--max-drop", "1pp", "--round-to", "1"]
    ended = run("prune", *bench.usual, *asked, "--epochs", "2", "-o", "net.onnx", "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    why = "validation accuracy 80.00%, at least 94.00% is needed"
    assert [(step["round"], step["taken_back"]) for step in report["steps"]] == [
        (1, None),
        (2, why),
        (3, None),
        (4, None),
    ]
    assert f"round 2 is taken back: {why}; half of the step is tried" in ended.err
    assert report["achieved"]["macs_share"] <= 0.5
    assert report["missed"] == []
    after_first, third = shown[1], shown[3]
    assert third.plans[: len(after_first.plans)] == after_first.plans, "from before the bad round"


def test_what_was_taken_back_leaves_no_row_and_no_best_epoch(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.95, 0.80, 0.95, *[0.1] * 8])
    asked = ["--max-drop", "1pp", "--round-to", "1", "--epochs", "1", "--json"]
    ended = run("prune", *bench.usual, *asked, "-o", "net.onnx")
    assert ended.code == 1, "the second half of the way was too much"
    report = json.loads(ended.out)
    assert [row["name"] for row in report["rows"]] == ["original", "fine-tuned"]
    assert report["best_epoch"] in (0, 2), "of the second attempt, the only good one"
    assert len(report["training"]) > 2


def test_a_budget_that_stops_the_run_ships_what_was_good_and_fails(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.95, 0.95, *[0.1] * 8])
    asked = ["--schedule", "iterative", "--rounds", "2", "--max-drop", "1pp", "--round-to", "1"]
    ended = run("prune", *bench.usual, *asked, "--epochs", "1", "-o", "net.onnx")
    assert ended.code == 1
    assert "FAILED: --max-drop 1pp was reached at 50% of what was asked for" in ended.out
    assert (here / "net.onnx").exists()


def test_a_budget_that_nothing_meets_writes_nothing(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.95, *[0.1] * 8])
    ended = run("prune", *bench.usual, "--max-drop", "1pp", "-o", "net.onnx")
    assert ended.code == 1
    assert "ERROR --max-drop: every step lost more than 1pp" in ended.err.splitlines()
    assert list(here.iterdir()) == []


def test_undoing_a_round_leaves_the_state_before_it_bit_for_bit(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = scripted(monkeypatch, [0.95, 0.95, *[0.1] * 8])
    images = torch.tensor(coloured(4, seed=5)[0]).float() / 255
    answers: list[Tensor] = []
    real = rounds._too_bad

    def keep(job: Job, state: State, budget: Goal) -> str | None:
        with torch.no_grad():
            answers.append(shown[0].network(images))
        return real(job, state, budget)

    monkeypatch.setattr(rounds, "_too_bad", keep)
    asked = ["--schedule", "iterative", "--rounds", "2", "--max-drop", "1pp"]
    run("prune", *bench.usual, *asked, "--epochs", "1", "-o", "net.onnx")
    assert len(answers) > 3
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    session = onnxruntime.InferenceSession(here / "net.onnx", providers=["CPUExecutionProvider"])
    assert np.asarray(session.run(None, {session.get_inputs()[0].name: images.numpy()})).size
    assert images.shape[-1] == SIZE
