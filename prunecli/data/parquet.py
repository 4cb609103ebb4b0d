"""Parquet files in the Hugging Face layout: images or sounds with targets, images with masks, or a
table of numbers or texts.

Stage: data. In: files of one or more splits. Out: a source whose images and sounds are read when
they are asked for. Column types come from the `datasets` schema in the files where there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Audio, ClassLabel, Features

from prunecli.choices import TaskName
from prunecli.data.audio import heard
from prunecli.data.columns import NamedTable
from prunecli.data.encoding import encode_for
from prunecli.data.masks import Pairs, part_of, read_masks
from prunecli.data.shards import ShardReader, open_shard, read_columns
from prunecli.data.source import Blobs, Part, Role, Source, by_role, judged_by, listed
from prunecli.data.tables import from_tables, with_targets
from prunecli.data.targets import aims, by_name, encode_aims
from prunecli.data.wanted import Wanted, refuse_idle
from prunecli.errors import DataError

_IMAGE_NAMES = ("image", "img", "images", "picture", "pixel_values")
_AUDIO_NAMES = ("audio", "sound", "speech", "wav", "waveform")
_MASK_NAMES = ("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation_mask")


@dataclass(frozen=True)
class _Columns:
    """The columns that count.

    Attributes:
        label: the likely one of a single target.
        plain: columns that hold neither images nor sounds.
    """

    image: str | None
    audio: str | None
    mask: str | None
    label: str | None
    plain: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]]


def read_parquet(path: Path, files: Sequence[Path], wanted: Wanted) -> Source:
    """Sort files into splits and find the columns by their types and names.

    Raises:
        DataError: a file is damaged, files differ in their columns, or there is no label.
    """
    roles, rest = by_role(files, path)
    present = judged_by(roles)
    shards = {role: roles[role] for role in Role if role in present}
    learn = Role.TRAIN if Role.TRAIN in shards else next(iter(shards))
    first = shards[learn][0]
    columns = _find_columns(first.name, open_shard(first).schema_arrow, wanted)
    if columns.image is not None and columns.mask is not None:
        source = _mask_source(path, shards, columns.image, columns.mask, wanted)
    elif columns.image is not None:
        refuse_idle(wanted.config, "images", "--max-length", "--processor")
        source = _media_source(path, shards, columns.image, columns, wanted)
        source = replace(source, notes=(f"images: column {columns.image!r}", *source.notes))
    elif columns.audio is not None:
        source = heard(_media_source(path, shards, columns.audio, columns, wanted), wanted)
    else:
        source = from_tables(_tables(path, shards, columns, None), wanted, columns.label)
    notes = source.notes
    if rest:
        notes = (*notes, f"not named after a split and not used: {listed(f.name for f in rest)}")
    return replace(source, notes=notes)


def _media_source(
    path: Path,
    shards: Mapping[Role, list[Path]],
    column: str,
    columns: _Columns,
    wanted: Wanted,
) -> Source:
    """Images, or sounds that are still encoded, with the targets beside them."""
    role = Role.TRAIN if Role.TRAIN in shards else next(iter(shards))
    # Which columns are answers, only their values say; anything else their names do.
    if wanted.task is not None and wanted.task.name is TaskName.MULTILABEL:
        table = read_columns(shards[role], list(columns.plain))
    else:
        table = open_shard(shards[role][0]).schema_arrow.empty_table().select(columns.plain)
    learn = NamedTable(_where(path, role, shards[role]), table, columns.class_names)
    if wanted.labelled and columns.label is None and not _named_otherwise(wanted):
        what = "images" if column == columns.image else "sounds"
        raise DataError(
            f"{learn.where}: a label column is needed beside the {what}, got none",
            "an integer column called 'label' holds the class of each; or say --target-column, "
            "or --task match without labels",
        )
    found = aims(learn, wanted, columns.label, [column])
    needed = [name for aim in found for name in aim.columns]
    tables = _tables(path, shards, columns, needed)
    used, notes = with_targets(tables, tables[role], found)
    targets = encode_aims(used, found, wanted, integers_are_classes=True)
    parts = {}
    for role, own in used.items():
        blobs = Blobs(ShardReader(tuple(shards[role]), column))
        values = tuple(item.values[role] for item in targets)
        parts[role] = Part(own.where, values, (blobs,), _rows(shards[role]))
    labels = tuple(item.labels for item in targets)
    return Source(parts, labels, (*(item.note for item in targets), *notes))


def _named_otherwise(wanted: Wanted) -> bool:
    """Whether targets are found without a likely column."""
    task = wanted.task
    several = task is not None and (task.heads or task.name is TaskName.MULTILABEL)
    return bool(several or wanted.config.target_columns)


def _mask_source(
    path: Path, shards: Mapping[Role, list[Path]], image: str, mask: str, wanted: Wanted
) -> Source:
    refuse_idle(wanted.config, "images with masks", "--max-length", "--processor")
    pairs = {
        role: Pairs(
            _where(path, role, files),
            Blobs(ShardReader(tuple(files), image)),
            Blobs(ShardReader(tuple(files), mask)),
            _rows(files),
        )
        for role, files in shards.items()
    }
    arrays, note = read_masks(pairs, wanted)
    targets = encode_for(TaskName.SEGMENTATION, arrays)
    parts = {role: part_of(own, (targets.values[role],)) for role, own in pairs.items()}
    notes = (f"images: column {image!r}, masks: column {mask!r}", targets.note, note)
    return Source(parts, (targets.labels,), tuple(item for item in notes if item))


def _tables(
    path: Path,
    shards: Mapping[Role, list[Path]],
    columns: _Columns,
    names: list[str] | None,
) -> dict[Role, NamedTable]:
    """Columns of all parts; a test part may be without.

    Args:
        names: of the columns; all when left out.
    """
    made = {}
    for role, files in shards.items():
        own = names
        if names is not None and role is Role.TEST and len(shards) > 1:
            there = open_shard(files[0]).schema_arrow.names
            own = [name for name in names if name in there]
        made[role] = NamedTable(
            _where(path, role, files), read_columns(files, own), columns.class_names
        )
    return made


def _rows(files: Sequence[Path]) -> int:
    return sum(int(open_shard(file).metadata.num_rows) for file in files)


def _where(path: Path, role: Role, files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{path.name} ({role.value})"


def _find_columns(where: str, schema: Any, wanted: Wanted) -> _Columns:
    """Find images and sounds by type, then by name; the label by type, then by name."""
    features = _features(schema)
    class_names = _class_names(features)
    media = [field.name for field in schema if _may_hold_files(field.type)]
    plain = [field for field in schema if field.name not in media]
    given = wanted.config.input_columns
    if given:
        media = [name for name in media if name in given or name in wanted.config.target_columns]
    sounds = [name for name in media if _is_sound(name, features)]
    images = [name for name in media if name not in sounds]
    masks = _masks(images, wanted)
    image = _one(where, [name for name in images if name != masks], _IMAGE_NAMES, "image")
    audio = _one(where, sounds, _AUDIO_NAMES, "audio") if image is None else None
    named = by_name([field.name for field in plain])
    integers = [field.name for field in plain if pa.types.is_integer(field.type)]
    choices = ([named] if named else []) or list(class_names)
    if not choices and (image or audio) and len(integers) == 1:
        choices = integers
    label = choices[0] if choices else None
    return _Columns(image, audio, masks, label, tuple(f.name for f in plain), class_names)


def _masks(images: Sequence[str], wanted: Wanted) -> str | None:
    """Of columns of images, the one that holds masks."""
    if len(images) < 2 or not wanted.labelled:
        return None
    given = [name for name in wanted.config.target_columns if name in images]
    named = [name for name in images if name.lower() in _MASK_NAMES]
    found = given or named
    return found[0] if len(found) == 1 else None


def _one(where: str, found: Sequence[str], usual: Sequence[str], what: str) -> str | None:
    """The column of inputs.

    Raises:
        DataError: several, and none has the usual name.
    """
    named = [name for name in found if name.lower() in usual]
    if len(found) > 1 and len(named) != 1:
        raise DataError(
            f"{where}: one {what} column is needed, got {listed(found)}",
            f"call the one to use {what!r}, or say which: --input-column NAME",
        )
    return next(iter(named or found), None)


def _may_hold_files(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _is_sound(name: str, features: Mapping[str, Any]) -> bool:
    return isinstance(features.get(name), Audio) or name.lower() in _AUDIO_NAMES


def _features(schema: Any) -> Mapping[str, Any]:
    """The schema that `datasets` writes into its files."""
    try:
        return dict(Features.from_arrow_schema(schema))
    except (ValueError, TypeError, LookupError, AttributeError):
        return {}  # written by something else; the Arrow types say enough


def _class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Class names by column, of classes and of lists of them."""
    inner = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {
        name: tuple(feature.names)
        for name, feature in inner.items()
        if isinstance(feature, ClassLabel) and feature.names
    }
