"""Optimizers, and what is done to gradients before they act."""

import dataclasses
import inspect
import math

import pytest
import torch
from tiny_training import SGD, Watcher, captured, cnn, data_for, mlp, tied, train
from torch import Tensor, nn

from prunecli.choices import OptimizerName, ScheduleName
from prunecli.errors import ConfigError
from prunecli.recovery.optimizer import check_training, make_optimizer, set_lr
from prunecli.tasks import CLASSIFICATION, REGRESSION
from prunecli.tuning import TrainConfig

EVERY = [
    *(item.value for item in OptimizerName),
    *(
        name
        for name, item in vars(torch.optim).items()
        if inspect.isclass(item)
        and issubclass(item, torch.optim.Optimizer)
        and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
    ),
]


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_learns(name: str) -> None:
    network = mlp()
    rate = {
        "sgd": 0.3,
        "SGD": 0.3,
        "Adadelta": 2.0,
        "adagrad": 0.1,
        "Adagrad": 0.1,
        "ASGD": 0.3,
        "RAdam": 0.1,
        "Adafactor": 0.2,
    }
    config = dataclasses.replace(
        SGD, epochs=8, optimizer=name, momentum=None, weight_decay=None, lr=rate.get(name, 0.02)
    )
    check_training(config)
    result = train(network, config)
    assert result.curve[-1].train_loss < 0.7 * result.curve[0].train_loss


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("sgd", lambda groups: torch.optim.SGD(groups, lr=0.1)),
        ("momentum", lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9)),
        ("nesterov", lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)),
        ("adam", lambda groups: torch.optim.Adam(groups, lr=0.1)),
        ("rmsprop", lambda groups: torch.optim.RMSprop(groups, lr=0.1)),
        ("nadam", lambda groups: torch.optim.NAdam(groups, lr=0.1)),
    ],
)
def test_steps_are_those_of_the_class_it_names(name: str, made: object) -> None:
    assert callable(made)
    found: list[list[Tensor]] = []
    for _ in range(2):
        network = mlp()
        if not found:
            config = TrainConfig(lr=0.1, optimizer=name, weight_decay=0.01)
            optimizer = make_optimizer(network, config)
        else:
            weights = [item for item in network.parameters() if item.dim() > 1]
            others = [item for item in network.parameters() if item.dim() <= 1]
            optimizer = made(
                [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
            )
        data = data_for(network)
        for _ in range(3):
            optimizer.zero_grad()
            loss = CLASSIFICATION.loss((network(data.train.inputs[0]),), data.train.targets, 0.0)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found.append([item.detach().clone() for item in network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["lion", "LBFGS", "SparseAdam", "Optimizer", ""])
def test_unknown_optimizers_are_refused_before_any_work(name: str) -> None:
    with pytest.raises(ConfigError, match="--optimizer: must be one of sgd, momentum, nesterov"):
        check_training(TrainConfig(optimizer=name))


@pytest.mark.parametrize("name", ["sgd", "SGD", "adamw", "Rprop"])
def test_momentum_is_refused_where_there_is_none(name: str) -> None:
    """Plain SGD has none either: whoever wants some asks for it by name."""
    with pytest.raises(ConfigError, match=rf"^--momentum: {name} has none$"):
        check_training(TrainConfig(optimizer=name, momentum=0.5))


@pytest.mark.parametrize("name", ["momentum", "nesterov", "rmsprop"])
def test_momentum_reaches_the_optimizer(name: str) -> None:
    config = TrainConfig(optimizer=name, momentum=0.5)
    assert check_training(config) == config.epochs
    groups = make_optimizer(mlp(), config).param_groups
    assert [group["momentum"] for group in groups] == [0.5] * len(groups)


def test_weight_decay_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match=r"^--weight-decay: Rprop has none$"):
        check_training(TrainConfig(optimizer="Rprop", weight_decay=0.01))
    assert check_training(TrainConfig(optimizer="Rprop")) == 1
    assert check_training(TrainConfig(optimizer="adamw", weight_decay=0.01)) == 1


def test_weight_decay_is_a_default_where_there_is_one() -> None:
    for given, used in ((None, 5e-4), (0.25, 0.25), (0.0, 0.0)):
        groups = make_optimizer(mlp(), TrainConfig(weight_decay=given)).param_groups
        assert {group["weight_decay"] for group in groups} == {used, 0.0}


def test_an_optimizer_that_takes_no_vectors_says_so() -> None:
    with pytest.raises(ConfigError, match="--optimizer Muon: cannot be used for this network"):
        make_optimizer(cnn(), TrainConfig(optimizer="Muon"))


def test_rates_fall_from_layer_to_layer() -> None:
    network = mlp()
    optimizer = make_optimizer(network, TrainConfig(layer_decay=0.5))
    set_lr(optimizer, 0.8)
    rates = {item: group["lr"] for group in optimizer.param_groups for item in group["params"]}
    assert {name: rates[item] for name, item in network.named_parameters()} == {
        "0.weight": 0.4,
        "0.bias": 0.4,
        "2.weight": 0.8,
        "2.bias": 0.8,
    }


def norm(gradients: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(item.square().sum()) for item in gradients.values()))


class Late(Watcher):
    """Gradients as the optimizer has used them."""

    def after_step(self, step: int, steps: int) -> None:
        super().after_step(step, steps)
        self.gradients[-1] = {
            name: item.grad.clone() for name, item in self._named() if item.grad is not None
        }


def used(config: TrainConfig) -> dict[str, Tensor]:
    watcher = Late()
    train(mlp(), config, watcher)
    return watcher.gradients[0]


def test_gradients_are_clipped_to_a_norm() -> None:
    free, clipped = used(SGD), used(dataclasses.replace(SGD, clip=0.05))
    assert norm(free) > 0.1
    assert norm(clipped) == pytest.approx(0.05, rel=1e-4)
    for name, item in clipped.items():
        torch.testing.assert_close(item, free[name] * (0.05 / norm(free)))


def test_l1_decay_pulls_weights_and_nothing_else() -> None:
    free, pulled, network = used(SGD), used(dataclasses.replace(SGD, l1=0.02)), mlp()
    for name, item in network.named_parameters():
        pull = 0.02 * item.detach().sign() if item.dim() > 1 else torch.zeros_like(item)
        torch.testing.assert_close(pulled[name] - free[name], pull, atol=1e-6, rtol=0)


def test_labels_are_smoothed() -> None:
    outputs, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    soft = torch.full((4, 3), 0.1 / 3)
    soft[torch.arange(4), targets] += 0.9
    expected = -(soft * outputs.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(CLASSIFICATION.loss((outputs,), (targets,), 0.1), expected)
    data = dataclasses.replace(data_for(mlp()), task=REGRESSION)
    with pytest.raises(ConfigError, match="--label-smoothing: is for classes"):
        train(mlp(), dataclasses.replace(SGD, label_smoothing=0.1), data=data)


@pytest.mark.parametrize("only", [{"2.weight", "2.bias"}, {"0.weight"}])
def test_parameters_out_of_scope_stay_as_they_are(only: set[str]) -> None:
    network, watcher = mlp(), Watcher()
    before = {name: item.detach().clone() for name, item in network.named_parameters()}
    train(network, dataclasses.replace(SGD, epochs=10), watcher, only=only)
    for name, item in network.named_parameters():
        assert torch.equal(item, before[name]) == (name not in only)
        assert item.requires_grad
    assert set(watcher.gradients[0]) == only


def test_a_tied_weight_is_in_scope_by_any_of_its_names() -> None:
    network = tied()
    optimizer = make_optimizer(network, TrainConfig(), {"two.weight"})
    (group,) = optimizer.param_groups
    assert group["params"] == [network.get_parameter("one.weight")]


def test_schedules_reach_the_optimizer() -> None:
    watcher = Watcher()
    train(mlp(), dataclasses.replace(SGD, schedule=ScheduleName.LINEAR), watcher)
    assert watcher.rates == pytest.approx([0.1 * (1 - step / 18) for step in range(18)])


def test_frozen_parameters_are_never_trained() -> None:
    network = captured(nn.Linear(6, 3), 6)
    network.get_parameter("bias").requires_grad_(False)
    optimizer = make_optimizer(network, TrainConfig())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
