"""What the flags of fine-tuning do to the network that is shipped."""

import json
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cli_making import Bench, run
from torch import nn

from prunecli.errors import ConfigError
from prunecli.pipeline.scope import _touched, parameters_to_train
from prunecli.tuning import TrainConfig


def pruned(bench: Bench, onnx: Path, *flags: str) -> dict[str, torch.Tensor]:
    """Weights after a run without reconstruction."""
    ended = run("prune", *bench.usual, "--recover", "none", *flags, "-o", onnx)
    assert ended.code == 0, ended.err
    return dict(torch.export.load(onnx.with_suffix(".pt2")).named_parameters())


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        pytest.param(("--train-scope", "8"), {"8"}, id="a pattern"),
        pytest.param(("--train-scope", "0,4"), {"0", "4"}, id="patterns"),
        pytest.param(("--train-scope", "local"), {"0", "1", "4"}, id="neighbours"),
        pytest.param((), {"0", "1", "4", "8"}, id="everything"),
    ],
)
def test_only_what_is_in_scope_changes(
    bench: Bench, here: Path, flags: tuple[str, ...], changed: set[str]
) -> None:
    """`--keep 8` leaves only the first convolution's channels to go."""
    common = ("--keep", "8", "--channel-ratio", "25%", "--lr", "0.05")
    before = pruned(bench, here / "a.onnx", *common, "--epochs", "0")
    after = pruned(bench, here / "b.onnx", *common, *flags, "--epochs", "3")
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == changed


def test_a_scope_that_names_nothing_is_refused(bench: Bench) -> None:
    ended = run("prune", *bench.usual, "--train-scope", "0,head.*")
    assert ended.code == 2
    assert "ERROR --train-scope: a pattern must match a layer, got 'head.*'" in ended.err


def test_a_scope_whose_layers_are_gone_says_so() -> None:
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    job: Any = SimpleNamespace(config=SimpleNamespace(train=TrainConfig(scope="one,one.*")))
    left: Any = SimpleNamespace(network=graph(two=two))
    with pytest.raises(ConfigError, match=r"every layer that matches 'one,one\.\*' was removed"):
        parameters_to_train(job, left)
    whole: Any = SimpleNamespace(network=graph(one=one, two=two))
    assert parameters_to_train(job, whole) == {"one.weight", "one.bias"}


def graph(**layers: nn.Module) -> torch.fx.GraphModule:
    network = nn.Sequential(OrderedDict(layers)).eval()
    program = torch.export.export(network, (torch.randn(2, 4),))
    found = program.module()
    assert isinstance(found, torch.fx.GraphModule)
    return found


def test_the_neighbours_of_a_layer_that_went_are_local() -> None:
    one, two, three, four = (nn.Linear(4, 4) for _ in range(4))
    original = graph(one=one, two=two, three=three, four=four)

    def touched(**left: nn.Module) -> set[str]:
        state: Any = SimpleNamespace(network=graph(**left), masks={})
        return _touched(original, state)

    assert touched(one=one, two=two, three=three, four=four) == set()
    assert touched(one=one, three=three, four=four) == {"one", "three"}
    assert touched(three=three, four=four) == {"three"}
    assert touched(one=one, four=four) == {"one", "four"}


def test_the_report_says_what_was_learnt_from(bench: Bench, here: Path) -> None:
    ended = run("prune", *bench.usual, "--distill", "0.25", "--json", "-o", here / "a.onnx")
    assert ended.code == 0, ended.err
    notes = json.loads(ended.out)["notes"]
    assert "the loss is 25% distance to the original's outputs (distillation)" in notes
    ended = run("prune", *bench.usual, "--distill", "0", "--json", "-o", here / "a.onnx")
    assert "distillation" not in json.dumps(json.loads(ended.out)["notes"])


@pytest.mark.parametrize(
    "flags",
    [
        "--optimizer NAdam --lr-schedule exponential --lr-decay 0.5 --lr-every 0.5 --staircase",
        "--optimizer momentum --momentum 0.5 --lr-schedule step --warm-up 0.2 --clip 1",
        "--l1-decay 1e-4 --layer-decay 0.8 --label-smoothing 0.1 --precision bf16",
    ],
)
def test_flags_of_training_go_together(bench: Bench, here: Path, flags: str) -> None:
    ended = run("prune", *bench.usual, *flags.split(), "--json", "-o", here / "a.onnx")
    assert ended.code == 0, ended.err
    (epoch,) = json.loads(ended.out)["training"]
    assert epoch["train_loss"] > 0


def test_batch_norms_alone_can_be_recovered(bench: Bench, here: Path) -> None:
    ended = run(
        *("prune", *bench.usual, "--recover", "bn", "--epochs", "0", "--json"),
        *("-o", here / "a.onnx"),
    )
    assert ended.code == 0, ended.err
    said = "measured the statistics of 1 batch norms anew from "
    assert any(note.startswith(said) for note in json.loads(ended.out)["notes"]), ended.out
