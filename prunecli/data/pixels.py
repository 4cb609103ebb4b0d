"""One image, from whatever is stored to uint8 pixels `(C, H, W)`.

Stage: data. In: a file, encoded bytes or an array. Out: pixels of a given shape. Never skips
anything: what is broken raises one of `BROKEN`, and the caller decides.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from prunecli.data.source import AnyArray
from prunecli.errors import DataError

# What Pillow raises on damaged files, seen by damaging files of each format at random.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    TypeError,
    LookupError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes of 16-bit images."""

_GREY = ("1", "L", "LA", *_DEEP)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of the EXIF orientation; 1 is upright."""


@dataclass(frozen=True)
class Frame:
    """The shape that every image gets.

    Attributes:
        resize: images of another size are resized; otherwise they are an error.
        convert: colour becomes grey where `channels` is 1; otherwise one colour image among grey
            ones makes all of them colour.
    """

    channels: int
    height: int
    width: int
    resize: bool
    convert: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


def open_image(content: Path | bytes | AnyArray | None) -> Image.Image:
    """Load an image completely and turn it upright.

    Raises:
        BROKEN: it is not an image, or is damaged.
    """
    if content is None:
        raise ValueError("no image is stored")
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(source) as image:
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        return image if turn is None else image.transpose(turn)


def upright_size(content: Path | bytes | AnyArray | None) -> tuple[int, int]:
    """Width and height of an image when it is turned upright, without decoding it.

    Raises:
        BROKEN: it is not an image.
    """
    if content is None or isinstance(content, np.ndarray):
        return open_image(content).size
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(source) as image:
        width, height = image.size
        # From 5 on, upright is lying on the side.
        return (height, width) if _orientation(image) >= 5 else (width, height)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; damaged metadata are no reason to lose the image."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except BROKEN:
        return 1
    return value if isinstance(value, int) else 1


def is_grey(image: Image.Image) -> bool:
    """Whether the image is stored without colour."""
    return image.mode in _GREY


def fit(image: Image.Image, frame: Frame, where: str) -> AnyArray:
    """Pixels `(C, H, W)` of an image in the frame's shape.

    Transparency is dropped, as the usual training pipelines do (`convert("RGB")`): what the
    network saw there while it was trained is the colour below.

    Raises:
        DataError: the size differs and nothing says that it may be changed.
    """
    if image.mode in _DEEP:
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels are not supported")
    mode = "L" if frame.channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (frame.width, frame.height):
        if not frame.resize:
            raise DataError(
                f"{where}: images must have one size, got {image.height}x{image.width} after "
                f"{frame.height}x{frame.width}",
                f"--image-size {max(frame.height, frame.width)} resizes all of them",
            )
        image = image.resize((frame.width, frame.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if frame.channels == 1 else pixels.transpose(2, 0, 1)


def reason(error: Exception) -> str:
    """Why an image is broken, in a few words without memory addresses."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r"<[^>]*>|\s+", " ", str(error)).strip()
    return text or type(error).__name__
