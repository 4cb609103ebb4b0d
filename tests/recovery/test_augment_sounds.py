"""Presets for sounds: what each does to samples and to features, and what it leaves alone."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from prunecli.choices import Augment, TaskName
from prunecli.data import DataSet, Preprocess, Split
from prunecli.data.contents import Content, Features, Samples
from prunecli.errors import ConfigError
from prunecli.recovery.augment import augmentation_for
from prunecli.tasks import CLASSIFICATION, TASKS, Labels

COUNT, LENGTH, FILLED = 400, 600, 500
PRESETS = [Augment.LIGHT, Augment.STANDARD, Augment.STRONG]


def sounds(*shape: int) -> Tensor:
    """Noise, followed by silence, in the given shape of all samples; the last one is silent."""
    generator = torch.Generator().manual_seed(1)
    waves = 0.1 * torch.randn(COUNT, LENGTH, generator=generator)
    waves[:, FILLED:] = 0.0
    waves[-1] = 0.0
    return waves.reshape(COUNT, *shape)


def data_of(stored: Tensor, content: Content) -> DataSet:
    split = Split("train", (stored,), (torch.arange(len(stored)) % 2,))
    labels = (Labels(TaskName.CLASSIFICATION, ("a", "b")),)
    rule = (Preprocess(image=False),)
    return DataSet(CLASSIFICATION, split, split, split, rule, labels, (), (), contents=(content,))


def changed(data: DataSet, preset: Augment, seed: int = 0) -> Tensor:
    found = augmentation_for(data, preset)
    assert found is not None
    torch.manual_seed(seed)
    return found.change(data.train.inputs)[0]


def power(waves: Tensor) -> Tensor:
    return waves[:-1, :FILLED].square().mean(1)


@pytest.mark.parametrize(
    ("preset", "levelled", "words"),
    [
        (Augment.LIGHT, False, "gain within 3 dB and polarity"),
        (Augment.LIGHT, True, "polarity"),
        (
            Augment.STANDARD,
            False,
            "gain within 6 dB, polarity, rotation by up to 5% of a sound and noise 20 to 40 dB "
            "below 50% of the sounds",
        ),
        (
            Augment.STRONG,
            True,
            "polarity, rotation by up to 20% of a sound and noise 5 to 30 dB below 80% of the "
            "sounds",
        ),
    ],
)
def test_words(preset: Augment, levelled: bool, words: str) -> None:
    found = augmentation_for(data_of(sounds(LENGTH), Samples(levelled)), preset)
    assert found is not None
    assert (found.words, found.what) == (words, "sounds")


@pytest.mark.parametrize("preset", [Augment.AUTO, Augment.NONE])
@pytest.mark.parametrize("content", [Samples(), Features((20,))])
def test_nothing_is_changed_unasked(preset: Augment, content: Content) -> None:
    assert augmentation_for(data_of(sounds(30, 20), content), preset) is None


def test_light_is_louder_or_softer_and_turned_over() -> None:
    data = data_of(sounds(LENGTH), Samples())
    before, after = data.train.inputs[0], changed(data, Augment.LIGHT)
    factors = after[:-1, :1] / before[:-1, :1]
    torch.testing.assert_close(after[:-1], before[:-1] * factors)
    decibels = 20 * factors.abs().log10()
    assert -3.0001 < float(decibels.min()) < -2.8
    assert 2.8 < float(decibels.max()) < 3.0001
    assert abs(float(decibels.mean())) < 0.3
    assert 0.4 < float((factors < 0).float().mean()) < 0.6


def test_what_an_extractor_has_levelled_stays_as_loud() -> None:
    data = data_of(sounds(LENGTH), Samples(levelled=True))
    for preset in PRESETS:
        ratio = power(changed(data, preset)) / power(data.train.inputs[0])
        # Noise and sound are never quite independent of each other.
        assert 0.7 < float(ratio.min()) <= float(ratio.max()) < 1.4
        assert abs(float(ratio.mean()) - 1) < 0.02


def test_standard_rotates_sounds_within_themselves_and_adds_noise() -> None:
    data = data_of(sounds(LENGTH), Samples(levelled=True))
    before, after = data.train.inputs[0][:-1, :FILLED], changed(data, Augment.STANDARD)
    clean, by = 0, []
    for one, other in zip(before, after[:-1, :FILLED], strict=True):
        # Where the correlation with a rotation is largest, in size.
        spectrum = torch.fft.rfft(other) * torch.fft.rfft(one).conj()
        likeness = torch.fft.irfft(spectrum, FILLED)
        place = int(likeness.abs().argmax())
        rotated = one.roll(place) * likeness[place].sign()
        noise = other - rotated * (other @ rotated) / rotated.square().sum()
        below = 10 * math.log10(float(other.square().sum() / noise.square().sum().clamp(min=1e-12)))
        clean += torch.equal(other, rotated)
        assert below > 19
        by.append(place if place < FILLED // 2 else place - FILLED)
    assert 0.4 < clean / len(before) < 0.6
    assert min(by) == -25
    assert max(by) == 25
    # Silence after a sound stays there, and stays silent; so does a silent sound.
    assert not bool(after[:, FILLED:].any())
    assert not bool(after[-1].any())


def test_strong_noise_is_as_far_below_as_it_says() -> None:
    data = data_of(sounds(LENGTH), Samples(levelled=True))
    data = dataclasses.replace(data, task=TASKS[TaskName.TOKEN_CLASSIFICATION])  # no rotation
    before, after = data.train.inputs[0][:-1], changed(data, Augment.STRONG)[:-1]
    share = (before * after).sum(1, keepdim=True) / before.square().sum(1, keepdim=True)
    noise = after - share * before
    # Its part along the sound is taken for sound, which costs little.
    ratio = 10 * ((share * before).square().sum(1) / noise.square().sum(1)).log10()
    noisy = ratio[ratio < 60]
    assert 0.72 < len(noisy) / len(before) < 0.88
    assert 4.0 < float(noisy.min()) < 7.0
    assert 28.0 < float(noisy.max()) < 31.0


def test_where_targets_have_places_nothing_is_rotated() -> None:
    data = data_of(sounds(LENGTH), Samples())
    data = dataclasses.replace(data, task=TASKS[TaskName.TOKEN_CLASSIFICATION])
    found = augmentation_for(data, Augment.STANDARD)
    assert found is not None
    assert "rotation" not in found.words
    assert "none is moved in time, since targets may say where" in found.words
    after, before = changed(data, Augment.STANDARD)[:-1], data.train.inputs[0][:-1]
    cosine = torch.cosine_similarity(after, before).abs()
    assert float(cosine.min()) > 0.98


@pytest.mark.parametrize("preset", PRESETS)
def test_time_runs_over_all_axes(preset: Augment) -> None:
    flat = changed(data_of(sounds(LENGTH), Samples()), preset)
    for shape in ((1, LENGTH), (30, 20), (1, 1, LENGTH)):
        found = changed(data_of(sounds(*shape), Samples()), preset)
        assert torch.equal(found, flat.reshape(COUNT, *shape))


@pytest.mark.parametrize("content", [Samples(), Features((20,))])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_seed_decides(preset: Augment, content: Content) -> None:
    data = data_of(sounds(30, 20), content)
    stored = data.train.inputs[0].clone()
    assert torch.equal(changed(data, preset), changed(data, preset))
    assert not torch.equal(changed(data, preset), changed(data, preset, seed=1))
    assert torch.equal(data.train.inputs[0], stored)


def bands_of(hidden: Tensor) -> list[tuple[int, int]]:
    """Runs of what is hidden on one axis, `(extent,)` bool: where each begins, and how wide."""
    edges = torch.diff(torch.nn.functional.pad(hidden.int(), (1, 1)))
    begins, ends = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
    return list(zip(begins.tolist(), (ends - begins).tolist(), strict=True))


@pytest.mark.parametrize("bands_first", [False, True])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_features_are_masked_in_times_and_bands(
    bands_first: bool, channels: tuple[int, ...]
) -> None:
    times, bands = 100, 80
    generator = torch.Generator().manual_seed(0)
    stored = 5 + torch.randn(COUNT, *channels, times, bands, generator=generator)
    given = stored.transpose(-2, -1) if bands_first else stored
    data = data_of(given, Features((40, 80)))
    for preset, count, widest in (
        (Augment.LIGHT, 1, (5, 8)),
        (Augment.STANDARD, 2, (10, 15)),
        (Augment.STRONG, 2, (20, 27)),
    ):
        after = changed(data, preset)
        assert after.shape == given.shape
        after = after.transpose(-2, -1) if bands_first else after
        mean = stored.mean((-2, -1), keepdim=True)
        hidden = after != stored
        torch.testing.assert_close(after[hidden], mean.expand_as(after)[hidden])
        if channels:
            assert torch.equal(hidden[:, 0], hidden[:, 1])
            hidden = hidden[:, 0]
        widths: list[list[int]] = [[], []]
        for one in hidden:
            by_time, by_band = one.all(1), one.all(0)
            assert torch.equal(one, by_time[:, None] | by_band[None, :])
            for axis, mask in enumerate((by_time, by_band)):
                runs = bands_of(mask)
                assert len(runs) <= count
                widths[axis].append(sum(width for _, width in runs))
        for axis, most in enumerate(widest):
            assert max(widths[axis]) <= count * most
            # Every width from 0 to `most` is as likely; two may overlap.
            assert 0.8 * count * most / 2 < sum(widths[axis]) / COUNT < 1.1 * count * most / 2


def test_features_in_words() -> None:
    data = data_of(torch.randn(COUNT, 80, 100), Features((80,)))
    found = [augmentation_for(data, preset) for preset in (Augment.LIGHT, Augment.STANDARD)]
    assert [None if item is None else item.words for item in found] == [
        "a mask over up to 5 of 100 times and a mask over up to 8 of 80 bands (SpecAugment)",
        "2 masks over up to 10 of 100 times and 2 masks over up to 15 of 80 bands (SpecAugment)",
    ]
    # An extractor that gives samples after all.
    found = [augmentation_for(data_of(sounds(1, LENGTH), Features((80,))), Augment.LIGHT)]
    assert [None if item is None else item.words for item in found] == [
        "gain within 3 dB and polarity"
    ]


def test_features_too_few_for_a_mask() -> None:
    data = data_of(torch.randn(8, 6, 4), Features((4,)))
    with pytest.raises(ConfigError) as caught:
        augmentation_for(data, Augment.LIGHT)
    assert caught.value.message == (
        "--augment light: is for images, sounds and texts, got examples of 6x4, which it leaves "
        "as they are"
    )
