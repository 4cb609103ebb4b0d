"""Every task against numbers computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from prunecli.choices import TaskName
from prunecli.errors import ConfigError, DataError, ModelError
from prunecli.tasks import CLASSIFICATION, REGRESSION, TASKS, Fit, Labels, Scores, Task, rows
from prunecli.tasks.match import answers_of
from prunecli.tasks.task import IGNORED, UNMARKED, Tensors

TOKENS, PIXELS = TASKS[TaskName.TOKEN_CLASSIFICATION], TASKS[TaskName.SEGMENTATION]
WORDS, MASKED = TASKS[TaskName.LANGUAGE_MODELLING], TASKS[TaskName.MASKED_LANGUAGE_MODELLING]
ANSWERS, MATCH = TASKS[TaskName.MULTILABEL], TASKS[TaskName.MATCH]


def judged(task: Task, outputs: Tensor | Tensors, targets: Tensor | Tensors) -> Scores:
    """Scores of examples that come one by one."""
    said, meant = ((x,) if isinstance(x, Tensor) else x for x in (outputs, targets))
    meter = task.meter()
    for place in range(len(said[0])):
        one = slice(place, place + 1)
        meter.update(tuple(item[one] for item in said), tuple(item[one] for item in meant))
    return meter.compute()


def others(scores: Scores) -> dict[str, float | None]:
    return {metric.name: value for metric, value in scores.others}


def loss(task: Task, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> float:
    return float(task.loss((outputs,), (targets,), smoothing))


def apart(task: Task, outputs: Tensor, wanted: Tensor, targets: Tensor) -> float:
    return float(task.distance((outputs,), (wanted,), (targets,), 1.0))


def nats(*scores: float, label: int) -> float:
    """Cross entropy of one row."""
    return math.log(sum(math.exp(score) for score in scores)) - scores[label]


def test_the_table_holds_every_task_under_its_name() -> None:
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TaskName}


def test_classes() -> None:
    # Six classes: the right one is first, third, sixth (not among the first five), first.
    scores = torch.tensor(
        [[9.0, 0, 0, 0, 0, 0], [3, 2, 1, 0, 0, 0], [5, 4, 3, 2, 1, 0], [0, 0, 0, 0, 0, 9]]
    )
    labels = torch.tensor([0, 2, 5, 5])
    found = judged(CLASSIFICATION, scores, labels)
    assert (found.value, found.chance) == (0.5, 0.5)
    # F1: class 0 has 1 of 3 answers and all of its labels (2/4), class 5 1 of 1 and 1 of 2 (2/3),
    # class 2 nothing; the others do not occur.
    assert others(found)["top5"] == 0.75
    assert others(found)["macro_f1"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert "top5" not in others(judged(CLASSIFICATION, scores[:2, :5], labels[:2]))


@pytest.mark.parametrize("task", [TOKENS, MASKED])
def test_tokens_without_a_label_count_for_nothing(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 3, 4, generator=generator)
    wanted = torch.randn(2, 3, 4, generator=generator)
    targets = torch.tensor([[1, IGNORED, 3], [IGNORED, IGNORED, 0]])
    places = [(0, 0, 1), (0, 2, 3), (1, 2, 0)]
    expected = sum(nats(*outputs[b, t].tolist(), label=c) for b, t, c in places) / 3
    assert loss(task, outputs, targets) == pytest.approx(expected, rel=1e-5)
    other = outputs.clone()
    other[0, 1], other[1, :2] = 7.0, -3.0
    assert loss(task, other, targets) == loss(task, outputs, targets)
    assert apart(task, other, wanted, targets) == apart(task, outputs, wanted, targets) > 0
    assert apart(task, wanted, wanted, targets) == 0.0
    found = judged(task, outputs, targets)
    if task is MASKED:
        assert found.value == pytest.approx(math.exp(expected), rel=1e-5)
    else:
        right = sum(int(outputs[b, t].argmax()) == c for b, t, c in places)
        assert (found.value, found.chance) == (right / 3, 1 / 3)


def test_macro_f1_of_tokens() -> None:
    outputs = torch.eye(2)[torch.tensor([[0, 0, 1, 0]])]
    found = judged(TOKENS, outputs, torch.tensor([[0, 1, 1, IGNORED]]))
    assert found.value == 2 / 3
    assert others(found)["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize("task", [TOKENS, PIXELS, WORDS, MASKED])
def test_a_batch_in_which_nothing_counts_has_no_loss(task: Task) -> None:
    shape = (2, 3, 2, 2) if task is PIXELS else (2, 4, 3)
    outputs = torch.randn(shape, requires_grad=True)
    targets = torch.full((2, 2, 2) if task is PIXELS else (2, 4), IGNORED)
    found = task.loss((outputs,), (targets,), 0.0)
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0.0
    assert outputs.grad is not None
    assert bool((outputs.grad == 0).all())
    said = outputs.detach()
    assert apart(task, said, said + 1, targets) == 0.0
    with pytest.raises(DataError, match="at least one example is needed to score"):
        judged(task, said, targets)


def test_next_tokens_are_those_that_follow() -> None:
    outputs = torch.tensor([[[2.0, 0, 0], [0, 1.0, 0], [0, 0, 5.0]]])
    targets = torch.tensor([[2, 0, IGNORED]])
    # Only the first place is followed by a token that counts.
    assert loss(WORDS, outputs, targets) == pytest.approx(nats(2, 0, 0, label=0), rel=1e-6)
    both = torch.tensor([[2, 0, 1]])
    expected = (nats(2, 0, 0, label=0) + nats(0, 1, 0, label=1)) / 2
    found = judged(WORDS, outputs, both)
    assert found.value == pytest.approx(math.exp(expected), rel=1e-6)
    # Classes 0 and 1 once each: a constant answer is as uncertain as a coin.
    assert found.chance == pytest.approx(2.0)


def test_perplexity_of_what_is_all_but_impossible() -> None:
    """Its probability is 0 in single precision; the scores come in pieces."""
    outputs = torch.zeros(1, 3, 2)
    outputs[0, :, 0] = 300.0
    for task in (WORDS, MASKED):
        found = judged(task, outputs, torch.ones(1, 3, dtype=torch.int64))
        assert found.value == pytest.approx(math.exp(300), rel=1e-5)


def test_perplexity_does_not_depend_on_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, targets = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    whole = judged(MASKED, outputs, targets).value
    monkeypatch.setattr(rows, "PIECE", 10)
    assert judged(MASKED, outputs, targets).value == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e9])
def test_the_mean_scores_the_variance_of_the_targets(shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(11, 2, generator=generator, dtype=torch.float64) + shift
    meter = REGRESSION.meter()
    for cut in (slice(0, 3), slice(3, 4), slice(4, 11)):
        meter.update((targets[cut],), (targets[cut],))
    mean = targets.mean(0)
    expected = float((targets - mean).square().mean())
    assert meter.compute().chance == pytest.approx(expected, rel=1e-6)


def test_targets_that_are_all_the_same_have_no_r2() -> None:
    targets = torch.full((7, 1), 0.1)
    found = judged(REGRESSION, torch.zeros(7, 1), targets)
    assert (found.chance, others(found)) == (0.0, {"r2": None})


def test_pixels() -> None:
    said = torch.tensor([[[0, 0, 1], [1, 1, 1]]])
    outputs = torch.nn.functional.one_hot(said, 3).movedim(-1, 1).float()
    targets = torch.tensor([[[0, 1, 1], [1, UNMARKED, IGNORED]]])
    found = judged(PIXELS, outputs, targets)
    # Of four pixels that count: class 0 is said twice and right once, class 1 said twice and
    # right twice of three. The third class does not occur.
    assert found.value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert others(found)["pixel_accuracy"] == 3 / 4
    expected = (3 * nats(1, 0, 0, label=0) + nats(1, 0, 0, label=1)) / 4
    assert loss(PIXELS, outputs, targets) == pytest.approx(expected, rel=1e-6)


def test_one_channel_of_pixels_says_two_classes() -> None:
    outputs = torch.randn(2, 1, 3, 3)
    targets = torch.randint(0, 2, (2, 3, 3))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())
    assert loss(PIXELS, outputs, targets) == pytest.approx(float(expected), rel=1e-5)
    right = ((outputs[:, 0] > 0).long() == targets).double().mean()
    assert others(judged(PIXELS, outputs, targets))["pixel_accuracy"] == pytest.approx(right)


def test_coarse_outputs_are_brought_to_the_masks_size() -> None:
    outputs = torch.full((1, 2, 2, 2), 0.0)
    outputs[:, 1] = 3.0
    targets = torch.ones(1, 8, 8, dtype=torch.int64)
    assert loss(PIXELS, outputs, targets) == pytest.approx(nats(0, 3, label=1), rel=1e-5)
    assert judged(PIXELS, outputs, targets).value == 1.0


def test_several_labels_at_once() -> None:
    outputs = torch.tensor([[2.0, -1.0], [1.0, 3.0], [-2.0, 0.5]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, IGNORED]])

    def cost(score: float, label: int) -> float:
        return math.log1p(math.exp(-score if label else score))

    pairs = [(2, 1), (-1, 0), (1, 0), (3, 1), (-2, 1)]
    expected = sum(cost(*pair) for pair in pairs) / 5
    assert loss(ANSWERS, outputs, targets) == pytest.approx(expected, rel=1e-6)
    found = judged(ANSWERS, outputs, targets)
    # Yes where it is so: 2 times; yes where not: 1; no where it is: 1.
    assert found.value == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found.chance == pytest.approx(2 * 3 / (5 + 3))
    # First label: right at ranks 1 and 3 of 3 (1/1 and 2/3); second: at rank 1 of 2.
    assert others(found)["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert apart(ANSWERS, outputs, outputs, targets) == pytest.approx(0.0, abs=1e-7)
    assert apart(ANSWERS, outputs + 1, outputs, targets) > 0


def test_logits_between_0_and_1_are_no_probabilities() -> None:
    """Whether numbers are scores is not guessed batch by batch."""
    outputs = torch.full((1, 2), 0.3)
    assert judged(ANSWERS, outputs, torch.ones(1, 2)).value == 1.0


def test_match_needs_no_labels() -> None:
    said, meant = torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, -2.0]])
    found = judged(MATCH, said, meant)
    assert found.value == pytest.approx(math.sqrt((1 + 16) / 13))
    # The larger of two: the first twice.
    assert others(found) == {"agreement": 0.5}
    assert found.chance == 1.0
    assert apart(MATCH, said, meant, meant) == pytest.approx(17 / 13, rel=1e-6)
    # The same at any scale.
    assert apart(MATCH, 100 * said, 100 * meant, meant) == pytest.approx(17 / 13, rel=1e-6)
    with pytest.raises(ConfigError, match="there are no labels"):
        loss(MATCH, said, meant)


def test_match_is_about_all_outputs_that_are_numbers() -> None:
    one, two = torch.ones(2, 1), torch.full((2, 3), 2.0)
    whole = torch.zeros(2, dtype=torch.int64)
    meter = MATCH.meter()
    meter.update((one, whole, two * 2), (one, two))
    assert meter.compute().value == pytest.approx((0 + 1) / 2)
    assert float(MATCH.distance((one, whole, two * 2), (one, whole, two), (), 1.0)) == 1.0


def test_match_leaves_single_numbers_out() -> None:
    one, loss_of_all = torch.ones(2, 3), torch.tensor(5.0)
    assert answers_of((one, loss_of_all), 2) == (one,)
    assert float(MATCH.distance((one * 2, loss_of_all), (one, loss_of_all), (), 1.0)) == 1.0


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ((torch.zeros(2, dtype=torch.int64),), r"a decimal point for each example, got int64 \(2,"),
        ((torch.tensor(1.0),), r"got float32 \(\)"),
        ((torch.zeros(2, 3), torch.zeros(6, 4)), r"got float32 \(6, 4\) for 2 examples"),
    ],
)
def test_outputs_that_cannot_be_matched(outputs: Tensors, said: str) -> None:
    with pytest.raises(DataError, match=said):
        answers_of(outputs, 2)


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "said"),
    [
        (TOKENS, (2, 5), (2, 5), r"outputs of shape \(batch, tokens, classes\), got \(2, 5\)"),
        (TOKENS, (2, 5, 3), (2, 4), r"one output for each token of \(2, 4\) is needed"),
        (PIXELS, (2, 5), (2, 4, 4), r"\(batch, classes, height, width\), got \(2, 5\)"),
        (ANSWERS, (2, 3), (2, 4), r"multilabel needs outputs of the targets' shape \(2, 4\)"),
        (REGRESSION, (2, 3), (2,), r"regression needs outputs of the targets' shape \(2,\)"),
    ],
)
def test_outputs_of_another_shape(
    task: Task, outputs: tuple[int, ...], targets: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        loss(task, torch.zeros(outputs), torch.zeros(targets, dtype=torch.int64))


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "classes", "said"),
    [
        (TOKENS, (2, 5), (5,), 3, r"--task token-classification needs outputs \(batch, tokens"),
        (PIXELS, (2, 3, 8, 8), (8,), 3, "segmentation needs targets with 2 axes"),
        (PIXELS, (2, 3, 8, 8), (8, 8), 4, "got 4 classes in the data, 3 outputs"),
        (PIXELS, (2, 1, 8, 8), (8, 8), 3, "got 3 classes in the data, 2 outputs"),
        (PIXELS, (2, 256, 8, 8), (8, 8), 9, "takes at most 255 classes, .*, got 256 from the"),
        (WORDS, (2, 5, 10), (5,), 11, "the largest label is 10"),
        (ANSWERS, (2, 5), (4,), 0, "one output for each label, got 4 in the data, 5 from"),
    ],
)
def test_data_that_does_not_belong_to_the_network(
    task: Task, outputs: tuple[int, ...], targets: tuple[int, ...], classes: int, said: str
) -> None:
    labels = Labels(None, tuple(map(str, range(classes))), named=False)
    with pytest.raises(DataError, match=said):
        task.check(Fit((outputs,), (labels,), (targets,)))


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "classes"),
    [
        (TOKENS, (2, 64, 5), (40,), 3),  # the graph takes any number of tokens
        (PIXELS, (2, 1, 8, 8), (8, 8), 2),
        (PIXELS, (2, 21, 2, 2), (8, 8), 20),
        (MASKED, (2, 64, 100), (40,), 99),
        (ANSWERS, (2, 5), (5,), 0),
    ],
)
def test_data_that_belongs_to_the_network(
    task: Task, outputs: tuple[int, ...], targets: tuple[int, ...], classes: int
) -> None:
    labels = Labels(None, tuple(map(str, range(classes))), named=False)
    task.check(Fit((outputs,), (labels,), (targets,)))


def test_labels_beyond_the_outputs() -> None:
    with pytest.raises(DataError, match="labels must lie in 0 to 2, the network's outputs, got 3"):
        judged(TOKENS, torch.zeros(1, 2, 3), torch.tensor([[0, 3]]))
