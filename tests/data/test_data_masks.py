"""Images with masks: which belongs to which, and masks that stay class numbers."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_making import check, read
from PIL import Image

from prunecli.choices import TaskName
from prunecli.config import TaskConfig
from prunecli.errors import DataError, PrunecliError
from prunecli.tasks import TASKS

SEGMENTATION = TaskConfig(TaskName.SEGMENTATION)


def pair(index: int, height: int = 6, width: int = 8) -> tuple[Image.Image, Image.Image]:
    """The image's red says which it is; its mask counts columns from there."""
    image = Image.new("RGB", (width, height), (index, 0, 200))
    columns = (np.arange(width) + index) % 3
    mask = np.broadcast_to(columns, (height, width)).astype(np.uint8)
    return image, Image.fromarray(mask)


def palette(mask: Image.Image) -> Image.Image:
    made = mask.copy()
    made.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return made


def write(
    images: Path, masks: Path, count: int = 12, colours: bool = False, start: int = 0
) -> None:
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + 12):
        image, mask = pair(index)
        image.save(images / f"{index:02}.bmp")
        (palette(mask) if colours else mask).save(masks / f"{index:02}.png")


def holds_pairs(inputs: torch.Tensor, masks: torch.Tensor) -> bool:
    columns = torch.arange(masks.shape[2])
    wanted = (columns[None] + inputs[:, 0, 0, 0].long()[:, None]) % 3
    return bool((masks.long() == wanted[:, None]).all())


@pytest.mark.parametrize("colours", [False, True])
def test_one_mask_for_each_image(tmp_path: Path, colours: bool) -> None:
    write(tmp_path / "images", tmp_path / "masks", colours=colours)
    data = read(tmp_path)
    assert data.task is TASKS[TaskName.SEGMENTATION]
    assert holds_pairs(data.train.inputs[0], data.train.targets[0])
    assert data.train.targets[0].dtype == torch.uint8
    assert "targets: class numbers up to 2 (segmentation)" in data.notes
    check(data, (2, 3, 6, 8))
    with pytest.raises(DataError, match="3 classes in the data, 2 outputs"):
        check(data, (2, 2, 6, 8))


@pytest.mark.parametrize("above", [True, False])
def test_splits_above_or_below(tmp_path: Path, above: bool) -> None:
    for role, start in (("train", 0), ("val", 20)):
        inner = (
            [f"{role}/images", f"{role}/masks"] if above else [f"images/{role}", f"masks/{role}"]
        )
        write(tmp_path / inner[0], tmp_path / inner[1], start=start)
    data = read(tmp_path, task=SEGMENTATION)
    assert holds_pairs(data.train.inputs[0], data.train.targets[0])
    assert sorted(data.validation.inputs[0][:, 0, 0, 0].tolist()) == list(range(20, 32))
    assert holds_pairs(data.validation.inputs[0], data.validation.targets[0])


def test_masks_are_resized_without_smoothing(tmp_path: Path) -> None:
    write(tmp_path / "images", tmp_path / "masks")
    data = read(tmp_path, image_size=16)
    masks = data.train.targets[0]
    assert masks.shape[1:] == (16, 16)
    assert data.train.inputs[0].shape[2:] == (16, 16)
    assert holds_pairs(data.train.inputs[0], masks[:, ::3, ::2][:, :5])
    data = read(tmp_path, sample_shape=(3, 12, 8))
    assert data.train.targets[0].shape[1:] == (12, 8)


def test_a_broken_image_goes_with_its_mask(tmp_path: Path) -> None:
    write(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "images" / "03.bmp").write_bytes(b"nonsense")
    data = read(tmp_path)
    assert len(data.skipped) == 1
    for split in (data.train, data.choose, data.validation):
        assert holds_pairs(split.inputs[0], split.targets[0])


def test_two_classes_as_black_and_white(tmp_path: Path) -> None:
    write(tmp_path / "images", tmp_path / "masks")
    for index in range(12):
        mask = np.asarray(pair(index)[1]) == 1
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / f"{index:02}.png")
    data = read(tmp_path)
    assert set(data.train.targets[0].unique().tolist()) == {0, 1}
    assert "masks hold 0 and 255 only, which are classes 0 and 1" in data.notes
    check(data, (2, 1, 6, 8))


def test_parquet(tmp_path: Path) -> None:
    def encoded(image: Image.Image) -> dict[str, object]:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    pairs = [pair(index) for index in range(12)]
    for name in ("label", "annotation"):
        table = {"image": [encoded(a) for a, _ in pairs], name: [encoded(b) for _, b in pairs]}
        pq.write_table(pa.table(table), tmp_path / "train.parquet")
        data = read(tmp_path / "train.parquet", task=SEGMENTATION)
        assert holds_pairs(data.train.inputs[0], data.train.targets[0])
        assert f"images: column 'image', masks: column {name!r}" in data.notes
    # Which is which can be said.
    table = {"a": [encoded(a) for a, _ in pairs], "b": [encoded(b) for _, b in pairs]}
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="one image column is needed, got a, b"):
        read(tmp_path / "train.parquet")
    data = read(tmp_path / "train.parquet", input_columns=("a",), target_columns=("b",))
    assert holds_pairs(data.train.inputs[0], data.train.targets[0])


def colourful(root: Path) -> None:
    pair(0)[0].save(root / "masks" / "03.png")


def small(root: Path) -> None:
    pair(3, 4, 4)[1].save(root / "masks" / "03.png")


def both_small(root: Path) -> None:
    small(root)
    pair(3, 4, 4)[0].save(root / "images" / "03.bmp")


def deep(root: Path) -> None:
    mask = np.full((6, 8), 300, np.uint16)
    Image.fromarray(mask).save(root / "masks" / "03.png")


@pytest.mark.parametrize(
    ("spoil", "config", "message", "hint"),
    [
        (lambda root: (root / "masks" / "03.png").unlink(), {},
         "images/03.bmp: a mask of the same name is needed in masks/, got none", "03.png"),
        (lambda root: (root / "masks" / "03.png").write_bytes(b"x"), {},
         "masks/03.png: the mask cannot be read: not an image", "write it again as PNG"),
        (colourful, {}, "masks/03.png: masks must hold a class number for each pixel, got colours",
         "palette"),
        (small, {}, "masks/03.png: a mask must have its image's size, 6x8, got 4x4", "same size"),
        (both_small, {}, "masks/03.png: masks must have one size, got 4x4 after 6x8",
         "--image-size 8"),
        (deep, {}, "class numbers from 0 to 254 are needed, got 300", "from 0"),
        (lambda root: None, {"max_length": 9}, "--max-length: has no effect on a folder of images",
         "leave"),
        (lambda root: None, {"task": TaskConfig(TaskName.REGRESSION)},
         "--task regression: targets of that kind are needed, got segmentation", "--task"),
        (lambda root: Image.new("L", (8, 6)).save(root / "masks" / "03.gif"), {},
         "one mask for each image is needed, got 03.gif as well", "remove one"),
    ],
)  # fmt: skip
def test_bad_masks(
    spoil: object, config: dict[str, object], message: str, hint: str, tmp_path: Path
) -> None:
    write(tmp_path / "images", tmp_path / "masks")
    assert callable(spoil)
    spoil(tmp_path)
    with pytest.raises(PrunecliError) as caught:
        read(tmp_path, **config)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_images_alone_to_match(tmp_path: Path) -> None:
    for index in range(9):
        pair(index)[0].save(tmp_path / f"{index}.png")
    match = TaskConfig(TaskName.MATCH)
    data = read(tmp_path, task=match)
    assert data.labels == data.train.targets == ()
    assert len(data.train) + len(data.choose) + len(data.validation) == 9
    with pytest.raises(DataError, match="images must lie in class sub-folders") as caught:
        read(tmp_path)
    assert "--task match needs no classes" in (caught.value.hint or "")
    (tmp_path / "a").mkdir()
    assert read(tmp_path, task=match).skipped == ()
