"""Data that is odd in ways that people's own files are: refused in one line, or read rightly."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_making import image_folder, png, read
from PIL import Image
from text_making import read_texts, save_tokenizer

from prunecli.errors import DataError
from prunecli.parsing import parse_task

ROWS = 24
IRIS = "".join(f"{i / 8:.3f},{i / 3:.3f},{'xyz'[i % 3]}\n" for i in range(1, ROWS))


def lines(path: Path, label: object, count: int = ROWS) -> Path:
    """JSON lines with one number and one label each; `label` may be a list to go round in."""
    own = label if isinstance(label, tuple) else (label,)
    rows = [{"p": i / 3, "label": own[i % len(own)]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("train", "validation", "task", "message"),
    [
        ((True, False), ("yes", "no"), None, "must hold integers like the training data"),
        (("a", "b"), ["a"], None, "must hold texts like the training data, got list<"),
        ((7 * 10**9, 0), 0, "classification", "class numbers must be below 4,194,304, got 7000"),
        (([0], [10**9]), [0], "multilabel", "class numbers must be below 4,194,304, got 1000"),
        ([[1]], [[1]], "multilabel", "must hold lists of numbers, got list<item: list<"),
        ([{"a": 1}], [{"a": 1}], "multilabel", "must hold lists of numbers, got list<item: struct"),
        ((["a"], ["b"]), "a", "multilabel", "must hold lists of class names, got string"),
        (([0, 2], [1]), ["a"], "multilabel", "must hold lists of numbers, got list<item: string>"),
    ],
)
def test_labels_of_another_kind(
    train: object, validation: object, task: str | None, message: str, tmp_path: Path
) -> None:
    lines(tmp_path / "train.jsonl", train)
    lines(tmp_path / "validation.jsonl", validation)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, task=None if task is None else parse_task(task))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 10**10] * 12), "class numbers must be below 4,194,304, got 10000000000"),
        (np.array([0, 2**63 + 5] * 12, np.uint64), "must be below 4,194,304, got 9223372036854775"),
        (np.array([b"a", b"\xff"] * 12), "targets that are texts must be ASCII or str"),
    ],
)
def test_labels_in_arrays_that_are_none(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((ROWS, 3), np.float32), y=labels)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.npz")


def test_brackets_without_end(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"a\.json: it cannot be read as JSON lines"):
        read(tmp_path / "a.json")


def test_rows_without_a_header_lose_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("5.1,5.1,x\n" + IRIS)
    data = read(tmp_path / "a.csv")
    assert len(data.train) + len(data.choose) + len(data.validation) == ROWS
    assert data.labels[0].classes == ("x", "y", "z")
    held = np.concatenate([own.inputs[0] for own in (data.train, data.choose, data.validation)])
    assert held[:, 0].max() == pytest.approx(5.1)


@pytest.mark.parametrize("names", ["0,1,2", "1,2,3", "450.5,451,kind"])
def test_columns_called_by_numbers(names: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{names}\n" + IRIS)
    data = read(tmp_path / "a.csv")
    assert len(data.train) + len(data.choose) + len(data.validation) == ROWS - 1
    assert f"2 features: {', '.join(names.split(',')[:2])}" in data.notes


def test_a_missing_answer_is_said_and_its_label_not_dropped(tmp_path: Path) -> None:
    odd = [i % 2 for i in range(ROWS)]
    table = {"image": [png(i % 2, i) for i in range(ROWS)], "u": [None, *odd[1:]], "v": odd}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'u' must be complete"):
        read(tmp_path / "a.parquet", task=parse_task("multilabel"))


def test_text_view_is_text(tmp_path: Path) -> None:
    label = pa.array(["ab"[i % 2] for i in range(ROWS)], pa.string_view())
    pq.write_table(pa.table({"p": np.arange(ROWS) / 3, "label": label}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").labels[0].classes == ("a", "b")


def test_images_of_another_name_or_kind_in_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [i % 2 for i in range(ROWS)]
    images = [png(i % 2, i) for i in range(ROWS)]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    other = tmp_path / "validation.parquet"
    pq.write_table(pa.table({"img": images, "label": labels}), other)
    with pytest.raises(DataError, match=r"validation.*'image' is missing"):
        read(tmp_path)
    # A text is no name of a file to open.
    (tmp_path / "there.png").write_bytes(images[0])
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"image": ["there.png"] * ROWS, "label": labels}), other)
    with pytest.raises(DataError, match="no image is stored"):
        read(tmp_path)


def test_a_class_of_which_all_is_broken(tmp_path: Path) -> None:
    image_folder(tmp_path, ("a", "b"), each=6)
    for file in (tmp_path / "a").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="examples of at least 2 classes are needed, got 1"):
        read(tmp_path)


def test_links_to_folders_around_them_are_not_followed(tmp_path: Path) -> None:
    image_folder(tmp_path, ("a", "b"), each=6)
    (tmp_path / "a" / "up").symlink_to("..")
    data = read(tmp_path)
    assert len(data.train) + len(data.choose) + len(data.validation) == 12


@pytest.mark.parametrize(
    ("mask", "name", "message"),
    [
        (np.full((6, 8), -2, np.int32), "tif", "class numbers from 0 to 254 are needed, got -2"),
        (np.full((6, 8), 255, np.uint8), "png", "targets that count are needed, got none"),
        (np.zeros((6, 8), np.uint8), "jpg", "masks must be stored as they are, got JPEG"),
    ],
)
def test_masks_that_say_nothing(mask: np.ndarray, name: str, message: str, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(8):
        (tmp_path / "images" / f"{index}.png").write_bytes(png(0, index))
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.{name}")
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([0, 1], ["A", "B"], "tags must be numbers like those of the training data, got names"),
        ([-100, -100], [-100, -100], "targets that count are needed, got none"),
        ([0, 10**10], [0, 1], "class numbers must be below 4,194,304"),
        ("0 1", "--1 0", "tags must be numbers like those of the training data, got names"),
        ("0 1", "0 99999999999999999999", "tags must be numbers like those of the training data"),
    ],
)
def test_tags_that_are_none(
    train: object, validation: object, message: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for role, tags in (("train", train), ("validation", validation)):
        rows = [{"tokens": ["good", "sun"], "tags": tags}] * ROWS
        (data / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        read_texts(data, save_tokenizer(tmp_path / "net"), "token-classification")


def test_words_that_are_missing(tmp_path: Path) -> None:
    rows = [{"tokens": ["good", None], "label": i % 2} for i in range(ROWS)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="column 'tokens' must be complete"):
        read_texts(tmp_path / "a.jsonl", save_tokenizer(tmp_path / "net"))
