"""Presets of augmentation: what they do to which data. The default is held in
`test_recovery_training`."""

import dataclasses
from typing import Any

import pytest
import torch
from tiny_training import SGD, captured, train
from torch import Tensor, nn

from prunecli.choices import Augment, TaskName
from prunecli.data import DataSet, Preprocess, Split
from prunecli.errors import ConfigError
from prunecli.recovery.augment import augmentation_for
from prunecli.tasks import CLASSIFICATION, TASKS, Labels

COLOUR, GREY = (3, 16, 16), (1, 16, 16)


def examples(*shape: int, image: bool = True, count: int = 256) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    # No pixel is 0: what is black was put there.
    pixels = torch.randint(40, 200, (count, *shape), generator=generator)
    inputs = pixels.to(torch.uint8) if image else pixels / 100.0
    split = Split("train", (inputs,), (torch.arange(count) % 2,))
    preprocess = (Preprocess(image=image, mean=(0.5,), std=(0.25,)),)
    labels = (Labels(TaskName.CLASSIFICATION, ("a", "b")),)
    return DataSet(CLASSIFICATION, split, split, split, preprocess, labels, (), ())


def changed(data: DataSet, preset: Augment) -> Tensor:
    torch.manual_seed(0)
    found = augmentation_for(data, preset)
    assert found is not None
    return found.change(data.train.inputs)[0]


@pytest.mark.parametrize(
    ("data", "preset", "words"),
    [
        (examples(*COLOUR), Augment.LIGHT, "horizontal flip"),
        (examples(*COLOUR), Augment.STANDARD, "random crop (padding 2) and horizontal flip"),
        (
            examples(*COLOUR),
            Augment.STRONG,
            "random crop (padding 2), horizontal flip, brightness, contrast, saturation and hue "
            "and random erasing",
        ),
        (examples(*GREY), Augment.LIGHT, "random crop (padding 1)"),
        (examples(*GREY), Augment.STANDARD, "random crop (padding 2)"),
        (
            examples(3, 16, 16, image=False),
            Augment.STRONG,
            "random crop (padding 2), rotation by up to 10 degrees and zoom and random erasing",
        ),
        (examples(2, 64, 8, image=False), Augment.STANDARD, "random crop (padding 8)"),
    ],
)
def test_presets_suit_the_data(data: DataSet, preset: Augment, words: str) -> None:
    found = augmentation_for(data, preset)
    assert found is not None
    assert found.words == words
    assert found.change(data.train.inputs)[0].shape == data.train.inputs[0].shape


@pytest.mark.parametrize("shape", [COLOUR, GREY])
def test_none_leaves_everything_alone(shape: tuple[int, ...]) -> None:
    assert augmentation_for(examples(*shape), Augment.NONE) is None


def test_auto_is_standard_for_colours_bit_for_bit() -> None:
    data = examples(*COLOUR)
    assert torch.equal(changed(data, Augment.AUTO), changed(data, Augment.STANDARD))
    assert augmentation_for(examples(*GREY), Augment.AUTO) is None


def test_light_is_the_image_or_its_mirror_image() -> None:
    data = examples(*COLOUR)
    mirrored = 0
    for before, after in zip(
        data.train.inputs[0].float(), changed(data, Augment.LIGHT), strict=True
    ):
        assert torch.equal(after, before) or torch.equal(after, before.flip(2))
        mirrored += torch.equal(after, before.flip(2))
    assert 96 < mirrored < 160


def test_images_without_colours_are_moved_and_never_mirrored() -> None:
    data, places = examples(*GREY), set()
    for before, after in zip(
        data.train.inputs[0].float(), changed(data, Augment.STANDARD), strict=True
    ):
        room = torch.zeros(1, 20, 20)
        room[:, 2:18, 2:18] = before
        windows = {
            (top, left): room[:, top : top + 16, left : left + 16]
            for top in range(5)
            for left in range(5)
        }
        (place,) = [key for key, window in windows.items() if torch.equal(window, after)]
        places.add(place)
    assert len(places) == 25


def test_strong_changes_colours_within_their_range_and_erases() -> None:
    data = examples(*COLOUR)
    light, strong = (changed(data, preset) for preset in (Augment.STANDARD, Augment.STRONG))
    assert float(strong.min()) >= 0.0
    assert 200.0 < float(strong.max()) <= 255.0
    # In the middle a crop leaves no black.
    middle = (slice(None), slice(None), slice(4, 12), slice(4, 12))
    assert not bool((light[middle] == 0).any())
    erased = (strong[middle] == 0).all(1).flatten(1).any(1)
    assert 0.1 < float(erased.float().mean()) < 0.4
    means = strong[~erased].mean((2, 3))
    assert float(means.std(0).min()) > 2 * float(light.mean((2, 3)).std(0).max())


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (examples(12, image=False), "12"),
        (examples(2, 64, image=False), "2x64"),
        (examples(1, 7, 7), "1x7x7"),
    ],
)
def test_what_would_do_nothing_is_refused(data: DataSet, shape: str) -> None:
    with pytest.raises(ConfigError) as caught:
        augmentation_for(data, Augment.STANDARD)
    assert caught.value.message == (
        f"--augment standard: is for images, sounds and texts, got examples of {shape}, "
        "which it leaves as they are"
    )


def test_a_preset_reaches_training_and_the_notes() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    data = examples(*GREY, count=32)
    for preset, note in (
        (Augment.LIGHT, "training images are changed by: random crop (padding 1)"),
        (Augment.AUTO, "training images are used as they are; only colour images are changed"),
    ):
        network = captured(module, *GREY)
        result = train(network, dataclasses.replace(SGD, epochs=1, augment=preset), data=data)
        assert note in result.notes
    result = train(network, dataclasses.replace(SGD, epochs=1, augment=Augment.NONE), data=data)
    assert not any("images" in note for note in result.notes)


def with_second(data: DataSet, other: Tensor, rule: Preprocess, *, first: bool = False) -> DataSet:
    """The same examples with another input, after the image or before it."""

    def both(one: Any, two: Any) -> Any:
        return (two, one) if first else (one, two)

    split = dataclasses.replace(data.train, inputs=both(data.train.inputs[0], other))
    return dataclasses.replace(
        data,
        train=split,
        preprocess=both(data.preprocess[0], rule),
        names=both("image", "other"),
    )


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("other", "rule"),
    [
        (torch.randn(256, 5), Preprocess(image=False)),
        (torch.randint(9, (256, 3, 16, 16)), Preprocess(image=False, dtype=torch.int64)),
        (torch.randn(256, 3, 16, 16), Preprocess(image=False)),
    ],
    ids=["table", "whole numbers", "plain"],
)
def test_of_several_inputs_the_image_is_changed(
    other: Tensor, rule: Preprocess, first: bool
) -> None:
    alone = examples(*COLOUR)
    data = with_second(alone, other, rule, first=first)
    torch.manual_seed(0)
    found = augmentation_for(data, Augment.STANDARD)
    assert found is not None
    after = found.change(data.train.inputs)
    assert after[0 if first else 1] is other
    assert torch.equal(after[1 if first else 0], changed(alone, Augment.STANDARD))


@pytest.mark.parametrize("preset", [Augment.LIGHT, Augment.STANDARD, Augment.STRONG])
def test_what_targets_are_tied_to_is_not_moved(preset: Augment) -> None:
    data = dataclasses.replace(examples(*COLOUR), task=TASKS[TaskName.SEGMENTATION])
    assert augmentation_for(data, Augment.AUTO) is None
    assert augmentation_for(data, Augment.NONE) is None
    with pytest.raises(ConfigError) as caught:
        augmentation_for(data, preset)
    assert caught.value.message.startswith(f"--augment {preset.value}: moves or hides pixels (")
    assert caught.value.message.endswith(
        "got --task segmentation, whose targets may say where in an image something is"
    )


def test_whole_numbers_are_no_pixels() -> None:
    data = examples(*COLOUR, image=False)
    data = dataclasses.replace(data, preprocess=(Preprocess(image=False, dtype=torch.int64),))
    with pytest.raises(
        ConfigError,
        match=r"^--augment light: is for images, sounds and texts, got examples of 3x16",
    ):
        augmentation_for(data, Augment.LIGHT)
