"""Several tasks at once, and tasks of the user's own."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from prunecli.choices import TaskName
from prunecli.config import HeadConfig, TaskConfig
from prunecli.errors import ConfigError, DataError, ModelError
from prunecli.tasks import CLASSIFICATION, REGRESSION, Fit, Labels, bound, make_task
from prunecli.tasks.custom import load_task

BOTH = TaskConfig(
    heads=(
        HeadConfig("digit", TaskName.CLASSIFICATION, 1.0),
        HeadConfig("angle", TaskName.REGRESSION, 0.5),
    )
)
LABELS = (
    Labels(TaskName.CLASSIFICATION, ("0", "1", "2"), True, "digit"),
    Labels(TaskName.REGRESSION, name="angle"),
)


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs and targets: scores, numbers, classes, numbers."""
    generator = torch.Generator().manual_seed(0)
    scores, numbers = torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)
    return scores, numbers, torch.arange(8) % 3, torch.randn(8, generator=generator)


def test_losses_and_distances_are_weighted_sums() -> None:
    # The network's outputs come in another order, among others.
    task = bound(make_task(BOTH, LABELS), BOTH, ("angle", "extra", "digit"))
    scores, numbers, classes, angles = batch()
    outputs, wanted = (numbers, torch.zeros(8), scores), (numbers + 1, torch.ones(8), scores * 2)
    alone = CLASSIFICATION.loss((scores,), (classes,), 0.1)
    other = REGRESSION.loss((numbers,), (angles,), 0.1)
    torch.testing.assert_close(task.loss(outputs, (classes, angles), 0.1), alone + 0.5 * other)
    far = CLASSIFICATION.distance((scores,), (scores * 2,), (classes,), 4.0)
    torch.testing.assert_close(task.distance(outputs, wanted, (classes, angles), 4.0), far + 0.5)
    assert task.outputs == (2, 0)
    assert task.share == pytest.approx((1.0 * 0.9 + 0.5 * 0.0) / 1.5)
    assert task.name == "digit=classification:1,angle=regression:0.5"


def test_the_first_head_leads_and_the_others_are_shown() -> None:
    task = make_task(BOTH, LABELS)
    scores, numbers, classes, angles = batch()
    meter = task.meter()
    meter.update((scores, numbers), (classes, angles))
    found = meter.compute()
    right = float((scores.argmax(1) == classes).float().mean())
    assert (found.value, task.metric.title) == (right, "digit accuracy")
    error = float((numbers[:, 0] - angles).double().square().mean())
    others = {metric.title: value for metric, value in found.others}
    assert others["angle MSE"] == pytest.approx(error)
    assert list(others) == ["digit macro F1", "angle MSE", "angle R2"]


def test_every_head_is_checked_against_its_output() -> None:
    task = bound(make_task(BOTH, LABELS), BOTH, ("angle", "digit"))
    task.check(Fit(((2, 1), (2, 3)), LABELS, ((), ())))
    with pytest.raises(DataError, match="classes must match the model's outputs, got 3 classes"):
        task.check(Fit(((2, 1), (2, 4)), LABELS, ((), ())))


def test_heads_are_outputs_of_the_network() -> None:
    with pytest.raises(ConfigError, match="must name outputs of the network, got 'angle'") as said:
        bound(make_task(BOTH, LABELS), BOTH, ("digit", "logits"))
    assert said.value.hint == "its outputs are digit, logits"


OWN = """
import torch
from helpers_of_mine import half


class Task:
    higher_is_better = False
    name = "absolute error"

    def loss(self, outputs, targets):
        return half((outputs[:, 0] - targets).abs().mean())

    def metric(self, outputs, targets):
        return (outputs[:, 0] - targets).abs().median()


class Many(Task):
    percent = True

    def loss(self, outputs, targets):
        return (outputs[1] - targets[0]).square().mean()

    def distance(self, outputs, wanted, temperature):
        return (outputs[1] - wanted[1]).square().mean() * temperature

    def metric(self, outputs, targets):
        return 1.5


class Shapes(Task):
    def metric(self, outputs, targets):
        return len(outputs[0]) + len(outputs[1])


class Gauge:
    higher_is_better = True
    def loss(self, outputs, targets): return outputs.sum()
    def __init__(self):
        from torchmetrics.regression import R2Score
        self.metric = R2Score()


class Failing(Task):
    def loss(self, outputs, targets):
        raise KeyError("no such label")


class Hungry(Task):
    def loss(self, outputs, targets):
        raise torch.OutOfMemoryError("no memory")


class Odd(Task):
    def loss(self, outputs, targets):
        return outputs

    def metric(self, outputs, targets):
        return float("nan")


class Undecided:
    def loss(self, outputs, targets): ...
    def metric(self, outputs, targets): ...


class Lossless:
    higher_is_better = True
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "helpers_of_mine.py").write_text("def half(x):\n    return x / 2\n")
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


def test_a_task_of_the_users_own(own: Path) -> None:
    task = load_task(f"{own}:Task")
    outputs, targets = torch.tensor([[1.0], [2.0], [7.0]]), torch.zeros(3)
    assert float(task.loss((outputs,), (targets,), 0.0)) == pytest.approx(10 / 3 / 2)
    assert (task.metric.title, task.metric.higher_is_better) == ("absolute error", False)
    assert not task.metric.percent
    meter = task.meter()
    for row in range(3):  # a median of medians would be another number after other batches
        meter.update((outputs[row : row + 1],), (targets[row : row + 1],))
    assert meter.compute().value == 2.0
    assert float(task.distance((outputs,), (outputs + 2,), (targets,), 4.0)) == 4.0


def test_several_outputs_come_as_a_tuple(own: Path) -> None:
    task = load_task(f"{own}:Many")
    one, two = torch.zeros(2), torch.ones(2)
    assert float(task.loss((one, two), (one, one), 0.0)) == 1.0
    assert float(task.distance((one, two), (one, one), (one, one), 3.0)) == 3.0
    assert task.metric.percent


def test_single_numbers_among_outputs_come_once_for_each_batch(own: Path) -> None:
    meter = load_task(f"{own}:Shapes").meter()
    for _ in range(2):
        meter.update((torch.zeros(3, 4), torch.tensor(1.0)), (torch.zeros(3),))
    assert meter.compute().value == 6 + 2


def test_a_metric_of_torchmetrics_is_updated_batch_by_batch(own: Path) -> None:
    task = load_task(f"{own}:Gauge")
    said, meant = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])
    for _ in range(2):  # every meter starts anew
        meter = task.meter()
        for row in range(3):
            meter.update((said[row : row + 1],), (meant[row : row + 1],))
        assert meter.compute().value == pytest.approx(1 - 1 / 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nothing", r"own\.py:Nothing: the factory must exist, got no 'Nothing'"),
        ("Undecided", "must say whether a higher metric is better, got None"),
        ("Lossless", "must have a loss, got none"),
    ],
)
def test_what_is_no_task(own: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_task(f"{own}:{name}")


def test_what_the_users_code_does_wrong(own: Path) -> None:
    one = (torch.zeros(2),)
    with pytest.raises(ModelError, match=r"own\.py:Failing: raised KeyError: 'no such label'"):
        load_task(f"{own}:Failing").loss(one, one, 0.0)
    # Not its mistake: what runs the batch tells how to make it smaller.
    with pytest.raises(torch.OutOfMemoryError):
        load_task(f"{own}:Hungry").loss(one, one, 0.0)
    odd = load_task(f"{own}:Odd")
    with pytest.raises(ModelError, match=r"loss must return a tensor of one number, got \(2,\)"):
        odd.loss(one, one, 0.0)
    meter = odd.meter()
    meter.update(one, one)
    with pytest.raises(ModelError, match="metric must return a finite number, got nan"):
        meter.compute()


def test_what_the_users_attributes_and_numbers_do_wrong(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Task:\n"
        "    higher_is_better = True\n"
        "    def metric(self, outputs, targets): return 0.0\n"
        "    def loss(self, outputs, targets): return outputs.sum() * 1j\n"
        "class Raising(Task):\n"
        "    @property\n"
        "    def loss(self): raise ValueError('not yet')\n"
    )
    with pytest.raises(ModelError, match=r"own\.py:Raising: raised ValueError: not yet"):
        load_task(f"{tmp_path / 'own.py'}:Raising")
    task = load_task(f"{tmp_path / 'own.py'}:Task")
    with pytest.raises(ModelError, match=r"one number, got torch\.complex64"):
        task.loss((torch.zeros(2),), (torch.zeros(2),), 0.0)
