"""Opening a data set: find out what the path holds, read it, and say what was decided.

Stage: data. In: the data configuration and, where known, the shape of the model's input. Out: a
`DataSet` of three splits. Never downloads, and never writes but to a temporary file.
"""

from pathlib import Path

import numpy as np
import torch

from prunecli.config import DataConfig
from prunecli.data.folder import holds_images, read_folder
from prunecli.data.preparing import make_preprocess
from prunecli.data.reading import read_part
from prunecli.data.records import DataSet, Preprocess, Split, Task
from prunecli.data.source import AnyArray, Part, Role, Rows, Source, folder_role, listed
from prunecli.data.splits import Plan, plan_splits
from prunecli.errors import DataError
from prunecli.progress import Reporter

_PARQUET = frozenset({".parquet", ".pq"})
_ARRAYS = frozenset({".npz", ".npy"})
_TEXT = frozenset({".csv", ".tsv"})
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})

_FORMATS = "a folder of images, parquet, .npz or .npy, or CSV is needed"


def open_data(
    config: DataConfig, *, sample_shape: tuple[int, ...] | None, reporter: Reporter
) -> DataSet:
    """Read the data set into memory, or into a mapped temporary file if it is large.

    Args:
        sample_shape: shape of one example without the batch, e.g. `(3, 32, 32)`, where the model
            or the user says it; otherwise the data's own is taken.

    Raises:
        DataError: there is no usable data, or it does not fit `sample_shape`.
    """
    source = _read_source(config.path, sample_shape)
    if config.image_size is not None and config.image_size < 1:
        raise DataError(
            f"--image-size: must be at least 1, got {config.image_size}", "e.g. --image-size 224"
        )
    _check_classes(source)
    plan = plan_splits(source, config)
    learn, judge = source.parts[plan.learn], source.parts[plan.judge]
    own = [plan.train, plan.choose]
    own += [plan.validation] if plan.judge is plan.learn else []
    first = read_part(learn, own, config, sample_shape, reporter)
    reads = [first]
    if plan.judge is not plan.learn:
        read = read_part(judge, [plan.validation], config, sample_shape, reporter, first.frame)
        reads.append(read)
    groups = [group for read in reads for group in read.groups]
    train = _split(source, "train", learn, *groups[0])
    choose = _split(source, "choose", learn, *groups[1])
    validation = _split(source, "validation", judge, *groups[2])
    _check_same_shape(judge.where, train, validation)
    skipped = tuple(line for read in reads for line in read.skipped)
    resized = any(read.resized for read in reads)
    preprocess = make_preprocess(
        config, first.image, first.stored_shape, resized, first.example_shape
    )
    return DataSet(
        source.task,
        train,
        choose,
        validation,
        preprocess,
        source.classes,
        _notes(source, plan, preprocess, first.note, skipped, reporter),
        skipped,
        source.named,
    )


def _read_source(path: Path, sample_shape: tuple[int, ...] | None) -> Source:
    """Call the reader for what the path holds.

    The readers are imported here, not above: `datasets` and Arrow take long to import, and most
    runs need neither or one of them.
    """
    if not path.exists():
        raise DataError(f"data {path}: no such file or folder", "check the path given to --data")
    parquet, arrays, text = (_files(path, kind) for kind in (_PARQUET, _ARRAYS, _TEXT))
    if parquet:
        from prunecli.data.parquet import read_parquet

        return read_parquet(path, parquet)
    if arrays:
        from prunecli.data.arrays import read_arrays

        return read_arrays(path, arrays, sample_shape)
    if path.is_dir() and holds_images(path):
        return read_folder(path)
    if text:
        from prunecli.data.csvfiles import read_csv

        return read_csv(path, text)
    raise _nothing_readable(path)


def _files(path: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files of a format: the path itself, or those in the folder and in its split folders."""
    if path.is_file():
        if path.suffix.lower() == ".npy":
            return sorted(path.parent.glob("*.npy")) if ".npy" in suffixes else []
        return [path] if path.suffix.lower() in suffixes else []
    places = [path, *(sub for sub in path.iterdir() if sub.is_dir() and _is_level(sub.name))]
    return sorted(
        file
        for place in places
        for file in place.iterdir()
        if file.suffix.lower() in suffixes and file.is_file() and not file.name.startswith(".")
    )


def _is_level(name: str) -> bool:
    """Whether a folder is a level of the Hugging Face layout, not a class."""
    return name.lower() == "data" or folder_role(name) is not None


def _nothing_readable(path: Path) -> DataError:
    if path.is_file():
        hint = "unpack it first" if path.suffix.lower() in _ARCHIVES else "check --data"
        return DataError(f"data {path}: {_FORMATS}, got a {path.suffix or 'nameless'} file", hint)
    names = sorted(entry.name for entry in path.iterdir())
    got = listed(names) if names else "an empty folder"
    return DataError(f"data {path}: {_FORMATS}, got {got}", "check the path given to --data")


def _check_classes(source: Source) -> None:
    if source.task is Task.REGRESSION:
        return
    part = source.parts.get(Role.TRAIN) or next(iter(source.parts.values()))
    found = len(np.unique(part.targets))
    if found < 2:
        raise DataError(
            f"{part.where}: examples of at least 2 classes are needed, got {found}",
            "check the labels, or leave out --data to prune without training",
        )


def _split(source: Source, name: str, part: Part, inputs: AnyArray, rows: Rows) -> Split:
    if len(rows) == 0:
        raise DataError(
            f"{part.where}: no good example is left for the {name} split",
            "repair the broken examples or add others",
        )
    targets = np.ascontiguousarray(part.targets[rows])
    kind = np.float32 if source.task is Task.REGRESSION else np.int64
    return Split(name, torch.from_numpy(inputs), torch.from_numpy(targets.astype(kind)))


def _check_same_shape(where: str, train: Split, validation: Split) -> None:
    for what in ("inputs", "targets"):
        ours, theirs = (getattr(split, what).shape[1:] for split in (train, validation))
        if ours != theirs:
            raise DataError(
                f"{where}: {what} must have the shape of the training data, {tuple(ours)}, "
                f"got {tuple(theirs)}",
                "the same shape is needed in every split",
            )


def _notes(
    source: Source,
    plan: Plan,
    preprocess: Preprocess,
    layout: str,
    skipped: tuple[str, ...],
    reporter: Reporter,
) -> tuple[str, ...]:
    notes = [*source.notes, *plan.notes, *([layout] if layout else [])]
    if preprocess.image and not (preprocess.mean or preprocess.std):
        notes.append("no --mean/--std given: images are only scaled to 0-1")
    if skipped:
        read = len(plan.train) + len(plan.choose) + len(plan.validation)
        text = f"{len(skipped):,} of {read:,} images are broken and left out, e.g. {skipped[0]}"
        notes.append(text)
        reporter.warn(text)
    return tuple(notes)
