"""Opening a data set: find out what the path holds, read it, and say what was decided.

Stage: data. In: the data configuration and, where known, the shape of the model's input. Out: a
`DataSet` of three splits. Never downloads, and never writes but to a temporary file.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from prunecli.choices import TaskName
from prunecli.config import DataConfig, TaskConfig
from prunecli.data.audio import heard
from prunecli.data.folder import IMAGES, SOUNDS, holds, read_folder
from prunecli.data.gathering import preprocess_for, read_part
from prunecli.data.records import DataSet, Preprocess, Split
from prunecli.data.segmentation import mask_folders, read_pairs
from prunecli.data.source import AnyArray, Part, Role, Rows, Source, folder_role, listed
from prunecli.data.splits import Plan, plan_splits
from prunecli.data.wanted import Processor, Wanted, refuse_idle
from prunecli.errors import DataError
from prunecli.progress import Reporter
from prunecli.tasks import make_task

_PARQUET = frozenset({".parquet", ".pq"})
_ARRAYS = frozenset({".npz", ".npy"})
_TABLES = frozenset({".csv", ".tsv"})
_LINES, _JSON = frozenset({".jsonl", ".ndjson"}), frozenset({".json"})
_PLAIN = frozenset({".txt"})
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})

_FORMATS = "a folder of images or sounds, parquet, .npz or .npy, JSON lines, text, or CSV is needed"


def open_data(
    config: DataConfig,
    *,
    sample_shape: tuple[int, ...] | None,
    reporter: Reporter,
    inputs: tuple[str, ...] = (),
    processor: Processor | None = None,
) -> DataSet:
    """Read the data set into memory, or into a mapped temporary file if it is large.

    Args:
        sample_shape: shape of one example without the batch, e.g. `(3, 32, 32)`, where the model
            has one input and it or the user says it; otherwise the data's own is taken.
        inputs: names of the network's inputs, where they are known.
        processor: where the network's tokenizer or feature extractor lies, where it has one.

    Raises:
        DataError: there is no usable data, or it does not fit `sample_shape` or the task.
    """
    if config.image_size is not None and config.image_size < 1:
        raise DataError(
            f"--image-size: must be at least 1, got {config.image_size}", "e.g. --image-size 224"
        )
    wanted = Wanted(config, sample_shape, inputs, processor)
    source = _for_task(_read_source(wanted), config.task)
    _check_classes(source, source.parts.get(Role.TRAIN) or next(iter(source.parts.values())))
    plan = plan_splits(source, config)
    learn, judge = source.parts[plan.learn], source.parts[plan.judge]
    own = [plan.train, plan.choose]
    own += [plan.validation] if plan.judge is plan.learn else []
    sample = sample_shape if len(learn.examples) == 1 else None
    first = read_part(learn, own, config, sample, reporter)
    reads = [first]
    if plan.judge is not plan.learn:
        reads.append(read_part(judge, [plan.validation], config, sample, reporter, first))
    groups = [group for read in reads for group in read.groups]
    train = _split(source, "train", learn, *groups[0])
    choose = _split(source, "choose", learn, *groups[1])
    validation = _split(source, "validation", judge, *groups[2])
    _check_same_shape(judge.where, train, validation)
    skipped = tuple(line for read in reads for line in read.skipped)
    if skipped:
        # All that a class has may be broken.
        good = np.concatenate([rows for _, rows in first.groups])
        _check_classes(source, learn, good)
    preprocess = preprocess_for(config, reads)
    return DataSet(
        make_task(config.task, source.labels),
        train,
        choose,
        validation,
        preprocess,
        source.labels,
        _notes(source, plan, preprocess, first.notes, skipped, reporter),
        skipped,
        source.names,
        source.contents,
    )


def _for_task(source: Source, task: TaskConfig | None) -> Source:
    """The source without what the task does not need.

    Raises:
        DataError: the targets are none of this task.
    """
    if task is not None and not task.labelled:
        parts = {role: replace(part, targets=()) for role, part in source.parts.items()}
        return replace(source, parts=parts, labels=())
    if task is None or task.custom is not None:
        return source
    wanted: list[TaskName | None] = [head.task for head in task.heads]
    wanted = wanted or [task.name]
    if [labels.kind for labels in source.labels] != wanted:
        found = " and ".join(str(labels.kind) for labels in source.labels)
        raise DataError(
            f"--task {task.in_words()}: targets of that kind are needed, got {found}",
            "check --task, or write inputs and targets as .npz (see the README)",
        )
    return source


def _read_source(wanted: Wanted) -> Source:
    """Call the reader for what the path holds.

    The readers are imported here, not above: `datasets` and Arrow take long to import, and most
    runs need neither or one of them.
    """
    path = wanted.config.path
    if not path.exists():
        raise DataError(f"data {path}: no such file or folder", "check the path given to --data")
    if parquet := _files(path, _PARQUET):
        from prunecli.data.parquet import read_parquet

        return read_parquet(path, parquet, wanted)
    if arrays := _files(path, _ARRAYS):
        from prunecli.data.arrays import read_arrays

        flags = ("--target-column", "--input-column", "--max-length", "--processor")
        refuse_idle(wanted.config, "arrays, which have names", *flags)
        return read_arrays(path, arrays, wanted.sample_shape, wanted.task, wanted.inputs)
    if path.is_dir() and (found := _read_files(path, wanted)) is not None:
        return found
    if tables := _files(path, _TABLES):
        from prunecli.data.csvfiles import read_csv

        return read_csv(path, tables, wanted)
    # Other .json files in a folder of JSON lines say something about it.
    if lines := _files(path, _LINES) or _files(path, _JSON):
        from prunecli.data.jsonlines import read_json

        return read_json(path, lines, wanted)
    if texts := _files(path, _PLAIN):
        from prunecli.data.textfiles import read_texts

        return read_texts(path, texts, wanted)
    raise _nothing_readable(path)


def _read_files(path: Path, wanted: Wanted) -> Source | None:
    """Images or sounds in a folder; `None` where it holds neither."""
    if holds(path, IMAGES):
        pairs = mask_folders(path)
        if pairs:
            return read_pairs(path, pairs, wanted)
        refuse_idle(wanted.config, "images", "--max-length", "--processor")
        return read_folder(path, wanted)
    if holds(path, SOUNDS):
        return heard(read_folder(path, wanted, SOUNDS), wanted)
    return None


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


def _check_classes(source: Source, part: Part, rows: Rows | slice = slice(None)) -> None:
    classes = source.classes_of(part)
    if classes is None:
        return
    found = len(np.unique(classes[rows]))
    if found < 2:
        raise DataError(
            f"{part.where}: examples of at least 2 classes are needed, got {found}",
            "check the labels, or leave out --data to prune without training",
        )


def _split(
    source: Source, name: str, part: Part, inputs: tuple[AnyArray, ...], rows: Rows
) -> Split:
    if len(rows) == 0:
        raise DataError(
            f"{part.where}: no good example is left for the {name} split",
            "repair the broken examples or add others",
        )
    targets = (np.ascontiguousarray(item[rows]) for item in part.targets)
    return Split(name, tuple(map(torch.from_numpy, inputs)), tuple(map(torch.from_numpy, targets)))


def _check_same_shape(where: str, train: Split, validation: Split) -> None:
    for what in ("inputs", "targets"):
        pairs = zip(getattr(train, what), getattr(validation, what), strict=True)
        for ours, theirs in pairs:
            if ours.shape[1:] != theirs.shape[1:]:
                raise DataError(
                    f"{where}: {what} must have the shape of the training data, "
                    f"{tuple(ours.shape[1:])}, got {tuple(theirs.shape[1:])}",
                    "the same shape is needed in every split",
                )


def _notes(
    source: Source,
    plan: Plan,
    preprocess: tuple[Preprocess, ...],
    layout: tuple[str, ...],
    skipped: tuple[str, ...],
    reporter: Reporter,
) -> tuple[str, ...]:
    notes = [*source.notes, *plan.notes, *layout]
    if any(own.image and not (own.mean or own.std) for own in preprocess):
        notes.append("no --mean/--std given: images are only scaled to 0-1")
    if skipped:
        read = len(plan.train) + len(plan.choose) + len(plan.validation)
        text = f"{len(skipped):,} of {read:,} images are broken and left out, e.g. {skipped[0]}"
        notes.append(text)
        reporter.warn(text)
    return tuple(notes)
