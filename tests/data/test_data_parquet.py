"""Parquet: columns by type, splits by file name, rows across files and row groups."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_making import check, colours, image, image_parquet, png, read

from prunecli.tasks import CLASSIFICATION

NAMES = ["ant", "bee", "cat"]


def test_labels_and_images_stay_together_across_row_groups(tmp_path: Path) -> None:
    labels = [(3 * index) % 7 % 3 for index in range(100)]
    data = read(image_parquet(tmp_path / "train.parquet", labels, NAMES))
    assert data.labels[0].classes == ("ant", "bee", "cat")
    assert data.labels[0].named
    seen = []
    for name in ("train", "choose", "validation"):
        for (red, green, _), label in zip(
            colours(data, name), getattr(data, name).targets[0].tolist(), strict=True
        ):
            assert labels[green] == label
            assert red == labels[green] * 10
            seen.append(int(green))
    assert sorted(seen) == list(range(100))


def test_shards_and_splits_of_the_hugging_face_layout(tmp_path: Path) -> None:
    image_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1, 2] * 5, NAMES)
    image_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [2, 1, 0] * 5, NAMES)
    image_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [2, 0, 1], NAMES)
    data = read(tmp_path)
    assert len(data.train) + len(data.choose) == 30
    assert data.validation.targets[0].tolist() == [2, 0, 1]
    for name in ("train", "choose", "validation"):
        labels = getattr(data, name).targets[0].tolist()
        assert (colours(data, name)[:, 0] == [0] * len(labels)).sum() == labels.count(0)
    rows = sorted(colours(data, "train")[:, 1].tolist() + colours(data, "choose")[:, 1].tolist())
    assert rows == sorted([*range(15), *range(15)])


def test_split_folders(tmp_path: Path) -> None:
    image_parquet(tmp_path / "train" / "0000.parquet", [0, 1] * 8)
    image_parquet(tmp_path / "validation" / "0000.parquet", [1, 0])
    assert read(tmp_path).validation.targets[0].tolist() == [1, 0]


def test_files_without_a_split_name(tmp_path: Path) -> None:
    image_parquet(tmp_path / "part-0.parquet", [0, 1] * 8)
    image_parquet(tmp_path / "part-1.parquet", [0, 1] * 8)
    data = read(tmp_path)
    assert len(data.train) + len(data.choose) + len(data.validation) == 32
    image_parquet(tmp_path / "train.parquet", [0, 1] * 8)
    data = read(tmp_path)
    assert len(data.train) + len(data.choose) + len(data.validation) == 16
    assert "not named after a split and not used: part-0.parquet, part-1.parquet" in data.notes


def test_bare_labels_count_up_to_the_largest(tmp_path: Path) -> None:
    data = read(image_parquet(tmp_path / "a.parquet", [0, 3] * 8))
    assert (data.labels[0].classes, data.labels[0].named) == (("0", "1", "2", "3"), False)
    check(data, (2, 4))
    check(data, (2, 10))


def test_plain_binary_images_and_more_columns(tmp_path: Path) -> None:
    table = {
        "id": list(range(20)),
        "img": [png(index % 2, index) for index in range(20)],
        "fine": [7.5] * 20,
        "target": [index % 2 for index in range(20)],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet")
    assert data.notes[0] == "images: column 'img'"
    assert "target: column 'target', class numbers up to 1" in data.notes
    assert (colours(data, "train")[:, 0] == 10 * data.train.targets[0].numpy()).all()


def test_class_names_as_texts(tmp_path: Path) -> None:
    table = {
        "image": [png(index % 2, index) for index in range(20)],
        "label": pa.array([["dog", "cat"][index % 2] for index in range(20)]).dictionary_encode(),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet")
    assert data.labels[0].classes == ("cat", "dog")
    assert (colours(data, "train")[:, 0] == 10 * (1 - data.train.targets[0].numpy())).all()


def test_images_as_files_beside_the_table(tmp_path: Path) -> None:
    for index in range(20):
        image(index % 2, index).save(tmp_path / f"{index}.png")
    table = {
        "image": [{"bytes": None, "path": f"{index}.png"} for index in range(20)],
        "label": [index % 2 for index in range(20)],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet")
    assert (colours(data, "train")[:, 0] == 10 * data.train.targets[0].numpy()).all()


def test_broken_and_missing_images_are_named_by_row(tmp_path: Path) -> None:
    images = [png(index % 2, index) for index in range(20)]
    images[4], images[13] = b"nonsense", None
    table = {"image": images, "label": [index % 2 for index in range(20)]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=6)
    data = read(tmp_path / "a.parquet")
    assert data.skipped == (
        "a.parquet row 5: not an image in a known format",
        "a.parquet row 14: no image is stored",
    )
    assert len(data.train) + len(data.choose) + len(data.validation) == 18


def test_rows_are_counted_in_each_file(tmp_path: Path) -> None:
    image_parquet(tmp_path / "train-0.parquet", [0, 1] * 10)
    images = [png(index % 2, index) for index in range(20)]
    images[16] = b"nonsense"
    table = pa.table({"image": images, "label": [index % 2 for index in range(20)]})
    pq.write_table(table, tmp_path / "train-1.parquet", row_group_size=6)
    image_parquet(tmp_path / "validation.parquet", [0, 1])
    assert [line.split(":")[0] for line in read(tmp_path).skipped] == ["train-1.parquet row 17"]


def test_a_test_split_is_left_alone_where_validation_exists(tmp_path: Path) -> None:
    image_parquet(tmp_path / "train.parquet", [0, 1] * 10)
    image_parquet(tmp_path / "validation.parquet", [0, 1])
    (tmp_path / "test.parquet").write_bytes(b"nonsense")
    assert read(tmp_path).validation.targets[0].tolist() == [0, 1]


def test_row_groups_larger_than_a_batch(tmp_path: Path) -> None:
    labels = [index % 2 for index in range(600)]
    image_parquet(tmp_path / "train.parquet", [0, 1] * 10)
    table = {"image": [png(i % 2, i % 251) for i in range(600)], "label": labels}
    pq.write_table(pa.table(table), tmp_path / "validation.parquet")
    data = read(tmp_path)
    assert colours(data, "validation")[:, 1].tolist() == [index % 251 for index in range(600)]


def test_a_table_without_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    table = {
        "a": generator.normal(size=40).astype(np.float32),
        "label": np.arange(40) % 3,
        "b": np.arange(40),
        "c": np.arange(40) % 2 == 0,
    }
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    data = read(tmp_path / "train.parquet", sample_shape=(3,))
    assert data.task is CLASSIFICATION
    assert not data.preprocess[0].image
    rows = data.train.inputs[0][:, 1].long().numpy()
    assert data.train.inputs[0].dtype == torch.float32
    assert (data.train.inputs[0][:, 0].numpy() == table["a"][rows]).all()
    assert (data.train.inputs[0][:, 2].numpy() == table["c"][rows]).all()
    assert (data.train.targets[0].numpy() == rows % 3).all()


def test_no_metadata_or_foreign_metadata(tmp_path: Path) -> None:
    file = image_parquet(tmp_path / "a.parquet", [0, 1] * 8)
    table = pq.read_table(file).replace_schema_metadata(
        {"huggingface": '{"info": {"features": 3}}'}
    )
    pq.write_table(table, file)
    assert len(read(file).train) > 0


def test_cifar(request: pytest.FixtureRequest) -> None:
    path = request.config.rootpath / ".." / "shared" / "data" / "cifar10"
    if not path.is_dir():
        pytest.skip("the CIFAR-10 files beside the repository are missing")
    data = read(path, max_samples=200, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert data.train.inputs[0].shape == (160, 3, 32, 32)
    assert np.bincount(data.validation.targets[0].numpy()).sum() == 200
    assert data.labels[0].classes[:3] == ("airplane", "automobile", "bird")
    check(data, (1, 10))
    values = data.preprocess[0](data.train.inputs[0])
    # Natural images, normalised with ImageNet's figures, have about this mean and spread.
    assert abs(float(values.mean())) < 0.3
    assert 0.7 < float(values.std()) < 1.4
