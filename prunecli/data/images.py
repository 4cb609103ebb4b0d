"""Decoding images, once, in threads, to uint8 of one shape.

Stage: data. In: images as stored (files, encoded bytes, pixels) and the rows that are wanted.
Out: one uint8 array for each group of rows, and a list of what was broken. Never decides who
gets which row, never scales or normalises (that happens per batch), never keeps a broken image.
"""

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from prunecli.data.pixels import BROKEN, Frame, fit, is_grey, open_image, reason
from prunecli.data.source import AnyArray, Blob, Blobs, Rows
from prunecli.data.storage import allocate, drop_rows
from prunecli.errors import DataError
from prunecli.progress import Reporter
from prunecli.tasks import in_numbers

CHUNK = 64
"""Images that one thread decodes before it reports."""


@dataclass(frozen=True)
class Decoded:
    """Images of one part.

    Attributes:
        groups: for each group of rows its images `(n, C, H, W)` and the rows that they are.
        skipped: `path: why` of the broken ones.
        resized: at least one image had another size.
    """

    groups: tuple[tuple[AnyArray, Rows], ...]
    skipped: tuple[str, ...]
    resized: bool
    frame: Frame


@dataclass
class _Outcome:
    """What became of one chunk, or of many."""

    bad: dict[int, str] = field(default_factory=dict)
    resized: bool = False
    colour: bool = False


def choose_frame(
    blobs: Iterator[Blob], sample_shape: tuple[int, ...] | None, image_size: int | None, where: str
) -> Frame:
    """Decide the shape of all images: by the user and the model first, then by the first image.

    Args:
        blobs: images of the training part, in order; read until one is good.
        sample_shape: what the model takes, without the batch; `(C, H, W)` decides channels and
            size, anything else (a network that takes images flat) neither.
        where: the part, for messages.

    Raises:
        DataError: no image is good, or the wishes contradict each other.
    """
    channels, height, width = _first_good(blobs, where)
    if sample_shape is None or len(sample_shape) != 3:
        if image_size:
            height = width = image_size
        return Frame(channels, height, width, resize=bool(image_size), convert=False)
    wanted, height, width = sample_shape
    if image_size and (height, width) != (image_size, image_size):
        raise DataError(
            f"--image-size: must be the model's input size {height}x{width}, got {image_size}",
            f"leave out --image-size, or add --input-shape 1,{wanted},{image_size},{image_size}",
        )
    if wanted not in (1, 3):
        raise DataError(
            f"{where}: images have 1 or 3 channels, the model takes {in_numbers(sample_shape)}",
            "check --input-shape, or give arrays of the model's input shape as .npz",
        )
    return Frame(wanted, height, width, resize=True, convert=True)


def decode(
    blobs: Blobs, groups: Sequence[Rows], frame: Frame, reporter: Reporter, where: str
) -> Decoded:
    """Decode the rows of all groups in one pass over the part.

    Args:
        groups: disjoint rows, one array for each split.
        where: the part, for progress and messages.

    Raises:
        DataError: more than half of the images are broken, sizes differ and nothing says how to
            resize, or the images do not fit anywhere.
    """
    rows = np.concatenate(groups)
    buffer = allocate((len(rows), *frame.shape), np.uint8)
    slots = {int(row): slot for slot, row in enumerate(rows)}
    total = _Outcome()
    with warnings.catch_warnings(), reporter.step(f"Reading {where}", len(rows)) as step:
        # Pillow warns of odd metadata and of large images; neither harms.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        done = 0
        for size, outcome in _in_threads(blobs.read(np.sort(rows)), slots, buffer, frame):
            done += size
            step.update(done)
            total.bad.update(outcome.bad)
            total.resized |= outcome.resized
            total.colour |= outcome.colour
            if total.colour:
                break
    if total.colour:
        return decode(blobs, groups, replace(frame, channels=3, convert=True), reporter, where)
    skipped = tuple(total.bad[slot] for slot in sorted(total.bad, key=lambda slot: rows[slot]))
    _check_broken(where, len(rows), skipped)
    return Decoded(_regroup(buffer, groups, total.bad), skipped, total.resized, frame)


def _check_broken(where: str, count: int, skipped: Sequence[str]) -> None:
    if len(skipped) * 2 <= count:
        return
    how_many = "none" if len(skipped) == count else f"only {count - len(skipped)}"
    raise DataError(
        f"{where}: at least half of the images must be readable, got {how_many} of {count} "
        f"({skipped[0]})",
        "check that --data names images in a common format (JPEG, PNG, ...)",
    )


def _first_good(blobs: Iterator[Blob], where: str) -> tuple[int, int, int]:
    """Channels, height and width of the first image that is not broken."""
    why = "it is empty"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for blob in blobs:
            try:
                image = open_image(blob.content)
            except BROKEN as error:
                why = f"{blob.where}: {reason(error)}"
                continue
            return (1 if is_grey(image) else 3), image.height, image.width
    raise DataError(
        f"{where}: no image can be read ({why})",
        "check that --data names images in a common format (JPEG, PNG, ...)",
    )


def _regroup(
    buffer: AnyArray, groups: Sequence[Rows], bad: dict[int, str]
) -> tuple[tuple[AnyArray, Rows], ...]:
    """Cut the buffer into its groups, without the broken rows."""
    found = []
    start = 0
    for rows in groups:
        stop = start + len(rows)
        here = {slot for slot in bad if start <= slot < stop}
        kept = np.array([slot - start for slot in range(start, stop) if slot not in here], int)
        images = drop_rows(buffer, start, stop, here) if here else buffer[start:stop]
        found.append((images, rows[kept]))
        start = stop
    return tuple(found)


def _in_threads(
    blobs: Iterator[Blob], slots: dict[int, int], buffer: AnyArray, frame: Frame
) -> Iterator[tuple[int, _Outcome]]:
    """Decode chunks in threads (Pillow releases the lock), a few chunks behind the reader."""
    workers = min(_cores(), 16)
    pending: deque[tuple[int, Future[_Outcome]]] = deque()
    with ThreadPoolExecutor(workers, "decode") as pool:
        for chunk in _chunked(blobs):
            placed = [(slots[blob.row], blob) for blob in chunk]
            pending.append((len(chunk), pool.submit(_decode_chunk, placed, buffer, frame)))
            # Bounded, so that a fast reader does not pile up encoded images.
            if len(pending) > 2 * workers:
                size, future = pending.popleft()
                yield size, future.result()
        for size, future in pending:
            yield size, future.result()


def _chunked(blobs: Iterator[Blob]) -> Iterator[list[Blob]]:
    chunk: list[Blob] = []
    for blob in blobs:
        chunk.append(blob)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _decode_chunk(placed: list[tuple[int, Blob]], buffer: AnyArray, frame: Frame) -> _Outcome:
    outcome = _Outcome()
    for slot, blob in placed:
        try:
            image = open_image(blob.content)
            if frame.channels == 1 and not frame.convert and not is_grey(image):
                outcome.colour = True
                return outcome
            outcome.resized |= image.size != (frame.width, frame.height)
            buffer[slot] = fit(image, frame, blob.where)
        except BROKEN as error:
            outcome.bad[slot] = f"{blob.where}: {reason(error)}"
    return outcome


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
