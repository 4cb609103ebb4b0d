"""Sounds to numbers: decoded, resampled, cut or padded to one length, or what the network's own
feature extractor makes of them.

Stage: data. In: sounds as stored. Out: a source whose sounds are read when they are asked for.
Downloads nothing, runs no code from a folder, never joins sounds of two rates unnoticed.

Shapes. N: sounds, T: samples, the same number for all.
"""

import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from prunecli.data.contents import Content, Features, Samples
from prunecli.data.source import AnyArray, Blob, Blobs, Deferred, Part, Rows, Source, counted
from prunecli.data.storage import allocate
from prunecli.data.wanted import Wanted, refuse_idle
from prunecli.errors import DataError, MissingExtraError
from prunecli.loading.huggingface import library, quiet
from prunecli.loading.usercode import user_code

_FILES = ("preprocessor_config.json", "processor_config.json")

_RATE_HINT = (
    "resample the files, or give the network's feature extractor, which says the rate: --processor"
)


@dataclass(frozen=True)
class _Hearing:
    """How sounds become examples.

    Attributes:
        rate: samples per second.
        length: samples; shorter sounds are followed by silence, longer ones are cut.
        extractor: the library's; `None`: the samples themselves.
    """

    rate: int
    length: int
    extractor: Any


def heard(source: Source, wanted: Wanted) -> Source:
    """The source with numbers in place of encoded sounds.

    Raises:
        DataError: a sound cannot be read, or rates differ and nothing says which to use.
        MissingExtraError: a library is not installed.
        ModelError: the feature extractor cannot be read.
    """
    refuse_idle(wanted.config, "sounds", "--image-size")
    extractor = _load_extractor(wanted)
    rate = None if extractor is None else int(extractor.sampling_rate)
    longest, cut = 0, 0
    asked = _length(wanted, extractor)
    for part in source.parts.values():
        for where, own_rate, frames in _headers(_blobs(part), part.count):
            rate = rate or own_rate
            if own_rate != rate and extractor is None:
                raise DataError(
                    f"{where}: sounds must have one rate, got {own_rate:,} Hz after {rate:,} Hz",
                    _RATE_HINT,
                )
            frames = -(-frames * rate // own_rate)
            longest = max(longest, frames)
            cut += asked is not None and frames > asked
    hearing = _Hearing(rate or 0, asked or longest, extractor)
    parts = {
        role: replace(part, examples=(Deferred(_Reader(_blobs(part), hearing)),))
        for role, part in source.parts.items()
    }
    notes = (_note(hearing, asked, cut), *source.notes)
    return replace(source, parts=parts, notes=notes, contents=(_content(extractor),))


def _content(extractor: Any) -> Content:
    """What the network gets of a sound."""
    if extractor is None or _pads(extractor):
        return Samples(levelled=bool(getattr(extractor, "do_normalize", False)))
    said = (getattr(extractor, name, None) for name in ("feature_size", "num_mel_bins"))
    bands = {number for number in said if isinstance(number, int) and number > 1}
    # Some put several moments together.
    stride = getattr(extractor, "stride", None)
    if isinstance(stride, int):
        bands |= {number * stride for number in bands}
    return Features(tuple(sorted(bands)))


def _note(hearing: _Hearing, asked: int | None, cut: int) -> str:
    if hearing.extractor is not None and not _pads(hearing.extractor):
        return f"sounds: {hearing.rate:,} Hz, through {type(hearing.extractor).__name__}"
    through = "" if hearing.extractor is None else f" through {type(hearing.extractor).__name__},"
    said = "the longest" if asked is None else f"{counted(cut, 'sound')} cut to that"
    return f"sounds:{through} {hearing.rate:,} Hz, padded to {hearing.length:,} samples, {said}"


def _blobs(part: Part) -> Blobs:
    (found,) = part.examples
    assert isinstance(found, Blobs)
    return found


def _load_extractor(wanted: Wanted) -> Any:
    """The feature extractor beside the network, or where the user says; `None` without any."""
    folder = None if wanted.processor is None else wanted.processor.folder
    if folder is None or not any((folder / name).is_file() for name in _FILES):
        if wanted.config.processor is not None:
            raise DataError(
                f"--processor {folder}: a folder with {_FILES[0]} is needed for sounds, got none",
                "save it there: feature_extractor.save_pretrained(folder)",
            )
        return None
    transformers = library()
    hint = "check that the feature extractor's files are complete"
    with user_code(f"feature extractor {folder}", (), hint), quiet(transformers):
        found = transformers.AutoFeatureExtractor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if not hasattr(found, "sampling_rate"):
        raise DataError(
            f"feature extractor {folder}: one for sounds is needed, got {type(found).__name__}",
            "check that --data and the checkpoint belong together",
        )
    return found


def _pads(extractor: Any) -> bool:
    """Whether the extractor gives samples, of any length; others give frames, as many as their
    networks take."""
    return (
        str(extractor.model_input_names[0]) == "input_values"
        and hasattr(extractor, "padding_value")
        and not hasattr(extractor, "num_mel_bins")
    )


def _length(wanted: Wanted, extractor: Any) -> int | None:
    """Samples that are asked for; `None`: as many as the longest has."""
    if wanted.config.max_length is not None:
        return wanted.config.max_length
    if extractor is None and wanted.sample_shape is not None:
        return wanted.sample_shape[-1]
    return None


def _headers(blobs: Blobs, count: int) -> Iterator[tuple[str, int, int]]:
    """What messages call each sound, its rate and its samples, without decoding it."""
    soundfile = _library("soundfile")
    for blob in blobs.read(np.arange(count)):
        try:
            info = soundfile.info(_opened(blob))
        except (soundfile.SoundFileError, OSError, TypeError) as error:
            raise _broken(blob, error) from error
        yield blob.where, int(info.samplerate), int(info.frames)


def _opened(blob: Blob) -> Any:
    """A path or a stream, as the library takes it."""
    if isinstance(blob.content, bytes):
        return io.BytesIO(blob.content)
    if not isinstance(blob.content, Path):
        raise TypeError("no sound is stored")
    return str(blob.content)


def _broken(blob: Blob, error: Exception) -> DataError:
    why = " ".join(str(getattr(error, "error_string", error)).split())
    return DataError(
        f"{blob.where}: it cannot be read as a sound: {why}", "write it again as .wav, or remove it"
    )


def _library(name: str) -> Any:
    """A library for sounds, which not everybody needs.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec(name) is None:
        raise MissingExtraError(name, extra="audio")
    return importlib.import_module(name)


class _Reader:
    """Makes examples of the wanted rows; a class only to hold what it needs."""

    def __init__(self, blobs: Blobs, hearing: _Hearing) -> None:
        self.blobs, self.hearing = blobs, hearing

    def __call__(self, rows: Rows) -> AnyArray:
        made: AnyArray | None = None
        for place, blob in enumerate(self.blobs.read(rows)):
            example = _example(_samples(blob, self.hearing.rate), blob.where, self.hearing)
            if made is None:
                made = allocate((len(rows), *example.shape), np.float32)
            if example.shape != made.shape[1:]:
                raise DataError(
                    f"{blob.where}: the feature extractor must give one shape, got "
                    f"{example.shape} after {made.shape[1:]}",
                    "cut the sounds to one length: --max-length N",
                )
            made[place] = example
        return np.zeros((0, self.hearing.length), np.float32) if made is None else made


def _samples(blob: Blob, rate: int) -> AnyArray:
    """One sound, `(T,)` float32 in -1 to 1: the mean of its channels, at that rate."""
    soundfile = _library("soundfile")
    try:
        found, own = soundfile.read(_opened(blob), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise _broken(blob, error) from error
    samples: AnyArray = found.mean(axis=1)
    if own != rate:
        samples = _library("soxr").resample(samples, own, rate)
    return samples


def _example(samples: AnyArray, where: str, hearing: _Hearing) -> AnyArray:
    """What the network takes of one sound."""
    if hearing.extractor is None:
        made = np.zeros(hearing.length, np.float32)
        made[: len(samples)] = samples[: hearing.length]
        return made
    options: dict[str, Any] = {"sampling_rate": hearing.rate, "return_tensors": "np"}
    if _pads(hearing.extractor):
        length = hearing.length
        options |= {"padding": "max_length", "max_length": length, "truncation": True}
    with user_code(f"feature extractor, {where}", (), "check the sound, e.g. its length"):
        made = hearing.extractor(samples, **options)
    return np.asarray(made[hearing.extractor.model_input_names[0]][0], dtype=np.float32)
