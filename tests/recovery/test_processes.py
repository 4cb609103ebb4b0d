"""Several processes that share every batch come to what one comes to alone."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from shared_training import CASES, GOING_ON, LATE, Case, outcome
from tiny_training import captured, cnn, data_for, mlp
from torch import Tensor, nn

from prunecli import crew, launch
from prunecli.choices import DeviceName, Precision, TaskName
from prunecli.data import DataSet, Preprocess, Split
from prunecli.errors import ConfigError
from prunecli.progress import SilentReporter
from prunecli.recovery import check_driving, finetune
from prunecli.recovery.driving import driver_for
from prunecli.recovery.pace import pace_of
from prunecli.recovery.parts import part_of, share_of, shareable
from prunecli.recovery.placement import choose_device
from prunecli.recovery.wide_norm import wide_batch_norm
from prunecli.tasks import Labels, Task
from prunecli.tasks.classes import CLASSIFICATION, NEXT_TOKENS, TOKENS
from prunecli.tasks.numbers import REGRESSION
from prunecli.tuning import TrainConfig

SCRIPT = Path(__file__).with_name("shared_training.py")
ROOT = Path(__file__).parents[2]

OTHER_DRAWS = "other dropout"
"""Dropout that is drawn in each process for itself: right, but not what one process draws."""

SAME = [name for name in CASES if name != OTHER_DRAWS]

Outcomes = Mapping[str, list[dict[str, Any]]]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What two processes made of every case, each for itself."""
    folder = tmp_path_factory.mktemp("together")
    launch_two(folder)
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)] for name in CASES}


def launch_two(folder: Path, *more: str) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", str(SCRIPT), str(folder), *more],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_two_processes_come_to_what_one_does(name: str, together: Outcomes) -> None:
    alone, shared = outcome(CASES[name]), together[name][0]
    assert shared["losses"] == pytest.approx(alone["losses"], abs=1e-6)
    assert shared["scores"] == alone["scores"]
    assert shared["best"] == alone["best"]
    assert shared["weights"].keys() == alone["weights"].keys()
    for key, value in alone["weights"].items():
        torch.testing.assert_close(shared["weights"][key], value, rtol=1e-5, atol=1e-6)
    assert "trained in 2 processes, which shared every batch" in shared["notes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_all_processes_have_the_same_weights_and_curve(name: str, together: Outcomes) -> None:
    first, second = together[name]
    assert first["losses"] == second["losses"]
    assert first["scores"] == second["scores"]
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key


@pytest.mark.slow
def test_two_processes_go_on_from_every_epoch_bit_for_bit(
    together: Outcomes, tmp_path: Path
) -> None:
    launch_two(tmp_path, "goes-on")
    for name in GOING_ON:
        for rank in (0, 1):
            wanted = together[name][rank]
            found = torch.load(tmp_path / f"{name}-{rank}.pt")
            assert len(found) == 1 + len(wanted["losses"])
            for epoch, again in enumerate(found):
                assert {**again, "weights": None} == {**wanted, "weights": None}, (name, epoch)
                for key, value in wanted["weights"].items():
                    assert torch.equal(again["weights"][key], value), (name, epoch, key)


@pytest.mark.slow
def test_masked_weights_stay_zero_in_all_processes(together: Outcomes) -> None:
    for name in ("masks", "growing masks"):
        gone = [
            value == 0 for key, value in together[name][1]["weights"].items() if "weight" in key
        ]
        assert sum(int(item.sum()) for item in gone) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fails", "process 1: the test: enough is needed, got enough"),
        ("dies", "another process has ended: "),
    ],
)
def test_a_process_that_ends_in_the_middle_of_a_step_ends_all(
    how: str, said: str, tmp_path: Path
) -> None:
    """Without a launcher that would stop the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    begin = time.monotonic()
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), how],
            env=environment(
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                WORLD_SIZE="2",
                LOCAL_WORLD_SIZE="2",
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            ),
        )
        for rank in (0, 1)
    ]
    for process in started:
        process.wait(timeout=60)
    assert time.monotonic() - begin < 60
    kind, message, code, silent = json.loads((tmp_path / "0").read_text())
    assert (kind, code) == ("ProcessError", 1)
    assert message.startswith(said)
    if how == "fails":
        _, other, code, other_silent = json.loads((tmp_path / "1").read_text())
        assert (other, code) == (message, 1)
        assert silent != other_silent, "one of them says it"
    else:
        assert not silent


def test_parts_are_disjoint_and_cover_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 3, 5):
        monkeypatch.setattr(crew, "size", lambda size=size: size)
        for total in (1, 2, 7, 10):
            batch, seen = torch.arange(total), []
            for rank in range(size):
                monkeypatch.setattr(crew, "rank", lambda rank=rank: rank)
                part = part_of(total)
                rows = part.of(batch).tolist()
                assert len(rows) == part.rows == max(part.count, 1)
                seen.extend([] if part.idle else rows)
            assert seen == list(range(total))


@pytest.mark.parametrize("task", [TOKENS, NEXT_TOKENS, CLASSIFICATION, REGRESSION])
def test_parts_weighted_by_what_counts_add_up_to_the_loss_of_the_whole(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that say nothing (padding) are spread unevenly over the parts."""
    torch.manual_seed(0)
    sequences = task in (TOKENS, NEXT_TOKENS)
    outputs = torch.randn(5, 6, 4) if sequences else torch.randn(5, 4)
    targets = torch.randint(0, 4, (5, 6) if sequences else (5,))
    if task is REGRESSION:
        targets = torch.randn(5, 4)
    if sequences:
        targets[:2, 2:] = -100
        targets[3] = -100
    whole = task.loss((outputs,), (targets,), 0.0)
    monkeypatch.setattr(crew, "size", lambda: 3)
    total = 0.0
    for rank in range(3):
        monkeypatch.setattr(crew, "rank", lambda rank=rank: rank)
        part = part_of(5)
        share = share_of(part, (targets,), task.weight)
        total += share * float(task.loss((part.of(outputs),), (part.of(targets),), 0.0))
    assert total == pytest.approx(float(whole), rel=1e-6)


def test_batch_norm_over_one_part_is_batch_norm() -> None:
    torch.manual_seed(0)
    ours, theirs = (
        {
            "x": torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(1)),
            "w": torch.linspace(0.5, 2.0, 4),
            "b": torch.linspace(-1.0, 1.0, 4),
        }
        for _ in range(2)
    )
    for tensors in (ours, theirs):
        for tensor in tensors.values():
            tensor.requires_grad_()
    running = [torch.zeros(4), torch.ones(4)]
    norm = nn.BatchNorm2d(4)
    weighting = torch.randn(6, 4, 5, 5)
    found, mean, reciprocal = wide_batch_norm(
        ours["x"], ours["w"], ours["b"], running[0], running[1], 0.1, 1e-5
    )
    expected: Tensor = nn.functional.batch_norm(
        theirs["x"], norm.running_mean, norm.running_var, theirs["w"], theirs["b"], True, 0.1, 1e-5
    )
    for one, two in zip((found, expected), (expected, found), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    (found * weighting).sum().backward()
    (expected * weighting).sum().backward()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor.grad, theirs[name].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(running[0], norm.running_mean)
    torch.testing.assert_close(running[1], norm.running_var)
    torch.testing.assert_close(mean, theirs["x"].detach().mean((0, 2, 3)))
    variance = theirs["x"].detach().var((0, 2, 3), correction=0)
    torch.testing.assert_close(reciprocal, (variance + 1e-5).rsqrt())


def test_batches_that_cannot_be_shared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp()
    pace = pace_of(network, data_for(network), TrainConfig(batch_size=3), 1)
    assert shareable(pace, network) is pace
    monkeypatch.setattr(crew, "size", lambda: 4)
    with pytest.raises(ConfigError, match=r"one example for each of 4 processes .*got 3"):
        shareable(pace, network)
    example = (torch.randn(4, 6),)
    fixed = torch.export.export(nn.Linear(6, 3).eval(), example).module(check_guards=False)
    pace = pace_of(fixed, data_for(network), TrainConfig(batch_size=8), 1)
    with pytest.raises(ConfigError, match="batches of 4 only, which 4 processes cannot share"):
        shareable(pace, fixed)


def test_accumulated_batches_make_one_step_as_a_large_batch_does() -> None:
    """Without batch norm, which sees one batch at a time; the last group is incomplete."""
    large = outcome(Case(mlp, TrainConfig(epochs=2, lr=0.05, batch_size=12), 43))
    parts = TrainConfig(epochs=2, lr=0.05, batch_size=4, accumulate=3)
    small = outcome(Case(mlp, parts, 43))
    assert small["losses"] == pytest.approx(large["losses"], rel=1e-6)
    for key, value in large["weights"].items():
        torch.testing.assert_close(small["weights"][key], value)
    assert "each step adds up the gradients of 3 batches" in small["notes"]


def test_accumulated_texts_count_by_their_labels() -> None:
    """Of padding there is more in one batch than in another; none of it counts."""
    found = []
    for config in (
        TrainConfig(epochs=1, lr=0.5, batch_size=12),
        TrainConfig(epochs=1, lr=0.5, batch_size=3, accumulate=4),
    ):
        torch.manual_seed(0)
        network = captured(nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 3)), 5, 6)
        result = finetune(network, tagged(), config, SilentReporter())
        found.append((result.curve[0].train_loss, dict(network.state_dict())))
    (large, weights), (small, others) = found
    assert small == pytest.approx(large, rel=1e-6)
    for key, value in weights.items():
        torch.testing.assert_close(others[key], value)


def tagged() -> DataSet:
    """Sequences of five positions, of which one to five have a label; some have none."""

    def split(name: str) -> Split:
        inputs, targets = torch.randn(24, 5, 6), torch.randint(0, 3, (24, 5))
        targets[torch.arange(5) > torch.randint(-1, 5, (24, 1))] = -100
        return Split(name, (inputs,), (targets,))

    torch.manual_seed(1)
    splits = (split(name) for name in ("train", "choose", "validation"))
    labels = Labels(TaskName.TOKEN_CLASSIFICATION, ("a", "b", "c"))
    return DataSet(TOKENS, *splits, (Preprocess(image=False),), (labels,), (), ())


def test_steps_are_counted_with_accumulation() -> None:
    network = cnn()
    pace = pace_of(network, data_for(network, 45), TrainConfig(batch_size=7, accumulate=3), 2)
    assert (pace.examples, pace.steps_per_epoch, pace.steps) == (21, 3, 6)


@pytest.mark.parametrize(
    ("config", "variables", "message"),
    [
        (TrainConfig(precision=Precision.FP16), {}, "--precision: fp16 needs a GPU, got the CPU"),
        (LATE, {"ACCELERATE_USE_FSDP": "true"}, "data parallel is what can be done here, got FSDP"),
        (
            LATE,
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            "--mixed_precision must agree with --precision, got bf16 and fp32",
        ),
    ],
)
def test_what_cannot_be_driven_is_refused(
    config: TrainConfig,
    variables: Mapping[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        check_driving(config)


def test_scaled_losses_give_gradients_of_their_own_size_and_overflow_is_left_out() -> None:
    """What fp16 does on a GPU, with accelerate's scaler on the CPU."""
    torch.manual_seed(0)
    layer, inputs = nn.Linear(4, 1), torch.randn(8, 4)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    plain = driver_for(TrainConfig(), optimizer, torch.device("cpu"))
    accelerator = plain.accelerator
    accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled = accelerator.prepare_optimizer(optimizer, device_placement=False)
    driver = dataclasses.replace(plain, scaled=scaled)
    (expected,) = torch.autograd.grad(layer(inputs).mean(), layer.weight)
    for factor, moves in ((1.0, True), (float("inf"), False)):
        before = layer.weight.detach().clone()
        optimizer.zero_grad()
        driver.backward(layer(inputs).mean() * factor)
        driver.gather()
        assert layer.weight.grad is not None
        if moves:
            torch.testing.assert_close(layer.weight.grad, expected)
        driver.step()
        assert torch.equal(before, layer.weight) != moves
    assert accelerator.scaler.get_scale() == 512.0, "halved after the overflow"


def test_accelerate_launch_with_cpu_leaves_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(DeviceName.AUTO) == torch.device("cpu")
    with pytest.raises(ConfigError, match="accelerate was told to use the CPU, got cuda"):
        choose_device(DeviceName.CUDA)


def test_a_process_is_alone_unless_a_launcher_says_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in launch.NEEDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (launch.size(), launch.rank(), launch.is_main()) == (1, 0, True)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert (launch.size(), launch.rank(), launch.is_main()) == (4, 3, False)
