"""What a preset does to a data set, or why it would do nothing.

Stage: recovery. In: a data set, a preset. Out: an `Augmentation`, or none. What sounds and texts
are is what their reader says; only images are told by how they are stored.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from prunecli.choices import Augment
from prunecli.data import DataSet
from prunecli.data.contents import Beside, Content, Features, Samples, Words
from prunecli.errors import ConfigError
from prunecli.recovery.augment.change import Augmentation, in_words
from prunecli.recovery.augment.pictures import Kind, kind_of, picture_changes
from prunecli.recovery.augment.sounds import masked_features, wave_changes
from prunecli.recovery.augment.texts import page_of, text_changes
from prunecli.tasks import Tensors, in_numbers


def augmentation_for(data: DataSet, preset: Augment = Augment.AUTO) -> Augmentation | None:
    """What a preset does to this data. `auto` is `standard` for colour images, and nothing else.

    One-channel data is mostly writing, scans and spectra, where the frame is part of the data: on
    centred digits three short epochs with crops ended 0.9 points below the same epochs without.
    Arrays of floating-point numbers are taken as prepared by their author. Sounds and texts are
    changed only where that is asked for: what a sound or a word more or less means depends on the
    labels. Of several inputs, one is changed: the first with colours, else the first that is like
    an image. Where targets say where in an image something is, `auto` leaves it alone.

    Raises:
        ConfigError: a preset does nothing to such data, or would move it away from its targets.
    """
    if preset is Augment.NONE:
        return None
    for place, content in enumerate(data.contents):
        if content is not None and not isinstance(content, Beside):
            return None if preset is Augment.AUTO else _known(data, preset, place, content)
    return _pictures(data, preset)


def _known(data: DataSet, preset: Augment, place: int, content: Content) -> Augmentation:
    """What is done to sounds or texts at `place`."""
    if isinstance(content, Words):
        return _texts(data, preset, place, content)
    shape = tuple(data.train.inputs[place].shape[1:])
    # An extractor that was taken for one of features may give samples all the same.
    if isinstance(content, Features) and math.prod(shape[:-1]) > 1:
        found = masked_features(preset, content, shape)
        if found is None:
            raise _idle(data, preset)
    else:
        levelled = isinstance(content, Samples) and content.levelled
        found = wave_changes(preset, levelled=levelled, in_place=data.task.in_place)
    return _of_one(place, *found, "sounds")


def _texts(data: DataSet, preset: Augment, place: int, words: Words) -> Augmentation:
    turn, said = text_changes(preset, words, in_place=data.task.in_place)
    beside = {what: at for at, what in enumerate(data.contents) if isinstance(what, Beside)}
    mask, types = beside.get(Beside.SEEN), beside.get(Beside.TEXT)

    def change(inputs: Tensors) -> Tensors:
        own = (None if at is None else inputs[at] for at in (mask, types))
        page = turn(page_of(words, inputs[place], *own))
        changed = list(inputs)
        changed[place] = page.ids
        if mask is not None:
            changed[mask] = page.seen.to(inputs[mask].dtype)
        if types is not None and page.types is not None:
            changed[types] = page.types
        return tuple(changed)

    return Augmentation(change, said, "texts")


def _of_one(
    place: int, change: Callable[[Tensor], Tensor], words: str, what: str = "images"
) -> Augmentation:
    """A change of one input, the others staying as they are."""

    def changed(inputs: Tensors) -> Tensors:
        with torch.no_grad():
            found = change(inputs[place])
        return (*inputs[:place], found, *inputs[place + 1 :])

    return Augmentation(changed, words, what)


def _pictures(data: DataSet, preset: Augment) -> Augmentation | None:
    kinds = [kind_of(data, place) for place in range(len(data.preprocess))]
    kind = next((kind for kind in (Kind.COLOUR, Kind.PLAIN) if kind in kinds), Kind.OTHER)
    if preset is Augment.AUTO:
        if kind is not Kind.COLOUR or data.task.in_place:
            return None
        preset = Augment.STANDARD
    place = kinds.index(kind)
    stored = tuple(data.train.inputs[place].shape[1:])
    size = (int(stored[-2]), int(stored[-1])) if kind is not Kind.OTHER else (0, 0)
    changes, change = picture_changes(preset, kind, size)
    if not changes:
        raise _idle(data, preset)
    moving = [item.words for item in changes if item.moves]
    if moving and data.task.in_place:
        raise ConfigError(
            f"--augment {preset.value}: moves or hides pixels ({moving[0]}), got --task "
            f"{data.task.name}, whose targets may say where in an image something is",
            "leave it out",
        )
    return _of_one(place, change, in_words([item.words for item in changes]))


def _idle(data: DataSet, preset: Augment) -> ConfigError:
    shapes = ", ".join(in_numbers(tuple(item.shape[1:])) for item in data.train.inputs)
    return ConfigError(
        f"--augment {preset.value}: is for images, sounds and texts, got examples of {shapes}, "
        "which it leaves as they are",
        "leave it out, or use --augment none",
    )
