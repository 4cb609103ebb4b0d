"""Images: which class, which size, which way up, and what happens to a broken one."""

import io
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_making import colours, image, image_folder, read, tint
from PIL import Image

from prunecli.config import DataConfig
from prunecli.data import open_data, storage
from prunecli.errors import DataError


class Recorder:
    """A reporter that remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def step(self, title: str, total: float | None = None) -> object:
        return nullcontext(SimpleNamespace(update=lambda done, note="": None))

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_pixels_and_labels_stay_together(tmp_path: Path) -> None:
    data = read(image_folder(tmp_path / "set", ["cat", "ant", "bee"], 20))
    assert data.labels[0].classes == ("ant", "bee", "cat")
    folder_label = {"cat": 0, "ant": 1, "bee": 2}
    seen = set()
    for name in ("train", "choose", "validation"):
        split = getattr(data, name)
        assert split.inputs[0].dtype == torch.uint8
        assert split.inputs[0].shape == (len(split), 3, 6, 8)
        for (red, green, blue), label in zip(colours(data, name), split.targets[0], strict=True):
            assert (red, blue) == (folder_label[data.labels[0].classes[label]] * 10, 200)
            seen.add((int(label), int(green)))
    assert len(seen) == 60


def test_numbered_folders_are_ordered_by_number(tmp_path: Path) -> None:
    data = read(image_folder(tmp_path / "set", ["10", "9", "1"], 5))
    assert data.labels[0].classes == ("1", "9", "10")
    assert colours(data, "validation")[:, 0].tolist() == [20, 10, 0]


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_split_folders(tmp_path: Path, name: str) -> None:
    image_folder(tmp_path / "train", ["a", "b"], 10)
    image_folder(tmp_path / name, ["a", "b"], 3)
    data = read(tmp_path)
    assert len(data.validation) == 6
    assert len(data.train) + len(data.choose) == 20
    assert data.validation.targets[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_class_missing_from_validation_keeps_the_numbering(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", ["a", "b", "c"], 10)
    image_folder(tmp_path / "val", ["c"], 3)
    data = read(tmp_path)
    assert data.validation.targets[0].tolist() == [2, 2, 2]
    assert f"{tmp_path.name}/val: no images of class a, b" in data.notes


def test_an_unlabelled_test_folder_is_left_alone(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", ["a", "b"], 10)
    (tmp_path / "test").mkdir()
    image(0, 0).save(tmp_path / "test" / "1.png")
    data = read(tmp_path)
    assert len(data.validation) == 4 - 1
    assert "test/ has no class sub-folders and is not used" in data.notes


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    data = read(image_folder(tmp_path, ["test", "control"], 10))
    assert data.labels[0].classes == ("control", "test")


def test_grey_images_stay_grey(tmp_path: Path) -> None:
    data = read(image_folder(tmp_path, ["a", "b"], 10, mode="L"))
    assert data.train.inputs[0].shape[1:] == (1, 6, 8)


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    image_folder(tmp_path, ["a", "b"], 10, mode="L")
    image(1, 7).save(tmp_path / "b" / "007.png")
    data = read(tmp_path)
    assert data.train.inputs[0].shape[1:] == (3, 6, 8)
    everything = np.concatenate([colours(data, n) for n in ("train", "choose", "validation")])
    assert list(tint(1, 7)) in everything.tolist()
    assert [5, 5, 5] in everything.tolist()


def test_validation_follows_the_training_images(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", ["a", "b"], 10, mode="L")
    image_folder(tmp_path / "val", ["a", "b"], 10)
    assert read(tmp_path).validation.inputs[0].shape == (20, 1, 6, 8)


def test_the_model_decides_channels(tmp_path: Path) -> None:
    image_folder(tmp_path, ["a", "b"], 10)
    data = read(tmp_path, sample_shape=(1, 6, 8))
    red, green, blue = tint(1, 9)
    grey = round(0.299 * red + 0.587 * green + 0.114 * blue)
    everything = np.concatenate([colours(data, n) for n in ("train", "choose", "validation")])
    assert everything.max() == pytest.approx(grey, abs=1)


def test_resizing_is_pillows_bilinear(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    data = read(tmp_path, image_size=8)
    expected = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR))
    assert (data.train.inputs[0].numpy() == expected.transpose(2, 0, 1)).all()
    assert data.preprocess[0].in_words() == "resized to 8x8, scaled to 0-1"
    by_model = read(tmp_path, sample_shape=(3, 5, 7))
    assert by_model.train.inputs[0].shape[1:] == (3, 5, 7)
    assert by_model.preprocess[0].in_words() == "resized to 5x7, scaled to 0-1"


def test_nothing_is_said_of_resizing_where_nothing_was_resized(tmp_path: Path) -> None:
    image_folder(tmp_path, ["a", "b"], 5, size=(8, 8))
    data = read(tmp_path, image_size=8, mean=(0.5,), std=(0.25, 0.5, 1.0))
    assert data.preprocess[0].in_words() == "scaled to 0-1, mean 0.5, std 0.25,0.5,1"
    assert not any("--mean" in note for note in data.notes)


def test_images_for_a_network_that_takes_them_flat(tmp_path: Path) -> None:
    image_folder(tmp_path, ["a", "b"], 5, mode="L")
    data = read(tmp_path, sample_shape=(48,))
    assert data.train.inputs[0].shape[1:] == (1, 6, 8)
    assert data.preprocess[0](data.train.inputs[0]).shape == (len(data.train), 48)
    assert data.preprocess[0].in_words() == "scaled to 0-1, reshaped to 48"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.arange(48, dtype=np.uint8).reshape(6, 8)
    # What a camera stores is the upright image turned the other way, by the definition of EXIF:
    # which edges of the scene row 0 and column 0 show.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(np.ascontiguousarray(stored)).save(
                tmp_path / name / f"{index}.png", exif=exif
            )
    data = read(tmp_path)
    assert (data.train.inputs[0][0, 0].numpy() == upright).all()


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    colour = Image.new("RGB", (4, 4), (250, 250, 250))
    if mode == "I;16":
        odd = Image.fromarray(np.full((4, 4), 250 * 256 + 99, dtype=np.uint16))
    else:
        odd = colour.quantize(4) if mode == "P" else colour.convert(mode)
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(3):
            odd.save(tmp_path / name / f"{index}.{'tif' if mode in ('CMYK', 'I;16') else 'png'}")
    data = read(tmp_path, sample_shape=(3, 4, 4))
    assert data.skipped == ()
    # 1-bit images know only black and white.
    assert data.train.inputs[0].unique().tolist() == [255 if mode == "1" else 250]


def test_transparent_palette(tmp_path: Path) -> None:
    palette = Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4)
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(3):
            palette.save(tmp_path / name / f"{index}.png", transparency=b"\x00\x80")
    data = read(tmp_path)
    assert data.train.inputs[0][0, :, 0, 0].tolist() == [10, 20, 30]


def break_images(root: Path) -> None:
    """Break three images of the first class in different ways."""
    (root / "a" / "000.png").write_bytes(b"not an image")
    whole = (root / "a" / "001.png").read_bytes()
    (root / "a" / "001.png").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "002.png").write_bytes(b"")


def test_broken_images_are_left_out_and_reported(tmp_path: Path) -> None:
    image_folder(tmp_path, ["a", "b"], 20)
    break_images(tmp_path)
    recorder = Recorder()
    data = open_data(DataConfig(tmp_path), sample_shape=None, reporter=recorder)
    assert sorted(line.split(":")[0] for line in data.skipped) == [
        f"a/{index:03}.png" for index in range(3)
    ]
    assert any(line == "a/000.png: not an image in a known format" for line in data.skipped)
    assert any("3 of 40 images are broken and left out" in note for note in data.notes)
    assert len(recorder.warnings) == 1
    total = 0
    for name in ("train", "choose", "validation"):
        split = getattr(data, name)
        total += len(split)
        assert len(split.inputs[0]) == len(split)
        assert colours(data, name)[:, 0].tolist() == [10 * label for label in split.targets[0]]
        assert not ((colours(data, name)[:, 1] < 3) & (split.targets[0].numpy() == 0)).any()
    assert total == 37


def test_damaged_metadata_do_not_cost_the_image(tmp_path: Path) -> None:
    image_folder(tmp_path, ["a", "b"], 5)
    stream = io.BytesIO()
    image(0, 0).save(stream, "PNG", exif=b"Exif\x00\x00garbage that is no TIFF header")
    (tmp_path / "a" / "000.png").write_bytes(stream.getvalue())
    assert read(tmp_path).skipped == ()


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    image_folder(tmp_path, ["a", "b"], 5)
    (tmp_path / "a" / "readme.txt").write_text("x")
    (tmp_path / "a" / ".DS_Store").write_text("x")
    (tmp_path / ".cache").mkdir()
    data = read(tmp_path)
    assert data.labels[0].classes == ("a", "b")
    assert f"{tmp_path}: 1 file not named like an image left out" in data.notes


def test_large_splits_are_mapped_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path / "set", ["a", "b"], 20)
    break_images(tmp_path / "set")
    in_memory = read(tmp_path / "set")
    made: list[object] = []
    real = np.memmap

    def memmap(*args: object, **kwargs: object) -> np.memmap:
        made.append(real(*args, **kwargs))
        return made[-1]

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(storage, "available_bytes", lambda: 10_000)
    monkeypatch.setattr(np, "memmap", memmap)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    mapped = read(tmp_path / "set")
    assert made
    for name in ("train", "choose", "validation"):
        assert torch.equal(getattr(mapped, name).inputs[0], getattr(in_memory, name).inputs[0])
    assert list(scratch.iterdir()) == []  # nothing to clean up, whatever happens


def test_too_large_for_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path, ["a", "b"], 20)
    monkeypatch.setattr(storage, "available_bytes", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match="fit neither in memory nor in") as caught:
        read(tmp_path)
    assert "--max-samples" in (caught.value.hint or "")
