"""Mixup and CutMix, against examples whose parts can be told apart."""

import dataclasses
import math

import pytest
import torch
from tiny_training import SGD, Watcher, cnn, data_for, mlp, train
from torch import Tensor
from torch.nn import functional as F

from prunecli.choices import TaskName
from prunecli.data import DataSet, Preprocess, Split
from prunecli.errors import ConfigError
from prunecli.recovery.mixing import Mixing, blended, mixing_for, pasted
from prunecli.recovery.objective import Objective
from prunecli.tasks import CLASSIFICATION, REGRESSION, TASKS, Labels, Task
from prunecli.tasks.heads import Head, combined
from prunecli.tuning import TrainConfig


def numbered(count: int, *shape: int) -> Tensor:
    """Every value of an example is its number."""
    return torch.arange(float(count)).reshape(-1, *(1,) * len(shape)).expand(count, *shape)


def test_blends_are_of_the_share_that_losses_have() -> None:
    torch.manual_seed(0)
    mixed = Mixing(((blended, 0.4),), ((5,),), "")((numbered(8, 5),))
    own = torch.arange(8.0)
    expected = mixed.share * own + (1 - mixed.share) * own[mixed.partner]
    torch.testing.assert_close(mixed.inputs[0], expected[:, None].expand(8, 5))
    assert torch.equal(mixed.others((own, -own))[1], -own[mixed.partner])


def test_all_inputs_of_an_example_are_blended_with_the_same_partner() -> None:
    torch.manual_seed(0)
    inputs = (numbered(8, 5), 10 * numbered(8, 2, 3))
    mixed = Mixing(((blended, 0.4),), ((5,), (2, 3)), "")(inputs)
    torch.testing.assert_close(mixed.inputs[1][:, 0, 0], 10 * mixed.inputs[0][:, 0])


@pytest.mark.parametrize("shape", [(3, 8, 6), (2, 40), (1, 4, 6, 5)])
def test_pasted_boxes_are_of_the_share_that_labels_have(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    mixing, places = Mixing(((pasted, 1.0),), (shape,), ""), set()
    for _ in range(30):
        mixed = mixing((numbered(6, *shape),))
        found = mixed.inputs[0]
        foreign = found != numbered(6, *shape)
        moved = mixed.partner != torch.arange(6)
        assert torch.equal(found[foreign], numbered(6, *shape)[mixed.partner][foreign])
        for example in foreign[moved]:
            assert example.float().mean() == pytest.approx(1 - mixed.share)
            # One box, the same in every channel.
            assert bool((example == example[:1]).all())
            inside = example[0].nonzero()
            if len(inside):
                sides = inside.max(0).values - inside.min(0).values + 1
                assert math.prod(sides.tolist()) == len(inside)
                places.add(tuple(inside[0].tolist()))
    assert len(places) > 3


def test_shares_follow_their_distribution() -> None:
    """Beta(a, a) has the variance 1 / (4 (2a + 1))."""
    torch.manual_seed(0)
    for alpha in (0.01, 0.2, 1.0, 4.0, 100.0):
        mixing = Mixing(((blended, alpha),), ((1,),), "")
        shares = torch.tensor([mixing((numbered(2, 1),)).share for _ in range(2000)])
        assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_of_both_each_batch_draws_one() -> None:
    torch.manual_seed(0)
    data = data_for(cnn())
    mixing = mixing_for(data, TrainConfig(mixup=1.0, cutmix=1.0))
    assert mixing is not None
    assert mixing.words == "training examples are mixed in pairs: mixup or cutmix"
    boxes = 0
    for _ in range(200):
        (found,) = mixing((numbered(4, 3, 8, 8),)).inputs
        boxes += bool((found == found.round()).all())
    assert 70 < boxes < 130


def test_nothing_is_mixed_unless_asked() -> None:
    assert mixing_for(data_for(mlp()), TrainConfig()) is None


def test_the_loss_of_classes_is_that_of_mixed_labels() -> None:
    """-(sum over classes of share times log softmax)."""
    torch.manual_seed(0)
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed = Mixing(((blended, 1.0),), ((2,),), "")((torch.randn(6, 2),))
    hot = F.one_hot(targets, 3).float()
    soft = mixed.share * hot + (1 - mixed.share) * hot[mixed.partner]
    for smoothing in (0.0, 0.1):
        objective = Objective(CLASSIFICATION, 0.0, 1.0, None, smoothing)
        found = objective(
            mixed.inputs, (outputs,), (targets,), mixed.others((targets,)), mixed.share
        )
        expected = F.cross_entropy(outputs, soft, label_smoothing=smoothing)
        torch.testing.assert_close(found.wanted, expected)


def test_the_loss_of_several_labels_is_that_of_mixed_labels() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(6, 4), (torch.rand(6, 4) > 0.5).float()
    mixed = Mixing(((blended, 1.0),), ((2,),), "")((torch.randn(6, 2),))
    soft = mixed.share * targets + (1 - mixed.share) * targets[mixed.partner]
    objective = Objective(TASKS[TaskName.MULTILABEL], 0.0, 1.0, None)
    found = objective(mixed.inputs, (outputs,), (targets,), mixed.others((targets,)), mixed.share)
    torch.testing.assert_close(found.wanted, F.binary_cross_entropy_with_logits(outputs, soft))


def test_only_losses_on_targets_are_those_of_both() -> None:
    """What is distilled is said of the mixture itself."""
    torch.manual_seed(0)
    outputs, wanted, targets = torch.randn(6, 3), torch.randn(6, 3), torch.arange(6) % 3
    mixed = Mixing(((blended, 1.0),), ((2,),), "")((torch.randn(6, 2),))
    seen: list[Tensor] = []

    def teach(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.extend(inputs)
        return (wanted,)

    objective = Objective(CLASSIFICATION, 0.25, 4.0, teach)
    losses = objective(mixed.inputs, (outputs,), (targets,), mixed.others((targets,)), mixed.share)
    far = CLASSIFICATION.distance((outputs,), (wanted,), (targets,), 4.0)
    torch.testing.assert_close(losses.wanted, 0.75 * losses.own + 0.25 * far)
    assert seen == [mixed.inputs[0]]


def test_heads_are_mixed_where_all_of_them_can_be() -> None:
    one, other = Head("a", CLASSIFICATION, 1.0, 0), Head("b", REGRESSION, 1.0, 1)
    assert combined([one]).mixes
    assert combined([one, dataclasses.replace(one, name="c", output=1)]).mixes
    assert not combined([one, other]).mixes


def test_the_original_sees_what_the_network_sees() -> None:
    network, teacher = mlp(), mlp()
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, args: ours.append(args[0]))
    teacher.register_forward_pre_hook(lambda _, args: theirs.append(args[0]))
    train(network, dataclasses.replace(SGD, epochs=1, mixup=1.0, distill=0.5), teacher=teacher)
    assert len(theirs) == 6
    plain = data_for(network).train.inputs[0]
    for batch in theirs:
        assert any(torch.equal(batch, item) for item in ours)
        # Some examples may be their own partners.
        assert any(not bool((plain == example).all(1).any()) for example in batch)


def test_images_that_go_in_flat_are_cut_as_images() -> None:
    pixels = torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
    split = Split("train", (pixels,), (torch.arange(16) % 2,))
    data = DataSet(
        *(CLASSIFICATION, split, split, split),
        (Preprocess(image=True, example_shape=(192,)),),
        *((Labels(TaskName.CLASSIFICATION, ("a", "b")),), (), ()),
    )
    mixing = mixing_for(data, TrainConfig(cutmix=1.0))
    assert mixing is not None
    torch.manual_seed(1)
    (found,) = mixing((numbered(4, 192),)).inputs
    assert found.shape == (4, 192)
    foreign = (found != numbered(4, 192)).reshape(4, 3, 8, 8)
    assert bool((foreign == foreign[:, :1]).all())


@pytest.mark.parametrize(
    ("given", "task", "said"),
    [
        (
            {"mixup": 0.2},
            REGRESSION,
            "--mixup: mixes classes of whole examples, got data for regression",
        ),
        (
            {"cutmix": 1.0},
            TASKS[TaskName.TOKEN_CLASSIFICATION],
            "--cutmix: mixes classes of whole examples, got data for token-classification",
        ),
        (
            {"cutmix": 1.0},
            CLASSIFICATION,
            "--cutmix: needs examples with a place to paste into, got 6 numbers",
        ),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, float], task: Task, said: str) -> None:
    data = dataclasses.replace(data_for(mlp()), task=task)
    with pytest.raises(ConfigError) as caught:
        train(mlp(), dataclasses.replace(SGD, **given), data=data)
    assert caught.value.message == said


@pytest.mark.parametrize(
    ("given", "second", "said"),
    [
        (
            {"mixup": 0.2},
            Preprocess(image=False, dtype=torch.int64),
            "--mixup: mixes numbers, got whole numbers that the network takes as they are",
        ),
        ({"cutmix": 1.0}, Preprocess(image=False), "--cutmix: pastes into one input, got 2"),
    ],
)
def test_inputs_that_cannot_be_mixed_are_refused(
    given: dict[str, float], second: Preprocess, said: str
) -> None:
    data = data_for(cnn())
    split = dataclasses.replace(data.train, inputs=data.train.inputs * 2)
    data = dataclasses.replace(data, train=split, preprocess=(*data.preprocess, second))
    with pytest.raises(ConfigError) as caught:
        mixing_for(data, TrainConfig(**given))  # type: ignore[arg-type]
    assert caught.value.message == said


def test_a_network_learns_from_mixtures() -> None:
    network = cnn()
    config = dataclasses.replace(SGD, epochs=6, mixup=0.2, cutmix=1.0)
    result = train(network, config, Watcher())
    assert result.start is not None
    assert max(epoch.score for epoch in result.curve) > result.start + 0.2
    assert "training examples are mixed in pairs: mixup or cutmix" in result.notes
