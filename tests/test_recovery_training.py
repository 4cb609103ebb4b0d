"""Fine-tuning: what is computed, what is chosen, what is refused."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from prunecli.choices import DeviceName, OptimizerName, ScheduleName, TaskName
from prunecli.data import DataSet, Preprocess, Split
from prunecli.errors import ConfigError, DataError, ModelError, TrainingError
from prunecli.metric import Metric
from prunecli.progress import SilentReporter, Step
from prunecli.recovery import Epoch, check_training, finetune, score
from prunecli.recovery.augment import augmentation_for
from prunecli.recovery.optimizer import make_optimizer
from prunecli.recovery.records import epoch_line, in_time
from prunecli.tasks import CLASSIFICATION, REGRESSION, Labels, Tensors
from prunecli.tasks.classes import ACCURACY
from prunecli.tasks.numbers import MSE
from prunecli.tuning import TrainConfig

SGD, ADAMW = OptimizerName.NESTEROV, OptimizerName.ADAMW


def captured(module: nn.Module, *shape: int, fixed: bool = False) -> GraphModule:
    """The graph of `module` in evaluation mode; its batch is free, or fixed to 4."""
    shapes = None if fixed else ({0: torch.export.Dim.AUTO},)
    example = torch.randn(4, *shape)
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    network = program.module(check_guards=False)
    assert isinstance(network, GraphModule)
    return network


def perceptron(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, outputs)
    )


def split(name: str, count: int, seed: int, shape: tuple[int, ...] = (6,)) -> Split:
    """Classes 0-2, told apart by the first feature."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (count,), generator=generator)
    inputs = torch.randn(count, *shape, generator=generator)
    inputs[:, 0] += 6.0 * targets.reshape(-1, *(1,) * (len(shape) - 1))
    return Split(name, (inputs,), (targets,))


def table(count: int = 50) -> DataSet:
    return DataSet(
        CLASSIFICATION,
        split("train", count, 1),
        split("choose", 40, 2),
        split("validation", 40, 3),
        (Preprocess(image=False),),
        (Labels(TaskName.CLASSIFICATION, ("a", "b", "c")),),
        (),
        (),
    )


def images(count: int = 33, size: tuple[int, int] = (16, 16), channels: int = 3) -> DataSet:
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, number: int) -> Split:
        targets = torch.randint(0, 2, (number,), generator=generator)
        pixels = torch.randint(0, 100, (number, channels, *size), generator=generator)
        pixels = (pixels + 100 * targets[:, None, None, None]).to(torch.uint8)
        return Split(name, (pixels,), (targets,))

    return DataSet(
        CLASSIFICATION,
        draw("train", count),
        draw("choose", 20),
        draw("validation", 20),
        (Preprocess(image=True, mean=(0.4,), std=(0.2,)),),
        (Labels(TaskName.CLASSIFICATION, ("dark", "bright")),),
        (),
        (),
    )


def image_net(channels: int = 3) -> GraphModule:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    return captured(module, channels, 16, 16)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def by_hand(module: nn.Module, data: DataSet, config: TrainConfig, rates: list[float]) -> None:
    """The training run written out again, eagerly and without any of the package's code.

    SGD as in Sutskever et al. 2013 in PyTorch's form: v = m v + g, w = w - lr (g + m v).
    """
    order = torch.Generator().manual_seed(config.seed)
    velocity = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    step = 0
    module.train()
    for _ in range(config.epochs):
        rows = torch.randperm(len(data.train), generator=order)
        for batch in rows.split(config.batch_size):
            if len(batch) == 1:
                continue
            module.zero_grad()
            F.cross_entropy(
                module(data.train.inputs[0][batch]), data.train.targets[0][batch]
            ).backward()
            with torch.no_grad():
                for name, value in module.named_parameters():
                    assert value.grad is not None
                    gradient = value.grad.clone()
                    if value.dim() > 1:
                        gradient += config.weight_decay * value
                    velocity[name] = config.momentum * velocity[name] + gradient
                    value -= rates[step] * (gradient + config.momentum * velocity[name])
            step += 1
    assert step == len(rates)
    module.eval()


def test_training_equals_a_loop_written_by_hand() -> None:
    data = table(49)  # batches of 16, 16, 16 and 1
    config = TrainConfig(epochs=2, lr=0.05, batch_size=16, weight_decay=0.1, momentum=0.9)
    network = captured(perceptron(), 6)
    result = finetune(network, data, config, SilentReporter())
    assert result.best_epoch == 2, "otherwise an earlier state is compared"
    # Six steps, the first of which is the warm-up (a tenth, rounded up) from a 25th of the peak.
    rates = [0.05 / 25] + [0.05 * (1 + math.cos(math.pi * k / 5)) / 2 for k in range(5)]
    eager = perceptron()
    by_hand(eager, data, config, rates)
    for name, value in eager.state_dict().items():
        if name != "1.num_batches_tracked":
            torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "data", "config", "losses", "scores", "size"),
    [
        pytest.param(
            lambda: captured(perceptron(), 6),
            table(),
            TrainConfig(epochs=3, lr=0.04, batch_size=8),
            [1.2607878971099853, 0.6524040365219116, 0.6390093803405762],
            [0.25, 0.675, 0.775, 0.775],
            26.309038759209216,
            id="sgd",
        ),
        pytest.param(
            lambda: captured(perceptron(), 6),
            table(49),
            TrainConfig(epochs=2, lr=2e-3, batch_size=16, optimizer=ADAMW, seed=5),
            [1.5482329527537029, 1.515610893567403],
            [0.25, 0.3, 0.3],
            9.897560733137652,
            id="adamw",
        ),
        pytest.param(
            lambda: image_net(),
            images(),
            TrainConfig(epochs=2, batch_size=8, lr=0.1),
            [0.5773154869675636, 0.3127283304929733],
            [0.5, 1.0, 1.0],
            11.954596409152145,
            id="images",
        ),
    ],
)
def test_numbers_are_those_from_before_there_were_companions(
    make: Callable[[], GraphModule],
    data: DataSet,
    config: TrainConfig,
    losses: list[float],
    scores: list[float],
    size: float,
) -> None:
    """Written down before training took companions; another processor may round differently."""
    network = make()
    result = finetune(network, data, config, SilentReporter())
    assert [epoch.train_loss for epoch in result.curve] == pytest.approx(losses, rel=1e-4)
    assert [result.start, *(epoch.score for epoch in result.curve)] == scores
    first = next(network.parameters()).detach()
    assert first.double().abs().sum().item() == pytest.approx(size, rel=1e-4)


def test_scores_and_curve_are_what_they_say() -> None:
    data, network = table(), captured(perceptron(), 6)
    before = score(network, data.choose, data, 7).value
    result = finetune(network, data, TrainConfig(epochs=3, batch_size=8), SilentReporter())
    assert result.metric is ACCURACY
    assert result.start == before
    assert [epoch.epoch for epoch in result.curve] == [1, 2, 3]
    assert result.curve[2].train_loss < result.curve[0].train_loss
    best = result.curve[result.best_epoch - 1].score
    assert best == max(epoch.score for epoch in result.curve) > before
    pairs = zip(network(data.choose.inputs[0]), data.choose.targets[0], strict=True)
    right = sum(int(row.argmax()) == int(wanted) for row, wanted in pairs)
    assert score(network, data.choose, data, 7).value == best == right / 40


def test_same_seed_same_result() -> None:
    def run(seed: int) -> tuple[dict[str, Tensor], list[float]]:
        network = image_net()
        torch.seed()  # whatever the global generator holds must not matter
        config = TrainConfig(epochs=2, batch_size=8, seed=seed)
        result = finetune(network, images(), config, SilentReporter())
        return weights(network), [epoch.train_loss for epoch in result.curve]

    first, again, other = run(0), run(0), run(1)
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert not same(first[0], other[0])


def test_the_global_generator_goes_on_as_if_nothing_had_been_trained() -> None:
    network, data = image_net(), images()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    finetune(network, data, TrainConfig(epochs=1, batch_size=8), SilentReporter())
    assert torch.equal(torch.rand(3), expected)


def test_train_loss_is_the_mean_over_examples() -> None:
    torch.manual_seed(0)
    module = nn.Linear(6, 3)
    data = table(21)  # batches of 8, 8 and 5
    expected = F.cross_entropy(module(data.train.inputs[0]), data.train.targets[0]).item()
    config = TrainConfig(epochs=1, lr=1e-12, batch_size=8)
    result = finetune(captured(module, 6), data, config, SilentReporter())
    assert result.curve[0].train_loss == pytest.approx(expected, rel=1e-6)


def _relabelled(part: Split, network: GraphModule, wrong: bool) -> Split:
    """Targets that `network` gets all right, or all wrong."""
    outputs = network(part.inputs[0]).argmax(1)
    return dataclasses.replace(part, targets=((outputs + 1) % 3 if wrong else outputs,))


@pytest.mark.parametrize("right", [True, False])
def test_validation_decides_where_choose_prefers_the_start(right: bool) -> None:
    """The original was trained on `choose`, so that a start may know it by heart."""
    network, data = captured(perceptron(), 6), table()
    data = dataclasses.replace(
        data,
        choose=_relabelled(data.choose, network, wrong=False),
        validation=_relabelled(data.validation, network, wrong=not right),
    )
    before = weights(network)
    result = finetune(network, data, TrainConfig(epochs=2, batch_size=8), SilentReporter())
    assert result.start == 1.0
    assert all(epoch.score < 1.0 for epoch in result.curve)
    if right:
        assert result.best_epoch == 0
        assert same(weights(network), before), "running statistics are kept too"
        assert "the start was kept" in result.notes[-1]
    else:
        assert result.best_epoch == max(result.curve, key=lambda e: (e.score, e.epoch)).epoch
        assert not same(weights(network), before)
        assert "on the validation split what was trained" in result.notes[-1]


def test_validation_is_not_asked_where_choose_prefers_an_epoch() -> None:
    network, data = captured(perceptron(), 6), table()
    data = dataclasses.replace(
        data,
        choose=_relabelled(data.choose, network, wrong=True),
        validation=_relabelled(data.validation, network, wrong=False),
    )
    result = finetune(network, data, TrainConfig(epochs=2, batch_size=8), SilentReporter())
    assert result.start == 0.0
    assert result.best_epoch > 0


def test_an_earlier_epoch_is_brought_back() -> None:
    """Trained towards rising disorder, the first of two epochs is the better one."""
    data = table(64)
    network = captured(perceptron(), 6)
    config = TrainConfig(epochs=1, batch_size=8, lr=0.1, schedule=ScheduleName.COSINE)
    finetune(network, data, config, SilentReporter())
    seen: list[dict[str, Tensor]] = []

    class Spoiler(SilentReporter):
        """Turns all labels round as soon as the first epoch is over."""

        def say(self, text: str) -> None:
            seen.append(weights(network))
            data.train.targets[0].copy_((data.train.targets[0] + 1) % 3)

    result = finetune(network, data, dataclasses.replace(config, epochs=3, seed=1), Spoiler())
    assert result.best_epoch == 1
    assert same(weights(network), seen[0])
    assert "epoch 1 of 3 was the best and was kept" in result.notes


def test_no_epochs_change_nothing() -> None:
    network = captured(perceptron(), 6)
    before, code = weights(network), network.code
    result = finetune(network, table(), TrainConfig(epochs=0), SilentReporter())
    assert (result.curve, result.start, result.best_epoch) == ((), None, 0)
    assert same(weights(network), before)
    assert network.code == code


@pytest.mark.parametrize("optimizer", [SGD, ADAMW])
@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_every_optimizer_and_schedule_learns(
    optimizer: OptimizerName, schedule: ScheduleName
) -> None:
    network, data = captured(perceptron(), 6), table(100)
    config = TrainConfig(epochs=6, batch_size=8, optimizer=optimizer, schedule=schedule, lr=0.1)
    result = finetune(network, data, config, SilentReporter())
    assert score(network, data.validation, data, 16).value > 0.8
    assert result.start is not None
    assert result.start < 0.6


def test_regression_brings_the_mean_squared_error_down() -> None:
    data = table()
    weight = torch.arange(6.0)

    def numbers(part: Split) -> Split:
        return dataclasses.replace(part, targets=(part.inputs[0] @ weight / 4,))

    data = dataclasses.replace(
        data,
        task=REGRESSION,
        train=numbers(data.train),
        choose=numbers(data.choose),
        validation=numbers(data.validation),
        labels=(Labels(TaskName.REGRESSION),),
    )
    network = captured(perceptron(outputs=1), 6)
    difference = network(data.choose.inputs[0])[:, 0].detach() - data.choose.targets[0]
    result = finetune(network, data, TrainConfig(epochs=5, lr=0.04, batch_size=8), SilentReporter())
    assert result.metric is MSE
    assert result.start == pytest.approx(float((difference**2).sum() / 40), rel=1e-5)
    assert result.curve[-1].score < result.start / 2
    assert result.best_epoch == min(result.curve, key=lambda epoch: epoch.score).epoch


def test_a_loss_that_explodes_is_an_error_with_a_hint() -> None:
    network = captured(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)), 6)
    code = network.code
    with pytest.raises(TrainingError, match=r"the loss must stay finite, got (nan|inf)") as caught:
        finetune(network, table(), TrainConfig(epochs=3, lr=1e12, batch_size=8), SilentReporter())
    assert "in epoch 1, step" in caught.value.message
    assert "lower --lr (its peak is 1e+12)" in (caught.value.hint or "")
    assert caught.value.exit_code == 1
    assert network.code == code, "evaluation mode"


def test_outputs_that_are_not_numbers_have_no_score() -> None:
    network, data = captured(perceptron(), 6), table()
    with torch.no_grad():
        network.get_parameter("4.bias")[1] = math.nan
    with pytest.raises(TrainingError, match=r"^score on choose: outputs must be finite, got NaN"):
        score(network, data.choose, data, 16)


@pytest.mark.parametrize(("count", "steps"), [(17, 2), (16, 2), (9, 1), (18, 3), (1 + 3 * 8, 3)])
def test_a_last_batch_of_one_is_left_out(count: int, steps: int) -> None:
    totals: list[float | None] = []

    class Counter(SilentReporter):
        @contextmanager
        def step(self, title: str, total: float | None = None) -> Iterator[Step]:
            totals.append(total)
            with super().step(title, total) as inner:
                yield inner

    network = captured(perceptron(), 6)
    result = finetune(network, table(count), TrainConfig(epochs=1, batch_size=8), Counter())
    assert totals == [steps]
    assert torch.isfinite(network.get_buffer("1.running_var")).all()
    left_out = [note for note in result.notes if "leaves out" in note]
    expected = f"each epoch leaves out 1 of {count} examples at random"
    assert left_out == ([expected] if count % 8 == 1 else [])


def test_batches_of_one_are_refused_where_there_is_batch_norm() -> None:
    config = TrainConfig(epochs=1, batch_size=1)
    with pytest.raises(ConfigError, match=r"^--batch-size: batch norm needs at least 2 .* got 1$"):
        finetune(captured(perceptron(), 6), table(), config, SilentReporter())
    plain = captured(nn.Sequential(nn.Linear(6, 3)), 6)
    assert len(finetune(plain, table(), config, SilentReporter()).curve) == 1


def test_a_graph_with_a_fixed_batch_is_trained_and_scored_with_it() -> None:
    data = table(50)
    free, fixed = captured(perceptron(), 6), captured(perceptron(), 6, fixed=True)
    assert score(fixed, data.choose, data, 64) == score(free, data.choose, data, 64)
    odd = dataclasses.replace(data.choose, inputs=(data.choose.inputs[0][:7],))
    odd = dataclasses.replace(odd, targets=(data.choose.targets[0][:7],))
    assert score(fixed, odd, data, 64) == score(free, odd, data, 64)
    config = TrainConfig(epochs=1, batch_size=16)
    result = finetune(fixed, data, config, SilentReporter())
    assert "trained in batches of 4, the only size that the graph takes" in result.notes
    assert "each epoch leaves out 2 of 50 examples at random" in result.notes
    with pytest.raises(ConfigError, match="takes batches of 4, got 3 training examples"):
        finetune(fixed, table(3), config, SilentReporter())


class WithLoss(nn.Module):
    """A second output that has no examples."""

    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.body(inputs)
        return outputs, outputs.square().mean()


@pytest.mark.parametrize("fixed", [False, True])
def test_outputs_that_are_not_read_may_have_no_examples(fixed: bool) -> None:
    data = table(50)
    network, alone = captured(WithLoss(), 6, fixed=fixed), captured(perceptron(), 6)
    assert score(network, data.choose, data, 64) == score(alone, data.choose, data, 64)


@pytest.mark.parametrize("what", ["detached", "whole", "constant"])
def test_a_loss_without_gradients_is_refused(what: str) -> None:
    def loss(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
        right = outputs[0].argmax(1) == targets[0]
        made = {
            "detached": outputs[0].detach().mean(),
            "whole": right.sum(),
            "constant": torch.tensor(1.0),
        }
        return made[what]

    data = table(50)
    data = dataclasses.replace(data, task=dataclasses.replace(data.task, loss=loss))
    with pytest.raises(ModelError, match="fine-tuning: the loss must change with the weights"):
        finetune(captured(perceptron(), 6), data, TrainConfig(epochs=1), SilentReporter())


def test_outputs_must_fit_the_task() -> None:
    data = table()
    maps = captured(nn.Unflatten(1, (3, 2)), 6)
    with pytest.raises(ModelError, match=r"outputs of shape \(batch, classes\), got \(40, 3, 2\)"):
        score(maps, data.choose, data, 64)
    numbers = dataclasses.replace(data, task=REGRESSION)
    with pytest.raises(ModelError, match=r"targets' shape \(40,\), got \(40, 3\)"):
        score(captured(perceptron(), 6), data.choose, numbers, 64)

    class Two(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return inputs[:, :3], inputs

    first = captured(nn.Sequential(nn.Linear(6, 6, bias=False), Two()), 6)
    with torch.no_grad():
        first.get_parameter("0.weight").copy_(torch.eye(6))
    right = (data.choose.inputs[0][:, :3].argmax(1) == data.choose.targets[0]).double().mean()
    assert score(first, data.choose, data, 64).value == pytest.approx(float(right))
    empty = dataclasses.replace(data.choose, inputs=(torch.empty(0, 6),), targets=(torch.empty(0),))
    with pytest.raises(DataError, match="the choose split holds no examples"):
        score(captured(perceptron(), 6), empty, data, 64)


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    network = captured(perceptron(), 6)
    decays = {
        id(parameter): group["weight_decay"]
        for group in make_optimizer(network, TrainConfig(weight_decay=0.5)).param_groups
        for parameter in group["params"]
    }
    found = {name: decays[id(value)] for name, value in network.named_parameters()}
    assert found == {
        "0.weight": 0.5,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "4.weight": 0.5,
        "4.bias": 0.0,
    }


def test_nothing_to_train_is_an_error() -> None:
    network = captured(nn.Flatten(), 3)
    with pytest.raises(ModelError, match="no trainable parameters"):
        finetune(network, table(), TrainConfig(epochs=1, device=DeviceName.CPU), SilentReporter())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"epochs": -1}, "--epochs: 0 or more is needed, got -1", id="epochs"),
        pytest.param({"batch_size": 0}, "--batch-size: at least 1 is needed, got 0", id="batch"),
        pytest.param({"lr": 0.0}, "--lr: a positive number is needed, got 0", id="lr"),
        pytest.param({"lr": math.nan}, "--lr: a positive number is needed, got nan", id="nan"),
    ],
)
def test_bad_numbers_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_training(dataclasses.replace(TrainConfig(), **change))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(images(), "random crop (padding 2) and horizontal flip", id="colour"),
        pytest.param(images(channels=1), None, id="grey"),
        pytest.param(images(size=(7, 7)), "horizontal flip", id="tiny"),
        pytest.param(table(), None, id="table"),
    ],
)
def test_augmentation_suits_the_data(data: DataSet, words: str | None) -> None:
    found = augmentation_for(data)
    assert (found.words if found else None) == words


def _windows(image: Tensor) -> list[Tensor]:
    """Every crop of a 16x24 image padded by 2 and 3 zeros, then all their mirror images."""
    room = torch.zeros(3, 20, 30)
    room[:, 2:18, 3:27] = image
    found = [room[:, top : top + 16, left : left + 24] for top in range(5) for left in range(7)]
    return found + [item.flip(2) for item in found]


def test_augmented_images_are_windows_of_the_padded_original() -> None:
    data = images(count=64, size=(16, 24))
    augmentation = augmentation_for(data)
    assert augmentation is not None
    torch.manual_seed(0)
    changed = augmentation.change(data.train.inputs)[0]
    places = []
    for original, image in zip(data.train.inputs[0], changed, strict=True):
        places.append([window.equal(image) for window in _windows(original.float())].index(True))
    assert len(set(places)) > 10, "each image is moved on its own"
    assert 16 < sum(place >= 35 for place in places) < 48, "about half are mirrored"


def test_grey_images_are_left_alone_and_the_notes_say_so() -> None:
    data = images(channels=1)
    result = finetune(image_net(1), data, TrainConfig(epochs=1, batch_size=16), SilentReporter())
    assert result.notes[0].startswith("training images are used as they are")


def test_images_train_with_augmentation_and_say_so() -> None:
    network, data = image_net(), images(count=64)
    config = TrainConfig(epochs=4, batch_size=16, lr=0.1)
    result = finetune(network, data, config, SilentReporter())
    assert score(network, data.validation, data, 16).value > 0.9
    assert result.notes[0] == (
        "training images are changed by: random crop (padding 2) and horizontal flip"
    )
    assert network.get_parameter("0.weight").is_contiguous()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("epoch", "metric", "line"),
    [
        pytest.param(
            Epoch(1, 0.41234, 0.84125, 0.018, 61.26),
            ACCURACY,
            "epoch 1/3  loss 0.4123  accuracy 84.12%  lr 0.018  61.3 s  2 min left",
            id="accuracy",
        ),
        pytest.param(
            Epoch(3, 2.5, 1.23456, 1e-5, 0.04),
            MSE,
            "epoch 3/3  loss 2.5000  mse 1.235  lr 1e-05  0.0 s",
            id="last, error",
        ),
    ],
)
def test_epoch_line(epoch: Epoch, metric: Metric, line: str) -> None:
    assert epoch_line(epoch, 3, metric) == line


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.4, "12 s"), (89, "89 s"), (300, "5 min"), (7500, "2 h 05 min")]
)
def test_in_time(seconds: float, words: str) -> None:
    assert in_time(seconds) == words


def test_interruption_leaves_evaluation_mode_and_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, data = image_net(), images()
    code = network.code
    calls = 0
    step: Callable[..., Tensor] = F.cross_entropy

    def interrupted(outputs: Tensor, targets: Tensor, **given: float) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return step(outputs, targets, **given)

    monkeypatch.setattr("prunecli.tasks.classes.F.cross_entropy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(network, data, TrainConfig(epochs=1, batch_size=8), SilentReporter())
    assert network.code == code
    assert network.get_parameter("0.weight").is_contiguous()
