"""Random changes of sounds, as samples or as features over time.

Stage: recovery. In: a preset, and what the reader knows of the sounds. Out: a function over stored
batches. Never sees targets, and never changes how loud sounds are where a feature extractor has
made all of them equally loud.

Shapes. B: sounds, T: samples, or times of features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prunecli.choices import Augment
from prunecli.data.contents import Features
from prunecli.recovery.augment.change import in_words
from prunecli.recovery.augment.draws import between, evenly, noise

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Waving:
    """How samples are changed.

    Attributes:
        gain: decibels by which sounds become louder or softer, at most.
        shift: share of a sound by which it is rotated, at most.
        ratio: decibels by which noise is below the sound, from and to; `None` for no noise.
        noisy: share of the sounds that get noise.
    """

    gain: float
    shift: float = 0.0
    ratio: tuple[float, float] | None = None
    noisy: float = 0.5


WAVES: Mapping[Augment, Waving] = {
    Augment.LIGHT: Waving(gain=3.0),
    Augment.STANDARD: Waving(gain=6.0, shift=0.05, ratio=(20.0, 40.0)),
    Augment.STRONG: Waving(gain=12.0, shift=0.2, ratio=(5.0, 30.0), noisy=0.8),
}
"""Every preset turns polarity over for half of the sounds, which nobody hears."""


@dataclass(frozen=True)
class Masking:
    """How features are masked (SpecAugment; Park et al. 2019, arXiv:1904.08779).

    Attributes:
        count: of masks over times, and of masks over bands.
        time, bands: share of all of them that one mask covers, at most.
    """

    count: int
    time: float
    bands: float


MASKS: Mapping[Augment, Masking] = {
    Augment.LIGHT: Masking(1, time=0.05, bands=0.1),
    Augment.STANDARD: Masking(2, time=0.1, bands=15 / 80),
    Augment.STRONG: Masking(2, time=0.2, bands=27 / 80),
}
"""Bands of standard and strong are those of the paper's policies SM and LD, 15 and 27 of 80, and
strong's time is the bound of SM; a whole sound has one label here, so that light and standard leave
more of it."""


def wave_changes(
    preset: Augment, *, levelled: bool, in_place: bool
) -> tuple[Callable[[Tensor], Tensor], str]:
    """What is done to samples `(B, ...)`, time running over all axes after the first.

    Args:
        levelled: all sounds are equally loud on purpose.
        in_place: targets may say where in a sound something is.

    Returns:
        A function, and what it does in words.
    """
    rule = WAVES[preset]
    changes: list[tuple[Apply, str]] = []
    if not levelled:
        changes.append((partial(_louder, most=rule.gain), f"gain within {rule.gain:g} dB"))
    changes.append((_turned, "polarity"))
    if rule.shift and not in_place:
        said = f"rotation by up to {rule.shift:.0%} of a sound"
        changes.append((partial(_rotated, most=rule.shift), said))
    if rule.ratio is not None:
        low, high = rule.ratio
        said = f"noise {low:g} to {high:g} dB below {rule.noisy:.0%} of the sounds"
        changes.append((partial(_noisy, ratio=rule.ratio, share=rule.noisy), said))
    said = in_words([words for _, words in changes])
    if rule.shift and in_place:
        said += "; none is moved in time, since targets may say where in a sound something is"

    def change(stored: Tensor) -> Tensor:
        waves = stored.to(torch.float32).reshape(len(stored), -1)
        for apply, _ in changes:
            waves = apply(waves)
        return waves.reshape(stored.shape)

    return change, said


def _louder(waves: Tensor, most: float) -> Tensor:
    decibels = between(-most, most, (len(waves), 1), waves)
    return waves * 10.0 ** (decibels / 20.0)


def _turned(waves: Tensor) -> Tensor:
    return torch.where(evenly((len(waves), 1), waves) < 0.5, -waves, waves)


def _sounding(waves: Tensor) -> Tensor:
    """Where there is sound, and not the silence that only follows it, `(B, T)`."""
    return (waves != 0).flip(1).cumsum(1).flip(1) > 0


def _rotated(waves: Tensor, most: float) -> Tensor:
    """Later or earlier, what leaves a sound at one end coming in at the other: nothing is lost,
    and the silence after it stays where it is."""
    inside = _sounding(waves)
    length = inside.sum(1, keepdim=True)
    by = (between(-most, most, (len(waves), 1), waves) * length).round().to(torch.int64)
    places = torch.arange(waves.shape[1], device=waves.device).expand_as(waves)
    origin = torch.where(inside, (places - by) % length.clamp(min=1), places)
    return waves.gather(1, origin)


def _noisy(waves: Tensor, ratio: tuple[float, float], share: float) -> Tensor:
    """White noise under sounds, of which each keeps its own power; silence stays silent."""
    inside = _sounding(waves)
    chosen = evenly((len(waves), 1), waves) < share
    decibels = between(*ratio, (len(waves), 1), waves)
    drawn = noise(tuple(waves.shape), waves) * inside
    length = inside.sum(1, keepdim=True).clamp(min=1)
    power = waves.square().sum(1, keepdim=True) / length
    part = 10.0 ** (-decibels / 10.0)
    mixed = (waves + drawn * (power * part).sqrt()) / (1.0 + part).sqrt()
    return torch.where(chosen, mixed, waves)


def masked_features(
    preset: Augment, content: Features, shape: tuple[int, ...]
) -> tuple[Callable[[Tensor], Tensor], str] | None:
    """What is done to features `(B, ..., T, bands)` or `(B, ..., bands, T)`; `None` where they are
    too few for a mask.

    Args:
        shape: of one example.

    Returns:
        A function, and what it does in words.
    """
    rule = MASKS[preset]
    # Most extractors give times first, as the library's documentation has it; Whisper's bands.
    bands_first = shape[-2] in content.bands and shape[-1] not in content.bands
    time, bands = (-1, -2) if bands_first else (-2, -1)
    widest = {time: int(rule.time * shape[time]), bands: int(rule.bands * shape[bands])}
    named = {time: "times", bands: "bands"}
    number = "a mask" if rule.count == 1 else f"{rule.count} masks"
    said = [
        f"{number} over up to {most} of {shape[axis]} {named[axis]}"
        for axis, most in widest.items()
        if most
    ]
    if not said:
        return None

    def change(stored: Tensor) -> Tensor:
        values = stored.to(torch.float32)
        # Of features around zero the mean is the zero of the paper.
        mean = values.mean((-2, -1), keepdim=True)
        for axis, most in widest.items():
            for _ in range(rule.count if most else 0):
                values = torch.where(_band(values, axis, most), mean, values)
        return values

    return change, f"{in_words(said)} (SpecAugment)"


def _band(values: Tensor, axis: int, most: int) -> Tensor:
    """One band for each example, `True` in it, that broadcasts to `values`: 0 to `most` wide, each
    width as likely, and anywhere."""
    extent = values.shape[axis]
    width = (evenly((len(values), 1), values) * (most + 1)).floor()
    first = (evenly((len(values), 1), values) * (extent - width + 1)).floor()
    places = torch.arange(extent, device=values.device)
    inside = (places >= first) & (places < first + width)
    shape = [1] * values.dim()
    shape[0], shape[axis] = len(values), extent
    return inside.reshape(shape)
