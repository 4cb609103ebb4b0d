"""Every strategy x criterion x schedule that is allowed, end to end through the command line, on a
network of three residual blocks; everything else is refused with the reason.

The rows come from the tables in `prunecli.choices`, so that a new criterion is run here without a
word in this file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from cli_making import QUICK, run
from torch import nn

from prunecli.choices import CRITERIA, SCHEDULES, Criterion, PruneSchedule, Strategy
from prunecli.export.onnx_file import nonzero_weights

CLASSES, SIZE, EACH = 3, 8, 16

SOURCE = """
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + x).relu()


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        Block(8),
        Block(8),
        Block(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
"""

ALLOWED = [
    pytest.param(strategy, criterion, schedule, id=f"{strategy}-{criterion}-{schedule}")
    for strategy in Strategy
    for criterion in CRITERIA[strategy]
    for schedule in SCHEDULES[strategy]
]

STRANGE = [
    pytest.param(strategy, criterion, id=f"{strategy}-{criterion}")
    for strategy in Strategy
    for criterion in Criterion
    if criterion not in CRITERIA[strategy]
]

UNTIMELY = [
    pytest.param(strategy, schedule, id=f"{strategy}-{schedule}")
    for strategy in Strategy
    for schedule in PruneSchedule
    if schedule not in SCHEDULES[strategy]
]

GOAL = {
    Strategy.STRUCTURED: ["--target-macs", "60%", "--round-to", "1"],
    Strategy.NEURON: ["--target-macs", "60%", "--round-to", "1"],
    Strategy.LAYER: ["--layers-to-drop", "2"],
    Strategy.WEIGHT: ["--weight-sparsity", "60%"],
}

TIMING = {
    PruneSchedule.ONE_SHOT: [],
    PruneSchedule.ITERATIVE: ["--rounds", "2"],
    PruneSchedule.GRADUAL: ["--end", "50%", "--every", "2"],
}


@dataclass(frozen=True)
class Files:
    """A trained network, and what it was trained on."""

    weights: Path
    net: str
    data: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("matrix")
    source = folder / "net.py"
    source.write_text(SOURCE)
    noise = np.random.default_rng(0)
    labels = np.arange(EACH * CLASSES) % CLASSES
    images = noise.integers(0, 120, (len(labels), 3, SIZE, SIZE))
    images[np.arange(len(labels)), labels] += 80
    data = folder / "data.npz"
    pixels = images.astype(np.uint8)
    np.savez(data, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    space: dict[str, Any] = {}
    exec(SOURCE, space)
    torch.manual_seed(0)
    network: nn.Module = space["net"]()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    inputs, wanted = torch.tensor(pixels).float() / 255, torch.tensor(labels)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), wanted).backward()
        optimizer.step()
    torch.save(network.eval().state_dict(), folder / "weights.pt")
    return Files(folder / "weights.pt", f"{source}:net", data)


def prune(files: Files, *flags: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    usual = ["--model", files.net, "--data", files.data, "-o", "net.onnx", *QUICK]
    small = ["--calibration-samples", "24", "--batch-size", "8"]
    ended = run("prune", files.weights, *usual, *small, *flags)
    return ended.code, ended.out, ended.err


@pytest.mark.parametrize(("strategy", "criterion", "schedule"), ALLOWED)
def test_what_is_allowed_runs_and_does_what_was_asked(
    strategy: Strategy,
    criterion: Criterion,
    schedule: PruneSchedule,
    files: Files,
    here: Path,
) -> None:
    code, out, err = prune(
        files,
        *("--strategy", strategy.value, "--criterion", criterion.value),
        *("--schedule", schedule.value, "--epochs", "2", "--json", "-q"),
        *GOAL[strategy],
        *TIMING[schedule],
    )
    assert code == 0, err
    report = json.loads(out)
    assert report["status"] == "ok"
    [asked] = report["requested"]["parts"]
    assert (asked["strategy"], asked["criterion"]) == (strategy.value, criterion.value)
    assert {step["strategy"] for step in report["steps"]} == {strategy.value}
    got = report["achieved"]
    if strategy is Strategy.LAYER:
        assert (got["layers_before"], got["layers_after"]) == (3, 1)
        assert got["macs_share"] < 0.5
    elif strategy is Strategy.WEIGHT:
        assert got["weights_removed_share"] == pytest.approx(0.6, abs=0.002)
        left, _ = nonzero_weights(here / "net.onnx")
        assert left == report["rows"][-1]["nonzero"]
        assert left <= got["params_before"] - (got["weights_before"] - got["weights_after"])
    else:
        assert 0.4 < got["macs_share"] <= 0.6
        assert got["channels_after"] < got["channels_before"]
    session = onnxruntime.InferenceSession(
        str(here / "net.onnx"), providers=["CPUExecutionProvider"]
    )
    [answer] = session.run(None, {session.get_inputs()[0].name: np.zeros((2, 3, 8, 8), "f4")})
    assert np.asarray(answer).shape == (2, CLASSES)
    if schedule is PruneSchedule.ITERATIVE:
        assert {step["round"] for step in report["steps"]} == {1, 2}


@pytest.mark.parametrize(("strategy", "criterion"), STRANGE)
def test_a_criterion_that_cannot_judge_is_refused_with_those_that_can(
    strategy: Strategy, criterion: Criterion, files: Files, here: Path
) -> None:
    flags = ("--strategy", strategy.value, "--criterion", criterion.value)
    code, out, err = prune(files, *flags)
    assert (code, out) == (2, "")
    error, tip = err.splitlines()
    allowed = ", ".join(item.value for item in CRITERIA[strategy])
    assert error == (
        f"ERROR --criterion: {criterion.value} does not judge what --strategy {strategy.value} "
        f"removes; that takes one of {allowed}"
    )
    others = [item.value for item in Strategy if criterion in CRITERIA[item]]
    assert tip == f"TIP {criterion.value} works with --strategy {' or '.join(others)}"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("strategy", "schedule"), UNTIMELY)
def test_a_schedule_that_makes_no_sense_is_refused(
    strategy: Strategy, schedule: PruneSchedule, files: Files, here: Path
) -> None:
    code, out, err = prune(files, "--strategy", strategy.value, "--schedule", schedule.value)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"ERROR --schedule: a {strategy.value} is there or not, nothing of it can go while the "
        f"network trains, got {schedule.value}",
        "TIP use --schedule one-shot or iterative",
    ]
    assert list(here.iterdir()) == []


def test_units_and_weights_go_together_and_the_sparsity_is_of_what_units_leave(
    files: Files, here: Path
) -> None:
    code, out, err = prune(
        files,
        *("--strategy", "structured,weight", "--schedule", "gradual", "--epochs", "2"),
        *("--json", "-q", *GOAL[Strategy.STRUCTURED], *GOAL[Strategy.WEIGHT]),
        *TIMING[PruneSchedule.GRADUAL],
    )
    assert code == 0, err
    got = json.loads(out)["achieved"]
    assert 0.4 < got["macs_share"] <= 0.6
    assert got["weights_removed_share"] == pytest.approx(0.6, abs=0.002)
    assert got["weights_before"] < 0.9 * got["params_before"], "of what the units left"


@pytest.mark.parametrize("schedule", ["one-shot", "iterative", "gradual"])
@pytest.mark.parametrize("strategy", ["weight", "structured,weight"])
def test_a_dense_phase_ends_dense_under_every_schedule(
    strategy: str, schedule: str, files: Files, here: Path
) -> None:
    code, out, err = prune(
        files,
        *("--strategy", strategy, "--schedule", schedule, "--epochs", "3", "--json", "-q"),
        *(*GOAL[Strategy.WEIGHT], "--dense-epochs", "0.5"),
    )
    assert code == 0, err
    report = json.loads(out)
    assert report["achieved"]["weights_removed_share"] == 0.0
    left, total = nonzero_weights(here / "net.onnx")
    # Where a unit gets no gradient, its weights stay where they were lifted.
    assert left > 0.8 * total


def test_features_are_compared_though_layers_and_units_go_in_rounds(
    files: Files, here: Path
) -> None:
    code, out, err = prune(
        files,
        *("--strategy", "layer,structured", "--layers-to-drop", "1", "--target-macs", "50%"),
        *("--schedule", "iterative", "--rounds", "3", "--epochs", "3", "--json", "-q"),
        *("--distill-features", "0.5"),
    )
    assert code == 0, err
    said = [note for note in json.loads(out)["notes"] if "times that of" in note]
    # Of the three blocks one goes, and with it what the next one reads.
    assert said
    assert all("0.5 times that of" in note for note in said)


def test_one_layer_in_three_rounds_goes_once(files: Files, here: Path) -> None:
    code, out, err = prune(
        files,
        *("--strategy", "layer", "--layers-to-drop", "1", "--schedule", "iterative"),
        *("--rounds", "3", "--epochs", "1", "--json", "-q"),
    )
    assert code == 0, err
    got = json.loads(out)["achieved"]
    assert (got["layers_before"], got["layers_after"]) == (3, 2)


def test_masked_biases_stay_zero_though_reconstruction_moves_biases(
    files: Files, here: Path
) -> None:
    code, out, err = prune(
        files,
        *("--strategy", "weight", "--mask-biases", "--weight-sparsity", "90%"),
        *("--epochs", "0", "--json", "-q"),
    )
    assert code == 0, err
    report = json.loads(out)
    masked = {row["name"]: row["total"] - row["kept"] for row in report["steps"][0]["weights"]}
    weights = torch.export.load(here / "net.pt2").state_dict
    assert masked["0.bias"] > 0
    # Emptied channels may have been cut out; what is left is zero as far as it was masked.
    lost = 8 - weights["0.bias"].numel()
    assert int((weights["0.bias"] == 0).sum()) >= masked["0.bias"] - lost
