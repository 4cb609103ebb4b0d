"""What fine-tuning asks of a companion, and when; epochs that end within one."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny_training import ADAMW, SGD, Watcher, cnn, data_for, mlp, train
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import functional as F

from prunecli.data import DataSet
from prunecli.errors import ConfigError
from prunecli.progress import SilentReporter, Step
from prunecli.recovery import finetune
from prunecli.recovery.companion import State, chain
from prunecli.recovery.pace import Pace
from prunecli.recovery.rates import rates_of
from prunecli.tuning import TrainConfig

Make = Callable[[], GraphModule]


def parameters(network: GraphModule) -> list[Tensor]:
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    return [item.detach().clone() for item in state.values()]


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("make", [mlp, cnn])
def test_one_that_does_nothing_changes_no_bit(make: Make, config: TrainConfig) -> None:
    with_, without = make(), make()
    one = train(with_, config, Watcher(), Watcher())
    two = finetune(without, data_for(without), config, SilentReporter())
    assert all(map(torch.equal, parameters(with_), parameters(without)))
    assert [item.train_loss for item in one.curve] == [item.train_loss for item in two.curve]


class Adds(Watcher):
    """A penalty of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def penalty(self) -> Tensor | None:
        return self.factor * self.setting.network.get_parameter("0.weight").square().sum()


def test_penalties_are_added_to_the_gradient_and_not_to_the_curve() -> None:
    plain, alone, together = Watcher(), Adds(0.5), Adds(0.2)
    config = dataclasses.replace(SGD, epochs=1, batch_size=48)
    losses = [
        train(mlp(), config, *own).curve[0].train_loss
        for own in ((plain,), (alone,), (Adds(0.3), Watcher(), together))
    ]
    assert losses[0] == losses[1] == losses[2]
    start = mlp().get_parameter("0.weight").detach()
    for watcher in (alone, together):
        pulled = watcher.gradients[0]["0.weight"] - plain.gradients[0]["0.weight"]
        torch.testing.assert_close(pulled, start, rtol=1e-5, atol=1e-6)


class Barred(Watcher):
    """Counts only what comes after a step, and has a state of its own."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after
        self.state = 0
        self.restored: list[int] = []

    def after_step(self, step: int, steps: int) -> None:
        super().after_step(step, steps)
        self.state = step + 1

    def counts(self, done: int, steps: int) -> bool:
        return done > self.after

    def snapshot(self) -> State:
        return {"state": torch.tensor(self.state)}

    def restore(self, state: State) -> None:
        self.restored.append(int(state["state"]))


def _best_at_the_start() -> tuple[GraphModule, DataSet]:
    """Labels that the untrained network gets all right, but for those that it is trained on."""
    network = mlp()
    data = data_for(network)
    parts = {
        part.name: dataclasses.replace(part, targets=(network(part.inputs[0]).argmax(1),))
        for part in (data.choose, data.validation)
    }
    return network, dataclasses.replace(data, **parts)


@pytest.mark.parametrize(("after", "allowed"), [(-1, 0), (0, 1), (6, 2), (12, 3), (17, 3)])
def test_only_what_counts_can_be_the_best(after: int, allowed: int) -> None:
    """Six steps an epoch; the start would always be the best."""
    network, data = _best_at_the_start()
    one, two = Barred(after), Barred(-1)
    result = train(network, SGD, one, two, data=data)
    scores = [result.start, *(item.score for item in result.curve)]
    assert result.start == 1.0
    best = max(scores[allowed:])
    assert result.best_epoch == max(place for place in range(allowed, 4) if scores[place] == best)
    assert one.restored == two.restored == [6 * result.best_epoch]
    if result.best_epoch:
        kept = one.weights[6 * result.best_epoch - 1]
        assert all(torch.equal(network.get_parameter(name), kept[name]) for name in kept)
    if 0 < result.best_epoch < 3:
        assert f"those from epoch {allowed} on" in result.notes[-1]


def test_where_nothing_counts_the_last_weights_are_kept() -> None:
    network, data = _best_at_the_start()
    watcher = Barred(100)
    result = train(network, SGD, watcher, data=data)
    assert result.best_epoch == 3
    assert watcher.restored == []
    last = watcher.weights[-1]
    assert all(torch.equal(network.get_parameter(name), last[name]) for name in last)


@pytest.mark.parametrize(
    ("epochs", "lengths"),
    [
        pytest.param(0.5, [3], id="half"),
        pytest.param(2 / 3, [4], id="two thirds"),
        pytest.param(1.0, [6], id="one"),
        pytest.param(1.24, [6, 1], id="7.44 steps"),
        pytest.param(1.26, [6, 2], id="7.56 steps"),
        pytest.param(3, [6, 6, 6], id="three"),
        pytest.param(0.01, [1], id="at least one step"),
    ],
)
def test_epochs_may_end_within_one(epochs: float, lengths: list[int]) -> None:
    totals: list[tuple[str, float | None]] = []

    class Counter(SilentReporter):
        @contextmanager
        def step(self, title: str, total: float | None = None) -> Iterator[Step]:
            totals.append((title, total))
            with super().step(title, total) as inner:
                yield inner

    network, watcher = mlp(), Watcher()
    result = finetune(
        network,
        data_for(network),
        SGD,
        Counter(),
        companion=watcher,
        epochs=epochs,
        title="round 2",
    )
    count = len(lengths)
    assert totals == [
        (f"round 2, epoch {place + 1}/{count}", length) for place, length in enumerate(lengths)
    ]
    assert [item.epoch for item in result.curve] == list(range(1, count + 1))
    rates = rates_of(SGD, Pace(8, 48, sum(lengths)))
    assert watcher.rates == [rates.at(step) for step in range(sum(lengths))]
    assert result.curve[-1].lr == watcher.rates[-1]
    partial = [note for note in result.notes if "last epoch" in note]
    assert partial == ([] if lengths[-1] == 6 else [f"the last epoch has {lengths[-1]} of 6 steps"])


def test_a_part_of_an_epoch_is_its_beginning() -> None:
    """The same examples in the same order as the first steps of a whole one."""
    whole, part = Watcher(), Watcher()
    config = dataclasses.replace(SGD, lr=1e-12, weight_decay=0.0)
    train(mlp(), config, whole, epochs=1)
    result = train(mlp(), config, part, epochs=0.5)
    for one, two in zip(whole.gradients, part.gradients, strict=False):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)
    assert len(part.gradients) == 3
    network = mlp()
    train_split = data_for(network).train
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:24]
    expected = F.cross_entropy(network(train_split.inputs[0][order]), train_split.targets[0][order])
    assert result.curve[0].train_loss == pytest.approx(expected.item(), rel=1e-6)


def test_rounds_see_the_examples_in_different_orders() -> None:
    one, two, three = Watcher(), Watcher(), Watcher()
    for watcher, offset in ((one, 0), (two, 1), (three, 1)):
        train(mlp(), SGD, watcher, seed_offset=offset)
    assert not torch.equal(one.gradients[0]["0.weight"], two.gradients[0]["0.weight"])
    assert torch.equal(three.gradients[0]["0.weight"], two.gradients[0]["0.weight"])
    seeded = Watcher()
    train(mlp(), dataclasses.replace(SGD, seed=1), seeded)
    assert torch.equal(seeded.gradients[0]["0.weight"], two.gradients[0]["0.weight"])


@pytest.mark.parametrize("epochs", [-0.5, math.nan, math.inf])
def test_numbers_of_epochs_that_are_none_are_refused(epochs: float) -> None:
    with pytest.raises(ConfigError, match=r"^--epochs: 0 or more is needed, got (-0.5|nan|inf)$"):
        train(mlp(), SGD, epochs=epochs)


def test_what_acts_in_training_needs_some() -> None:
    with pytest.raises(ConfigError) as caught:
        train(mlp(), SGD, Watcher(), epochs=0, title="round 1")
    assert caught.value.message == (
        "round 1: masks, schedules and penalties act at training steps, got 0 epochs"
    )


@pytest.mark.parametrize("make", [mlp, cnn])
def test_at_rest_the_network_is_as_it_was_handed_over(make: Make) -> None:
    """It is run, differentiated and random numbers are drawn: training goes on as if not."""
    network, other = make(), make()
    data = data_for(network)
    code = network.code
    outputs: list[bool] = []

    class Looks(Watcher):
        def before_step(self, step: int, steps: int) -> None:
            gradients = [item.grad for item in self.setting.network.parameters()]
            with self.setting.at_rest():
                own = self.setting.network
                assert own.code == code
                assert all(item.is_contiguous() for item in own.parameters())
                assert all(item.grad is None for item in own.parameters())
                torch.rand(7)
                loss = own(data.choose.inputs[0]).square().sum()
                outputs.append(torch.equal(own(data.choose.inputs[0]).square().sum(), loss))
                loss.backward()
            after = [item.grad for item in self.setting.network.parameters()]
            assert all(one is two for one, two in zip(gradients, after, strict=True))

    one = train(network, SGD, Looks())
    two = train(other, SGD, Watcher())
    assert outputs == [True] * 18, "no dropout, no batch statistics"
    assert all(map(torch.equal, parameters(network), parameters(other)))
    assert [item.train_loss for item in one.curve] == [item.train_loss for item in two.curve]
    assert network.code == code


def test_a_chain_of_one_is_that_one() -> None:
    watcher = Watcher()
    assert chain(watcher) is watcher
    assert chain().penalty() is None
    assert chain().counts(0, 1)
