"""Distillation: the distance to the original against its formula, and what it does in training."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from tiny_training import SGD, Watcher, captured, cnn, data_for, mlp, train
from torch import Tensor, nn

from prunecli.choices import Precision
from prunecli.data import DataSet
from prunecli.errors import ConfigError
from prunecli.recovery.objective import Objective
from prunecli.tasks import CLASSIFICATION, REGRESSION
from prunecli.tuning import TrainConfig


def slowly(outputs: Tensor, wanted: Tensor, temperature: float) -> float:
    """Hinton et al. 2015, example by example and class by class."""
    total = 0.0
    for said, meant in zip(outputs.tolist(), wanted.tolist(), strict=True):
        p, q = (
            [math.exp(item / temperature) / sum(math.exp(x / temperature) for x in row)
             for item in row]
            for row in (meant, said)
        )  # fmt: skip
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(outputs) * temperature**2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distance_of_classes_is_the_divergence_at_the_temperature(temperature: float) -> None:
    torch.manual_seed(0)
    outputs, wanted = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    found = CLASSIFICATION.distance((outputs,), (wanted,), (), temperature)
    assert float(found) == pytest.approx(slowly(outputs, wanted, temperature), abs=1e-9)
    assert float(CLASSIFICATION.distance((wanted,), (wanted,), (), temperature)) == 0.0


def test_distance_of_numbers_is_the_mean_square() -> None:
    outputs, wanted = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert float(REGRESSION.distance((outputs,), (wanted,), (), 4.0)) == 2.5


def test_the_share_mixes_both_losses() -> None:
    torch.manual_seed(0)
    inputs, outputs, wanted = torch.randn(6, 2), torch.randn(6, 3), torch.randn(6, 3)
    targets = torch.randint(0, 3, (6,))
    found = Objective(CLASSIFICATION, 0.25, 4.0, lambda _: (wanted,))(
        (inputs,), (outputs,), (targets,)
    )
    far = CLASSIFICATION.distance((outputs,), (wanted,), (), 4.0)
    assert torch.equal(found.own, CLASSIFICATION.loss((outputs,), (targets,), 0.0))
    torch.testing.assert_close(found.wanted, 0.75 * found.own + 0.25 * far)


def wrong(data: DataSet) -> DataSet:
    """The same examples with labels that say nothing."""
    shuffled = torch.randint(0, 3, (len(data.train),), generator=torch.Generator().manual_seed(9))
    return dataclasses.replace(data, train=dataclasses.replace(data.train, targets=(shuffled,)))


@pytest.mark.parametrize("make", [mlp, cnn])
def test_the_original_alone_can_teach(make: object) -> None:
    """With a share of 1 labels have no say: a network with other weights comes to agree with the
    original though all labels are wrong."""
    assert callable(make)
    teacher, network = make(), make()
    train(teacher, dataclasses.replace(SGD, epochs=20))
    kept = {name: item.clone() for name, item in teacher.state_dict().items()}
    data = wrong(data_for(network))
    meant = teacher(data.validation.inputs[0]).argmax(1)

    def agreement() -> float:
        return float((network(data.validation.inputs[0]).argmax(1) == meant).float().mean())

    before = agreement()
    config = dataclasses.replace(SGD, epochs=20, distill=1.0)
    result = train(network, config, data=data, teacher=teacher)
    assert agreement() > max(before, 0.85)
    assert "the loss is 100% distance to the original's outputs (distillation)" in result.notes
    assert all(torch.equal(item, kept[name]) for name, item in teacher.state_dict().items())


def gradients_of(config: TrainConfig, **given: Any) -> list[dict[str, Tensor]]:
    watcher = Watcher()
    train(mlp(), config, watcher, **given)
    return watcher.gradients


def test_no_share_trains_as_without_an_original() -> None:
    labels = gradients_of(SGD)
    found = gradients_of(dataclasses.replace(SGD, distill=0.0), teacher=mlp())
    mixed = gradients_of(SGD, teacher=captured(nn.Linear(6, 3), 6))
    assert all(torch.equal(labels[0][name], found[0][name]) for name in labels[0])
    assert not torch.equal(labels[0]["0.weight"], mixed[0]["0.weight"])
    assert CLASSIFICATION.share > 0


def test_distillation_needs_an_original() -> None:
    with pytest.raises(ConfigError, match="--distill: needs the original network"):
        train(mlp(), dataclasses.replace(SGD, distill=0.5))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"distill": 1.5}, "--distill: a share from 0 to 1"),
        ({"distill": float("nan")}, "--distill: a share from 0 to 1"),
        ({"temperature": 0.0}, "--temperature: a positive number"),
        ({"temperature": float("inf")}, "--temperature: a positive number"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**given)  # type: ignore[arg-type]


def test_bf16_computes_with_fewer_digits_and_keeps_single_precision_weights() -> None:
    """The gradients of a step differ by what bfloat16 rounds (8 bits), and by no more."""
    exact, rounded = (
        gradients_of(dataclasses.replace(SGD, precision=precision))
        for precision in (Precision.FP32, Precision.BF16)
    )
    for name, gradient in exact[0].items():
        other = rounded[0][name]
        assert other.dtype is torch.float32
        assert 0 < float((other - gradient).norm() / gradient.norm()) < 2**-6
    network = mlp()
    result = train(network, dataclasses.replace(SGD, precision=Precision.BF16), teacher=mlp())
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    assert all(item.dtype is torch.float32 for item in network.parameters())
