"""A folder of images and masks that belong together by their names.

Stage: data. In: a folder with images/ and masks/, with or without splits. Out: a source whose
images are paths, still unread, and whose masks are read.
"""

from collections.abc import Mapping
from pathlib import Path

from prunecli.choices import TaskName
from prunecli.data.encoding import encode_for
from prunecli.data.folder import IMAGES, PathReader, files_below, judged_folders
from prunecli.data.masks import Pairs, part_of, read_masks
from prunecli.data.source import Blobs, Role, Source, counted, folder_role
from prunecli.data.wanted import Wanted, refuse_idle
from prunecli.errors import DataError

_IMAGES = ("images", "image", "imgs", "img", "jpegimages")
_MASKS = ("masks", "mask", "annotations", "annotation", "labels", "segmentationclass")

Folders = tuple[Path, Path]
"""Images and masks."""


def mask_folders(root: Path) -> dict[Role, Folders]:
    """Where images and masks of each split lie; nothing where this is no such folder.

    Splits lie above (train/images, train/masks) or below (images/train, masks/train).
    """
    below = _pair(root)
    if below is not None:
        images, masks = (judged_folders(folder) for folder in below)
        if images.keys() == masks.keys():
            return {role: (images[role], masks[role]) for role in images}
        return {Role.TRAIN: below}
    found = {role: _pair(folder) for role, folder in judged_folders(root).items()}
    return {role: pair for role, pair in found.items() if pair is not None}


def _pair(folder: Path) -> Folders | None:
    names = {sub.name.lower(): sub for sub in folder.iterdir() if sub.is_dir()}
    images, masks = (
        next((names[name] for name in known if name in names), None) for known in (_IMAGES, _MASKS)
    )
    others = [name for name in names if folder_role(name) is None and not name.startswith(".")]
    if images is None or masks is None or len(others) > 2:
        return None
    return images, masks


def read_pairs(root: Path, folders: Mapping[Role, Folders], wanted: Wanted) -> Source:
    """Images with the masks of the same names.

    Raises:
        DataError: an image without a mask, or masks that are none.
    """
    flags = ("--target-column", "--input-column", "--max-length", "--processor")
    refuse_idle(wanted.config, "a folder of images and masks", *flags)
    notes: list[str] = []
    pairs = {
        role: _pairs(root, images, masks, wanted, notes)
        for role, (images, masks) in folders.items()
    }
    if not wanted.labelled:
        parts = {role: part_of(own, ()) for role, own in pairs.items()}
        return Source(parts, (), tuple(notes))
    arrays, note = read_masks(pairs, wanted)
    notes += [note] if note else []
    targets = encode_for(TaskName.SEGMENTATION, arrays)
    parts = {role: part_of(own, (targets.values[role],)) for role, own in pairs.items()}
    return Source(parts, (targets.labels,), (targets.note, *notes))


def _pairs(root: Path, images: Path, masks: Path, wanted: Wanted, notes: list[str]) -> Pairs:
    found, _ = files_below(images, IMAGES)
    where = str(root) if images.parent == root else f"{root.name}/{images.relative_to(root)}"
    if not found:
        raise DataError(f"data {images}: images are needed, got none", "check --data")
    known = _by_stem(masks)
    own = []
    for path in found:
        stem = path.relative_to(images).with_suffix("")
        if stem not in known and wanted.labelled:
            raise DataError(
                f"{path.relative_to(root)}: a mask of the same name is needed in "
                f"{masks.relative_to(root)}/, got none",
                f"write {stem}.png there, or remove the image",
            )
        own.append(known.pop(stem, path))
    if known and wanted.labelled:
        notes.append(f"{where}: {counted(len(known), 'mask')} without an image left out")
    readers = [Blobs(PathReader(root, tuple(paths))) for paths in (found, own)]
    return Pairs(where, readers[0], readers[1], len(found))


def _by_stem(masks: Path) -> dict[Path, Path]:
    """Masks by their names without suffix.

    Raises:
        DataError: two of one name.
    """
    known: dict[Path, Path] = {}
    for path in files_below(masks, IMAGES)[0]:
        stem = path.relative_to(masks).with_suffix("")
        if stem in known:
            raise DataError(
                f"{path}: one mask for each image is needed, got {known[stem].name} as well",
                "remove one of them",
            )
        known[stem] = path
    return known
