"""Masks: a class for each pixel, from whatever is stored to arrays of one size.

Stage: data. In: images of masks as stored, beside the images that they belong to. Out: class
numbers `(N, H, W)`. Never smooths: a pixel between two classes has one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from prunecli.data.layout import Named
from prunecli.data.pixels import BROKEN, open_image, reason, upright_size
from prunecli.data.source import AnyArray, Blob, Blobs, Part, Role
from prunecli.data.storage import allocate
from prunecli.data.wanted import Wanted
from prunecli.errors import DataError
from prunecli.tasks.task import UNMARKED

_INDEXED = ("P", "L", "1", "I", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes whose pixels are single numbers."""

_LOSSY = ("JPEG", "MPO")
"""Formats after which a number is only near what it was."""


@dataclass(frozen=True)
class Pairs:
    """Images and masks of one part, row by row."""

    where: str
    images: Blobs
    masks: Blobs
    count: int


def read_masks(parts: Mapping[Role, Pairs], wanted: Wanted) -> tuple[dict[Role, Named], str]:
    """The masks of all parts in the size that the images get, and what to note.

    Raises:
        DataError: a mask is broken, has colours, or has another size than its image.
    """
    size = _wanted_size(wanted)
    read: dict[Role, Named] = {}
    for role, pairs in parts.items():
        found, size = _read(pairs, size, sure=_wanted_size(wanted) is not None)
        read[role] = Named(pairs.where, found)
    values = set().union(*(np.unique(own.array).tolist() for own in read.values()))
    if values == {0, UNMARKED}:
        # As drawing programs write two classes.
        return {
            role: Named(own.where, (own.array == UNMARKED).astype(np.uint8))
            for role, own in read.items()
        }, "masks hold 0 and 255 only, which are classes 0 and 1"
    return read, ""


def part_of(pairs: Pairs, targets: tuple[AnyArray, ...]) -> Part:
    """The part that a source holds."""
    return Part(pairs.where, targets, (pairs.images,), pairs.count)


def _wanted_size(wanted: Wanted) -> tuple[int, int] | None:
    """Height and width, where the user or the model says them."""
    if wanted.sample_shape is not None and len(wanted.sample_shape) == 3:
        return wanted.sample_shape[1], wanted.sample_shape[2]
    size = wanted.config.image_size
    return None if size is None else (size, size)


def _read(
    pairs: Pairs, size: tuple[int, int] | None, sure: bool
) -> tuple[AnyArray, tuple[int, int]]:
    """Args: sure: masks of another size are resized; otherwise they are an error."""
    rows = np.arange(pairs.count)
    made: AnyArray | None = None
    for image, mask in zip(pairs.images.read(rows), pairs.masks.read(rows), strict=True):
        own = _open(mask)
        _check_size(image, mask, own)
        size = size or (own.height, own.width)
        if (own.height, own.width) != size:
            if not sure:
                raise DataError(
                    f"{mask.where}: masks must have one size, got {own.height}x{own.width} after "
                    f"{size[0]}x{size[1]}",
                    f"--image-size {max(size)} resizes images and masks",
                )
            own = own.resize((size[1], size[0]), Image.Resampling.NEAREST)
        pixels = np.asarray(own)
        if made is None:
            made = allocate((pairs.count, *size), np.uint8)
        odd = pixels[(pixels < 0) | (pixels > UNMARKED)]
        if odd.size:
            raise DataError(
                f"{mask.where}: class numbers from 0 to {UNMARKED - 1} are needed, got {odd[0]}",
                f"number the classes from 0; {UNMARKED} says that a pixel does not count",
            )
        made[mask.row] = pixels
    assert made is not None
    assert size is not None
    return made, size


def _open(mask: Blob) -> Image.Image:
    try:
        found = open_image(mask.content)
    except BROKEN as error:
        raise DataError(
            f"{mask.where}: the mask cannot be read: {reason(error)}",
            "write it again as PNG, or remove it and its image",
        ) from error
    if found.format in _LOSSY:
        raise DataError(
            f"{mask.where}: masks must be stored as they are, got {found.format}, which changes "
            "class numbers",
            "write them again from the source, as PNG",
        )
    if found.mode not in _INDEXED:
        raise DataError(
            f"{mask.where}: masks must hold a class number for each pixel, got colours "
            f"({found.mode})",
            "write them as PNG with a palette or in grey, 0 for the first class",
        )
    return found


def _check_size(image: Blob, mask: Blob, own: Image.Image) -> None:
    try:
        size = upright_size(image.content)
    except BROKEN:
        return  # broken images are left out later, with their masks
    if size != own.size:
        raise DataError(
            f"{mask.where}: a mask must have its image's size, {size[1]}x{size[0]}, "
            f"got {own.height}x{own.width}",
            "write images and masks in the same size",
        )
